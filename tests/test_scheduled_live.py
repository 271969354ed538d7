"""A day made by the schedule, by hand and by a backfill, through a running stack: one and the same day."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from live_fixture import outside_pytest, running

from contracts.locations import Locations
from lake.reader import LakeReader
from sources.simulator import SimulatorSettings, simulate
from sources.world import WorldSettings
from tributary import stack

pytestmark = [pytest.mark.live, pytest.mark.long]

DAG = "logs_daily"
BEFORE_MIDNIGHT = timedelta(minutes=12)  # within it another day might be the last that has ended before the test ends


def yesterday() -> date:
    now = datetime.now(UTC)
    left = datetime.combine(now.date() + timedelta(days=1), datetime.min.time(), UTC) - now
    if left < BEFORE_MIDNIGHT:
        time.sleep(left.total_seconds() + 1)
    return datetime.now(UTC).date() - timedelta(days=1)


@pytest.mark.timeout(1800)
def test_scheduled_manual_and_backfilled_runs_make_the_same_day() -> None:
    day = yesterday()
    with outside_pytest() as folder:
        home = folder / "home"
        world = WorldSettings(users=60, items=60)
        simulate(SimulatorSettings(start=day - timedelta(days=2), days=4, world=world), home)
        with running(home):
            made = made_by_each_kind_of_run(home, day)
    assert made[0] == {} and {table for table, _, _ in made[1]} >= {
        "natural_log",
        "ad_log",
        "behaviour_partials",
        "quality_results",
    }
    assert all(f"ds={day}" in owner.split(",") for _, owner, _ in made[1]), "no other day"
    assert made[1].keys() == made[2].keys() == made[3].keys(), "the same partitions with equal content"
    assert all(made[1][key] < made[2][key] < made[3][key] for key in made[1]), "and each run built them"


def made_by_each_kind_of_run(home: Path, day: date) -> list[dict[tuple[str, str, str], datetime]]:
    """What is built before any run, and after each of three."""
    api = stack.api(home)
    made = [built(home)]
    api.unpause(DAG)  # the schedule makes the last day that has ended, and none before it
    deadline = time.monotonic() + 300
    while not (runs := api.runs(DAG)) or runs[0].state in ("queued", "running"):
        assert time.monotonic() < deadline, runs
        time.sleep(1)
    assert [(run.period, run.run_type, run.state) for run in runs] == [(day, "scheduled", "success")]
    made.append(built(home))
    assert api.wait_for_run(DAG, api.trigger(DAG, {"ds": str(day)}), timeout_seconds=300).state == "success"
    made.append(built(home))
    api.create_backfill(DAG, day, day, reprocess="completed")
    (run,) = api.wait_for_periods(DAG, day, day, timeout_seconds=300)
    assert (run.run_type, run.state) == ("backfill", "success")
    return [*made, built(home)]


def built(home: Path) -> dict[tuple[str, str, str], datetime]:
    """By table, partition and digest of its content: when it was built last."""
    return {
        (table, owner, row["digest"]): row["built_ts"]
        for (table, owner), row in LakeReader(Locations(home)).all_builds().items()
    }
