"""Over a hundred kinds of landing files: what is ingested is what is in the file, check reports it before, and every row is counted."""

from __future__ import annotations

import gzip
import io
import os
import re
from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from landing_kinds import STRING_IDS, Kind, all_kinds, json_bytes, parquet_bytes, usual_column
from landing_rows import DAY, Row, csv_bytes, good_row, write

from contracts.errors import BadInput
from contracts.locations import Locations
from contracts.settings import Deployment
from contracts.tables import owner_key
from lake.landing_bytes import LineScanner, QuoteScanner
from lake.landing_files import Delivery, look_at
from lake.reader import LakeReader
from lake.xxhash import xxhash64
from spark_jobs import check_landing, ingest_logs
from spark_jobs.check_landing import Checked
from spark_jobs.landing import read_landing

NEXT = DAY + timedelta(days=1)
DEPLOYMENT = Deployment(history_start=DAY, actr_start=NEXT, string_ids=STRING_IDS)
ROWS = [good_row(number) for number in range(4)]


@pytest.fixture(scope="module")
def kinds() -> dict[str, Kind]:
    return {kind.name: kind for kind in all_kinds()}


@pytest.fixture(scope="module")
def ingested(
    spark: Any, kinds: dict[str, Kind], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Locations, Checked, str]:
    """A day with a file of every kind, checked and ingested, and what ingestion wrote to stderr."""
    locations = Locations(tmp_path_factory.mktemp("home"))
    for kind in kinds.values():
        folder = locations.landing_day("natural", DAY)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / kind.name).write_bytes(kind.content)
    for name in ("UPPER.CSV", "lines.ndjson", "packed.csv.bz2", "hour=11/part.csv", "_SUCCESS", ".part.csv.crc"):
        write(locations.landing_day("natural", DAY) / name, b"not read")
    write(locations.landing_day("ad", DAY) / "a.csv", csv_bytes([good_row(1, log="ad")]))
    checked = check_landing.check_files(
        spark, locations, DEPLOYMENT, check_landing.by_day([locations.landing / "natural"], None, None)
    )
    with pytest.MonkeyPatch.context() as patch:
        warnings = io.StringIO()
        patch.setattr("sys.stderr", warnings)
        ingest_logs.run(spark, locations, DEPLOYMENT, [DAY])
    assert len(checked) == 1
    return locations, checked[0], warnings.getvalue()


@pytest.mark.spark
def test_the_rows_of_every_kind_are_kept_as_the_file_has_them(
    ingested: tuple[Locations, Checked, str], kinds: dict[str, Kind]
) -> None:
    assert len(kinds) >= 100
    rows = {row["event_id"]: row for row in LakeReader(ingested[0]).read("natural_log", where={"ds": DAY}).to_pylist()}
    wrong = [
        (name, number)
        for name, kind in kinds.items()
        for number, row in enumerate(kind.kept)
        if rows.pop(int(row["event_id"]), None) is None
    ]
    assert (wrong, rows) == ([], {})
    rows = {row["event_id"]: row for row in LakeReader(ingested[0]).read("natural_log", where={"ds": DAY}).to_pylist()}
    for name, kind in kinds.items():
        for row in kind.kept:
            assert values(rows[int(row["event_id"])]) == expected(row), name


def values(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: row[name]
        for name in ("user_id", "item_id", "category_id", "click", "action", "item_text", "dwell_seconds", "event_ts")
    }


def expected(row: Row) -> dict[str, Any]:
    return {
        "user_id": xxhash64(row["user_id"]) & (2**63 - 1),
        "dwell_seconds": float(row["dwell_seconds"]),
        "event_ts": datetime.fromisoformat(row["event_ts"]),
        "item_text": row["item_text"] or None,
        **{name: int(row[name]) for name in ("item_id", "category_id", "click", "action")},
    }


@pytest.mark.spark
def test_every_other_row_is_in_quarantine_with_the_file_as_it_is_named(
    ingested: tuple[Locations, Checked, str], kinds: dict[str, Kind]
) -> None:
    found: dict[str, Counter[str]] = {}
    for row in LakeReader(ingested[0]).read("quarantine", where={"ds": DAY, "log": "natural"}).to_pylist():
        found.setdefault(row["file"], Counter())[row["rule"]] += 1
    assert found == {f"natural/{DAY}/{name}": kind.broken for name, kind in kinds.items() if kind.broken}


