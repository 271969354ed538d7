"""Great Expectations judges real Delta tables over Spark: each kind of damage breaks its own check and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from contracts.errors import EXIT_OK, EXIT_QUALITY_FAILED, run_command
from contracts.features import BEHAVIOUR_TYPE, LOGS, STATISTICS, Log, features_in_log
from contracts.locations import Locations
from contracts.settings import Deployment
from contracts.tables import TABLES, owner_key
from lake.reader import LakeReader
from validation import cli
from validation.figures import Measured
from validation.report import write_report
from validation.verdict import Verdict

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [
    pytest.mark.spark,
    pytest.mark.filterwarnings("default"),
]  # Great Expectations and py4j warn of themselves

GOOD, BAD, EMPTY = date(2026, 1, 1), date(2026, 1, 2), date(2026, 1, 3)
DAYS = (GOOD, BAD, EMPTY)
DEPLOYMENT = Deployment(history_start=GOOD, actr_start=GOOD)
ROWS, LATE = 200, 3
COUNTS = {"read": ROWS + 3, "kept": ROWS, "duplicates": 2, "conflicting_duplicates": 1, "quarantined": 1, "late": LATE}


def log_row(log: Log, day: date, i: int) -> dict[str, Any]:
    seen = datetime(day.year, day.month, day.day, 10, tzinfo=UTC) + timedelta(seconds=i) - timedelta(days=int(i < LATE))
    return {
        "event_id": i,
        "event_ts": seen,
        "arrival_ts": None,
        "request_id": i // 5,
        **{f.name: i % 7 for f in features_in_log(log)},
        "user_id": 50_000 + i,
        "click": int(i % 4 == 0),
        "action": int(i % 4 == 0),
        "dwell_seconds": 1.5 + i % 9,
        "item_text": None,
        "late": i < LATE,
        "ds": day,
    }


def sample_row(log: Log, day: date, i: int) -> dict[str, Any]:
    row = log_row(log, day, i)
    return row | {
        "sample_ts": row["event_ts"],
        "hour": 10,
        "history_end": i % 3,
        "held_out": False,
        "item_text_hash": 7 + i,
        **{name: 1 for statistic in STATISTICS for name in statistic.columns},
    }


def history_row(day: date, i: int, *, size: int, seconds_before: int = 86_400) -> dict[str, Any]:
    """A user's history; the last behaviour lies so long before the user's sample."""
    last = log_row("natural", day, i)["event_ts"] - timedelta(seconds=seconds_before)
    values = {"log": "natural", "item_id": 1, "category_id": 1, "action": 1, "dwell_seconds": 1.0, "text_hash": None}
    names = re.findall(r"(\w+):", BEHAVIOUR_TYPE)
    times = [last - timedelta(seconds=size - 1 - place) for place in range(size)]
    behaviours = [values | {"event_ts": time, "event_id": place} for place, time in enumerate(times)]
    return {
        "user_id": 50_000 + i,
        "behaviours": [tuple(behaviour[name] for name in names) for behaviour in behaviours],
        "ds": day,
    }


def damaged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A null, a negative and an illegal value, an event_id that stands twice, and one segment for all."""
    for row in rows:
        row["user_segment_id"] = 0
    rows[10]["item_id"] = None
    rows[11]["user_id"] = -48213
    rows[12]["click"] = 3
    rows[13]["event_id"] = rows[14]["event_id"]
    return rows


