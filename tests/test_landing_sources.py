"""Logs read where a team keeps them, in its own columns: the same rows as by landing files, or a clear error."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import fastavro
import features_reference as reference
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.orc as pa_orc
import pyarrow.parquet as pa_parquet
import pytest
from deltalake import write_deltalake
from landing_rows import csv_bytes, good_row, write

from contracts.errors import BadInput
from contracts.landing import NOT_A_VALUE, NOT_OF_THE_ROW, LandingSettings, LandingSource
from contracts.locations import Locations
from contracts.settings import SETTINGS_FILE, Deployment
from lake.forgotten import User
from lake.reader import LakeReader
from spark_jobs import check_landing, ingest_logs
from spark_jobs.staleness import find_stale

pytestmark = pytest.mark.spark

DAYS = [date(2026, 1, 1), date(2026, 1, 2)]
TABLES = ("natural_log", "ad_log")
BASE = Deployment(history_start=DAYS[0], actr_start=DAYS[1])
# Theirs to ours; the tests' team counts milliseconds, has no request ids, and calls a purchase `buy`.
COLUMNS = {
    "event_id": "id",
    "event_ts": "timestamp_millis(time_ms)",
    "request_id": "id div 5",
    "user_id": "visitor",
    "item_id": "item.id",
    "category_id": "coalesce(item.category, 0)",
    "user_segment_id": "0",
    "position": "slot",
    "click": "CASE WHEN kind IN ('click', 'buy') THEN 1 ELSE 0 END",
    "action": "CASE kind WHEN 'buy' THEN 6 WHEN 'click' THEN 1 ELSE 0 END",
    "dwell_seconds": "dwell_ms / 1000",
    "item_text": "item.title",
    "campaign_id": "item.id",
    "advertiser_id": "7",
}
TYPES = {"id": "bigint", "time_ms": "bigint", "slot": "int", "dwell_ms": "double"}
ITEM = pa.struct([("id", pa.int64()), ("category", pa.int32()), ("title", pa.string())])
SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("time_ms", pa.int64()),
        ("visitor", pa.string()),
        ("item", ITEM),
        ("slot", pa.int32()),
        ("kind", pa.string()),
        ("dwell_ms", pa.float64()),
        ("unused", pa.list_(pa.int64())),
    ]
)


def theirs(day: date, log: str) -> list[dict[str, Any]]:
    start = datetime(day.year, day.month, day.day, 10, tzinfo=UTC)
    first = DAYS.index(day) * 100 + (1000 if log == "ad" else 0)
    return [
        {
            "id": first + n,
            "time_ms": int((start + timedelta(seconds=n)).timestamp() * 1000) + 7,
            "visitor": str(n % 7),
            "item": {"id": n % 11, "category": None if n % 5 == 0 else n % 3, "title": f"Tea {n % 11}; black"},
            "slot": n % 4,
            "kind": ("view", "click", "buy")[n % 3],
            "dwell_ms": 250.0 * n,
            "unused": [n],
        }
        for n in range(20)
    ]


def ours(row: dict[str, Any], log: str, day: date) -> dict[str, Any]:
    """The same row as a landing file of ours has it."""
    click, action = {"view": (0, 0), "click": (1, 1), "buy": (1, 6)}[row["kind"]]
    return good_row(
        row["id"],
        day=day,
        log=log,  # type: ignore[arg-type]
        event_ts=datetime.fromtimestamp(row["time_ms"] / 1000, UTC).isoformat(),
        request_id=row["id"] // 5,
        user_id=row["visitor"],
        item_id=row["item"]["id"],
        category_id=row["item"]["category"] or 0,
        user_segment_id=0,
        position=row["slot"],
        click=click,
        action=action,
        dwell_seconds=row["dwell_ms"] / 1000,
        item_text=row["item"]["title"],
        **({"campaign_id": row["item"]["id"], "advertiser_id": 7} if log == "ad" else {}),
    )


def flat(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Rows of theirs without nested values, for CSV."""
    return pa.table(
        {name: [row[name] for row in rows] for name in ("id", "time_ms", "visitor", "slot", "kind", "dwell_ms")}
        | {f"item_{name}": [row["item"][name] for row in rows] for name in ("id", "category", "title")}
    )