@pytest.mark.spark
def test_check_and_ingestion_agree_and_every_row_is_counted(
    ingested: tuple[Locations, Checked, str], kinds: dict[str, Kind]
) -> None:
    locations, checked, _ = ingested
    counts = LakeReader(locations).builds("natural_log")[owner_key(ds=DAY)]["counts"]
    assert {name: counts[name] for name in ingest_logs.STATUS_COUNTS} == {
        name: checked.counts[name] for name in ingest_logs.STATUS_COUNTS
    }
    assert counts["read"] == counts["kept"] + counts["duplicates"] + counts["quarantined"] + counts["forgotten"]
    of_files = {
        name: (counts["read"], counts["kept"], counts["quarantined"])
        for name, counts in checked.files.items()
        if counts
    }
    assert of_files == {
        name: (kind.rows, len(kind.kept), kind.broken.total()) for name, kind in kinds.items() if kind.rows
    }
    assert checked.files.keys() == kinds.keys()


@pytest.mark.spark
def test_a_file_whose_rows_are_all_quarantined_and_files_that_are_not_read_are_named_by_both(
    ingested: tuple[Locations, Checked, str], kinds: dict[str, Kind]
) -> None:
    locations, checked, warnings = ingested
    all_quarantined = [kind for kind in kinds.values() if kind.rows and not kind.kept]
    assert {kind.name for kind in all_quarantined} >= {"no-utf8-id.csv", "time-far.parquet"}
    assert sorted(checked.problems) == sorted(
        f"{kind.name}: all {kind.rows} rows would go to quarantine" for kind in all_quarantined
    )
    assert checked.exit_code(strict=False) == 2
    not_read = f"{ingest_logs.NOT_READ}: UPPER.CSV, hour=11/, lines.ndjson, packed.csv.bz2"
    assert f"{DAY}: {not_read}" in checked.warnings
    assert f"warning: {locations.landing_day('natural', DAY)}: {not_read}\n" in warnings
    for kind in all_quarantined:
        assert f"{kind.name}: all {kind.rows} rows go to quarantine\n" in warnings


@pytest.mark.spark
def test_all_broken_rules_of_a_row_are_shown_at_once_with_their_lines(ingested: tuple[Locations, Checked, str]) -> None:
    checked = ingested[1]
    lines = {
        (rule, example.file, example.line, example.found)
        for rule, examples in checked.examples.items()
        for example in examples
    }
    # The row's first rule is event_id_type or event_ts_type; quarantine names no other.
    assert {("click_range", "broken-often.csv", 2, "9"), ("click_range", "broken-often.csv", 3, "9")} <= lines
    assert ("event_ts_type", "broken-often.csv", 3, "soon") in lines
    assert checked.broken["click_range"] == 2
    assert all(example.line is not None for examples in checked.examples.values() for example in examples)
    (masked,) = (
        example
        for example in checked.examples["user_id_type"]
        if example.file == "no-utf8-id.csv" and example.line == 2
    )
    assert "nstler" not in masked.found


def refused(name: str, content: bytes, tmp_path: Path) -> str:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BadInput) as raised:
        look_at(path, Delivery.of_log("natural"), Locations(tmp_path), STRING_IDS)
    return str(raised.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        (
            "item_id",
            pa.array([[1]] * 4),
            "item_id: expected a Parquet column with an integer >= 0, found a column of nested values",
        ),
        ("item_id", pa.array([{"a": 1}] * 4), "item_id: .* found a column of nested values"),
        (
            "event_ts",
            pa.array([1] * 4),
            "event_ts: expected a Parquet column with an ISO-8601 time, found the type INT64",
        ),
        ("event_ts", pa.array([1] * 4, pa.time64("us")), r"event_ts: .* found the type TIME\(microseconds\)"),
        ("item_id", pa.array([1.0] * 4).cast(pa.float16()), "item_id: .* found the type FLOAT16"),
        ("item_id", pa.array([Decimal(1)] * 4, pa.decimal256(50, 0)), r"item_id: .* found the type DECIMAL\(50, 0\)"),
        (
            "item_id",
            pa.array([b"0123456789abcdef"] * 4, pa.uuid()),
            "item_id: .* found the type UUID. Declare the column as .* string ids",
        ),
        ("item_id", pa.array([True] * 4), "item_id: .* found the type BOOLEAN"),
        (
            "user_id",
            pa.array([datetime(2026, 1, 2)] * 4),
            r"user_id: .* with an id, found the type TIMESTAMP\(microseconds\)",
        ),
        ("dwell_seconds", pa.array([DAY] * 4), "dwell_seconds: .* found the type DATE"),
    ],
)
def test_types_that_hold_no_value_of_a_column_are_refused_by_name(
    tmp_path: Path, column: str, values: pa.Array, message: str
) -> None:
    table = pa.table({name: usual_column(name, ROWS) for name in ROWS[0]} | {column: values})
    assert re.match(message, refused("a.parquet", parquet_bytes(table), tmp_path))