@pytest.fixture(scope="module")
def locations(tmp_path_factory: pytest.TempPathFactory) -> Locations:
    return Locations(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def lake(spark: SparkSession, locations: Locations) -> Locations:
    """A good, a damaged and an empty day of the natural log; samples of the ad log that lost a row and look ahead."""
    for log in LOGS:
        rows = [log_row(log, GOOD, i) for i in range(ROWS)] + damaged([log_row(log, BAD, i) for i in range(ROWS)])
        empty = {"read": 0, "kept": 0, "duplicates": 0, "quarantined": 0, "late": 0}
        counts = {owner_key(ds=day): COUNTS for day in (GOOD, BAD)} | {owner_key(ds=EMPTY): empty}
        put(spark, locations, f"{log}_log", rows, counts=counts)
    (locations.home / "deployment.toml").write_text(DEPLOYMENT.to_toml())
    wrong = {(BAD, 90), (BAD, 91), (BAD, 92)}
    histories = [history_row(day, i, size=i % 3) for day in (GOOD, BAD) for i in range(ROWS) if (day, i) not in wrong]
    histories += [
        history_row(BAD, 90, size=1),
        history_row(BAD, 91, size=1, seconds_before=600),
        history_row(BAD, 92, size=1),
    ]
    put(spark, locations, "user_histories", histories)
    samples = [sample_row("ad", GOOD, i) for i in range(LATE, ROWS)]
    samples += [sample_row("ad", BAD, i) for i in range(LATE + 1, ROWS)]
    samples[-1]["sample_ts"] += timedelta(seconds=1)
    put(spark, locations, "ad_samples", samples)
    return locations


def put(
    spark: SparkSession, locations: Locations, name: str, rows: list[dict[str, Any]], *, counts: Any = None
) -> None:
    from lake.writing import replace_partitions

    contract = TABLES[name]
    df = spark.createDataFrame(
        [tuple(row[column] for column in contract.column_names) for row in rows], schema=contract.ddl
    )
    replace_partitions(spark, locations, name, df, owners=[{"ds": day} for day in DAYS], counts=counts)


def failed(verdict: Verdict) -> dict[str, str]:
    return {result.id: result.found for result in verdict.results if not result.success and result.severity == "fail"}


@pytest.fixture
def command(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command line, on this run's session: one of its own would end it."""

    @contextmanager
    def shared(*arguments: Any, **settings: Any) -> Iterator[SparkSession]:
        yield spark

    monkeypatch.setattr("lake.session.writing_session", shared)
    return lambda *arguments: run_command(cli.main, list(arguments))


def test_a_good_day_passes_and_leaves_report_and_results(
    lake: Locations, command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        command("run", "--table", "natural_log", "--table", "ad_samples", "--ds", str(GOOD), "--home", str(lake.home))
        == EXIT_OK
    )
    addresses = re.findall(r"file://(\S+)", capsys.readouterr().out)
    assert [Path(address).is_file() for address in addresses] == [True] * 3  # the index and two reports
    rows = LakeReader(lake).read("quality_results", where={"ds": GOOD}).to_pylist()
    assert {row["table_name"] for row in rows} == {"natural_log", "ad_samples"}
    assert len(rows) == 46 + 147 and all(row["success"] for row in rows)
    built = LakeReader(lake).builds("quality_results")
    assert built[owner_key(table_name="natural_log", ds=GOOD)]["counts"] == {"checks": 46, "failed": 0, "warned": 0}


def test_each_damage_breaks_its_own_check(spark: SparkSession, lake: Locations) -> None:
    from validation.runner import run

    found = failed(run(spark, lake, "natural_log", BAD))
    assert found == {
        "unique(event_id)": "2 of 200 rows, such as event_id 14",
        "not_null(item_id)": "1 of 200 rows",
        "range(user_id)": "1 of 200 rows, such as -99999",
        "allowed(click)": "1 of 200 rows, such as 3",
    }


def test_an_empty_day_fails_for_having_no_row_alone(spark: SparkSession, lake: Locations) -> None:
    from validation.runner import run

    verdict = run(spark, lake, "natural_log", EMPTY)
    assert failed(verdict) == {"rows": "0"}
    assert [result.id for result in verdict.failed("warn")] == ["rows_as_usual"]


def test_an_empty_day_before_advertisements_began_passes(spark: SparkSession, lake: Locations) -> None:
    from validation.runner import run

    later = EMPTY + timedelta(days=1)
    began = replace(DEPLOYMENT, actr_start=later, ad_start=later)
    assert failed(run(spark, lake, "ad_log", EMPTY, deployment=began)) == {}
    assert failed(run(spark, lake, "ad_log", EMPTY, deployment=replace(began, ad_start=EMPTY))) == {"rows": "0"}
    assert failed(run(spark, lake, "natural_log", EMPTY, deployment=began)) == {"rows": "0"}


def test_samples_that_lost_a_row_or_look_ahead_fail(spark: SparkSession, lake: Locations) -> None:
    from validation.runner import run

    found = failed(run(spark, lake, "ad_samples", BAD))
    assert set(found) == {
        "rows_of_log",
        "point_in_time(sample_ts)",
        "history_ends_inside(history_end)",
        "nothing_later_seen(history_end)",
        "nothing_earlier_unseen(history_end)",
    }
    # Of three users: a behaviour that the sample does not see, one that is exactly as old as the delay, one that is not
    # there.
    assert [
        found[f"{name}(history_end)"]
        for name in ("nothing_earlier_unseen", "nothing_later_seen", "history_ends_inside")
    ] == ["1", "1", "1 (longest 2)"]
    assert found["rows_of_log"] == "-1"
    assert found["point_in_time(sample_ts)"].startswith(
        "1 of 196 rows, such as 2026-01-02 10:03:19 / 2026-01-02 10:03:20"
    )


def test_a_range_is_judged_at_once_and_names_its_bad_days(spark: SparkSession, lake: Locations) -> None:
    from validation.runner import run_range

    verdict = run_range(spark, lake, "natural_log", GOOD, EMPTY)
    assert [day.rows for day in verdict.days] == [ROWS, ROWS, 0]
    (constant,) = (result for result in verdict.results if result.name == "constant_columns")
    assert (constant.success, constant.found) == (False, "user_segment_id 0 on 1 of 3 days (2026-01-02)")
    found = failed(verdict)
    assert found["rows"] == "1 of 3 days: 2026-01-03 (0)"
    assert (
        found["unique(event_id)"] == "2 of 400 rows, such as event_id 14"
    )  # equal event_ids of two days are no duplicates


def test_a_failed_day_stops_until_it_is_accepted_or_built_again(
    spark: SparkSession, lake: Locations, command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    day = ("--table", "ad_log", "--ds", str(BAD), "--home", str(lake.home))
    assert command("run", *day) == EXIT_QUALITY_FAILED
    report = lake.report("ad_log", BAD)
    assert capsys.readouterr().err.strip().endswith(report.as_uri())
    assert "stops the day" in report.read_text() and "48213" not in report.read_text()
    assert command("accept", *day, "--reason", "known outage") == EXIT_OK
    assert command("run", *day) == EXIT_OK
    rows = LakeReader(lake).read("quality_results", where={"table_name": "ad_log", "ds": BAD}).to_pylist()
    assert [row["found"] for row in rows if row["check_name"] == "accepted"] == ["known outage"]
    put(
        spark,
        lake,
        "ad_log",
        damaged([log_row("ad", BAD, i) for i in range(ROWS - 1)]),
        counts={owner_key(ds=BAD): COUNTS},
    )
    assert command("run", *day) == EXIT_QUALITY_FAILED


def test_a_missing_column_fails_and_what_needs_it_is_not_judged(spark: SparkSession, tmp_path: Path) -> None:
    from lake.writing import Build, record_builds
    from validation.runner import run

    locations, contract = Locations(tmp_path), TABLES["user_histories"]
    df = spark.createDataFrame([([], GOOD)], schema="behaviours array<string>, ds date")
    df.write.format("delta").partitionBy("ds").save(str(locations.table(contract.name)))
    record_builds(spark, locations, [Build(table_name=contract.name, owner=owner_key(ds=GOOD), row_cnt=1, digest="1")])
    found = failed(run(spark, locations, contract.name, GOOD, deployment=DEPLOYMENT))
    assert found["columns"] == "missing: user_id"
    assert {"unique(user_id)", "not_null(user_id)", "range(user_id)"} == {
        id for id, words in found.items() if "no such column" in words
    }


def test_a_failing_engine_is_no_verdict(spark: SparkSession, lake: Locations) -> None:
    from validation.runner import _expect
    from validation.suites import derive_suite

    (check,) = (check for check in derive_suite(TABLES["ad_log"]) if check.id == "range(position)")
    rows = spark.sql("SELECT CAST(raise_error('disk lost') AS BIGINT) AS position")
    with pytest.raises(RuntimeError, match=r"range\(position\): could not be judged"):
        _expect([check], rows, {"result_format": "BOOLEAN_ONLY"})


def test_an_event_belongs_to_the_day_of_the_deployments_time_zone(spark: SparkSession) -> None:
    from validation.measuring import measure

    local = replace(DEPLOYMENT, day_timezone="Asia/Shanghai", allowed_lateness_days=1)
    events = [
        ("2026-01-01 16:00:00", False),
        ("2026-01-02 15:59:59", False),
        ("2026-01-01 15:59:59", True),  # midnight is 16:00 UTC
        ("2026-01-01 15:59:59", False),
        ("2026-01-02 16:00:00", False),
        ("2026-01-01 16:00:00", True),
        ("2025-12-31 15:59:59", True),
    ]
    rows = spark.createDataFrame(events, "event_ts string, late boolean").selectExpr(
        "CAST(event_ts AS timestamp) AS event_ts", "late", "DATE '2026-01-02' AS ds"
    )
    assert measure(rows, TABLES["natural_log"], local)[BAD].rows_outside_day == 4


def test_values_are_counted_by_bucket(spark: SparkSession) -> None:
    from validation.measuring import measure

    values = [*range(70), 2**40, None]
    schema = "position bigint, history_end bigint, item_id bigint, ds date"
    rows = spark.createDataFrame([(value, value, value, GOOD) for value in values], schema)
    found = measure(rows, TABLES["natural_log"], DEPLOYMENT)[GOOD]
    assert found.distributions["position"] == (*[1] * 63, 8, 1)  # itself, the last for all beyond, and the nulls
    assert sum(found.distributions["item_id"]) == len(values) and found.distributions["item_id"][-1] == 1
    magnitudes = measure(rows, TABLES["natural_samples"], DEPLOYMENT)[GOOD].distributions["history_end"]
    assert magnitudes[:8] == (1, 2, 4, 8, 16, 32, 7, 0) and magnitudes[40] == 1 and magnitudes[-1] == 1
    assert found.items == 71 and found.nulls == {}


def test_a_log_is_counted_by_user_item_and_hour(spark: SparkSession) -> None:
    """One user has 60 rows, one 40, ten 2 each; every other row is of item 1; half of the events are of 23:30 in Shanghai."""
    from validation.measuring import measure

    users = [1] * 60 + [2] * 40 + [user for user in range(3, 13) for _ in range(2)]
    rows = [
        log_row("natural", GOOD, 0)
        | {
            "event_id": place,
            "request_id": place // 3,
            "user_id": user,
            "item_id": 1 if place % 2 else 100 + place,
            "event_ts": datetime(2026, 1, 1, 15 if place % 2 else 16, 30, tzinfo=UTC),
            "category_id": None if place < 30 else 0 if place < 60 else 5,
            "position": 0,
            "item_text": "the same",
            "dwell_seconds": 0.0,
        }
        for place, user in enumerate(users)
    ]
    contract = TABLES["natural_log"]
    values = [tuple(row[name] for name in contract.column_names) for row in rows]
    frame = spark.createDataFrame(values, schema=contract.ddl)
    local = replace(DEPLOYMENT, day_timezone="Asia/Shanghai")
    for most_rows in (0, 4_000_000):  # of a large day only the spreads are sampled
        found = measure(frame, contract, local, most_rows=most_rows)[GOOD]
        assert (found.users, found.items, found.requests) == (12, 61, 40)
        assert found.impressions_mean == {"user": 10.0, "item": pytest.approx(120 / 61), "request": 3.0}
        assert found.impressions_p50 == {"user": 2.0, "item": 1.0, "request": 3.0}
        assert found.impressions_p95 == {"user": pytest.approx(49.0), "item": 1.0, "request": 3.0}  # between 40 and 60
        assert found.impressions_max == {"user": 60, "item": 60, "request": 3}
        assert found.hours == (60, *[0] * 22, 60)
        assert found.unknowns == {
            "user_id": 0,
            "item_id": 0,
            "category_id": 60,
            "user_segment_id": 120,
            "position": 0,  # the top of the page
        }
        assert {name: found.constant.get(name) for name in ("position", "dwell_seconds", "item_text", "user_id")} == {
            "position": "0",
            "dwell_seconds": "0",
            "item_text": "one text",
            "user_id": None,
        }
        # Never delivered, two values, and two columns that no team delivers.
        assert not {"arrival_ts", "category_id", "late", "ds"} & set(found.constant)
        assert sum(found.distributions["position"]) == (120 if not most_rows else pytest.approx(30, abs=20))


def test_users_and_items_are_shared_with_the_natural_log_of_the_week(spark: SparkSession) -> None:
    from validation.measuring import with_shared

    last = GOOD + timedelta(days=8)
    shown = [(1, 7, last), (1, 8, last), (2, 8, last), (2, 9, last), (1, 7, GOOD)]
    ads = spark.createDataFrame(shown, "user_id bigint, item_id bigint, ds date")
    natural = spark.createDataFrame(
        [
            ("user", 1, GOOD + timedelta(days=1)),
            ("user", 2, GOOD),
            ("user", 2, last + timedelta(days=1)),  # 7 days before, 8, after
            ("item", 7, last),
            ("item", 1, last),
            ("item", 2, last),
        ],
        "entity string, entity_id bigint, ds date",
    )
    found = with_shared({day: Measured() for day in (GOOD, last)}, ads, natural, 7)
    assert found[last].shared_users_share == 0.5
    assert found[last].shared_items_share == pytest.approx(1 / 3)
    assert (found[GOOD].shared_users_share, found[GOOD].shared_items_share) == (0.0, 0.0)


def test_histories_are_sorted_and_end_with_their_day(spark: SparkSession) -> None:
    from validation.measuring import measure

    good, swapped, ahead = (history_row(GOOD, 5, size=3, seconds_before=before) for before in (60, 60, -86_400))
    swapped["behaviours"].reverse()
    contract = TABLES["user_histories"]
    values = [tuple(row[name] for name in contract.column_names) for row in (good, swapped, ahead)]
    rows = spark.createDataFrame(values, schema=contract.ddl)
    found = measure(rows, contract, DEPLOYMENT)[GOOD]
    assert (found.rows, found.rows_unsorted, found.rows_after_day, found.history_max, found.history_p50) == (
        3,
        1,
        1,
        3,
        3,
    )


def test_days_before_are_measured_only_where_they_were_not_judged(
    spark: SparkSession, lake: Locations, monkeypatch: pytest.MonkeyPatch
) -> None:
    from validation import measuring
    from validation.runner import run

    calls: list[int] = []
    measure = measuring.measure

    def counted(*args: Any, **settings: Any) -> Any:
        calls.append(1)
        return measure(*args, **settings)

    monkeypatch.setattr(measuring, "measure", counted)
    for path in (lake.reports / "natural_log").glob("*.json"):
        path.unlink()
    alone = run(spark, lake, "natural_log", BAD).days[0]
    assert len(calls) == 2 and alone.compared_days == 1
    write_report(lake, run(spark, lake, "natural_log", GOOD))
    calls.clear()
    assert run(spark, lake, "natural_log", BAD).days[0] == alone
    assert len(calls) == 1
    assert alone.shared_users_share is None and run(spark, lake, "ad_log", BAD).days[0].shared_users_share == 1
