"""Training rows, thin and point in time: an impression, what was known then, how far into its user's history it sees."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from contracts.features import ENTITIES, HELD_OUT_ONE_IN, LOGS, STATISTICS, Entity
from contracts.locations import Locations
from contracts.settings import Deployment
from contracts.tables import owner_key
from lake.reader import LakeReader
from lake.writing import Build, read_delta, record_builds, write_partitions

# Which job makes what is read here: for the message when it is missing.
MADE_BY = {"user_histories": "build_user_histories", "entity_statistics": "build_statistics",
           **{f"{log}_log": "ingest_logs" for log in LOGS}}


def run(spark: SparkSession, locations: Locations, deployment: Deployment, days: Sequence[date]) -> list[Build]:
    """Builds the natural and ad samples of consecutive days.

    Raises:
        ParentMissing: a day's log, histories or statistics were never built.
    """
    reader, owners = LakeReader(locations), [owner_key(ds=day) for day in days]
    span = f"--from {days[0]} --to {days[-1]}"
    read: dict[str, str] = {}
    for name, job in MADE_BY.items():
        read |= reader.require_builds(name, owners, hint=f"Make it: tributary spark_jobs {job} {span}")
    builds = []
    for log in LOGS:
        sources = (f"{log}_log", "user_histories", "entity_statistics")
        inputs = {owner: {f"{name}/{owner}": read[f"{name}/{owner}"] for name in sources} for owner in owners}
        rows, histories, statistics = (read_delta(spark, locations, name).where(F.col("ds").between(F.lit(days[0]), F.lit(days[-1])))
                                       for name in sources)
        samples = to_samples(rows, histories, statistics, deployment)
        builds += write_partitions(spark, locations, f"{log}_samples", samples, owners=[{"ds": day} for day in days], inputs=inputs)
    record_builds(spark, locations, builds)
    return builds


def partitions(days: Sequence[date], _: Deployment) -> dict[str, list[str]]:
    """What `run` writes, by table: its locks."""
    return {f"{log}_samples": [owner_key(ds=day) for day in days] for log in LOGS}


def to_samples(rows: DataFrame, histories: DataFrame, statistics: DataFrame, deployment: Deployment) -> DataFrame:
    """Log rows -> samples: one row an impression that arrived on its own day.

    Args:
        rows: a log.
        histories: user_histories of the same days.
        statistics: entity_statistics of the same days.
        deployment: time zone and feedback delay.
    """
    rows = rows.where(~F.col("late"))
    requests = with_history_end(aggregate_requests(rows), histories, deployment.feedback_delay_seconds)
    samples = rows.join(requests, ["ds", "request_id", "user_id"])
    for entity in ENTITIES:
        samples = samples.join(_statistics_of(statistics, entity), ["ds", f"{entity}_id"], "left")
    counts = {name: F.coalesce(F.col(name), F.lit(0).cast("bigint")) for statistic in STATISTICS for name in statistic.columns}
    return samples.withColumns({
        **counts,
        "hour": F.hour(F.from_utc_timestamp("event_ts", deployment.day_timezone)).cast("bigint"),
        "held_out": F.pmod(F.xxhash64("request_id"), F.lit(HELD_OUT_ONE_IN)) == 0,
    })


def aggregate_requests(rows: DataFrame) -> DataFrame:
    """Log rows -> one row per (ds, request_id, user_id): `sample_ts`, the first event_ts, so that candidates share one history."""
    return rows.groupBy("ds", "request_id", "user_id").agg(F.min("event_ts").alias("sample_ts"))


def with_history_end(requests: DataFrame, histories: DataFrame, feedback_delay_seconds: int) -> DataFrame:
    """Adds `history_end`: how many behaviours, oldest first, satisfy `event_ts + feedback_delay < sample_ts`."""
    times = histories.select("ds", "user_id", F.col("behaviours.event_ts").alias("times"))
    joined = requests.join(times, ["ds", "user_id"], "left")
    visible = F.expr(f"size(filter(times, t -> t < sample_ts - make_dt_interval(0, 0, 0, {feedback_delay_seconds})))")
    return joined.withColumn("history_end", F.coalesce(F.when(F.col("times").isNotNull(), visible), F.lit(0)).cast("int")).drop("times")


def _statistics_of(statistics: DataFrame, entity: Entity) -> DataFrame:
    wanted = [s for s in STATISTICS if s.entity == entity]
    columns = [F.col(name.removeprefix(f"{entity}_")).alias(name) for s in wanted for name in s.columns]
    return statistics.where(F.col("entity") == entity).select("ds", F.col("entity_id").alias(f"{entity}_id"), *columns)
