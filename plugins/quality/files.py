"""Which files under a deployment's reports a browser may have: HTML pages, and nothing that only looks as if it lay there."""

from __future__ import annotations

from pathlib import Path

from contracts.locations import Locations


def report_file(reports: Path, path: str) -> Path | None:
    """The report that an address names; None if there is none, or it is none that may be shown.

    Args:
        reports: the folder of all reports.
        path: what follows the plugin's prefix, decoded: anything that a browser may send.
    """
    if any(part.startswith(".") for part in Path(path).parts):
        return None
    try:
        root = reports.resolve()
        found = (root / path).resolve()  # an absolute path replaces the root; links are followed
        return found if found.is_relative_to(root) and found.suffix == ".html" and found.is_file() else None
    except (OSError, ValueError, RuntimeError):  # a name that is too long or holds a zero byte, links in a circle
        return None


def model_reports(locations: Locations) -> list[str]:
    """Names of the reports of ad models, `<first day>_<last day>`."""
    return sorted(path.stem for path in locations.model_reports.glob("*.html") if not path.name.startswith("."))
