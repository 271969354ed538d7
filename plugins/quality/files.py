"""Finds the files that a browser may read: HTML pages inside the reports' folder, never a path or link that leads out of it."""

from __future__ import annotations

from pathlib import Path

from contracts.locations import Locations


def report_file(reports: Path, path: str) -> Path | None:
    """Returns the report that an address names; None if there is none, or if it may not be shown.

    Args:
        reports: the folder of all reports.
        path: the decoded address after the plugin's prefix. A browser may send anything here.
    """
    if any(part.startswith(".") for part in Path(path).parts):
        return None
    try:
        root = reports.resolve()
        file = (root / path).resolve()  # An absolute path replaces the root, and links are followed.
        return file if file.is_relative_to(root) and file.suffix == ".html" and file.is_file() else None
    except (OSError, ValueError, RuntimeError):  # The name is too long or holds a zero byte, or links form a circle.
        return None


def model_reports(locations: Locations) -> list[str]:
    """Returns the names of the reports of ad models, `<first day>_<last day>`."""
    return sorted(path.stem for path in locations.model_reports.glob("*.html") if not path.name.startswith("."))
