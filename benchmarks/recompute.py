"""The straightforward way to a day's features, and what a hand-made repository does: recompute them over the window, from the logs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from functools import reduce
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from contracts.features import BEHAVIOUR_TYPE, ENTITIES, LOGS, STATISTIC_WINDOWS, WHOLE_LOG, Log
from contracts.locations import Locations
from contracts.settings import Deployment, table_address
from lake.writing import replace_partitions
from spark_jobs.build_checkpoints import last_behaviours
from spark_jobs.build_samples import aggregate_requests, on_time, to_samples, with_history_end
from spark_jobs.build_statistics import FIGURES, SUMS, with_smoothed_rates
from spark_jobs.texts import behaviour_text, text_hash


def run(spark: Any, source: Locations, target: Locations, deployment: Deployment, day: date) -> None:
    """Histories, statistics and samples of `day`, from the logs of `source`, into tables of `target`."""
    logs = {log: _read(spark, source, f"{log}_log").where(F.col("ds") <= F.lit(day)) for log in LOGS}
    owners = [{"ds": day}]
    replace_partitions(spark, target, "user_histories", histories(logs, day), owners=owners)
    replace_partitions(spark, target, "entity_statistics", statistics(logs, day), owners=owners)
    made, figures = _read(spark, target, "user_histories"), _read(spark, target, "entity_statistics")
    for log in LOGS:
        rows = on_time(logs[log].where(F.col("ds") == F.lit(day)))
        samples = to_samples(rows, with_history_end(aggregate_requests(rows), made, deployment), figures, deployment)
        replace_partitions(spark, target, f"{log}_samples", samples, owners=owners)


def _read(spark: Any, locations: Locations, name: str) -> DataFrame:
    rows: DataFrame = spark.read.format("delta").load(table_address(locations, name))
    return rows


def histories(logs: Mapping[Log, DataFrame], day: date) -> DataFrame:
    """The last 200 positives before the day and those of the day, of every user with an impression on it."""
    names = ("event_ts", "event_id", "item_id", "category_id", "action", "dwell_seconds")
    rows = reduce(
        DataFrame.unionByName,
        (
            frame.select(
                "ds",
                "user_id",
                *names,
                F.lit(log).alias("log"),
                text_hash(behaviour_text(F.col("action"), F.col("item_text"))).alias("text_hash"),
            )
            for log, frame in logs.items()
        ),
    )
    active = rows.where(F.col("ds") == F.lit(day)).select("user_id").distinct()
    behaviour = F.struct(
        "event_ts", "log", "event_id", "item_id", "category_id", "action", "dwell_seconds", "text_hash"
    )
    positives = (
        rows.where(F.col("action") >= 1)
        .join(active, "user_id")
        .groupBy("user_id")
        .agg(
            *(
                F.sort_array(F.collect_list(F.when(condition, behaviour))).cast(f"array<{BEHAVIOUR_TYPE}>").alias(name)
                for name, condition in (("before", F.col("ds") < F.lit(day)), ("of_day", F.col("ds") == F.lit(day)))
            )
        )
    )
    both = F.sort_array(F.concat(last_behaviours(F.col("before")), "of_day"))
    return positives.select("user_id", both.alias("behaviours"), F.lit(day).alias("ds"))


def statistics(logs: Mapping[Log, DataFrame], day: date) -> DataFrame:
    """Window sums of every user, item and category of the day, over the rows of the longest window."""
    first = day - timedelta(days=max(STATISTIC_WINDOWS))
    ids = {entity: F.col(f"{entity}_id") for entity in ENTITIES} | {WHOLE_LOG: F.lit(0).cast("bigint")}
    key = F.explode(
        F.array(*(F.struct(F.lit(entity).alias("entity"), value.alias("entity_id")) for entity, value in ids.items()))
    )
    rows = reduce(
        DataFrame.unionByName,
        (
            frame.where(F.col("ds") >= F.lit(first)).select("ds", "click", F.lit(log).alias("log"), key.alias("key"))
            for log, frame in logs.items()
        ),
    )
    sums = []
    for log in LOGS:
        for window in STATISTIC_WINDOWS:
            inside = (
                (F.col("log") == log)
                & (F.col("ds") < F.lit(day))
                & (F.col("ds") >= F.lit(day - timedelta(days=window)))
            )
            counted = {
                "impressions": F.when(inside, 1).otherwise(0),
                "clicks": F.when(inside, F.col("click")).otherwise(0),
            }
            sums += [F.sum(counted[figure]).cast("bigint").alias(f"{log}_{figure}_{window}d_cnt") for figure in FIGURES]
    is_active = F.max(F.col("ds") == F.lit(day)).alias("is_active")
    summed = rows.groupBy("key.entity", "key.entity_id").agg(is_active, *sums).where("is_active")
    return with_smoothed_rates(summed.select("entity", "entity_id", *SUMS, F.lit(day).alias("ds")))
