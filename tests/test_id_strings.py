"""Strings of hashed ids: each that a day kept is stored once next to its id, in whatever order of days, and forgotten with its user."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake
from landing_rows import csv_bytes, good_row, jsonl_bytes, write, write_parquet
from staged_fixture import DEPLOYMENT as OF_STAGED
from staged_fixture import ITEMS, USERS, stage_run

from contracts.features import LOGS
from contracts.locations import Locations
from contracts.settings import Deployment
from contracts.tables import TABLES, owner_key
from lake import xxhash
from lake.reader import LakeReader
from lake.writing import write_partitions
from lake.xxhash import string_id
from publishing.audit import audit
from spark_jobs import forget_tables, forget_user, ingest_logs
from spark_jobs.id_strings import TABLE
from spark_jobs.publish_release import audited, publish
from spark_jobs.staleness import find_stale

pytestmark = pytest.mark.spark

START = date(2026, 1, 1)
DAYS = [START + timedelta(days=n) for n in range(3)]
NUMBERS = Deployment(history_start=START, actr_start=DAYS[-1])
COLUMNS = ("user_id", "item_id", "user_segment_id", "campaign_id")
HASHED = replace(NUMBERS, string_ids=COLUMNS)
KEPT = replace(HASHED, kept_strings=COLUMNS, published_strings=("item_id",))
USER, SEGMENT = "ann e. 4711", "only ann's"


def twins() -> tuple[str, str]:
    """Two texts of sixteen letters with one hash: any first half can be made up for by a second, which seldom is text."""
    mask, prime_1, prime_2 = 2**64 - 1, xxhash._P1, xxhash._P2

    def after(state: int, half: bytes) -> int:
        return (
            xxhash._rotated(state ^ xxhash._round(0, int.from_bytes(half, "little")), 27) * prime_1 + xxhash._P4 & mask
        )

    first = b"an item of one s"
    start = xxhash.SEED + xxhash._P5 + len(first)
    wanted = after(start, first[:8]) ^ xxhash._round(0, int.from_bytes(first[8:], "little"))
    rng = random.Random(3)
    while True:
        half = bytes(rng.choices(b"abcdefghijklmnopqrstuvwxyz", k=8))
        mixed = (after(start, half) ^ wanted) * pow(prime_1, -1, 2**64) & mask
        other = (xxhash._rotated(mixed, 33) * pow(prime_2, -1, 2**64) & mask).to_bytes(8, "little")
        if other.isascii() and other.decode().isprintable() and not other.endswith(b" "):
            return first.decode(), (half + other).decode()


TWINS = twins()


def land(locations: Locations) -> set[tuple[str, str]]:
    """Three days in three formats; returns the strings that ingestion should keep, with their columns."""
    expected: set[tuple[str, str]] = set()
    for log in LOGS:
        names = [name for name in COLUMNS if name in TABLES[f"{log}_log"].column_names]
        for number, day in enumerate(DAYS):
            rows = []
            for n in range(40):
                event = 100 * number + n
                user = USER if n % 8 == 0 else f"K{n % 8:05}"
                ids = {"user_id": user, "item_id": f"N{event % 23}", "campaign_id": f"été {event % 3}"}
                ids["user_segment_id"] = SEGMENT if user == USER else f"s{n % 2}"
                rows.append(good_row(event, day=day, log=log, **{name: ids[name] for name in names}))
                expected |= {(name, ids[name]) for name in names}
            bad = [rows[0] | {"event_id": f"9{number}", "item_id": "of a bad row", "click": "7"}]
            again = [
                rows[1] | {"item_id": "of a duplicate", "dwell_seconds": "2.5"}
            ]  # delivered once more, a day later
            blanks = [rows[2] | {"event_id": f"8{number}", "item_id": "  with blanks "}]
            expected |= {("item_id", "with blanks")}
            if number < 2:
                rows[3] |= {"item_id": TWINS[number]}
                expected |= {("item_id", TWINS[number])}
            folder = locations.landing_day(log, day)
            if number == 0:
                write(folder / "a.csv", csv_bytes([*rows, *bad, *blanks]))
                write(locations.landing_day(log, DAYS[1]) / "again.csv", csv_bytes(again))
            elif number == 1:
                write(folder / "a.jsonl", jsonl_bytes([*rows, *bad, *blanks]))
            else:
                write_parquet(folder / "a.parquet", [*rows, *bad, *blanks], typed=False)
    return expected


def kept(locations: Locations) -> list[tuple[str, int, str]]:
    rows = LakeReader(locations).read(TABLE).to_pylist()
    return sorted((row["field"], row["id"], row["string"]) for row in rows)


@pytest.fixture(scope="module")
def made(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Locations, set[tuple[str, str]]]:
    """A deployment that kept its strings, ingested as one range."""
    locations = Locations(tmp_path_factory.mktemp("strings"))
    (locations.home / "deployment.toml").write_text(KEPT.to_toml())
    expected = land(locations)
    ingest_logs.run(spark, locations, KEPT, DAYS)
    return locations, expected


def test_each_string_that_was_kept_is_there_once_with_its_id(made: tuple[Locations, set[tuple[str, str]]]) -> None:
    locations, expected = made
    assert kept(locations) == sorted((name, string_id(text), text) for name, text in expected)
    reader = LakeReader(locations)
    for log in LOGS:
        rows = reader.read(f"{log}_log", columns=[name for name in COLUMNS if name != "campaign_id" or log == "ad"])
        for name in rows.column_names:
            assert set(rows[name].to_pylist()) == {string_id(text) for field, text in expected if field == name}
    builds = reader.builds(TABLE)
    assert set(builds) == {owner_key(ds=day, log=log) for day in DAYS for log in LOGS}
    assert {owner: build["counts"]["colliding"] for owner, build in builds.items()} == {
        owner_key(ds=day, log=log): int(day != DAYS[2]) for day in DAYS for log in LOGS
    }
    assert all(build["inputs"] == {} for build in builds.values()), "stale for ever, once the setting is gone"
    assert ingest_logs.partitions(DAYS, KEPT)[TABLE] == [owner_key(ds=day, log=log) for day in DAYS for log in LOGS]
    assert find_stale(locations) == []


def test_days_in_any_order_and_twice_keep_the_same_and_report_two_strings_with_one_hash(
    spark: Any, made: tuple[Locations, set[tuple[str, str]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    locations, _ = made
    other = Locations(tmp_path)
    other.landing.symlink_to(locations.landing)
    first, second = sorted(TWINS)
    assert first != second and string_id(first) == string_id(second)
    warning = f"warning: item_id {string_id(first)} is the hash of 2 strings, {first} and {second}: they are one in"
    for days, warned in ((DAYS[1:], False), (DAYS[:2], True)):
        capsys.readouterr()
        ingest_logs.run(spark, other, KEPT, days)
        assert (warning in capsys.readouterr().err) == warned
    assert kept(other) == kept(locations)
    digests = [
        {owner: build["digest"] for owner, build in LakeReader(one).builds(TABLE).items()} for one in (other, locations)
    ]
    assert digests[0] == digests[1]


def test_published_vectors_carry_strings_where_a_setting_says_so(spark: Any, tmp_path: Path) -> None:
    """A table that was made before there were strings is opened, and its rows have none."""
    locations, items = Locations(tmp_path), list(range(1000, 1000 + ITEMS))
    old = stage_run(locations)
    rows = pa.table({"entity": ["item"], "id": [1000], "vector": pa.array([[1.0]], pa.list_(pa.float32()))})
    rows = rows.append_column("dim", pa.array([1], pa.int32())).append_column("release_id", pa.array(["old"]))
    write_deltalake(str(locations.table("tpm_embeddings")), rows, partition_by=["release_id"])
    strings = [("item_id", number, f"N{number}") for number in items[1:]]
    strings += [("item_id", 1001, "a twin"), ("user_id", 7, "ann")]
    frame = spark.createDataFrame(strings, TABLES[TABLE].ddl)
    frame.write.format("delta").partitionBy("field").save(str(locations.table(TABLE)))
    audit(locations, OF_STAGED, old)
    publish(spark, locations, replace(OF_STAGED, **_strings(("item_id",))), {old: audited(locations, old)})
    new = stage_run(locations, recipe={"lr": 2})
    audit(locations, OF_STAGED, new)
    publish(spark, locations, OF_STAGED, {new: audited(locations, new)})

    columns = ["release_id", "entity", "id", "string"]
    found = {tuple(row.values()) for row in LakeReader(locations).read("tpm_embeddings", columns=columns).to_pylist()}
    named = {1000: None, 1001: "N1001 | a twin"}
    assert found == {
        ("old", "item", 1000, None),
        *((old.name, "item", number, named.get(number, f"N{number}")) for number in items),
        *((old.name, "user", number, None) for number in range(1, 1 + USERS)),
        *((new.name, "item", number, None) for number in items),
        *((new.name, "user", number, None) for number in range(1, 1 + USERS)),
    }


def _strings(columns: tuple[str, ...]) -> dict[str, Any]:
    return {"string_ids": ("user_id", "item_id"), "kept_strings": ("user_id", "item_id"), "published_strings": columns}


def test_no_file_knows_the_string_of_a_forgotten_user(
    spark: Any, made: tuple[Locations, set[tuple[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old versions of the table, and the user's own segment, included; the strings of others stay."""
    locations, expected = made

    @contextmanager
    def session(*_: Any, **__: Any) -> Iterator[Any]:
        yield spark

    monkeypatch.setattr(forget_user, "writing_session", session)
    monkeypatch.setattr(forget_user, "_forget_files", lambda *_, **__: None)
    traces = [text.encode() for text in (USER, SEGMENT, str(string_id(USER)))]
    before = [path for path in locations.home.rglob("*") if path.is_file() and _holds(path, traces)]
    assert {path.relative_to(locations.home).parts[0] for path in before} == {"landing", "lake"}
    assert any(TABLE in path.parts for path in before)

    with monkeypatch.context() as patch:  # killed once two tables are rewritten
        patch.setattr(forget_tables, "write_partitions", _killed_after(2, write_partitions))
        with pytest.raises(KeyboardInterrupt):
            forget_user.command(locations, KEPT, f" {USER}", dry_run=False)
    assert forget_user.command(locations, KEPT, f" {USER}", dry_run=False) == 0
    assert [path for path in locations.home.rglob("*") if path.is_file() and _holds(path, traces)] == []
    others = {(name, text) for name, text in expected if text not in (USER, SEGMENT)}
    assert kept(locations) == sorted((name, string_id(text), text) for name, text in others)
    assert find_stale(locations) == []


def _killed_after(calls: int, original: Callable[..., Any]) -> Callable[..., Any]:
    left = iter(range(calls))

    def call(*arguments: Any, **options: Any) -> Any:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    return call


def _holds(path: Path, traces: list[bytes]) -> bool:
    content = path.read_bytes()
    if path.suffix == ".parquet":
        content += json.dumps(
            pq.read_table(path, partitioning=None).to_pylist(), default=str, ensure_ascii=False
        ).encode()
    return any(trace in content for trace in traces)
