"""Training rows, point-in-time correct: an impression, what was known then, and how much of its user's history it sees."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from functools import partial, reduce

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from contracts.features import CANDIDATE_ACTION, ENTITIES, HELD_OUT_ONE_IN, LOGS, STATISTICS, Entity, Log
from contracts.locations import Locations
from contracts.settings import Deployment
from contracts.steps import maker
from contracts.tables import owner_key
from lake.partitions import read_partitions
from lake.persisted import persisted
from lake.reader import LakeReader
from lake.writing import Build, record_builds, write_partitions
from spark_jobs.side_by_side import side_by_side
from spark_jobs.texts import behaviour_text, text_hash


def run(spark: SparkSession, locations: Locations, deployment: Deployment, days: Sequence[date]) -> list[Build]:
    """Builds the natural and ad samples of consecutive days.

    Raises:
        ParentMissing: a day's log, histories or statistics were never built.
    """
    reader, owners = LakeReader(locations), [owner_key(ds=day) for day in days]
    span = f"--from {days[0]} --to {days[-1]}"
    read: dict[str, str] = {}
    for name in (*(f"{log}_log" for log in LOGS), "user_histories", "entity_statistics"):
        read |= reader.require_builds(name, owners, hint=f"Make it: tributary {maker(name)} {span}")

    rows = {log: on_time(read_partitions(spark, locations, f"{log}_log", days)) for log in LOGS}
    histories, statistics = (
        read_partitions(spark, locations, name, days) for name in ("user_histories", "entity_statistics")
    )
    of_logs = [aggregate_requests(rows[log]).withColumn("log", F.lit(log)) for log in LOGS]
    # Both logs share one pass over the histories, which are long; the result has one row per request.
    both = with_history_end(reduce(DataFrame.unionByName, of_logs), histories, deployment)

    def write(log: Log, requests: DataFrame) -> list[Build]:
        sources = (f"{log}_log", "user_histories", "entity_statistics")
        inputs = {owner: {f"{name}/{owner}": read[f"{name}/{owner}"] for name in sources} for owner in owners}
        samples = to_samples(rows[log], requests.where(F.col("log") == log).drop("log"), statistics, deployment)
        return write_partitions(
            spark, locations, f"{log}_samples", samples, owners=[{"ds": day} for day in days], inputs=inputs
        )

    with persisted(both) as requests:
        builds = [build for of_log in side_by_side([partial(write, log, requests) for log in LOGS]) for build in of_log]
    record_builds(spark, locations, builds)
    return builds


def partitions(days: Sequence[date], _: Deployment) -> dict[str, list[str]]:
    """What `run` writes, by table: its locks."""
    return {f"{log}_samples": [owner_key(ds=day) for day in days] for log in LOGS}


def on_time(rows: DataFrame) -> DataFrame:
    """Log rows that arrived on their own day: those that become samples."""
    return rows.where(~F.col("late"))


def to_samples(rows: DataFrame, requests: DataFrame, statistics: DataFrame, deployment: Deployment) -> DataFrame:
    """Log rows -> samples, one row per impression.

    Args:
        rows: rows of a log that arrived on their own day.
        requests: the requests of these rows, with `sample_ts` and `history_end`.
        statistics: entity_statistics of the same days.
        deployment: the deployment's settings, for its time zone.
    """
    samples = rows.join(requests, ["ds", "request_id", "user_id"])
    for entity in ENTITIES:
        samples = samples.join(_statistics_of(statistics, entity), ["ds", f"{entity}_id"], "left")
    counts = {
        name: F.coalesce(F.col(name), F.lit(0).cast("bigint")) for statistic in STATISTICS for name in statistic.columns
    }
    return samples.withColumns(
        {
            **counts,
            "hour": F.hour(F.from_utc_timestamp("event_ts", deployment.day_timezone)).cast("bigint"),
            "item_text_hash": text_hash(behaviour_text(F.lit(CANDIDATE_ACTION), F.col("item_text"))),
            "held_out": F.pmod(F.xxhash64("request_id"), F.lit(HELD_OUT_ONE_IN)) == 0,
        }
    )


def aggregate_requests(rows: DataFrame) -> DataFrame:
    """Log rows -> one row per (ds, request_id, user_id): `sample_ts`, the first event_ts, so that candidates share one history."""
    return rows.groupBy("ds", "request_id", "user_id").agg(F.min("event_ts").alias("sample_ts"))


def with_history_end(requests: DataFrame, histories: DataFrame, deployment: Deployment) -> DataFrame:
    """Requests with `history_end`: how many behaviours, oldest first, satisfy `event_ts + feedback_delay < sample_ts`.

    Requests and behaviours of a user are sorted together by time, and the behaviours before a request are counted: as
    cheap for a user with a million events as for a thousand users with a thousand. Behaviours known before the day
    begins count as one, since every request of the day sees them.
    """
    delay = F.make_dt_interval(secs=F.lit(deployment.feedback_delay_seconds))
    day_start = F.to_utc_timestamp(F.col("ds").cast("timestamp"), deployment.day_timezone)
    times = histories.select(
        "ds",
        "user_id",
        F.col("behaviours.event_ts").alias("times"),
        day_start.alias("day_start"),
        (day_start - delay).alias("known_before"),
    )
    times = times.withColumn("before_cnt", F.size(F.filter("times", lambda t: t < F.col("known_before"))))
    rest = F.slice("times", F.col("before_cnt") + 1, F.greatest(F.size("times"), F.lit(1)))
    earlier = F.struct(F.col("day_start").alias("t"), F.lit(0).alias("turn"), F.col("before_cnt").alias("counts"))
    of_day = F.transform(
        rest, lambda t: F.struct((t + delay).alias("t"), F.lit(2).alias("turn"), F.lit(1).alias("counts"))
    )
    behaved = times.select("ds", "user_id", F.inline(F.concat(F.array(earlier), of_day)))
    asked = requests.withColumnRenamed("sample_ts", "t").withColumns({"turn": F.lit(1), "counts": F.lit(0)})
    line = asked.unionByName(behaved, allowMissingColumns=True)
    # At equal times a request sorts before a behaviour, since it may see only what is strictly earlier.
    so_far = (
        Window.partitionBy("ds", "user_id")
        .orderBy("t", "turn")
        .rowsBetween(Window.unboundedPreceding, Window.currentRow)
    )
    counted = line.withColumn("history_end", F.sum("counts").over(so_far).cast("int")).where(F.col("turn") == 1)
    return counted.withColumnRenamed("t", "sample_ts").select(*requests.columns, "history_end")


def _statistics_of(statistics: DataFrame, entity: Entity) -> DataFrame:
    wanted = [s for s in STATISTICS if s.entity == entity]
    columns = [F.col(name.removeprefix(f"{entity}_")).alias(name) for s in wanted for name in s.columns]
    return statistics.where(F.col("entity") == entity).select("ds", F.col("entity_id").alias(f"{entity}_id"), *columns)
