"""Ingestion is killed at random points and the landing files change before it runs again: nothing of the old ones is left anywhere."""

from __future__ import annotations

import ast
import os
import random
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import features_reference as reference
import pyarrow as pa
import pytest
from clients import Client
from connect_fixture import cache_is_empty
from deltalake import write_deltalake
from landing_rows import DAY, csv_bytes, good_row, write, write_parquet

from contracts.features import LOGS
from contracts.locations import Locations
from contracts.settings import SETTINGS_FILE, Deployment
from lake import locks
from lake.persisted import persisted
from lake.reader import LakeReader
from spark_jobs import ingest_logs

KILLS = int(os.environ.get("TRIBUTARY_KILLS", "2"))
TABLES = ("natural_log", "ad_log", "quarantine")
DEPLOYMENT = Deployment(history_start=DAY, actr_start=DAY + timedelta(days=1))
ROWS = 2_000
PROJECT = Path(locks.__file__).parent.parent


def deliver(locations: Locations, version: int) -> None:
    """Landing files of the same names, sizes and times in both versions; every row differs, and so does which one is bad."""
    for log in LOGS:
        folder = locations.landing_day(log, DAY)
        rows = [
            good_row(number, log=log, item_id=(number + version) % 10, click="7" if number == 5 + version else "1")
            for number in range(ROWS)
        ]
        half = ROWS // 2
        files = [
            write(folder / "a.csv", csv_bytes(rows[:half])),
            write_parquet(folder / "b.parquet", [row | {"click": "1"} for row in rows[half:]]),
        ]
        for path in files:
            os.utime(path, (1_767_400_000, 1_767_400_000))


@pytest.fixture
def locations(tmp_path: Path) -> Locations:
    home = tmp_path / "home"
    home.mkdir()
    (home / SETTINGS_FILE).write_text(DEPLOYMENT.to_toml())
    return Locations(home)


def client(locations: Locations, address: str) -> Client:
    """Ingests the day."""
    command = ("spark_jobs", "ingest_logs", "--home", str(locations.home), "--ds", str(DAY))
    return Client(command, log=locations.home / "client.log", environment={"SPARK_REMOTE": address})


def state_of(locations: Locations) -> dict[str, Any]:
    """Rows of the tables, and what their builds record."""
    builds = {
        name: {
            owner: {part: build[part] for part in ("row_cnt", "digest", "inputs", "counts")}
            for owner, build in LakeReader(locations).builds(name).items()
        }
        for name in TABLES
    }
    return {"builds": builds} | {name: reference.content(locations, name) for name in TABLES}


@pytest.mark.spark
def test_a_killed_ingest_does_not_feed_the_next_one(
    spark: Any, connect: str, locations: Locations, tmp_path: Path
) -> None:
    undisturbed = []
    for version in range(2):
        other = Locations(tmp_path / f"undisturbed-{version}")
        deliver(other, version)
        ingest_logs.run(spark, other, DEPLOYMENT, [DAY])
        undisturbed.append(state_of(other))
    assert undisturbed[0] != undisturbed[1]
    sizes = [
        [path.stat().st_size for path in sorted((tmp_path / f"undisturbed-{version}").rglob("a.csv"))]
        for version in range(2)
    ]
    assert sizes[0] == sizes[1]

    deliver(locations, 0)
    seconds = client(locations, connect).finish()
    assert state_of(locations) == undisturbed[0]
    assert cache_is_empty(spark)
    rng, kept = random.Random(0), 0
    for kill in range(KILLS):
        before, after = kill % 2, 1 - kill % 2
        deliver(locations, before)
        client(locations, connect).kill(
            (kill + rng.random()) / KILLS * seconds
        )  # each in a part of the time of its own
        kept += not cache_is_empty(spark)
        deliver(locations, after)
        client(locations, connect).finish()
        assert state_of(locations) == undisturbed[after], f"kill {kill}"
        assert cache_is_empty(spark), f"kill {kill}"
        assert not list(locations.writing_sessions.iterdir())
    print(
        f"{KILLS} kills, {seconds:.1f} s an undisturbed ingest; after {kept} of them the dead client's rows were in the server's cache"
    )


