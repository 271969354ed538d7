"""Which texts of a landing file are times, and what is reported about those that are none."""

from __future__ import annotations

from typing import Any

import pytest

from spark_jobs import times

pytestmark = pytest.mark.spark

TIMES = {
    **{
        f"2026-03-01T09:30{offset}": "2026-03-01 09:30:00"
        for offset in ("", "Z", "+00", "+0000", "-00:00", ":00Z", ":00.000Z", ":00 UTC", ":00GMT")
    },
    **{
        f"2026-03-01T09:30{offset}": "2026-03-01 08:30:00"
        for offset in ("+01", "+0100", "+01:00", ":00+01", ":00+0100", ":00+01:00", ":00 +1:00")
    },
    "2026-03-01 09:30": "2026-03-01 09:30:00",
    "2026-03-01 09:30:15": "2026-03-01 09:30:15",
    " 2026-03-01T09:30:15Z ": "2026-03-01 09:30:15",
    "2026-03-01": "2026-03-01 00:00:00",
    "2026-3-1 9:5:7": "2026-03-01 09:05:07",
    "2026-3-1T9:5:7Z": "2026-03-01 09:05:07",
    "2026-03-01T09:30:00.123456789Z": "2026-03-01 09:30:00.123456",
    "2026-03-01T09:30:00.25": "2026-03-01 09:30:00.25",
    "0001-01-01T00:00:00Z": "0001-01-01 00:00:00",
    "9999-12-31T23:59:59.999999Z": "9999-12-31 23:59:59.999999",
}
CLOCKS = ("10:30", "T10:30", "10:30:00", "T10:30:00Z", "1:30", "9:30:00+01:00")
ZONES = (
    "2026-03-01T09:30:00 BST",
    "2026-03-01T09:30:00CST",
    "2026-03-01 09:30:00 EST",
    "2026-03-01T09:30:00NZ",
    "2026-3-1 9:5:07AST",
    "2026-03-01T09:30:00UTC+1",
    "2026-03-01T09:30:00EST5EDT",
    "2026-03-01T09:30:00 Europe/Berlin",
    "2026-03-01T09:30:00+01:00[Europe/Berlin]",
    "2026-3-1 9:5:7UTC+1",
    "2026-03-01T09:30 PST",
    "2026-3-1 10:5:7 GMT+01:00",
)
NO_TIMES = (
    "now",
    "today",
    "tomorrow",
    "yesterday",
    "epoch",
    "soon",
    "2026",
    "2026-03",
    "20260301T093000Z",
    "1772357400",
    "2026-060",
    "2026-W10-1",
    "2026-02-30T10:00:00Z",
    "2026-02-29",
    "2026-03-01T24:00:00Z",
    "2026-03-01T23:59:60Z",
    "2026-03-01T25:00Z",
    "2026-03-01T09:30:00+18:30",
    "2026-03-01T",
    "2026-03-01T09Z",
    "2026-03-01Z",
    "2026-03-01+01:00",
    "2026-03-01T09:30:00,123Z",
    "002026-03-02T09:30:00Z",
    "12026-03-01T10:00:00Z",
    "+12026-03-01T10:00:00Z",
    "-0001-03-01T10:00:00Z",
    "0000-03-01T10:00:00Z",
    "0000-03-01T10:00:00",
    "",
)


def test_what_is_a_time_and_what_is_said_of_the_rest(spark: Any) -> None:
    from pyspark.sql import functions as F

    texts = [*TIMES, *CLOCKS, *ZONES, *NO_TIMES]
    value, (clock, zone) = F.expr(times.timestamp_of("text")), map(F.expr, times.faults("text").values())
    fault = F.when(value.isNotNull(), "none").when(clock, "clock").when(zone, "zone").otherwise("unknown")
    rows = spark.createDataFrame([(text,) for text in texts], "text string")
    rows = rows.select("text", value.cast("string").alias("value"), fault.alias("fault"))
    found = {row["text"]: (row["value"], row["fault"]) for row in rows.collect()}
    assert found == (
        {text: (value, "none") for text, value in TIMES.items()}
        | {text: (None, "clock") for text in CLOCKS}
        | {text: (None, "zone") for text in ZONES}
        | {text: (None, "unknown") for text in NO_TIMES}
    )


def test_sparks_own_cast_takes_what_depends_on_today_and_on_names_of_zones(spark: Any) -> None:
    """Spark 4.2.0, `try_cast`: why times have an expression of their own."""
    from pyspark.sql import functions as F

    texts = [
        "10:30",
        "T10:30:00Z",
        "2026-03-01T09:30:00 BST",
        "2026-03-01T09:30:00CST",
        "2026-03-01T09:30Z",
        "12026-03-01T10:00:00Z",
        "2026",
    ]
    rows = spark.createDataFrame([(text,) for text in texts], "text string")
    rows = rows.select("text", F.col("text").try_cast("timestamp").cast("string"))
    today = f"{spark.sql('SELECT current_date()').first()[0]} 10:30:00"
    found = dict(map(tuple, rows.collect()))
    assert {found.pop("10:30"), found.pop("T10:30:00Z")} == {today}
    assert found == {
        "2026-03-01T09:30:00 BST": "2026-03-01 03:30:00",
        "2026-03-01T09:30:00CST": "2026-03-01 15:30:00",
        "2026-03-01T09:30Z": None,
        "12026-03-01T10:00:00Z": "+12026-03-01 10:00:00",
        "2026": "2026-01-01 00:00:00",
    }
