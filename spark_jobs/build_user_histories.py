"""Histories, one per user and day: the last 200 positives before the day and those of the day, oldest first."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from itertools import groupby

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from contracts.locations import Locations
from contracts.periods import CHECKPOINT_DAYS, ONE_DAY, days_between
from contracts.settings import Deployment
from contracts.tables import owner_key
from lake.partitions import read_partitions
from lake.reader import LakeReader
from lake.writing import Build, replace_partitions
from spark_jobs import build_checkpoints
from spark_jobs.build_checkpoints import last_behaviours, split_behaviours
from spark_jobs.inputs import require_partials

TABLE = "user_histories"
BLOCK_CHECKPOINTS = 3


def run(spark: SparkSession, locations: Locations, deployment: Deployment, days: Sequence[date]) -> list[Build]:
    """Builds the histories of consecutive days, block by block: each from the newest checkpoint before it and the partials since.

    Raises:
        ParentMissing: the partials of a day since history_start were never built.
    """
    return [build for block in _blocks(days, deployment) for build in _run_block(spark, locations, deployment, block)]


def partitions(days: Sequence[date], deployment: Deployment) -> dict[str, list[str]]:
    """What `run` writes, by table: its locks."""
    bases = {deployment.lineage.checkpoint_before(block[0]) for block in _blocks(days, deployment)} - {None}
    checkpoints = [
        owner for base in bases if base for owner in build_checkpoints.partitions(base)["behaviour_checkpoints"]
    ]
    return {TABLE: [owner_key(ds=day) for day in days], "behaviour_checkpoints": checkpoints}


def _blocks(days: Sequence[date], deployment: Deployment) -> list[list[date]]:
    """Days in blocks of a month that begin at checkpoints: in one pass, a user's parts would be read for each of their days."""
    grouped = groupby(
        days, key=lambda day: (day - deployment.history_start).days // (BLOCK_CHECKPOINTS * CHECKPOINT_DAYS)
    )
    return [list(block) for _, block in grouped]


def _run_block(spark: SparkSession, locations: Locations, deployment: Deployment, days: list[date]) -> list[Build]:
    base = deployment.lineage.checkpoint_before(days[0])
    if base is not None:
        build_checkpoints.run(spark, locations, deployment, base, of=(build_checkpoints.BEHAVIOURS,))
    reader = LakeReader(locations)
    since = base or deployment.history_start
    read = require_partials(reader, "behaviour_partials", list(days_between(since, days[-1] + ONE_DAY)))
    active = require_partials(reader, "statistic_partials", days)
    checkpoint = build_checkpoints.digests(reader, build_checkpoints.BEHAVIOURS, base) if base else {}
    inputs = {
        owner_key(ds=day): checkpoint
        | {key: digest for key, digest in read.items() if _day_of(key) <= str(day)}
        | {key: digest for key, digest in active.items() if _day_of(key) == str(day)}
        for day in days
    }
    active_users = _active_users(spark, locations, days)
    # Most users are not active on most days; their rows are dropped before the shuffle.
    parts = _parts(spark, locations, base, since, days[-1]).join(
        active_users.select("user_id").distinct(), "user_id", "left_semi"
    )
    histories = with_history(active_users, parts, deployment)
    return replace_partitions(spark, locations, TABLE, histories, owners=[{"ds": day} for day in days], inputs=inputs)


def with_history(active: DataFrame, parts: DataFrame, deployment: Deployment) -> DataFrame:
    """Adds `behaviours`; drops users of the day without any.

    A behaviour in an earlier day's part that first became known on this day belongs to this day; one that became known
    later does not.

    Args:
        active: (ds, user_id) of the users active on each day.
        parts: user_id, ds, behaviours; ds is null for the content of a checkpoint.
        deployment: the deployment's settings, for its time zone.
    """
    by_user = parts.groupBy("user_id").agg(F.collect_list(F.struct("ds", "behaviours")).alias("parts"))

    def behaviours_of(condition: str) -> Column:
        return F.sort_array(
            F.flatten(F.expr(f"transform(filter(parts, part -> {condition}), part -> part.behaviours)"))
        )

    def start_of(day: Column) -> Column:
        return F.to_utc_timestamp(day.cast("timestamp"), deployment.day_timezone)

    rows = active.join(by_user, "user_id").withColumns(
        {"older": behaviours_of("part.ds IS NULL OR part.ds < ds"), "own": behaviours_of("part.ds = ds")}
    )
    before, since = split_behaviours(F.col("older"), start_of(F.col("ds")))
    of_day, _ = split_behaviours(F.sort_array(F.concat(since, "own")), start_of(F.date_add("ds", 1)))
    rows = rows.withColumn("behaviours", F.sort_array(F.concat(last_behaviours(before), of_day)))
    return rows.where(F.size("behaviours") > 0).select("user_id", "behaviours", "ds")


def _active_users(spark: SparkSession, locations: Locations, days: Sequence[date]) -> DataFrame:
    """ds, user_id: users with an impression on the day, in either log."""
    counted = read_partitions(spark, locations, "statistic_partials", days)
    return counted.where(F.col("entity") == "user").select("ds", F.col("entity_id").alias("user_id")).distinct()


def _parts(spark: SparkSession, locations: Locations, base: date | None, since: date, last: date) -> DataFrame:
    partials = read_partitions(spark, locations, "behaviour_partials", days_between(since, last + ONE_DAY))
    parts = partials.select("user_id", "ds", "behaviours")
    if base is not None:
        merged = read_partitions(spark, locations, build_checkpoints.BEHAVIOURS.table, [base], by="until_ds")
        parts = parts.unionByName(merged.select("user_id", F.lit(None).cast("date").alias("ds"), "behaviours"))
    return parts


def _day_of(input_key: str) -> str:
    """The ds of an input such as `behaviour_partials/ds=2026-01-01,log=ad`."""
    return input_key.split("ds=")[1].split(",")[0]