KEEPS = """
import sys, time
from pathlib import Path
from contracts.locations import Locations
from lake.persisted import persisted
from lake.session import writing_session

home, table, left, wait = sys.argv[1:]
with writing_session(Locations(Path(home)), app="test", partitions={table: ["ds=2026-01-01"]}) as spark:
    with persisted(spark.read.schema("x string").csv(left)) as rows:
        print(rows.count(), flush=True)
        time.sleep(float(wait))
"""


@pytest.mark.spark
def test_what_a_killed_client_kept_is_cleared_by_any_next_one(
    spark: Any, connect: str, locations: Locations, tmp_path: Path
) -> None:
    """Though nobody asks for the killed one's partitions again; what a living client keeps stays."""

    def start(table: str, wait: float) -> subprocess.Popen[str]:
        arguments = [sys.executable, "-c", KEEPS, str(locations.home), table, str(path), str(wait)]
        return subprocess.Popen(
            arguments, env=os.environ | {"SPARK_REMOTE": connect}, text=True, stdout=subprocess.PIPE
        )

    def views() -> set[str]:
        # Spark lists the asking session's own views as well.
        return {
            row["viewName"]
            for row in spark.sql("SHOW VIEWS IN global_temp").collect()
            if not row["isTemporary"] or row["namespace"]
        }

    path = write(tmp_path / "rows.csv", b"a\nb\n")
    with start("natural_log", 600) as killed, start("ad_log", 600) as living:
        try:
            assert killed.stdout is not None and living.stdout is not None
            assert killed.stdout.readline() == living.stdout.readline() == "2\n"
            both = views()
            killed.kill()
            killed.wait()
            assert len(both) == 2 and views() == both
            write(path, b"a\nb\nc\n")
            assert spark.read.schema("x string").csv(str(path)).count() == 3
            with start("quarantine", 0) as following:
                assert following.communicate()[0] == "3\n" and following.returncode == 0
            assert len(views()) == 1 and views() < both
            assert not cache_is_empty(spark)
        finally:
            living.kill()
    with start("quarantine", 0) as following:
        assert following.wait() == 0
    assert views() == set() and cache_is_empty(spark)


@pytest.mark.spark
def test_what_is_kept_is_found_by_nobody_else(spark: Any, tmp_path: Path) -> None:
    """Spark finds cached rows by the paths that they were read from, and those of a Delta table by its path too when somebody other
    than this Spark has written to it (Spark 4.2.0, Delta 4.4.0)."""
    text, table = tmp_path / "rows.csv", str(tmp_path / "table")

    def change(count: int) -> None:
        write(text, b"a\n" * count)
        write_deltalake(table, pa.table({"x": ["a"] * count}), mode="overwrite")

    def read() -> list[Any]:
        return [spark.read.schema("x string").csv(str(text)), spark.read.format("delta").load(table)]

    change(1)
    plain = [rows.persist() for rows in read()]
    assert [rows.count() for rows in plain] == [1, 1]
    change(2)
    assert [rows.count() for rows in read()] == [1, 1]  # what Spark does with rows that were kept otherwise
    for rows in plain:
        rows.unpersist()
    with persisted(read()[0]) as of_text, persisted(read()[1]) as of_table:
        assert [of_text.count(), of_table.count()] == [2, 2]
        change(3)
        assert [rows.count() for rows in read()] == [3, 3]
        assert [of_text.count(), of_table.count()] == [2, 2]
        with persisted(read()[0]) as again:
            assert again.count() == 3
    assert cache_is_empty(spark)


def test_nothing_else_keeps_rows() -> None:
    """Whoever calls Spark's own `persist` brings back rows that another client may take for the content of its files."""
    forbidden = {"persist", "cache", "cacheTable", "localCheckpoint"}
    found = []
    for folder in ("lake", "spark_jobs", "validation", "sources", "benchmarks", "training", "publishing"):
        for path in sorted((PROJECT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                called = (
                    isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in forbidden
                )
                if called or (
                    isinstance(node, ast.Constant)
                    and isinstance(node.value, str)
                    and "CACHE TABLE" in node.value.upper()
                ):
                    found.append(f"{path.relative_to(PROJECT)}:{getattr(node, 'lineno', 0)}")
    assert [place for place in found if not place.startswith("lake/persisted.py:")] == []
    assert found
