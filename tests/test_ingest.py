"""Every row that lands is in the log, in quarantine with its rule, or a counted duplicate, whatever the file's format."""

from __future__ import annotations

from collections import Counter
from datetime import date, timedelta
from typing import Any

import pytest
from landing_rows import DAY, SPOILED, csv_bytes, good_row, jsonl_bytes, write, write_parquet

from contracts.features import LOGS
from contracts.locations import Locations
from contracts.settings import Deployment
from contracts.tables import owner_key
from lake.reader import LakeReader
from spark_jobs import ingest_logs
from spark_jobs.check_landing import by_day, check_files

pytestmark = pytest.mark.spark

BEFORE = DAY - timedelta(days=1)
AFTER = DAY + timedelta(days=1)
DEPLOYMENT = Deployment(history_start=BEFORE, actr_start=AFTER)


@pytest.fixture(scope="module")
def ingested(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Locations, dict[str, Any]]:
    """Three days: good rows before, all kinds of faults on the second, what comes late or again on the third."""
    home = tmp_path_factory.mktemp("ingested")
    locations = Locations(home)
    folder = locations.landing_day("natural", DAY)
    columns = list(good_row(0))
    known: dict[str, Any] = {"rules": {}}

    write(locations.landing_day("natural", BEFORE) / "a.csv", csv_bytes([good_row(n, day=BEFORE) for n in range(10)]))
    spoiled = []
    for number, (changes, rule) in enumerate(SPOILED):
        spoiled.append(good_row(1000 + number) | changes)
        known["rules"][f"item_text {1000 + number}"] = rule
    conflicting = [good_row(100), good_row(100, dwell_seconds="9"), good_row(101), good_row(101)]
    seen_before = [good_row(3, day=BEFORE)]  # delivered with the day before too
    late = [good_row(200, day=BEFORE)]
    write(folder / "a.csv", csv_bytes([*spoiled, *conflicting, *seen_before, *late]))
    write(folder / "another-order.csv", csv_bytes([good_row(n) for n in range(300, 310)], columns[::-1]))
    write(folder / "twice-1.csv", csv_bytes([good_row(n) for n in range(400, 410)]))
    write(folder / "twice-2.csv", csv_bytes([good_row(n) for n in range(400, 410)]))
    lines = csv_bytes([good_row(n) for n in range(500, 503)]).decode().splitlines()
    write(folder / "fields.csv", "\n".join([*lines, lines[1] + ",one more", lines[2].split(",")[0], ""]).encode())
    write(folder / "bytes.csv", csv_bytes([good_row(510)]).replace(b"green", b"gr\xe9en"))
    write(folder / "packed.csv.gz", csv_bytes([good_row(n) for n in range(600, 610)]))
    lines_of_json = jsonl_bytes([good_row(n, arrival_ts="2026-01-02T11:00:00Z") for n in range(700, 710)])
    write(folder / "lines.jsonl", lines_of_json + b'{"event_id": 1\n')
    write_parquet(folder / "typed.parquet", [good_row(n) for n in range(800, 810)])
    write_parquet(folder / "text.parquet", [good_row(810), good_row(811, click="7")], typed=False)
    write(folder / "extra.csv", csv_bytes([good_row(n) | {"mood": "good"} for n in range(900, 905)]))
    write(
        locations.landing_day("natural", AFTER) / "a.csv",
        csv_bytes(
            [good_row(n, day=AFTER) for n in range(2000, 2010)]
            + [good_row(300), good_row(2100, day=DAY), good_row(2101, day=BEFORE)]
        ),
    )
    for day in (BEFORE, DAY, AFTER):
        write(locations.landing_day("ad", day) / "a.csv", csv_bytes([good_row(n, day=day, log="ad") for n in range(5)]))
    ingest_logs.run(spark, locations, DEPLOYMENT, [BEFORE, DAY, AFTER])
    return locations, known


def counts(locations: Locations, day: date) -> dict[str, int]:
    by_reason: dict[str, int] = LakeReader(locations).builds("natural_log")[owner_key(ds=day)]["counts"]
    return by_reason


