"""Attributes of users and items from side tables: each impression gets what held when it happened, and what is missing is counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest
from deltalake import write_deltalake
from landing_rows import csv_bytes, good_row, write

from contracts.errors import BadInput
from contracts.landing import LandingSettings, LandingSource, SideSource
from contracts.locations import Locations
from contracts.settings import SETTINGS_FILE, Deployment
from lake.reader import LakeReader
from spark_jobs import check_landing, ingest_logs
from spark_jobs.staleness import find_stale

pytestmark = pytest.mark.spark

DAYS = [date(2026, 1, day) for day in (1, 2, 3)]
BASE = Deployment(history_start=DAYS[0], actr_start=DAYS[2], ad_start=DAYS[2])
SEGMENT = "users.club + 1"
CATEGORY = "coalesce(try_cast(split_part(items.tags, ',', 1) AS bigint), -1) + 1"


def deployed(
    home: Path, users: SideSource, items: SideSource | None = None, /, **columns: str
) -> tuple[Locations, Deployment]:
    """A deployment whose natural log lies in the landing folder; its users 0 .. 6 and items 0 .. 10 are in side tables."""
    natural = LandingSource(columns=columns)
    deployment = replace(BASE, landing=LandingSettings(natural=natural, users=users, items=items))
    home.mkdir(parents=True)
    (home / SETTINGS_FILE).write_text(deployment.to_toml())
    assert Deployment.load(home) == deployment
    locations = Locations(home)
    for day in DAYS:
        rows = [good_row(DAYS.index(day) * 100 + n, day=day) for n in range(20)]
        write(locations.landing_day("natural", day) / "a.csv", csv_bytes(rows))
        if day == DAYS[2]:
            ads = [good_row(1000 + n, day=day, log="ad") for n in range(5)]
            write(locations.landing_day("ad", day) / "a.csv", csv_bytes(ads))
    return locations, deployment


def values(locations: Locations, column: str, by: str, day: date) -> dict[int, set[Any]]:
    """The values of a column of the natural log on a day, by another one."""
    found: dict[int, set[Any]] = {}
    for row in LakeReader(locations).read("natural_log", where={"ds": day}).to_pylist():
        found.setdefault(row[by], set()).add(row[column])
    return found


def counts(locations: Locations, day: date) -> dict[str, int]:
    build = LakeReader(locations).builds("natural_log")[f"ds={day}"]
    return dict(build["counts"])


def test_tables_that_always_hold_and_entities_that_they_lack(spark: Any, tmp_path: Path) -> None:
    """Users in CSV without user 3, one of them twice; items in Parquet without item 4."""
    write(tmp_path / "users.csv", b"who,club\n0,7\n1,10\n2,20\n2,30\n4,40\n5,\n6,60\n")
    items = {
        "id": [n for n in range(11) if n != 4],
        "tags": [None if n == 0 else f"{n},99" for n in range(11) if n != 4],
    }
    pa_parquet.write_table(pa.table(items), tmp_path / "items.parquet")
    locations, deployment = deployed(
        tmp_path / "home",
        SideSource(path=f"{tmp_path}/users.csv", key="who", types={"club": "int"}),
        SideSource(path=f"{tmp_path}/*.parquet", key="id"),
        user_segment_id="coalesce(users.club, -1) + 1",
        category_id=CATEGORY,
        item_text="concat('of ', items.tags)",
    )
    given = check_landing.declared(locations, deployment, "natural", DAYS[1])
    (checked,) = check_landing.check_files(spark, locations, deployment, given)
    assert checked.counts["kept"] == 20
    assert [text for text in checked.all_warnings if "users_missing" in text] == [
        "3 of 20 rows have an optional value that reads as unknown (users_missing)"
    ]
    ingest_logs.run(spark, locations, deployment, DAYS)
    segments = values(locations, "user_segment_id", "user_id", DAYS[0])
    assert segments == {0: {8}, 1: {11}, 2: {21}, 3: {0}, 4: {41}, 5: {0}, 6: {61}}
    categories = values(locations, "category_id", "item_id", DAYS[0])
    assert categories == {n: {0 if n in (0, 4) else n + 1} for n in range(11)}
    assert values(locations, "item_text", "item_id", DAYS[0])[4] == {None}
    assert values(locations, "item_text", "item_id", DAYS[0])[5] == {"of 5,99"}
    rows = LakeReader(locations).read("natural_log", where={"ds": DAYS[0]}).to_pylist()
    assert counts(locations, DAYS[0])["unknown_users_missing"] == sum(row["user_id"] == 3 for row in rows) == 3
    assert counts(locations, DAYS[0])["unknown_items_missing"] == sum(row["item_id"] == 4 for row in rows) == 2
    assert find_stale(locations) == []
    write(tmp_path / "users.csv", b"who,club\n3,1\n")
    assert {one.day for one in find_stale(locations) if one.table == "natural_log"} == set(DAYS)


def snapshot_files(folder: Path) -> tuple[SideSource, Callable[[date, int], None]]:
    def deliver(day: date, club: int) -> None:
        write(folder / f"dt={day}" / "u.csv", b"who,club\n" + b"".join(b"%d,%d\n" % (n, club) for n in range(7)))

    return SideSource(path=f"{folder}/dt={{day}}/", key="who", types={"club": "int"}, holds_days=2), deliver


def snapshot_table(folder: Path) -> tuple[SideSource, Callable[[date, int], None]]:
    def deliver(day: date, club: int) -> None:
        rows = {"who": list(range(7)), "club": [club] * 7, "dt": [day.isoformat()] * 7}
        write_deltalake(folder, pa.table(rows), mode="append", partition_by=["dt"])

    return SideSource(table=str(folder), day="dt", key="who", holds_days=2), deliver


@pytest.mark.parametrize("made", [snapshot_files, snapshot_table])
def test_a_snapshot_holds_from_the_end_of_its_day(spark: Any, tmp_path: Path, made: Any) -> None:
    source, deliver = made(tmp_path / "users")
    deliver(DAYS[0] - timedelta(days=3), 5)  # too old for the first day
    deliver(DAYS[0], 20)
    locations, deployment = deployed(tmp_path / "home", source, user_segment_id=SEGMENT)
    late = [good_row(500, day=DAYS[0], user_id="1"), good_row(501, day=DAYS[1], user_id="1")]
    write(locations.landing_day("natural", DAYS[1]) / "late.csv", csv_bytes(late))
    for day in reversed(DAYS):  # each by itself
        ingest_logs.run(spark, locations, deployment, [day])
    rows = LakeReader(locations).read("natural_log").to_pylist()
    by_day = {day: {row["user_segment_id"] for row in rows if row["event_ts"].date() == day} for day in DAYS}
    assert by_day == {DAYS[0]: {0}, DAYS[1]: {21}, DAYS[2]: {21}}
    assert counts(locations, DAYS[0])["unknown_users_missing"] == 20
    assert counts(locations, DAYS[1])["unknown_users_missing"] == 1  # the late row of the first day
    assert find_stale(locations) == []

    deliver(DAYS[1], 30)
    assert {one.day for one in find_stale(locations) if one.table == "natural_log"} == {DAYS[2]}
    ingest_logs.run(spark, locations, deployment, DAYS)
    assert {day: set().union(*values(locations, "user_segment_id", "user_id", day).values()) for day in DAYS[1:]} == {
        DAYS[1]: {0, 21},
        DAYS[2]: {31},
    }
    assert find_stale(locations) == []


@pytest.mark.parametrize("is_table", [False, True])
def test_a_row_holds_from_its_time_until_the_next(spark: Any, tmp_path: Path, is_table: bool) -> None:
    """Rows of `good_row` happen n seconds and a quarter after ten o'clock."""
    at = [datetime(2026, 1, 1, tzinfo=UTC), *(datetime(2026, 1, 2, 10, 1, second, tzinfo=UTC) for second in (45, 49))]
    at[2] += timedelta(milliseconds=250)
    versions = [{"who": who, "club": club, "since": time} for who in range(6) for club, time in enumerate(at)]
    rows = pa.Table.from_pylist(
        versions, pa.schema([("who", pa.int32()), ("club", pa.int64()), ("since", pa.timestamp("us", "UTC"))])
    )
    if is_table:
        write_deltalake(tmp_path / "users", rows)
        source = SideSource(table=f"{tmp_path}/users", key="who", since="since")
    else:
        pa_parquet.write_table(rows, tmp_path / "users.parquet")
        source = SideSource(path=f"{tmp_path}/users.parquet", key="who", since="since")
    locations, deployment = deployed(tmp_path / "home", source, user_segment_id=SEGMENT)
    ingest_logs.run(spark, locations, deployment, DAYS)
    for row in LakeReader(locations).read("natural_log").to_pylist():
        second = row["event_id"] - 100
        second_day = 3 if second >= 9 else 2 if second >= 5 else 1
        expected = {DAYS[0]: 1, DAYS[1]: second_day, DAYS[2]: 3}[row["ds"]]
        assert row["user_segment_id"] == (0 if row["user_id"] == 6 else expected), row
    later = rows.set_column(2, "since", pa.array([datetime(2026, 1, 9, tzinfo=UTC)] * len(rows), rows.schema[2].type))
    if is_table:  # what the table says of its files tells that no day reads the new one
        write_deltalake(tmp_path / "users", later, mode="append")
        assert find_stale(locations) == []
    else:
        pa_parquet.write_table(pa.concat_tables([rows, later]), tmp_path / "users.parquet")
        assert {one.day for one in find_stale(locations) if one.table == "natural_log"} == set(DAYS)


