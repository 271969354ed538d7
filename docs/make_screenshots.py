"""Makes the pictures of docs/tour.md, in headless Chromium, from a deployment whose stack runs.

    TRIBUTARY_HOME=<deployment> .venv/bin/python docs/make_screenshots.py [folder]

It only looks, and changes nothing: the backfill form is filled in and not sent. Without a failed run of `logs_daily` there
is no picture of one, which it prints.
"""

from __future__ import annotations

import sys
import tempfile
import time
from datetime import date
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]  # the clicks are those of the tests

from airflow_ui import FRAME, AirflowUi  # noqa: E402
from browser import Browser, browser  # noqa: E402

from contracts.periods import ONE_DAY  # noqa: E402
from contracts.settings import Deployment, home_folder  # noqa: E402
from tributary import stack  # noqa: E402
from tributary.airflow_api import AirflowApi  # noqa: E402

SETTLED = 2.0  # seconds until the UI has drawn what it has fetched


def main() -> None:
    """Takes the pictures of a running demo."""
    home = home_folder()
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else PROJECT / "docs" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    info, api = stack.info(home), stack.api(home)
    with tempfile.TemporaryDirectory() as profile, browser(Path(profile) / "profile") as page:
        page.show_as(width=1280, height=760)
        ui = AirflowUi(page, info.ui)
        ui.sign_in(info.user, stack.password(home))
        ui.open_dags()
        save(page, folder / "tour_dags.png")
        ui.fill_backfill_form("logs_daily", day_without_run(home, api))
        save(page, folder / "tour_backfill.png")
        ui.open_dag("logs_daily")  # leaves the form
        ui.open_data_quality()
        save(page, folder / "tour_quality.png")
        page.show_as(width=1280, height=760, dark=True)
        save(page, folder / "tour_quality_dark.png")
        page.show_as(width=1280, height=760)
        open_report(page)
        save(page, folder / "tour_report.png")
        failed = [run for run in api.runs("logs_daily") if run.state == "failed"]
        if not failed:
            print("no failed run of logs_daily: no picture of a failed task")
            return
        ui.open_links_of("logs_daily", failed[-1].run_id, "validate_logs")
        save(page, folder / "tour_failed_task.png")
        page.click("Quality report")
        page.wait_for("document.querySelector('section')")
        save(page, folder / "tour_failed_day.png")


def day_without_run(home: Path, api: AirflowApi) -> date:
    """Returns a day without a run, for which the form shows that one is missing."""
    periods = {run.period for run in api.runs("logs_daily")}
    day = Deployment.load(home).history_start
    while day in periods:
        day += ONE_DAY
    return day


def open_report(page: Browser) -> None:
    """The report behind the gravest mark of the calendar."""
    page.evaluate(
        f"(['fail', 'warn', 'pass'].map(one => {FRAME}.querySelector('a.mark.' + one)).find(Boolean)).click()"
    )
    page.wait_for(f"{FRAME}?.querySelector('dl.cards')")


def save(page: Browser, path: Path) -> None:
    """Writes a screenshot once the page has settled."""
    time.sleep(SETTLED)
    page.screenshot(path)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