def test_rows_in_are_kept_quarantined_or_duplicates(ingested: tuple[Locations, Any]) -> None:
    locations, _ = ingested
    reader = LakeReader(locations)
    for log in LOGS:
        for owner, build in reader.builds(f"{log}_log").items():
            found = build["counts"]
            assert found["read"] == found["kept"] + found["quarantined"] + found["duplicates"] > 0
            assert found["kept"] == build["row_cnt"]
            assert found["quarantined"] == reader.builds("quarantine")[f"{owner},log={log}"]["row_cnt"]
    landed = len(SPOILED) + 6 + 10 + 20 + 5 + 1 + 10 + 11 + 10 + 2 + 5
    assert counts(locations, DAY) == {
        "read": landed,
        "quarantined": len(SPOILED) + 2 + 1 + 1 + 1,
        "duplicates": 2 + 1 + 10,
        "conflicting_duplicates": 1,
        "forgotten": 0,
        "late": 1,
        "undeclared_columns": 1,
        "kept": landed - (len(SPOILED) + 5) - 13,
    }
    assert counts(locations, AFTER) == {
        "read": 13,
        "quarantined": 1,
        "duplicates": 1,
        "conflicting_duplicates": 0,
        "forgotten": 0,
        "late": 1,
        "undeclared_columns": 0,
        "kept": 11,
    }


def test_each_fault_is_found_by_its_rule(ingested: tuple[Locations, Any]) -> None:
    rows = LakeReader(ingested[0]).read("quarantine", where={"ds": DAY, "log": "natural"}).to_pylist()
    expected = Counter(rule for _, rule in SPOILED) + Counter({"columns": 3, "item_text_encoding": 1, "click_range": 1})
    assert Counter(row["rule"] for row in rows) == expected
    for row in rows:
        assert row["expected"]
        assert len(row["found"]) <= 500
    (longest,) = (row for row in rows if row["rule"] == "item_text_length")
    assert len(longest["raw"]) > 5_000_000  # the whole row is kept
    (no_click,) = (row for row in rows if row["rule"] == "click_range" and row["file"].endswith("text.parquet"))
    assert (no_click["field"], no_click["expected"], no_click["found"]) == ("click", "one of 0, 1", "7")


def test_every_format_and_order_of_columns_gives_the_same_row(ingested: tuple[Locations, Any]) -> None:
    rows = {row["event_id"]: row for row in LakeReader(ingested[0]).read("natural_log", where={"ds": DAY}).to_pylist()}
    first = rows[300]
    assert first["item_text"] == 'Tea, "green", 100 g'
    assert (first["user_id"], first["item_id"], first["dwell_seconds"], first["event_ts"].microsecond) == (
        300 % 7,
        300 % 11,
        1.5,
        250_000,
    )
    for event_id in (400, 500, 600, 700, 800, 810, 900):
        row = rows[event_id]
        assert (row["user_id"], row["item_id"], row["item_text"]) == (event_id % 7, event_id % 11, first["item_text"])
        assert (row["event_ts"] - first["event_ts"]).total_seconds() == event_id - 300
    assert rows[200]["late"] and not first["late"]
    assert rows[700]["arrival_ts"] is not None and first["arrival_ts"] is None


def test_check_finds_the_same_before(spark: Any, ingested: tuple[Locations, Any]) -> None:
    locations, _ = ingested
    given = by_day([locations.landing / "natural"], None, None)
    for checked in check_files(spark, locations, DEPLOYMENT, given):
        assert checked.day is not None
        assert {name: checked.counts[name] for name in ingest_logs.STATUS_COUNTS} == {
            name: count for name, count in counts(locations, checked.day).items() if name in ingest_logs.STATUS_COUNTS
        }
        if checked.day == DAY:  # every rule that is broken, not only the first of each row
            rows = LakeReader(locations).read("quarantine", where={"ds": DAY, "log": "natural"}).to_pylist()
            first = Counter(row["rule"] for row in rows)
            assert checked.broken.keys() >= first.keys() and all(checked.broken[rule] >= first[rule] for rule in first)


def test_the_same_files_again_change_nothing_and_a_corrected_one_changes_its_day(
    spark: Any, ingested: tuple[Locations, Any]
) -> None:
    locations, _ = ingested
    before = LakeReader(locations).builds("natural_log")
    ingest_logs.run(spark, locations, DEPLOYMENT, [DAY])
    again = LakeReader(locations).builds("natural_log")
    assert {owner: (build["digest"], build["counts"]) for owner, build in again.items()} == {
        owner: (build["digest"], build["counts"]) for owner, build in before.items()
    }
    write(
        locations.landing_day("natural", DAY) / "another-order.csv", csv_bytes([good_row(n) for n in range(300, 309)])
    )
    ingest_logs.run(spark, locations, DEPLOYMENT, [DAY, AFTER])
    corrected = LakeReader(locations).builds("natural_log")
    assert corrected[owner_key(ds=DAY)]["counts"]["kept"] == before[owner_key(ds=DAY)]["counts"]["kept"] - 1
    assert corrected[owner_key(ds=BEFORE)]["digest"] == before[owner_key(ds=BEFORE)]["digest"]