@pytest.mark.parametrize(
    ("source", "columns", "message"),
    [
        (
            {"key": "whom"},
            {},
            r"users.csv: whom: expected a column of this name in the header .* found columns who, club",
        ),
        (
            {"key": "who.id"},
            {},
            r"\[landing.users\]: key: expected an expression over the columns of .*, found 'who.id'",
        ),
        ({"key": "array(who)"}, {}, r"\[landing.users\]: key: expected .*, found the type array<string>"),
        (
            {"key": "who", "since": "cast(club AS int)"},
            {},
            r"\[landing.users\]: since: expected an ISO-8601 time.*timestamp_millis",
        ),
        ({"key": "who"}, {"user_segment_id": "users.clubs"}, r"users.csv: clubs: expected a column of this name"),
        (
            {"key": "who"},
            {"user_segment_id": "users.club.size"},
            r"\[landing.natural\]: columns.user_segment_id: expected",
        ),
        (
            {"key": "who", "path": "/nowhere/*.csv"},
            {},
            r"\[landing.users\]: path: expected at least one file, found none",
        ),
    ],
)
def test_a_side_table_that_does_not_fit_is_named(
    spark: Any, tmp_path: Path, source: dict[str, str], columns: dict[str, str], message: str
) -> None:
    write(tmp_path / "users.csv", b"who,club\n0,7\n")
    users = SideSource(**{"path": f"{tmp_path}/users.csv", **source})  # type: ignore[arg-type]
    locations, deployment = deployed(tmp_path / "home", users, **({"user_segment_id": SEGMENT} | columns))
    with pytest.raises(BadInput, match=message):
        ingest_logs.run(spark, locations, deployment, DAYS)