def test_codecs_encodings_and_names_that_spark_cannot_read_are_refused_by_name(tmp_path: Path) -> None:
    table = pa.table({name: usual_column(name, ROWS) for name in ROWS[0]})
    assert refused("a.parquet", parquet_bytes(table, compression="brotli"), tmp_path).startswith(
        "event_id: expected a codec that Spark"
    )
    split = parquet_bytes(table, use_dictionary=False, column_encoding={"dwell_seconds": "BYTE_STREAM_SPLIT"})
    assert "dwell_seconds: expected an encoding that Spark can read, found BYTE_STREAM_SPLIT" in refused(
        "b.parquet", split, tmp_path
    )
    twice = parquet_bytes(table.append_column("CLICK", table["click"]))
    assert "click: expected one column of this name" in refused("c.parquet", twice, tmp_path)
    assert "found an encrypted one" in refused("d.parquet", b"PARE" + parquet_bytes(table)[4:-4] + b"PARE", tmp_path)
    damaged = bytearray(parquet_bytes(table, compression="zstd"))
    start = pq.ParquetFile(io.BytesIO(bytes(damaged))).metadata.row_group(0).column(0).dictionary_page_offset or 4
    damaged[start + 20 : start + 60] = b"\xff" * 40
    assert "found one that cannot be read" in refused("e.parquet", bytes(damaged), tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "an empty file (0 bytes)"),
        ("a.csv", b"\n\n", "event_id: expected a column of this name in the header"),
        (
            "a.csv",
            csv_bytes(ROWS).replace(b"user_id", b"User_ID", 1),
            "user_id: expected a column of this name in the header",
        ),
        (
            "a.csv",
            csv_bytes(ROWS).replace(b"item_text", b"item_id", 1),
            "item_id: expected a column named once, found named twice",
        ),
        ("a.csv.gz", gzip.compress(csv_bytes(ROWS))[:-9], "expected a whole gz file"),
        (
            "a.csv.gz",
            gzip.compress(csv_bytes(ROWS))[:60] + b"\0\0\0" + gzip.compress(csv_bytes(ROWS))[63:],
            "expected a whole gz file",
        ),
        ("a.jsonl", b"hello\n" + b"[" * 5000 + b"\n", "lines: expected a JSON object a line, found none"),
        (
            "a.jsonl",
            json_bytes([row | {"click": ""} for row in ROWS]),
            "click: expected a column of this name in its lines",
        ),
        ("a.parquet", parquet_bytes(pa.table({"event_id": [1]}))[:-4], "expected a whole parquet file"),
        (
            "a.parquet",
            parquet_bytes(pa.table({"event_id": [1]})),
            "event_ts: expected a column of this name in its schema",
        ),
    ],
)
def test_files_that_cannot_be_read_are_refused_by_name(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    assert message in refused(name, content, tmp_path)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("a,b\n1,2\n", "regular"),
        ('a,b\n"1","2"\n', "regular"),
        ('a,b\n"1 ""x""","""2"""\n', "regular"),
        ('a,b\n"",""\n', "regular"),
        ('a,b\n1,"2\n3"\n', "spanning"),
        ('a,b\n1,"2\r3"', "spanning"),
        ('"a\nb",c\n1,2\n', "spanning"),
        ('a,b\n"","\n"\n', "spanning"),
        ('a,b\n1,15" x\n', "irregular"),
        ('a,b\n1,"2\n', "irregular"),
        ('a,b\n1,"2" \n', "irregular"),
        ('a,b\n1, "2"\n', "irregular"),
        ('a,b\n5","x\ny",1"\n', "irregular"),
        ('a,b\n"1""\n', "irregular"),
    ],
)
def test_quotes_are_told_apart_however_the_bytes_come(text: str, kind: str) -> None:
    content = b"\xef\xbb\xbf" * (len(text) % 2) + text.encode()
    for size in (1, 2, 3, 7, len(content)):
        scanner = QuoteScanner()
        for begin in range(0, len(content), size):
            scanner.add(content[begin : begin + size])
        assert scanner.result() == kind, size


