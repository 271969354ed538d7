"""All DAGs backfilled at once through a running stack: their tables and releases equal those of the same commands by hand."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from test_live import START, Commands, day, free_port

from contracts.kinds import KINDS
from contracts.periods import PeriodSettings
from contracts.settings import HOME_VARIABLE, SETTINGS_FILE, Deployment
from lake.reader import LakeReader
from sources.faults import FaultRates
from sources.simulator import SimulatorSettings, simulate
from sources.world import WorldSettings
from spark_jobs.compare_tables import FEATURE_TABLES
from tributary import dags_command, stack
from tributary.airflow_api import RunFailed

pytestmark = pytest.mark.live

# Months and weeks of two days: the last ad model starts again from the CPM of the two days before it.
HISTORY, BACKFILLED, MONTHS_BEFORE = (day(0), day(3)), (day(4), day(6)), (day(0), day(2))
RECIPE = ("--recipe", "quick")
TABLES = (*FEATURE_TABLES, "tpm_embeddings", "merged_embeddings", "actr_embeddings")
FEATURE_JOBS = (
    "build_partials",
    "collect_behaviour_texts",
    "build_user_histories",
    "build_statistics",
    "build_samples",
)


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Commands, Commands]]:
    """Two deployments with the same history and the same models of it; the stack of the first is up."""
    first, second = (tmp_path_factory.mktemp(name) / "home" for name in ("a", "b"))
    world = WorldSettings(users=120, items=90, seed=5)
    simulate(SimulatorSettings(start=START, days=7, world=world, faults=FaultRates(duplicates=0.03, late=0.02)), first)
    settings = replace(
        Deployment.load(first),
        actr_start=BACKFILLED[0],
        variants=("none", "tpm+cpm"),
        periods=PeriodSettings(anchor=START, month_days=2, week_days=2),
    )
    (first / SETTINGS_FILE).write_text(settings.to_toml())
    info = stack.up(first, ui_port=free_port(), spark_port=free_port())
    try:
        commands = Commands(first, info)
        build(commands, *map(str, HISTORY))
        for kind, periods in (("tpm", MONTHS_BEFORE), ("cpm", MONTHS_BEFORE[-1:])):
            for period in periods:
                release(commands, kind, str(period))
        shutil.copytree(first, second, ignore=shutil.ignore_patterns("locks", "stack"), symlinks=True)
        yield commands, Commands(second, info)
    finally:
        stack.down(first)


def build(commands: Commands, first: str, last: str) -> None:
    span = ("--from", first, "--to", last)
    commands.run("spark_jobs", "ingest_logs", *span)
    for job in FEATURE_JOBS:
        commands.run("spark_jobs", job, *span)


def release(commands: Commands, kind: str, period: str) -> None:
    named = ("--kind", kind, "--period", period)
    commands.run("training", kind, KINDS[kind].period_option, period, *RECIPE)
    commands.run("validation", "gate", *named)
    commands.run("publishing", "audit", *named)
    commands.run("spark_jobs", "publish_release", *named)


def test_all_dags_at_once_equal_hand_commands(
    homes: tuple[Commands, Commands], monkeypatch: pytest.MonkeyPatch
) -> None:
    through_airflow, by_hand = homes
    monkeypatch.setenv(HOME_VARIABLE, str(through_airflow.locations.home))
    span = ("--from", str(BACKFILLED[0]), "--to", str(BACKFILLED[1]))
    assert dags_command.main(["backfill", *span, "--max-active-runs", "3", *RECIPE]) == 0

    build(by_hand, *map(str, BACKFILLED))
    release(by_hand, "tpm", str(day(4)))
    release(by_hand, "cpm", str(day(4)))
    for number in (4, 5, 6):
        release(by_hand, "actr", str(day(number)))
    compare(through_airflow, by_hand)
    mine, theirs = (set(LakeReader(commands.locations).releases()) for commands in homes)
    assert mine == theirs
    assert any(name.startswith(f"actr-tpm+cpm-{day(6)}") for name in mine)


def test_a_manual_run_makes_the_day_that_it_names_and_none_that_has_not_ended(homes: tuple[Commands, Commands]) -> None:
    through_airflow, by_hand = homes
    api = stack.api(through_airflow.locations.home)
    before = LakeReader(through_airflow.locations).all_builds()
    run_id = api.trigger("logs_daily", {"ds": str(day(5))})
    assert api.wait_for_run("logs_daily", run_id, timeout_seconds=300).period == day(5)
    after = LakeReader(through_airflow.locations).all_builds()
    made = {
        owner for (table, owner), built in after.items() if table == "natural_log" and built != before[table, owner]
    }
    assert made == {f"ds={day(5)}"}
    compare(through_airflow, by_hand)

    today = datetime.now(UTC).date()
    with pytest.raises(RunFailed, match=rf"expected a day that ended before .*, found .*{today}"):
        api.wait_for_run("logs_daily", api.trigger("logs_daily", {"ds": str(today)}), timeout_seconds=300)


def compare(one: Commands, other: Commands) -> None:
    home: Path = other.locations.home
    one.run(
        "spark_jobs", "compare_tables", "--with", str(home), *(word for table in TABLES for word in ("--table", table))
    )
