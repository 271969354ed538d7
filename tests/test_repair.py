"""A corrected day landed again: exactly what read it is stale, and a repair gives the tables of a build from scratch."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import features_reference as reference
import pytest
from landing_rows import csv_bytes, good_row, write

from contracts.features import LOGS
from contracts.locations import Locations
from contracts.settings import SETTINGS_FILE, Deployment
from contracts.steps import DAY_JOBS
from contracts.tables import owner_key
from lake.reader import LakeReader
from pages.files import read_stale
from spark_jobs import build_statistics, build_user_histories, ingest_logs, repair
from spark_jobs.compare_tables import FEATURE_TABLES
from spark_jobs.staleness import find_stale, repair_commands

pytestmark = pytest.mark.spark

START = date(2026, 1, 1)
DAYS = [START + timedelta(days=n) for n in range(6)]
CHECKPOINT = DAYS[4]
CORRECTED = DAYS[2]
DEPLOYMENT = Deployment(history_start=START, actr_start=DAYS[-1])
JOBS = [import_module(f"spark_jobs.{name}") for name in DAY_JOBS]


def land(home: Path, *, corrected: bool) -> Locations:
    home.mkdir()
    locations = Locations(home)
    (home / SETTINGS_FILE).write_text(DEPLOYMENT.to_toml())
    for log in LOGS:
        for number, day in enumerate(DAYS):
            rows = [good_row(100 * number + n, day=day, log=log) for n in range(6)]
            path = write(locations.landing_day(log, day) / "a.csv", csv_bytes(rows))
            os.utime(path, (1_000_000_000, 1_000_000_000))
    if corrected:
        correct(locations)
    return locations


def correct(locations: Locations) -> None:
    """The natural log of one day again, with one click taken back."""
    number = DAYS.index(CORRECTED)
    rows = [good_row(100 * number + n, day=CORRECTED, click=int(n > 0), action=int(n > 0)) for n in range(6)]
    write(locations.landing_day("natural", CORRECTED) / "a.csv", csv_bytes(rows))


def build(spark: Any, locations: Locations) -> None:
    """All days as a range, and the last one's features by themselves: they rest on checkpoints."""
    for job in JOBS:
        job.run(spark, locations, DEPLOYMENT, DAYS)
    for job in (build_user_histories, build_statistics):
        job.run(spark, locations, DEPLOYMENT, DAYS[-1:])


def test_a_corrected_day_is_repaired_and_nothing_else_is_touched(
    spark: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    checkpoints_every: Callable[[int], None],
) -> None:
    checkpoints_every((CHECKPOINT - START).days)

    @contextmanager
    def shared_session(*_: Any, **__: Any) -> Iterator[Any]:
        yield spark

    monkeypatch.setattr("lake.session.writing_session", shared_session)
    monkeypatch.setattr(repair, "_validate", lambda *_: None)
    locations = land(tmp_path / "home", corrected=False)
    build(spark, locations)
    assert find_stale(locations) == []
    before = LakeReader(locations).all_builds()

    correct(locations)
    stale = find_stale(locations)
    read_it = {CORRECTED, CORRECTED + timedelta(days=1)}  # a day reads the landing files of the day before too
    later = {day for day in DAYS if day >= CORRECTED}
    expected = (
        {("natural_log", owner_key(ds=day)) for day in read_it}
        | {("quarantine", owner_key(ds=day, log="natural")) for day in read_it}
        | {
            (name, owner_key(ds=day, log="natural"))
            for name in ("behaviour_partials", "statistic_partials")
            for day in read_it
        }
        | {("behaviour_texts", owner_key(ds=day)) for day in read_it}
        | {
            (name, owner_key(until_ds=CHECKPOINT, log="natural"))
            for name in ("behaviour_checkpoints", "statistic_checkpoints")
        }
        | {
            (name, owner_key(ds=day))
            for name in ("user_histories", "entity_statistics", "natural_samples", "ad_samples")
            for day in later
        }
    )
    assert {(item.table, item.owner) for item in stale} == expected & set(before)
    assert repair_commands(stale)[:2] == [
        "tributary spark_jobs ingest_logs --from 2026-01-03 --to 2026-01-04",
        "tributary validation run --table natural_log --table ad_log --from 2026-01-03 --to 2026-01-04",
    ]

    assert repair.list_stale(locations) == 0
    left = read_stale(locations.stale_found)  # for the UI
    assert left is not None and left.commands == tuple(repair_commands(stale))
    assert {(one.table, one.day, one.why) for one in left.days} == {
        (
            item.table,
            item.day,
            item.changed[0] if len(item.changed) == 1 else f"{item.changed[0]} and {len(item.changed) - 1} more",
        )
        if item.changed
        else (item.table, item.day, "what it reads is stale")
        for item in stale
    }

    assert repair.repair(locations, DEPLOYMENT) == 0
    assert find_stale(locations) == []
    left = read_stale(locations.stale_found)
    assert left is not None and (left.days, left.commands) == ((), ())
    rewritten = {
        key for key, build in LakeReader(locations).all_builds().items() if build["built_ts"] != before[key]["built_ts"]
    }
    assert {name for name, _ in rewritten} >= {"natural_log", "behaviour_partials", "user_histories", "natural_samples"}
    for name, owner in rewritten:  # a job rewrites both logs of its days, never another day
        assert any(item.day == date.fromisoformat(owner.split("=")[1].split(",")[0]) for item in stale), (name, owner)
    assert (
        "statistic_partials",
        owner_key(ds=DAYS[3], log="natural"),
    ) not in rewritten  # its log came out the same: no further

    scratch = land(tmp_path / "scratch", corrected=True)
    build(spark, scratch)
    for name in FEATURE_TABLES:
        assert reference.content(locations, name) == reference.content(scratch, name), name
    assert repair.list_stale(locations) == 0
    assert "no partition is stale" in capsys.readouterr().out


def test_landing_files_that_were_archived_make_nothing_stale(spark: Any, tmp_path: Path) -> None:
    locations = land(tmp_path / "home", corrected=False)
    ingest_logs.run(spark, locations, DEPLOYMENT, DAYS[:2])
    shutil.rmtree(locations.landing_day("natural", DAYS[0]))
    assert find_stale(locations) == []
