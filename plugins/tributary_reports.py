"""The plugin that Airflow loads: a page in the navigation, the app that serves it, and links on tasks (plugins/quality/)."""

from __future__ import annotations

from typing import Any

from airflow.sdk.plugins_manager import AirflowPlugin

from plugins.quality.links import PREFIX, GateResultLink, QualityReportLink


class TributaryReports(AirflowPlugin):
    """Shows the quality of data and models in Airflow's UI.

    Every task's process loads all plugins, but only the API server uses the app: so the app is imported when Airflow
    asks for it.
    """

    name = "tributary_reports"
    global_operator_extra_links = [QualityReportLink(), GateResultLink()]  # noqa: RUF012
    external_views = [  # noqa: RUF012
        {
            "name": "Data quality",
            "href": f"{PREFIX.lstrip('/')}/index.html",
            "destination": "nav",
            "url_route": "data-quality",
            "nav_top_level": True,
        }
    ]

    @property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The app that serves the pages, and the prefix of its addresses."""
        from plugins.quality.app import app

        return [{"app": app, "url_prefix": PREFIX, "name": "Data quality"}]
