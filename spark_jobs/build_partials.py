"""What each day contributes to later days: per user the day's positives, and per user, item and category its counts.

A partial depends only on its own day's log, so days may be built in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from functools import partial

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from contracts.features import BEHAVIOUR_TYPE, ENTITIES, LOGS, WHOLE_LOG, Log
from contracts.locations import Locations
from contracts.settings import Deployment
from contracts.tables import owner_key
from lake.partitions import read_partitions
from lake.reader import LakeReader
from lake.writing import Build, record_builds, write_partitions
from spark_jobs.side_by_side import side_by_side
from spark_jobs.texts import behaviour_text, text_hash


def run(spark: SparkSession, locations: Locations, deployment: Deployment, days: Sequence[date]) -> list[Build]:
    """Builds both partials of both logs.

    Raises:
        ParentMissing: a day's log was never ingested.
    """
    reader = LakeReader(locations)
    inputs: dict[str, dict[str, str]] = {}
    for log in LOGS:
        read = reader.require_builds(
            f"{log}_log",
            [owner_key(ds=day) for day in days],
            hint=f"Make it: tributary spark_jobs ingest_logs --from {days[0]} --to {days[-1]}",
        )
        inputs |= {
            owner_key(ds=day, log=log): {key: read[key]} for day in days for key in [f"{log}_log/{owner_key(ds=day)}"]
        }
    owners = [{"ds": day, "log": log} for day in days for log in LOGS]

    def write(name: str, aggregate: Callable[[DataFrame, Log, int], DataFrame]) -> list[Build]:
        frames = [
            aggregate(_log_of(spark, locations, log, days), log, deployment.feedback_delay_seconds) for log in LOGS
        ]
        return write_partitions(spark, locations, name, frames[0].unionByName(frames[1]), owners=owners, inputs=inputs)

    written = side_by_side([partial(write, name, aggregate) for name, aggregate in AGGREGATES.items()])
    builds = [build for of_table in written for build in of_table]
    record_builds(spark, locations, builds)
    return builds


def partitions(days: Sequence[date], _: Deployment) -> dict[str, list[str]]:
    """What `run` writes, by table: its locks."""
    return {name: [owner_key(ds=day, log=log) for day in days for log in LOGS] for name in AGGREGATES}


def aggregate_behaviours(rows: DataFrame, log: Log, delay_seconds: int) -> DataFrame:
    """Log rows -> one row per (ds, user_id): the day's positives, oldest first.

    Args:
        rows: rows of the log.
        log: natural or ad.
        delay_seconds: the feedback delay. A behaviour that arrived later than this after its event gets the time of its
            arrival less the delay.
    """
    arrived = F.col("arrival_ts") - F.make_dt_interval(secs=F.lit(delay_seconds))
    positives = rows.where(F.col("action") >= 1).withColumn(
        "event_ts", F.greatest("event_ts", arrived)
    )  # of a null and a time: the time
    words = text_hash(behaviour_text(F.col("action"), F.col("item_text"))).alias("text_hash")
    behaviour = F.struct(
        "event_ts", F.lit(log).alias("log"), "event_id", "item_id", "category_id", "action", "dwell_seconds", words
    )
    sequence = F.sort_array(F.collect_list(behaviour)).cast(f"array<{BEHAVIOUR_TYPE}>")
    return positives.groupBy("ds", "user_id").agg(sequence.alias("behaviours")).withColumn("log", F.lit(log))


def aggregate_statistics(rows: DataFrame, log: Log, _: int) -> DataFrame:
    """Log rows -> one row per (ds, entity, entity_id): impressions and clicks; `all` is the whole log, under id 0.

    A late row counts on the day on which it arrived, so statistics of the days before a sample's own hold what was
    known by then.
    """
    ids = {entity: F.col(f"{entity}_id") for entity in ENTITIES} | {WHOLE_LOG: F.lit(0).cast("bigint")}
    keys = F.explode(
        F.array(*(F.struct(F.lit(entity).alias("entity"), value.alias("entity_id")) for entity, value in ids.items()))
    )
    counted = rows.select("ds", "click", keys.alias("key")).groupBy("ds", "key.entity", "key.entity_id")
    return counted.agg(F.count(F.lit(1)).alias("impressions"), F.sum("click").alias("clicks")).withColumn(
        "log", F.lit(log)
    )


AGGREGATES: dict[str, Callable[[DataFrame, Log, int], DataFrame]] = {
    "behaviour_partials": aggregate_behaviours,
    "statistic_partials": aggregate_statistics,
}


def _log_of(spark: SparkSession, locations: Locations, log: Log, days: Sequence[date]) -> DataFrame:
    return read_partitions(spark, locations, f"{log}_log", days)
