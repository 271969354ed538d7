"""`tributary sources check`: what is wrong with landing files, without Spark."""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest

from contracts.settings import Deployment
from contracts.tables import LANDING_COLUMNS
from lake import xxhash
from sources import check, cli, landing_values
from sources.check import Checked, check_files

DAY = date(2026, 1, 5)
DEPLOYMENT = Deployment(history_start=date(2026, 1, 1), actr_start=date(2026, 1, 3), day_timezone="Asia/Shanghai",
                        string_ids=("request_id",))
GOOD = {name: "7" for name in LANDING_COLUMNS["ad"]} | {
    "event_ts": "2026-01-05T10:00:00.123Z", "arrival_ts": "", "click": "0", "action": "0", "dwell_seconds": "1.5",
    "item_text": "a, \"b\" \u00fc"}
Row = dict[str, str]
# Of Spark 4.2: `select xxhash64(...)` of one value each.
SPARK_TEXTS = [-7444071767201028348, -8582455328737087284, -4294468057691064905, 5057089280714065884, -1716462135722163746,
               1299777543150008824, -7293016135497780812, 6379203369694145893]
SPARK_LONGS = [-5252525462095825812, 3858142552250413010, 1821704621099523357]
SPARK_INTS = [3614696996920510707, 2017008487422258757, 2786828215451145335]
SPARK_DOUBLES = [-5252525462095825812, -5252525462095825812, 7738255526519901366]


def rows_of(*changes: Row) -> list[Row]:
    return [GOOD | {"event_id": str(1000 + number)} | change for number, change in enumerate(changes)]