def test_files_of_other_types_are_refused(spark: Any, tmp_path: Path) -> None:
    pa_parquet.write_table(pa.table({"who": [1], "club": [1]}), tmp_path / "a.parquet")
    pa_parquet.write_table(pa.table({"who": [2], "club": ["1"]}), tmp_path / "b.parquet")
    users = SideSource(path=f"{tmp_path}/*.parquet", key="who")
    locations, deployment = deployed(tmp_path / "home", users, user_segment_id=SEGMENT)
    with pytest.raises(BadInput, match=r"\[landing.users\]: path: expected files whose columns have the same types"):
        ingest_logs.run(spark, locations, deployment, DAYS)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            '[landing.users]\npath = "/u.csv"',
            r"\[landing.users\]: key: expected a text in quotation marks, found nothing",
        ),
        ('[landing.users]\nkey = "id"', r"\[landing.users\]: path: expected where the rows lie"),
        (
            '[landing.users]\nkey = "id"\npath = "/u.csv"',
            r"\[landing.users\]: key: expected columns of the logs that read users.x",
        ),
        (
            '[landing.users]\nkey = "id"\npath = "/u.csv"\nday = "dt"\n[landing.ad.columns]\nuser_segment_id = "users.a"',
            r"\[landing.users\]: day: expected a day of a Delta table",
        ),
        (
            '[landing.users]\nkey = "id"\npath = "/{day}/"\nsince = "t"\n[landing.ad.columns]\nuser_segment_id = "users.a"',
            r"\[landing.users\]: since: expected either rows with the time",
        ),
        (
            '[landing.users]\nkey = "id"\npath = "/u.csv"\n[landing.ad.columns]\nclick = "users.a"',
            r"\[landing.ad\]: columns.click: expected columns of the log only",
        ),
        (
            '[landing.users]\nkey = "id"\npath = "/u.csv"\n[landing.ad]\nwhere = "users.a = 1"',
            r"\[landing.ad\]: where: expected columns of the log only",
        ),
        ('[landing.users]\nkey = "rand()"\npath = "/u.csv"', r"\[landing.users\]: key: expected an SQL expression"),
    ],
)
def test_settings_of_side_tables_that_cannot_hold(section: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Deployment.from_toml(f"history_start = {DAYS[0]}\nactr_start = {DAYS[0]}\n{section}\n")