@pytest.mark.parametrize(
    ("content", "is_plain"),
    [
        (b'{"a": 1}\n{"a": 2}\n', True),
        (b'{"a": 1}\n{"a": 2}', True),
        ('{"a": "\u00fc"}\n'.encode(), True),
        (b"{}\n{}\n", True),
        (b"{a\n", False),
        (b'{"a": "}"}\n', False),
        (b'{"a": {"b": 1}}\n', False),
        (b'{"a": 1}{"a": 2}\n', False),
        (b'{"a": 1}x\n', False),
        (b'x{"a": 1}\n', False),
        (b'{"a": 1}\r\n', False),
        (b'{"a": 1}\n\n{"a": 2}\n', False),
        (b'[{"a": 1}]\n', False),
        (b'{"a": 1}\n{"a', False),
        (b'{"a": "\xff"}\n', False),
        (b'{"a": 1}\n1\n', False),
        (b'{"a": 1\n}\n', False),
        (b'\xef\xbb\xbf{"a": 1}\n', False),
        (b'\n{"a": 1}\n', False),
    ],
)
def test_plain_lines_are_told_apart_however_the_bytes_come(content: bytes, is_plain: bool) -> None:
    for size in (1, 2, 3, 7, len(content)):
        scanner = LineScanner()
        for begin in range(0, len(content), size):
            scanner.add(content[begin : begin + size])
        assert scanner.result() == is_plain, size


@pytest.mark.spark
def test_plain_lines_read_as_any_others(spark: Any, tmp_path: Path) -> None:
    """What Spark's JSON reader gives for them is what its parser gives for each line, wrong ones too."""
    lines = [
        json_bytes([good_row(1, item_text='tab\t, quote " and \u00fc')])[:-1],
        b"{}",
        b"{'event_id': 1}",
        b'{"event_id": 01}',
        b'{"event_id": 1.50, "click": true, "item_text": null}',
        b'{"event_id": [1, 2], "event_id": 3, "user_id": 1e3, "_corrupt": 1}',
        b'{"event_id": NaN}',
        b'{"event_id": 1, "item_id": }',
        b'{"event_id" 1}',
        b'{"item_text": "\x01"}',
        b'{"EVENT_ID": 7}',
        b'{"item_text": "\\ud800 \\u0000"}',
    ]
    path = write(tmp_path / "natural" / str(DAY) / "a.jsonl", b"\n".join([*lines, lines[0]]))
    file = look_at(path, Delivery.of_log("natural"), Locations(tmp_path), ())
    assert file.has_plain_lines
    plain, other = (
        sorted(map(repr, read_landing(spark, "natural", [replace(file, has_plain_lines=way)]).collect()))
        for way in (True, False)
    )
    assert len(plain) == len(lines) + 1 and plain == other


@pytest.mark.spark
def test_an_unreadable_file_refuses_the_day_before_anything_is_written(spark: Any, tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    write(locations.landing_day("natural", DAY) / "a.csv", csv_bytes(ROWS))
    write(locations.landing_day("ad", DAY) / "a.csv", csv_bytes([good_row(1, log="ad")]))
    write(locations.landing_day("ad", DAY) / "b.parquet", parquet_bytes(pa.table({"event_id": [1]})))
    with pytest.raises(BadInput, match=r"b\.parquet: event_ts: expected"):
        ingest_logs.run(spark, locations, DEPLOYMENT, [DAY])
    assert not locations.lake.exists()
    given = check_landing.by_day([locations.landing], None, None)
    natural, ad = sorted(
        check_landing.check_files(spark, locations, DEPLOYMENT, given), key=lambda done: done.log != "natural"
    )
    assert (natural.problems, natural.exit_code(strict=True)) == ([], 0)
    assert ad.files == {"a.csv": Counter(ad.files["a.csv"]), "b.parquet": None} and ad.counts["kept"] == 1
    assert len(ad.problems) == 1 and "b.parquet: event_ts: expected" in ad.problems[0]
    assert sorted(os.listdir(tmp_path)) == ["landing"]
