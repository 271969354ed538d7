"""Any order of days, any split into jobs, twice, early or late: the same tables; and no sample knows what it could not know."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import features_reference as reference
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from landing_rows import Row, csv_bytes, good_row, write

from contracts import tables
from contracts.errors import ParentMissing
from contracts.features import LOGS
from contracts.locations import Locations
from contracts.settings import SETTINGS_FILE, Deployment
from lake.reader import LakeReader
from spark_jobs import build_partials, build_samples, build_statistics, build_user_histories, ingest_logs
from spark_jobs.build_statistics import plan_window
from spark_jobs.inputs import missing_partials
from spark_jobs.staleness import find_stale

pytestmark = pytest.mark.spark

START = date(2026, 1, 1)
DAYS = [START + timedelta(days=n) for n in range(5)]
DEPLOYMENT = Deployment(history_start=START, actr_start=DAYS[-1])
TABLES = (
    "natural_log",
    "ad_log",
    "quarantine",
    "behaviour_partials",
    "statistic_partials",
    "user_histories",
    "entity_statistics",
    "natural_samples",
    "ad_samples",
)
FEATURES = (build_user_histories, build_statistics, build_samples)
LOGS_AT_ONCE = 10  # examples that one build covers
IDS, IDS_APART = ("event_id", "request_id", "user_id", "item_id", "category_id"), 10_000


@st.composite
def small_log(draw: st.DrawFn) -> dict[tuple[str, date], list[Row]]:
    """Both logs of all days: few users and items, many ties in time, behaviours around midnight, late rows, repeats, bad rows, and
    arrivals at once, within the feedback delay, hours or days later, or unknown."""
    rows: dict[tuple[str, date], list[Row]] = {}
    number = 0
    seconds = st.sampled_from([0, 1, 599, 600, 601, 1200, 43_200, 43_200, 86_399])
    on_the_way = st.sampled_from([None, None, 0, 1, 600, 601, 7200, 43_200, 86_400, 2 * 86_400])
    for log in LOGS:
        for day in DAYS:
            of_day = []
            for _ in range(draw(st.integers(0, 6))):
                number += 1
                is_late = day > START and draw(st.integers(0, 9)) == 9
                seen = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(
                    seconds=draw(seconds), days=-1 if is_late else 0
                )
                click = draw(st.integers(0, 1))
                travelled = draw(on_the_way)
                arrival = "" if travelled is None else (seen + timedelta(seconds=travelled)).isoformat()
                of_day.append(
                    good_row(
                        number,
                        log=log,
                        event_ts=seen.isoformat(),
                        arrival_ts=arrival,
                        user_id=draw(st.integers(0, 3)),
                        item_id=draw(st.integers(0, 4)),
                        category_id=draw(st.integers(0, 1)),
                        request_id=number // 3,
                        click=click,
                        action=click,
                    )
                )
            of_day += [dict(row) for row in of_day if draw(st.integers(0, 9)) == 9]
            of_day += [row | {"click": "7"} for row in of_day[:1] if draw(st.booleans())]
            rows[log, day] = of_day
    return rows


def next_to_each_other(logs: list[dict[tuple[str, date], list[Row]]]) -> dict[tuple[str, date], list[Row]]:
    """The rows of logs that share no id, as one: what is built from it is built from each of them. No day is without a row."""
    rows: dict[tuple[str, date], list[Row]] = {
        (log, day): [good_row(number, log=log, event_ts=day.isoformat(), arrival_ts="")]
        for number, (log, day) in enumerate((log, day) for log in LOGS for day in DAYS)
    }
    for place, of_log in enumerate(logs, 1):
        for key, of_day in of_log.items():
            rows[key] += [row | {name: int(row[name]) + place * IDS_APART for name in IDS} for row in of_day]
    return rows


def land(home: Path, rows: dict[tuple[str, date], list[Row]], days: list[date]) -> Locations:
    locations = Locations(home)
    home.mkdir(parents=True, exist_ok=True)
    (home / SETTINGS_FILE).write_text(DEPLOYMENT.to_toml())
    for (log, day), of_day in rows.items():
        if day in days:
            write(locations.landing_day(log, day) / "a.csv", csv_bytes(of_day))
    return locations


def contents(locations: Locations, days: list[date]) -> dict[str, list[str]]:
    return {name: reference.content(locations, name, ds=days) for name in TABLES}


@settings(
    max_examples=int(os.environ.get("TRIBUTARY_EXAMPLES", LOGS_AT_ONCE)) // LOGS_AT_ONCE,
    derandomize=True,
    deadline=None,
    phases=[Phase.generate, Phase.shrink],
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(logs=st.lists(small_log(), min_size=LOGS_AT_ONCE, max_size=LOGS_AT_ONCE), seed=st.integers(0, 2**16))
def test_every_way_to_build_gives_the_same_tables(
    spark: Any,
    tmp_path_factory: pytest.TempPathFactory,
    checkpoints_every: Callable[[int], None],
    logs: list[dict[tuple[str, date], list[Row]]],
    seed: int,
) -> None:
    assume(all(any(of_log.values()) for of_log in logs))  # the first example that is tried has no row at all
    rows = next_to_each_other(logs)
    checkpoints_every(2)

    whole = land(tmp_path_factory.mktemp("range"), rows, DAYS)
    for job in (ingest_logs, build_partials, *FEATURES):
        job.run(spark, whole, DEPLOYMENT, DAYS)
    expected = contents(whole, DAYS)
    assert_point_in_time(whole)

    order = random.Random(seed)
    early, late = DAYS[:3], DAYS[3:]
    alone = land(tmp_path_factory.mktemp("alone"), rows, early)  # the later files have not landed yet
    for day in order.sample(early, len(early)):  # each day is a live one: nothing of the days after it is looked at
        ingest_logs.run(spark, alone, DEPLOYMENT, [day])
    build_partials.run(spark, alone, DEPLOYMENT, early)
    for job in FEATURES:
        job.run(spark, alone, DEPLOYMENT, [DAYS[2]])
    assert contents(alone, [DAYS[2]]) == contents(whole, [DAYS[2]])
    assert {name: reference.content(alone, name, ds=early) for name in TABLES[:5]} == {
        name: reference.content(whole, name, ds=early) for name in TABLES[:5]
    }
    land(alone.home, rows, late)
    for day in [*order.sample(late, len(late)), DAYS[1]]:  # and an earlier one after them, again
        ingest_logs.run(spark, alone, DEPLOYMENT, [day])
    build_partials.run(spark, alone, DEPLOYMENT, late)
    for day in (DAYS[-1], DAYS[2]):  # a backfill, and an earlier day after it, again
        for job in FEATURES:
            job.run(spark, alone, DEPLOYMENT, [day])
    for day in (DAYS[-1], DAYS[2]):
        assert contents(alone, [day]) == contents(whole, [day]), day
    assert {name: reference.content(alone, name) for name in TABLES[:5]} == {
        name: expected[name] for name in TABLES[:5]
    }


def assert_point_in_time(locations: Locations) -> None:
    """Histories, statistics and `history_end` equal a scan of the whole log; nothing younger than the delay is seen."""
    rows = reference.logs(locations)
    arrivals = {(row.log, row.event_id): row.arrival_ts for row in rows.itertuples() if not pd.isna(row.arrival_ts)}
    reader = LakeReader(locations)
    for day in DAYS:
        stored = reader.read("user_histories", where={"ds": day}).to_pylist()
        assert {row["user_id"]: [b["event_id"] for b in row["behaviours"]] for row in stored} == reference.histories(
            rows, day, DEPLOYMENT
        )
        found = {
            (row.pop("entity"), row.pop("entity_id")): {k: v for k, v in row.items() if k != "ds"}
            for row in reader.read("entity_statistics", where={"ds": day}).to_pylist()
        }
        assert found == reference.statistics(rows, day)
        of_user = {row["user_id"]: row["behaviours"] for row in stored}
        for log in LOGS:
            samples = reader.read(f"{log}_samples", where={"ds": day}).to_pylist()
            assert {row["event_id"]: row["history_end"] for row in samples} == reference.history_ends(
                rows, log, day, DEPLOYMENT
            )
            for row in samples:
                before = row["sample_ts"] - timedelta(days=1)
                seen = of_user.get(row["user_id"], [])[: row["history_end"]]
                assert all(
                    b["event_ts"] + timedelta(seconds=DEPLOYMENT.feedback_delay_seconds) < row["sample_ts"]
                    for b in seen
                )
                assert all(arrivals.get((b["log"], b["event_id"]), before) < row["sample_ts"] for b in seen)
                assert row["event_id"] not in {b["event_id"] for b in seen if b["log"] == log}


def test_a_user_with_a_million_events_in_a_day(spark: Any) -> None:
    """A robot: its day is one row of histories, and each of its requests is placed in it, in time n log n."""
    from pyspark.sql import functions as F

    from spark_jobs.build_partials import aggregate_behaviours

    count = 1_000_000
    start = F.to_timestamp(F.lit("2026-01-02 00:00:00"))
    events = spark.range(count).select(
        F.lit(DAYS[1]).alias("ds"),
        F.lit(7).cast("bigint").alias("user_id"),
        *(F.col("id").alias(n) for n in ("event_id", "request_id")),
        (start + F.make_dt_interval(secs=F.col("id") * 86_000 / count)).alias("event_ts"),
        F.lit(1).cast("bigint").alias("item_id"),
        F.lit(1).cast("bigint").alias("category_id"),
        F.lit(1).alias("action"),
        F.lit(1.0).alias("dwell_seconds"),
        F.lit(None).cast("string").alias("item_text"),
        F.lit(None).cast("timestamp").alias("arrival_ts"),
    )
    histories = aggregate_behaviours(events, "natural", DEPLOYMENT.feedback_delay_seconds).select(
        "ds", "user_id", "behaviours"
    )
    ends = build_samples.with_history_end(build_samples.aggregate_requests(events), histories, DEPLOYMENT)
    ((last, total, smallest),) = ends.agg(F.max("history_end"), F.count(F.lit(1)), F.min("history_end")).collect()
    assert (total, smallest) == (count, 0)
    assert abs(last - (count - 600 * count / 86_000)) < 20  # all but those of the last ten minutes


@pytest.mark.parametrize(
    ("day", "window", "start", "base", "taken"),
    [
        (date(2026, 1, 8), 7, date(2026, 1, 1), None, None),
        (date(2026, 2, 5), 30, date(2026, 1, 6), date(2026, 1, 31), None),
        (date(2026, 3, 5), 30, date(2026, 2, 3), date(2026, 3, 2), date(2026, 1, 31)),
        (date(2026, 8, 1), 180, date(2026, 2, 2), date(2026, 7, 30), date(2026, 1, 31)),
    ],
)
def test_a_window_is_summed_by_its_own_days_or_by_running_totals(
    day: date, window: int, start: date, base: date | None, taken: date | None
) -> None:
    plan = plan_window(day, window, DEPLOYMENT)
    assert (plan.start, plan.base, plan.taken) == (start, base, taken)


def test_a_behaviour_counts_once_it_has_arrived(spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event of 22:00 that arrived at 15:00 of the next day; and partials of rules that did not ask for arrivals."""

    def row(number: int, seen: str, arrived: str, *, click: int) -> Row:
        return good_row(
            number, event_ts=seen, arrival_ts=arrived, user_id=1, request_id=number, click=click, action=click
        )

    first, second = DAYS[:2]
    rows = {
        ("natural", first): [row(1, "2026-01-01T10:00:00Z", "2026-01-01T10:00:01Z", click=1)],
        ("natural", second): [
            row(2, "2026-01-01T22:00:00Z", "2026-01-02T15:00:00Z", click=1),
            row(3, "2026-01-02T09:00:00Z", "2026-01-02T09:00:01Z", click=0),
            row(4, "2026-01-02T15:00:00Z", "2026-01-02T15:00:00Z", click=0),
            row(5, "2026-01-02T15:00:01Z", "2026-01-02T15:00:01Z", click=0),
        ],
        **{("ad", day): [good_row(10, log="ad", event_ts=f"{day}T12:00:00Z", user_id=2)] for day in (first, second)},
    }
    locations = land(tmp_path, rows, [first, second])
    ingest_logs.run(spark, locations, DEPLOYMENT, [first, second])
    with monkeypatch.context() as before:
        before.setattr(tables.Table, "rules_input", {})
        build_partials.run(spark, locations, DEPLOYMENT, [first, second])
    missing = missing_partials(LakeReader(locations), DEPLOYMENT, second)
    assert missing is not None and missing.periods == (first, second)
    assert {(one.table, one.changed) for one in find_stale(locations)} == {
        ("behaviour_partials", ("rules/behaviour_partials",))
    }
    expected = (
        r"behaviour_partials: expected a build of ds=2026-01-01,log=natural and 3 more, found one that an earlier version of its "
        r"job made, .*Make it: tributary spark_jobs build_partials --from"
    )
    with pytest.raises(ParentMissing, match=expected):
        build_user_histories.run(spark, locations, DEPLOYMENT, [second])
    build_partials.run(spark, locations, DEPLOYMENT, [first, second])
    assert missing_partials(LakeReader(locations), DEPLOYMENT, second) is None and find_stale(locations) == []
    for job in FEATURES:
        job.run(spark, locations, DEPLOYMENT, [second])
    samples = LakeReader(locations).read("natural_samples", where={"ds": second}).to_pylist()
    assert {one["event_id"]: one["history_end"] for one in samples} == {3: 1, 4: 1, 5: 2}
