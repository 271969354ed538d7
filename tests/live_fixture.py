"""The stack for tests that need it for real: the only place that starts it.

All live tests share one deployment whose stack is up, and a second deployment for the same commands by hand. Each test
works on days of its own, which stand here. One order matters: `test_all_dags_live.py` compares whole tables, so it comes
before the files whose days are made in one of the two deployments only; pytest takes files by their names.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import pytest
from clients import Client
from stack_fixture import JVM_OPTIONS, free_port

from contracts.kinds import KINDS
from contracts.locations import Locations
from contracts.periods import PeriodSettings
from contracts.settings import HOME_VARIABLE, SETTINGS_FILE, Deployment
from contracts.steps import DAY_JOBS
from lake.reader import LakeReader
from sources.faults import FaultRates
from sources.simulator import SimulatorSettings, simulate
from sources.world import WorldSettings
from tributary import stack
from tributary.airflow_api import RunFailed

START = date(2026, 1, 1)


def day(number: int) -> date:
    return START + timedelta(days=number)


# Months and weeks of two days: on the last of the days that all DAGs make, a month and a week have just closed, and the ad
# model starts again from their CPM; the day before goes on from the first one's.
HISTORY, ALL_DAGS = (day(0), day(1)), (day(2), day(4))
KILLED = day(5)  # its client is killed
BAD = day(6)  # half of its natural rows have no event id
BY_FORM = day(7)  # a person backfills it in the UI
RECIPE = ("--recipe", "quick")


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """A deployment whose commands run against the stack's Spark Connect server."""

    locations: Locations
    info: stack.StackInfo

    @property
    def environment(self) -> dict[str, str]:
        return {
            HOME_VARIABLE: str(self.locations.home),
            "SPARK_REMOTE": self.info.spark,
            "SPARK_CONNECT_AUTHENTICATE_TOKEN": self.info.token_file.read_text().strip(),
        }

    def start(self, *commands: tuple[str, ...]) -> Client:
        """Commands by hand, one after the other in a process of their own."""
        return Client(*commands, log=self.locations.home / "client.log", environment=self.environment)

    def run(self, *commands: tuple[str, ...]) -> None:
        self.start(*commands).finish()


@dataclass(frozen=True, kw_only=True)
class Live:
    """Two deployments with the same landing files and the same history.

    Attributes:
        deployed: the one whose stack is up.
        by_hand: the one that only commands by hand write to.
    """

    deployed: Deployed
    by_hand: Deployed

    @property
    def home(self) -> Path:
        return self.deployed.locations.home

    def copy(self) -> None:
        """Makes the second deployment what the first one is now."""
        second = self.by_hand.locations.home
        shutil.rmtree(second, ignore_errors=True)
        shutil.copytree(self.home, second, ignore=shutil.ignore_patterns("locks", "stack"), symlinks=True)


def features(first: date, last: date) -> list[tuple[str, ...]]:
    """The commands that make the logs and features of a range of days."""
    return [("spark_jobs", job, "--from", str(first), "--to", str(last)) for job in DAY_JOBS]


def release(kind: str, period: date) -> list[tuple[str, ...]]:
    """The commands that train, judge and publish a period's models of a kind."""
    named = ("--kind", kind, "--period", str(period))
    return [
        ("training", kind, KINDS[kind].period_option, str(period), *RECIPE),
        ("validation", "gate", *named),
        ("publishing", "audit", *named),
        ("spark_jobs", "publish_release", *named),
    ]


@contextmanager
def outside_pytest() -> Iterator[Path]:
    """A folder for a home with a stack, by a short path: PostgreSQL's socket lies below it.

    Pytest's own folders do not serve: each start of pytest closes their root to other users, and PostgreSQL, which runs
    as another user, ends at its next checkpoint.
    """
    folder = Path(tempfile.mkdtemp(prefix="live-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def running(home: Path) -> Iterator[stack.StackInfo]:
    """The stack of a deployment, up as long as the block runs; Spark comes first and the rest follows, as in the demo."""
    said: list[str] = []
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(*JVM_OPTIONS)
            stack.up_spark(home, ui_port=free_port(), spark_port=free_port())
            info = stack.up(home, say=said.append)
        assert said[0] == "still running: spark-connect"
        yield info
    finally:
        stack.down(home)


@contextmanager
def live_deployments() -> Iterator[Live]:
    """What all live tests share."""
    with outside_pytest() as folder:
        first, second = folder / "a", folder / "b"
        world = WorldSettings(users=120, items=90, seed=5)
        faults = FaultRates(duplicates=0.03, malformed=0.01, late=0.02)
        simulate(SimulatorSettings(start=START, days=(BY_FORM - START).days + 1, world=world, faults=faults), first)
        settings = replace(
            Deployment.load(first),
            actr_start=ALL_DAGS[0],
            variants=("none", "tpm+cpm"),
            periods=PeriodSettings(anchor=START, month_days=2, week_days=2),
        )
        (first / SETTINGS_FILE).write_text(settings.to_toml())
        spoil(Locations(first).landing_day("natural", BAD) / "part-00000.csv")
        with running(first) as info:
            deployed, by_hand = (Deployed(locations=Locations(home), info=info) for home in (first, second))
            deployed.run(*features(*HISTORY))
            live = Live(deployed=deployed, by_hand=by_hand)
            live.copy()
            yield live


def spoil(path: Path) -> None:
    """Takes the event id out of every other row."""
    header, *rows = path.read_text(errors="replace").splitlines()
    spoiled = [row if place % 2 else "," + row.split(",", 1)[1] for place, row in enumerate(rows)]
    path.write_text("\n".join([header, *spoiled]) + "\n")


@dataclass(frozen=True, kw_only=True)
class FailedDay:
    """What a manual run of the bad day has left.

    Attributes:
        run_id: the run.
        error: what whoever waits for the run gets.
        built: table and partition of all that it built.
    """

    run_id: str
    error: RunFailed
    built: set[tuple[str, str]]


def fail_a_day(live: Live) -> FailedDay:
    """Runs the bad day through Airflow."""
    api, before = stack.api(live.home), LakeReader(live.deployed.locations).all_builds()
    api.unpause("logs_daily")
    run_id = api.trigger("logs_daily", {"ds": str(BAD)})
    with pytest.raises(RunFailed) as failed:
        api.wait_for_run("logs_daily", run_id, timeout_seconds=600)
    after = LakeReader(live.deployed.locations).all_builds()
    built = {key for key, build in after.items() if build != before.get(key)}
    return FailedDay(run_id=run_id, error=failed.value, built=built)