FLAT_COLUMNS = {name: text.replace("item.", "item_") for name, text in COLUMNS.items()}


def write_csv(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    pa_csv.write_csv(flat(rows), folder / "part-0", pa_csv.WriteOptions(delimiter=";"))


def write_lines(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    (folder / "part-0").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_parquet(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    pa_parquet.write_table(pa.Table.from_pylist(list(rows), SCHEMA), folder / "part-0.snappy.parquet")


def write_orc(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    pa_orc.write_table(pa.Table.from_pylist(list(rows), SCHEMA), folder / "part-0")


def write_avro(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    item = {
        "type": "record",
        "name": "Item",
        "fields": [
            {"name": "id", "type": "long"},
            {"name": "category", "type": ["null", "int"]},
            {"name": "title", "type": "string"},
        ],
    }
    kinds: dict[str, Any] = {
        "id": "long", "time_ms": "long", "visitor": "string", "item": item, "slot": "int", "kind": "string", "dwell_ms": "double"
    }  # fmt: skip
    fields = [{"name": name, "type": kind} for name, kind in kinds.items()]
    with (folder / "part-0").open("wb") as file:
        fastavro.writer(file, {"type": "record", "name": "Row", "fields": fields}, rows)


Writer = Callable[[Path, Sequence[dict[str, Any]]], None]
# By log: how it is written, and its settings but for the path.
PAIRS: list[dict[str, tuple[Writer, LandingSource]]] = [
    {
        "natural": (
            write_csv,
            LandingSource(
                format="csv", delimiter=";", types=TYPES | {"item_category": "int"}, columns=FLAT_COLUMNS, path="/"
            ),
        ),
        "ad": (
            write_lines,
            LandingSource(
                format="jsonl",
                types=TYPES | {"item": "struct<id: bigint, category: int, title: string>"},
                columns=COLUMNS,
                path="/",
            ),
        ),
    },
    {
        "natural": (write_parquet, LandingSource(format="parquet", columns=COLUMNS, path="/")),
        "ad": (write_orc, LandingSource(format="orc", columns=COLUMNS, path="/")),
    },
]


def of_log(source: LandingSource, log: str) -> LandingSource:
    """Settings without columns that the log does not have."""
    ad = ("campaign_id", "advertiser_id")
    return replace(
        source, columns={name: text for name, text in source.columns.items() if log == "ad" or name not in ad}
    )


def deployed(home: Path, natural: LandingSource, ad: LandingSource) -> tuple[Locations, Deployment]:
    deployment = replace(BASE, landing=LandingSettings(natural=of_log(natural, "natural"), ad=of_log(ad, "ad")))
    home.mkdir(parents=True, exist_ok=True)
    (home / SETTINGS_FILE).write_text(deployment.to_toml())
    assert Deployment.load(home) == deployment
    return Locations(home), deployment


@pytest.fixture(scope="module")
def expected(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Both logs, from landing files of ours."""
    locations = Locations(tmp_path_factory.mktemp("ours"))
    for log in ("natural", "ad"):
        for day in DAYS:
            rows = [ours(row, log, day) for row in theirs(day, log)]
            write(locations.landing_day(log, day) / "a.csv", csv_bytes(rows))
    ingest_logs.run(spark, locations, BASE, DAYS)
    return {name: reference.content(locations, name) for name in TABLES}


@pytest.mark.parametrize("pair", PAIRS)
def test_rows_of_any_format_in_hourly_folders(
    spark: Any, expected: dict[str, list[str]], tmp_path: Path, pair: dict[str, tuple[Writer, LandingSource]]
) -> None:
    sources = {}
    for log, (writer, source) in pair.items():
        for day in DAYS:
            for hour in (9, 10):
                folder = tmp_path / log / f"dt={day}" / f"hour={hour:02}"
                folder.mkdir(parents=True)
                writer(folder, [row for row in theirs(day, log) if row["id"] % 2 == hour % 2])
                (folder / "_SUCCESS").write_bytes(b"")
        sources[log] = replace(source, path=f"{tmp_path}/{log}/dt={{day}}/hour={{hour}}/")
    locations, deployment = deployed(tmp_path / "home", **sources)
    ingest_logs.run(spark, locations, deployment, DAYS)
    for name in TABLES:
        assert reference.content(locations, name) == expected[name], name
    assert reference.content(locations, "quarantine") == []
    assert find_stale(locations) == []


def test_one_table_for_both_logs_and_files_without_days(
    spark: Any, expected: dict[str, list[str]], tmp_path: Path
) -> None:
    """Ads in a Delta table, by the integer 20260101; natural rows in Avro files of all days."""
    table = tmp_path / "table"
    for day in DAYS:
        rows = pa.Table.from_pylist(theirs(day, "ad") + theirs(day, "natural"), SCHEMA)
        days = pa.array([int(day.strftime("%Y%m%d"))] * len(rows), pa.int32())
        write_deltalake(table, rows.append_column("dt", days), mode="append", partition_by=["dt"])
    folder = tmp_path / "avro"
    folder.mkdir()
    write_avro(folder, [row for day in DAYS for row in theirs(day, "natural")])
    locations, deployment = deployed(
        tmp_path / "home",
        natural=LandingSource(
            path=f"{folder}/", format="avro", day="to_date(timestamp_millis(time_ms))", columns=COLUMNS
        ),
        ad=LandingSource(table=str(table), day="dt", where="id >= 1000", columns=COLUMNS),
    )
    for day in DAYS:  # each by itself
        given = check_landing.declared(locations, deployment, None, day)
        checked = check_landing.check_files(spark, locations, deployment, given, by_folder=False)
        assert [(one.log, one.counts["read"], one.counts["kept"], one.problems) for one in checked] == [
            ("natural", 20, 20, []),
            ("ad", 20, 20, []),
        ]
        ingest_logs.run(spark, locations, deployment, [day])
    for name in TABLES:
        assert reference.content(locations, name) == expected[name], name
    assert find_stale(locations) == []

    again = pa.Table.from_pylist(theirs(DAYS[1], "ad")[:10], SCHEMA)
    days = pa.array([20260102] * len(again), pa.int32())
    write_deltalake(table, again.append_column("dt", days), mode="overwrite", predicate="dt = 20260102")
    assert {(one.table, str(one.day)) for one in find_stale(locations)} == {
        ("ad_log", str(DAYS[1])),
        ("quarantine", str(DAYS[1])),
    }
    ingest_logs.run(spark, locations, deployment, [DAYS[1]])
    assert len(LakeReader(locations).read("ad_log", where={"ds": DAYS[1]})) == 10


def test_ids_and_times_of_every_type(spark: Any, tmp_path: Path) -> None:
    """Ids as UUIDs, bytes, unsigned and decimal numbers and doubles; times in four units."""
    keys = [UUID(int=n) for n in range(8)]
    seconds = [int(datetime(2026, 1, 1, 10, 0, n, tzinfo=UTC).timestamp()) for n in range(8)]
    rows = pa.table(
        {
            "key": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([key.bytes for key in keys], pa.binary(16))),
            "visit": pa.array([b"page-%d" % n for n in range(8)]),
            "user": pa.array([2**63 - 1 - n for n in range(7)] + [2**63], pa.uint64()),
            "thing": pa.array([Decimal(n) for n in range(8)], pa.decimal128(20, 0)),
            "kind": pa.array([float(n) for n in range(6)] + [1.5, None]),
            "n": pa.array(range(8)),
            **{
                unit: pa.array([second * factor for second in seconds])
                for unit, factor in (("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9))
            },
        }
    )
    columns = {
        "event_id": "key",
        "event_ts": "CASE n % 4 WHEN 0 THEN timestamp_seconds(s) WHEN 1 THEN timestamp_millis(ms) "
        "WHEN 2 THEN timestamp_micros(us) ELSE timestamp_micros(ns div 1000) END",
        "request_id": "visit",
        "user_id": "user",
        "item_id": "thing",
        "category_id": "kind",
        **dict.fromkeys(("user_segment_id", "position", "click", "action", "dwell_seconds"), "0"),
    }
    pa_parquet.write_table(rows, tmp_path / "a.parquet")
    natural = LandingSource(path=f"{tmp_path}/*.parquet", day="to_date(timestamp_seconds(s))", columns=columns)
    deployment = replace(
        BASE,
        string_ids=("event_id", "request_id"),
        ad_start=DAYS[1],
        landing=LandingSettings(natural=natural),
    )
    locations = Locations(tmp_path / "home")
    ingest_logs.run(spark, locations, deployment, DAYS[:1])
    kept = LakeReader(locations).read("natural_log").sort_by("event_ts").to_pylist()
    assert [(row["user_id"], row["item_id"], row["category_id"]) for row in kept] == [
        (2**63 - 1 - n, n, n) for n in range(6)
    ]
    assert [int(row["event_ts"].timestamp()) for row in kept] == seconds[:6]
    assert len({row["event_id"] for row in kept}) == len({row["request_id"] for row in kept}) == 6
    bad = LakeReader(locations).read("quarantine").to_pylist()
    assert sorted((row["rule"], row["found"]) for row in bad) == [
        ("category_id_type", "1.5"),
        ("user_id_type", "9223372036854775808"),
    ]


def test_a_table_whose_files_are_gone_is_said(spark: Any, tmp_path: Path) -> None:
    rows = pa.Table.from_pylist(theirs(DAYS[0], "natural"), SCHEMA)
    write_deltalake(tmp_path / "table", rows.append_column("dt", pa.array([str(DAYS[0])] * len(rows))))
    natural = LandingSource(table=f"{tmp_path}/table", day="dt", columns=COLUMNS)
    locations, deployment = deployed(tmp_path / "home", natural, LandingSource())
    for file in (tmp_path / "table").glob("*.parquet"):
        file.unlink()
    with pytest.raises(BadInput, match=r"/table: table: expected the files of its version 0, .* vacuumed meanwhile"):
        ingest_logs.run(spark, locations, replace(deployment, ad_start=DAYS[1]), DAYS[:1])


PARQUET = replace(PAIRS[1]["natural"][1], path=None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"event_id": "idd"}, r"a\.parquet: idd: expected a column of this name in its schema .* found columns id, "),
        ({"item_id": "item.idd"}, r"columns.item_id: expected an expression over the columns of .*FIELD_NOT_FOUND"),
        (
            {"event_ts": "time_ms"},
            r"columns.event_ts: expected an ISO-8601 time, found the type bigint .*timestamp_millis",
        ),
        ({"item_text": "item"}, r"columns.item_text: expected a text of at most .*, found the type struct<"),
        ({"click": "unused"}, r"columns.click: expected one of 0, 1, found the type array<bigint>"),
        ({"click": "std(slot)"}, r"columns.click: expected an expression over the columns .*MISSING_GROUP_BY"),
        ({"user_id": "cast(kind AS bigint)"}, r"found \[CAST_INVALID_INPUT\].* Functions whose names begin with try_"),
    ],
)
def test_an_expression_that_does_not_fit_is_named(
    spark: Any, tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    for log in ("natural", "ad"):
        folder = tmp_path / log / str(DAYS[0])
        folder.mkdir(parents=True)
        pa_parquet.write_table(pa.Table.from_pylist(theirs(DAYS[0], log), SCHEMA), folder / "a.parquet")
    natural, ad = (replace(PARQUET, path=f"{tmp_path}/{log}/{{day}}/") for log in ("natural", "ad"))
    natural = replace(natural, columns={**natural.columns, **changes})
    locations, deployment = deployed(tmp_path / "home", natural, ad)
    with pytest.raises(BadInput, match=message):
        ingest_logs.run(spark, locations, deployment, DAYS[:1])
    assert not locations.lake.exists()


def test_what_cannot_be_read_is_refused_or_counted(spark: Any, tmp_path: Path) -> None:
    """An absent day and an empty one; a file of another schema; bad values and a contradicted folder, counted with the row as it was."""
    folder = tmp_path / "natural" / f"dt={DAYS[0]}"
    source = LandingSource(
        path=f"{tmp_path}/natural/dt={{day}}/*.csv", types=TYPES, columns=FLAT_COLUMNS, delimiter="|", quote="'"
    )
    ad = tmp_path / "ad" / str(DAYS[0])
    write(ad / "a.csv", csv_bytes([ours(row, "ad", DAYS[0]) for row in theirs(DAYS[0], "ad")]))
    locations, deployment = deployed(tmp_path / "home", source, LandingSource(path=f"{tmp_path}/ad/{{day}}/"))
    with pytest.raises(BadInput, match=rf"dt={DAYS[0]}/\*\.csv: landing day: expected at least one file .* found none"):
        ingest_logs.run(spark, locations, deployment, DAYS[:1])
    names = ["id", "time_ms", "visitor", "slot", "kind", "dwell_ms", "item_id", "item_category", "item_title", "dt"]
    header = "|".join(names) + "\n"
    write(folder / "b.csv", header.encode())
    with pytest.raises(BadInput, match="rows: expected at least one row"):
        ingest_logs.run(spark, locations, deployment, DAYS[:1])
    time_ms = theirs(DAYS[0], "natural")[0]["time_ms"]
    good = f"1|{time_ms}|5|0|view|10|3|1|'Tea | ''green'''|{DAYS[0]}\n"
    bad = (
        good.replace("1|", "x|", 1)
        + good.replace("1|", "2|", 1).replace(str(DAYS[0]), str(DAYS[1]))
        + "one|field\n"
        + good.replace("1|", "3|", 1).replace("|0|view", "|9|view").replace(str(time_ms), "17000000000000000000")
    )
    write(folder / "b.csv", (header + good + bad).encode())
    given = check_landing.declared(locations, deployment, "natural", DAYS[0])
    (checked,) = check_landing.check_files(spark, locations, deployment, given)
    ingest_logs.run(spark, locations, deployment, DAYS[:1])
    (kept,) = LakeReader(locations).read("natural_log").to_pylist()
    assert (kept["event_id"], kept["item_text"], kept["category_id"]) == (1, "Tea | 'green'", 1)
    rows = LakeReader(locations).read("quarantine", where={"log": "natural"}).to_pylist()
    assert sorted(row["rule"] for row in rows) == ["columns", "event_id_type", "event_ts_type", "partition"]
    assert {row["file"] for row in rows} == {str(folder / "b.csv")}
    by_rule = {row["rule"]: row for row in rows}
    assert by_rule["partition"]["found"] == f"dt is {DAYS[1]} in a folder of {DAYS[0]}"
    assert json.loads(by_rule["event_id_type"]["raw"])["delivered"]["item_title"] == "Tea | 'green'"
    assert User.of("5", deployment).is_in_raw(by_rule["event_id_type"]["raw"])
    assert checked.counts["quarantined"] == 4 and checked.counts["kept"] == 1 and checked.broken["partition"] == 1

    write(folder / "c.csv", header.replace("visitor", "who").encode() + good.encode())
    with pytest.raises(BadInput, match=r"c\.csv: visitor: expected a column of this name in the header"):
        ingest_logs.run(spark, locations, deployment, DAYS[:1])


def test_functions_that_do_not_follow_from_the_row_are_refused(spark: Any) -> None:
    """All that Spark says are non-deterministic, or give something current."""
    described = {
        row["function"]: "\n".join(
            line[0] for line in spark.sql(f"DESCRIBE FUNCTION EXTENDED {row['function']}").collect()
        )
        for row in spark.sql("SHOW FUNCTIONS").collect()
        if row["function"].isidentifier()
    }
    assert described.keys() >= (NOT_OF_THE_ROW | NOT_A_VALUE)
    moving = [
        name for name, text in described.items() if re.search(r"non-deterministic|[Rr]eturns (the )?current", text)
    ]
    assert len(moving) > 20
    accepted = []
    for name in {*moving, *NOT_OF_THE_ROW, *NOT_A_VALUE}:
        source = LandingSource(path="/logs/{day}/", columns={"click": f"coalesce(1, {name}(a))"})
        try:
            source.check("settings")
        except BadInput:
            continue
        accepted.append(name)
    assert accepted == []