def write_csv(path: Path, rows: Sequence[Row]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_gzip(path: Path, rows: Sequence[Row]) -> Path:
    plain = write_csv(path.with_suffix(".plain"), rows)
    path.with_suffix(".csv.gz").write_bytes(gzip.compress(plain.read_bytes()))
    return path.with_suffix(".csv.gz")


def write_json(path: Path, rows: Sequence[Row]) -> Path:
    path = path.with_suffix(".jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path, rows: Sequence[Row]) -> Path:
    path = path.with_suffix(".parquet")
    pa_parquet.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def checked(*paths: Path, day: date | None = DAY, batch_bytes: int = check.BATCH_BYTES, keys_held: int = check.KEYS_HELD) -> Checked:
    return check_files(paths, "ad", DEPLOYMENT, day, batch_bytes=batch_bytes, keys_held=keys_held)


BROKEN: dict[str, list[Row]] = {
    "event_id_type": [{"event_id": value} for value in ("", " ", "x", "1.0", "0x10", "9223372036854775808", "1e3", "5 5")],
    "event_id_range": [{"event_id": "-1"}],
    "event_ts_type": [{"event_ts": value} for value in ("", "around noon", "1767600000", "2026-02-30T10:00:00Z", "2026-01-05T24:00:00Z",
                                                        "2026/01/05", "2026-01-05T10:00:00+19:00", "20260105", "2026-01-05T")],
    "arrival_ts_type": [{"arrival_ts": "soon"}],
    "request_id_type": [{"request_id": "  "}],
    "user_id_type": [{"user_id": ""}],
    "user_id_range": [{"user_id": "-5"}],
    "position_range": [{"position": "10001"}],
    "click_range": [{"click": "2"}],
    "click_type": [{"click": "3000000000"}, {"click": "true"}],
    "action_range": [{"click": "1", "action": "7"}],
    "action_of_click": [{"click": "1"}, {"action": "1"}],
    "dwell_seconds_type": [{"dwell_seconds": "long"}, {"dwell_seconds": "1,5"}],
    "dwell_seconds_range": [{"dwell_seconds": value} for value in ("-0.1", "86400.5", "NaN", "inf")],
    "item_text_length": [{"item_text": "x" * 20_001}],
    "item_text_encoding": [{"item_text": "a \ufffd"}],
    "event_day": [{"event_ts": value} for value in ("2026-01-03T15:59:59Z", "2026-01-05T16:00:00Z", "2025-12-01", "2026")],
}
KEPT: list[Row] = [
    {}, {"event_id": " 12 "}, {"event_id": "+13"}, {"event_id": "9223372036854775807"}, {"request_id": "any text"},
    {"click": "1", "action": "6"}, {"dwell_seconds": "1e3"}, {"dwell_seconds": "-0.0"},
    {"item_text": ""}, {"item_text": "\u00e9" * 20_000}, {"arrival_ts": "2020-01-01"},
    {"event_ts": "2026-01-05 10:00"}, {"event_ts": "2026-1-5 1:2:3"}, {"event_ts": "2026-01-05T18:00:00+08:00"},
    {"event_ts": "2026-01-05T10:00:00 Asia/Shanghai"}, {"event_ts": "2026-01-05T15:59:59.999999Z"}, {"event_ts": "2026-01-03T16:00:00Z"},
]


@pytest.mark.parametrize("write", [write_csv, write_gzip, write_json, write_parquet])
def test_every_rule_in_every_format(tmp_path: Path, write: Callable[[Path, Sequence[Row]], Path]) -> None:
    changes = [change for cases in BROKEN.values() for change in cases] + KEPT
    done = checked(write(tmp_path / "a.csv", rows_of(*changes)))
    assert done.problems == []
    assert +done.quarantined == Counter({rule: len(cases) for rule, cases in BROKEN.items()})
    assert (done.read, done.kept, done.duplicates, done.late) == (len(changes), len(KEPT), 0, 1)
    first = done.examples["event_ts_type"][1]
    place = len(BROKEN["event_id_type"]) + len(BROKEN["event_id_range"]) + 1
    assert (first.line, first.found) == (place + (2 if ".csv" in first.file else 1), "around noon")


def test_the_first_broken_rule_counts_and_users_are_masked(tmp_path: Path) -> None:
    rows = rows_of({"user_id": "-12ab", "click": "9", "item_id": "\x1b[31m-1"}, {"item_id": "\x1b[31m"})
    done = checked(write_csv(tmp_path / "a.csv", rows))
    assert +done.quarantined == Counter(user_id_type=1, item_id_type=1)
    assert done.examples["user_id_type"][0].found == "-99xx"
    assert done.examples["item_id_type"][0].found == "\\x1b[31m"


def test_without_a_day_event_days_are_not_judged(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", rows_of({"event_ts": "2020-01-01T00:00:00Z"}))
    assert (checked(path, day=None).kept, checked(path).kept) == (1, 0)


def test_lines_that_cannot_be_taken_apart_are_counted_and_placed(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", rows_of({}, {}, {"user_id": "-1"}, {"user_id": "-2"}))
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([header, lines[0], "1,2", lines[2], "3", lines[3], lines[1] + ",8"]) + "\n", encoding="utf-8")
    for batch_bytes in (1 << 20, 256):
        done = checked(path, batch_bytes=batch_bytes)
        assert (done.read, done.kept) == (6, 1)
        assert +done.quarantined == Counter(columns=3, user_id_range=2)
        assert [example.line for example in done.examples["columns"]] == [3, 5, 7]
        assert [example.line for example in done.examples["user_id_range"]] == [4, 6]
    broken = tmp_path / "b.jsonl"
    good, nobody = json.dumps(rows_of({})[0]), json.dumps(GOOD | {"event_id": None, "user_id": 5})
    broken.write_text(good + '\n{"event_id": 5,\n\n[1]\n' + nobody + "\n")
    done = checked(broken, batch_bytes=64)
    assert (+done.quarantined, done.kept) == (Counter(columns=2, event_id_type=1), 1)


def test_bytes_that_are_no_utf8(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", rows_of({"item_text": "ZZ"}, {"user_id": "YY"}, {}))
    path.write_bytes(path.read_bytes().replace(b"ZZ", b"\xff\xfe").replace(b"YY", b"7\xff"))
    assert +checked(path).quarantined == Counter(item_text_encoding=1, user_id_type=1)


def test_a_line_break_in_a_value_is_said(tmp_path: Path) -> None:
    assert +checked(write_csv(tmp_path / "a.csv", rows_of({"item_text": "one\ntwo"}, {}))).quarantined == Counter(columns=1)


@pytest.mark.parametrize("keys_held", [check.KEYS_HELD, 10])
def test_duplicates_over_files_equal_and_differing(tmp_path: Path, keys_held: int) -> None:
    rows = [row for number in range(60) for row in [GOOD | {"event_id": str(number)}] * 2]
    more = [GOOD | {"event_id": str(number), "dwell_seconds": "1.50"} for number in range(20)]
    more += [GOOD | {"event_id": str(number), "item_text": "another", "arrival_ts": "2026-01-05"} for number in range(5)]
    more += [GOOD | {"event_id": str(number), "click": "5"} for number in range(60)]
    done = checked(write_csv(tmp_path / "a.csv", rows), write_json(tmp_path / "b", more), batch_bytes=2000, keys_held=keys_held)
    assert (done.read, done.kept, done.duplicates) == (205, 60, 85)
    assert done.quarantined["click_range"] == 60
    # An event with 3 equal rows and one other: which of them is kept depends on the hash, as in ingestion.
    assert done.conflicting == sum(3 if text_hash(number, "another") < text_hash(number, GOOD["item_text"]) else 1 for number in range(5))


def text_hash(event_id: int, text: str) -> int:
    """Payload of an event of the test above, by the functions that hash one column."""
    hashed = xxhash.add_longs(xxhash.start(1), np.array([event_id]))
    hashed = xxhash.add_longs(hashed, np.array([1767607200123000]))
    request = xxhash.add_texts(xxhash.start(1), pa.array(["7"])) & np.uint64((1 << 63) - 1)
    hashed = xxhash.add_longs(hashed, request.astype(np.int64))
    for _ in range(len(LANDING_COLUMNS["ad"]) - 8):  # user to advertiser: bigints, all 7
        hashed = xxhash.add_longs(hashed, np.array([7]))
    hashed = xxhash.add_ints(xxhash.add_ints(hashed, np.array([0])), np.array([0]))
    hashed = xxhash.add_texts(xxhash.add_doubles(hashed, np.array([1.5])), pa.array([text]))
    return int(hashed.view(np.int64)[0])


def test_files_that_cannot_be_ingested(tmp_path: Path) -> None:
    def problem(name: str, content: bytes) -> str:
        path = tmp_path / name
        path.write_bytes(content)
        found, = checked(path).problems
        return found

    good = write_csv(tmp_path / "good.csv", rows_of(*[{}] * 2000)).read_bytes()
    header = good.split(b"\r\n")[0]
    assert "user_id: expected a column of this name in the header" in problem("a.csv", good.replace(b",user_id", b",uid", 1))
    assert "here they seem to be by semicolons" in problem("b.csv", good.replace(b",", b";"))
    assert "found an empty file (0 bytes)" in problem("c.csv", b"")
    assert "expected at least one row on this landing day, found none" in problem("d.csv", header + b"\n")
    assert "expected a whole file" in problem("e.csv.gz", gzip.compress(good)[:-2000])
    parquet = write_parquet(tmp_path / "f", rows_of({})).read_bytes()
    assert "expected a whole parquet file" in problem("f.parquet", parquet[:-9])
    assert "event_id: expected a column named once, found named twice" in problem("g.csv", good.replace(b"item_text", b"event_id", 1))


def test_columns_in_another_order_extra_and_left_out(tmp_path: Path) -> None:
    row = {name: value for name, value in reversed(GOOD.items()) if name not in ("arrival_ts", "item_text")} | {"colour": "red"}
    done = checked(write_csv(tmp_path / "a.csv", [row]))
    assert done.kept == 1 and done.problems == []
    assert done.all_warnings == ["a.csv: columns that no contract knows are left out: colour"]
    assert done.notes == ["a.csv: optional columns not delivered, null throughout: arrival_ts, item_text"]


def test_the_command_says_a_verdict_and_exits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "deployment.toml").write_text(DEPLOYMENT.to_toml())
    folder = tmp_path / "landing" / "ad" / str(DAY)
    (folder.parent / ".2026-01-06.tmp").mkdir(parents=True)
    (folder.parent / ".2026-01-06.tmp" / "part.csv").write_text("half")
    folder.mkdir()
    path = write_csv(folder / "a.csv", rows_of({}, {}))
    command = ["check", "--home", str(tmp_path)]
    assert cli.main([*command, str(folder.parent), "--strict"]) == 0
    assert "verdict: sound" in capsys.readouterr().out
    write_csv(path, rows_of({}, {"event_ts": "2026-01-01T00:00:00Z"}))
    assert (cli.main([*command, str(path)]), cli.main([*command, str(path), "--strict"])) == (0, 2)
    out = capsys.readouterr().out
    assert "event_day     1  the file's day or up to 1 day(s) before  a.csv     3  2026-01-01T00:00:00Z" in out
    assert "verdict: can be ingested, with 1 warning" in out
    path.write_text("event_id\n1\n")
    assert cli.main([*command, str(path)]) == 2
    assert "verdict: cannot be ingested" in capsys.readouterr().out


def test_hashes_are_those_of_spark() -> None:
    texts = pa.array(["", "a", "Spark", "tributary", "x" * 31, "x" * 32, "\u00fc" * 40, "0123456789" * 10])
    assert xxhash.add_texts(xxhash.start(8), texts).view(np.int64).tolist() == SPARK_TEXTS
    assert xxhash.add_longs(xxhash.start(3), np.array([0, -1, 1 << 40])).view(np.int64).tolist() == SPARK_LONGS
    assert xxhash.add_ints(xxhash.start(3), np.array([0, -1, 7])).view(np.int64).tolist() == SPARK_INTS
    assert xxhash.add_doubles(xxhash.start(3), np.array([0.0, -0.0, 1.5])).view(np.int64).tolist() == SPARK_DOUBLES


def test_times_are_read_as_microseconds() -> None:
    texts = ["1970-01-01T00:00:00Z", "1970-01-01 00:00:01.5", "1970-01-01T01:00:00.000001+01:00", "1969-12-31T23:59:59.999999Z",
             "1970-01-02", "1970-01-01T00:00:00.1234567Z", "1969-12-31T23:30:00-00:30",
             "1970-02-29T00:00:00Z", "1970-01-01T00:00:61Z", "12"]
    micros, legible = landing_values.times(pa.array(texts))
    assert micros[:7].tolist() == [0, 1_500_000, 1, -1, 86_400_000_000, 123_456, 0]
    assert legible.tolist() == [True] * 7 + [False] * 3
