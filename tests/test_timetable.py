"""The runs of a DAG are exactly the deployment's days, weeks and months, in every time zone; and what Airflow's own timetable would do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from zone_names import FIRST, LAST, different_zones

PROJECT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.airflow


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `timetable_runs.py` prints."""
    asked = json.dumps({"zones": different_zones(), "days": [str(FIRST), str(LAST)]})
    script = str(PROJECT / "tests" / "timetable_runs.py")
    done = subprocess.run(
        [sys.executable, script],
        input=asked,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ
        | {
            "AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow")),
            "PYTHONPATH": str(PROJECT),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT / "plugins"),
        },
    )
    assert done.returncode == 0, done.stderr
    return dict(
        json.loads(next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))[len("RESULT") :])
    )


def test_each_run_is_a_day_a_week_or_a_month_of_its_zone(runs: dict[str, Any]) -> None:
    """As the rows of a backfill, as the first of a range, as the newest without catch-up, and as a run by hand."""
    assert runs["wrong"] == {name: [] for name in different_zones()}


def test_what_airflows_own_timetable_does_at_a_midnight_that_is_missing_or_comes_twice(runs: dict[str, Any]) -> None:
    """Airflow 3.3.2, `CronDataIntervalTimetable`: once these are otherwise, `PeriodTimetable` may not be needed any more."""
    zones = {"Africa/Cairo", "Asia/Beirut", "America/Santiago", "America/Havana"}
    assert runs["upstream"] == {
        "left_out": dict.fromkeys(
            zones, True
        ),  # a range that begins with the day before a missing midnight leaves that day out
        "empty_by_hand": dict.fromkeys(zones, True),  # a run by hand on the day after it has an interval of no length
        "hours_late": {
            "America/Havana": 1,
            "Atlantic/Azores": 1,
        },  # where midnight comes twice, the day begins at the second
    }
