"""Locks, the reader without Spark, and the predicates of the writer; no JVM."""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from contracts.errors import BadInput, ParentMissing
from contracts.locations import Locations
from contracts.settings import table_address
from lake import locks, server, session
from lake.reader import LakeReader
from lake.writing import owner_predicate

PROJECT = Path(locks.__file__).parent.parent
HOLDER = """
import sys, pathlib
from lake import locks
with locks.hold([pathlib.Path(sys.argv[1])], session_id="left-behind"):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(path: Path) -> subprocess.Popen[str]:
    """A process that holds the lock until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], cwd=PROJECT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lock_that_is_held_is_waited_for_and_named(tmp_path: Path) -> None:
    path = tmp_path / "t" / "ds=2026-01-01.lock"
    with holder(path) as process:
        with (
            pytest.raises(locks.Locked, match=rf"found it held by process {process.pid}"),
            locks.hold([path], timeout_seconds=0.3),
        ):
            pytest.fail("two processes held one lock")
        assert locks.is_held(path)
        process.communicate()
    assert not locks.is_held(path)


@pytest.mark.parametrize("killed", [True, False])
def test_the_session_of_a_killed_holder_is_ended_by_the_next(tmp_path: Path, killed: bool) -> None:
    path = tmp_path / "ds=2026-01-01.lock"
    with holder(path) as process:
        if killed:
            process.kill()
        process.communicate()
    ended: list[str] = []
    with locks.hold([path], session_id="mine", end_session=ended.append):
        assert locks.read_holder(path)["session_id"] == "mine"
    assert ended == (["left-behind"] if killed else [])
    assert locks.read_holder(path) == {}


def test_predicates_name_exactly_the_owners() -> None:
    grid = [{"ds": date(2026, 1, day), "log": log} for day in (1, 2) for log in ("ad", "natural")]
    assert owner_predicate(grid) == "ds IN ('2026-01-01', '2026-01-02') AND log IN ('ad', 'natural')"
    assert (
        owner_predicate([grid[0], grid[3]])
        == "(ds = '2026-01-01' AND log = 'ad') OR (ds = '2026-01-02' AND log = 'natural')"
    )
    assert owner_predicate([{"owner": "it's"}]) == "owner IN ('it\\'s')"


@pytest.fixture
def reader(tmp_path: Path) -> LakeReader:
    locations = Locations(tmp_path)
    days = pa.array([date(2026, 1, 1), date(2026, 1, 1), date(2026, 1, 2)])
    rows = pa.table({"user_id": [1, 2, 3], "ds": days, "log": ["ad", "natural", "ad"]})
    write_deltalake(str(locations.table("behaviour_partials")), rows, partition_by=["ds", "log"])
    build = pa.table(
        {
            "table_name": ["natural_log"],
            "owner": ["ds=2026-01-01"],
            "row_cnt": [2],
            "digest": ["17"],
            "inputs": pa.array([[("a", "b")]], pa.map_(pa.string(), pa.string())),
            "counts": pa.array([[("read", 3)]], pa.map_(pa.string(), pa.int64())),
            "code_version": ["1"],
            "built_ts": pa.array([0], pa.timestamp("us", "UTC")),
        }
    )
    write_deltalake(str(locations.table("builds")), build, partition_by=["table_name"])
    return LakeReader(locations)


def test_the_reader_filters_and_projects(reader: LakeReader) -> None:
    rows = reader.read("behaviour_partials", columns=["log", "user_id"], where={"ds": [date(2026, 1, 1)], "log": "ad"})
    assert rows.to_pylist() == [{"log": "ad", "user_id": 1}]
    assert rows.schema.field("log").type == pa.string()
    assert reader.read("behaviour_partials", columns=["user_id"], where={"ds": []}).num_rows == 0
    assert reader.read("predictions").num_rows == 0


def test_a_build_that_is_missing_is_named_with_its_command(reader: LakeReader) -> None:
    assert reader.builds("natural_log")["ds=2026-01-01"]["counts"] == {"read": 3}
    assert reader.require_builds("natural_log", ["ds=2026-01-01"], hint="") == {"natural_log/ds=2026-01-01": "17"}
    with pytest.raises(
        ParentMissing, match=r"natural_log: expected a build of ds=2026-01-02 and 1 more, found none. Make it: x"
    ):
        reader.require_builds("natural_log", ["ds=2026-01-02", "ds=2026-01-01", "ds=2026-01-03"], hint="Make it: x")


STORE = "s3a://lake/tributary"


def test_tables_lie_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert table_address(Locations(tmp_path), "ad_log") == str(tmp_path / "lake" / "ad_log")
    monkeypatch.setenv("TRIBUTARY_LAKE", STORE)
    assert table_address(Locations(tmp_path), "ad_log") == f"{STORE}/ad_log"


@pytest.mark.parametrize(
    "address", ["s3://lake/tributary", "s3a://lake", "s3a://lake/", "/some/where", "s3a://lake/a`b", "s3a://lake/a?b=c"]
)
def test_what_is_no_place_for_tables(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIBUTARY_LAKE", address)
    with pytest.raises(
        BadInput, match="TRIBUTARY_LAKE: expected a folder of a bucket such as s3a://lake/tributary, found"
    ):
        table_address(Locations(tmp_path), "ad_log")


def test_spark_is_told_of_the_store_and_the_other_machines_only_if_there_are_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "fetch_jars", lambda store: [str(session.jars_cache(store))])
    alone = session.spark_confs(Locations(tmp_path))
    assert (
        not [name for name in alone if "s3a" in name]
        and alone["spark.driver.host"] == alone["spark.driver.bindAddress"] == "127.0.0.1"
    )
    for name, value in {
        "TRIBUTARY_LAKE": STORE,
        "AWS_ENDPOINT_URL": "http://store:7070",
        "TRIBUTARY_SPARK_HOST": "spark-connect",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }.items():
        monkeypatch.setenv(name, value)
    confs = session.spark_confs(Locations(tmp_path))
    assert (
        confs["spark.hadoop.fs.s3a.endpoint"] == "http://store:7070"
        and confs["spark.hadoop.fs.s3a.path.style.access"] == "true"
    )
    assert confs["spark.driver.host"] == confs["spark.driver.bindAddress"] == "spark-connect"
    assert confs["spark.jars"] != alone["spark.jars"] and "secret" not in confs.values()


def test_a_token_that_is_given_makes_no_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIBUTARY_CONNECT_TOKEN", "given")
    assert server._token(Locations(tmp_path)) == "given"
    assert not Locations(tmp_path).connect_token.exists() and Locations(tmp_path).stack.is_dir()
    monkeypatch.delenv("TRIBUTARY_CONNECT_TOKEN")
    assert server._token(Locations(tmp_path)) == Locations(tmp_path).connect_token.read_text() != "given"
