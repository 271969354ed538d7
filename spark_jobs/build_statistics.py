"""Window statistics of the users, items and categories of a day, over the days before it.

A single day sums each window as the difference of two running totals, each a checkpoint and the day partials since: it
reads three checkpoints and some forty days of partials however long the window and the history are. A range of days is
one pass over all partials of its windows. Both give the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import reduce

from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from contracts.features import LOGS, SMOOTHING_IMPRESSIONS, STATISTIC_WINDOWS, WHOLE_LOG
from contracts.locations import Locations
from contracts.periods import CHECKPOINT_DAYS, ONE_DAY, days_between
from contracts.settings import Deployment
from contracts.tables import owner_key
from lake.partitions import read_partitions
from lake.reader import LakeReader
from lake.writing import Build, replace_partitions
from spark_jobs import build_checkpoints
from spark_jobs.inputs import partial_owners, require_partials, statistic_days

TABLE = "entity_statistics"
FIGURES = ("impressions", "clicks")
SUMS = tuple(f"{log}_{figure}_{days}d_cnt" for log in LOGS for days in STATISTIC_WINDOWS for figure in FIGURES)


def run(spark: SparkSession, locations: Locations, deployment: Deployment, days: Sequence[date]) -> list[Build]:
    """Builds the statistics of consecutive days.

    Raises:
        ParentMissing: a partial of the longest window was never built.
    """
    if len(days) == 1:
        return _run_day(spark, locations, deployment, days[0])
    first = max(deployment.history_start, days[0] - timedelta(days=max(STATISTIC_WINDOWS)))
    read = require_partials(LakeReader(locations), "statistic_partials", list(days_between(first, days[-1] + ONE_DAY)))
    inputs = {
        owner_key(ds=day): {
            key: read[key]
            for owner in partial_owners(statistic_days(day, deployment))
            for key in [f"statistic_partials/{owner}"]
        }
        for day in days
    }
    partials = read_partitions(spark, locations, "statistic_partials", days_between(first, days[-1] + ONE_DAY))
    statistics = with_smoothed_rates(aggregate_windows(partials).where(F.col("ds") >= F.lit(days[0])))
    return replace_partitions(spark, locations, TABLE, statistics, owners=[{"ds": day} for day in days], inputs=inputs)


def partitions(days: Sequence[date], deployment: Deployment) -> dict[str, list[str]]:
    """What `run` writes, by table: its locks."""
    checkpoints = _checkpoints(days[0], deployment) if len(days) == 1 else []
    owners = [owner for until in checkpoints for owner in build_checkpoints.partitions(until)["statistic_checkpoints"]]
    return {TABLE: [owner_key(ds=day) for day in days], "statistic_checkpoints": owners}


@dataclass(frozen=True, kw_only=True)
class WindowSum:
    """How one window before a day is summed: what is added, and what is subtracted.

    Attributes:
        start: its first day.
        base: checkpoint that is added, with the partials since; None begins at history_start.
        taken: checkpoint before `start` that is subtracted, with the partials between; None subtracts nothing.
    """

    start: date
    base: date | None
    taken: date | None


def plan_window(day: date, window_days: int, deployment: Deployment) -> WindowSum:
    """The cheapest exact sum of a window: its own days where they are few, else a difference of running totals."""
    start = max(deployment.history_start, day - timedelta(days=window_days))
    lineage = deployment.lineage
    base, taken = lineage.checkpoint_before(day), lineage.checkpoint_before(start)
    if window_days <= CHECKPOINT_DAYS or base == taken:
        return WindowSum(start=start, base=None, taken=None)
    return WindowSum(start=start, base=base, taken=taken)


def _run_day(spark: SparkSession, locations: Locations, deployment: Deployment, day: date) -> list[Build]:
    checkpoints = _checkpoints(day, deployment)
    for until in checkpoints:
        build_checkpoints.run(spark, locations, deployment, until, of=(build_checkpoints.STATISTICS,))
    plans = {window: plan_window(day, window, deployment) for window in STATISTIC_WINDOWS}
    needed = sorted({d for plan in plans.values() for d in _partial_days(plan, day, deployment)} | {day})
    reader = LakeReader(locations)
    inputs = require_partials(reader, "statistic_partials", needed)
    for until in checkpoints:
        inputs |= build_checkpoints.digests(reader, build_checkpoints.STATISTICS, until)
    partials = read_partitions(spark, locations, "statistic_partials", needed)
    parts = partials.select("entity", "entity_id", "log", *FIGURES, "ds", F.lit(None).cast("date").alias("until_ds"))
    if checkpoints:
        merged = read_partitions(spark, locations, "statistic_checkpoints", checkpoints, by="until_ds")
        parts = parts.unionByName(
            merged.select("entity", "entity_id", "log", *FIGURES, F.lit(None).cast("date").alias("ds"), "until_ds")
        )
    statistics = with_smoothed_rates(aggregate_day(parts, day, plans, deployment))
    return replace_partitions(
        spark, locations, TABLE, statistics, owners=[{"ds": day}], inputs={owner_key(ds=day): inputs}
    )


def _checkpoints(day: date, deployment: Deployment) -> list[date]:
    """Checkpoints that a day's windows need, oldest first, since each is made from the one before."""
    plans = (plan_window(day, window, deployment) for window in STATISTIC_WINDOWS)
    return sorted({until for plan in plans for until in (plan.base, plan.taken) if until is not None})


def _partial_days(plan: WindowSum, day: date, deployment: Deployment) -> list[date]:
    """Days whose partials a window's sum reads."""
    if plan.base is None:
        return list(days_between(plan.start, day))
    return [*days_between(plan.taken or deployment.history_start, plan.start), *days_between(plan.base, day)]


def aggregate_day(parts: DataFrame, day: date, plans: dict[int, WindowSum], deployment: Deployment) -> DataFrame:
    """Partials and checkpoints -> one row per (entity, entity_id) that is active on the day: sums over each window before it.

    Args:
        parts: entity, entity_id, log, impressions, clicks, and either `ds` (a partial) or `until_ds` (a checkpoint).
        day: the day.
        plans: how each window is summed, by its number of days.
        deployment: the deployment's settings, for `history_start`.
    """
    sums = []
    for log in LOGS:
        for window, plan in plans.items():
            times = F.when(F.col("log") == log, _times(plan, day, deployment)).otherwise(0)
            sums += [F.sum(times * F.col(figure)).alias(f"{log}_{figure}_{window}d_cnt") for figure in FIGURES]
    is_active = F.max(F.coalesce(F.col("ds") == F.lit(day), F.lit(False))).alias("is_active")
    summed = parts.groupBy("entity", "entity_id").agg(is_active, *sums)
    return summed.where("is_active").select("entity", "entity_id", *SUMS, F.lit(day).alias("ds"))


def _times(plan: WindowSum, day: date, deployment: Deployment) -> Column:
    """How often a row counts in a window's sum: 1, 0 or -1."""

    def days(first: date, end: date) -> Column:
        return F.when((F.col("ds") >= F.lit(first)) & (F.col("ds") < F.lit(end)), 1).otherwise(0)

    if plan.base is None:
        return days(plan.start, day)
    added = days(plan.base, day) + F.when(F.col("until_ds") == F.lit(plan.base), 1).otherwise(0)
    if plan.taken is not None:
        return added - days(plan.taken, plan.start) - F.when(F.col("until_ds") == F.lit(plan.taken), 1).otherwise(0)
    return added - days(deployment.history_start, plan.start)


def aggregate_windows(partials: DataFrame) -> DataFrame:
    """Partials -> one row per (ds, entity, entity_id) that is active on ds: sums over each window of days before ds."""
    daily = partials.groupBy("entity", "entity_id", "ds").agg(
        *(
            F.sum(F.when(F.col("log") == log, F.col(figure)).otherwise(0)).alias(f"{log}_{figure}")
            for log in LOGS
            for figure in FIGURES
        )
    )
    nothing = F.lit(0).cast("bigint")
    by_day = Window.partitionBy("entity", "entity_id").orderBy(F.datediff("ds", F.lit(date(1970, 1, 1))))
    sums = {
        f"{log}_{figure}_{days}d_cnt": F.coalesce(
            F.sum(f"{log}_{figure}").over(by_day.rangeBetween(-days, -1)), nothing
        )
        for log in LOGS
        for days in STATISTIC_WINDOWS
        for figure in FIGURES
    }
    return daily.withColumns(sums).select("entity", "entity_id", *SUMS, "ds")


def with_smoothed_rates(statistics: DataFrame) -> DataFrame:
    """Adds each window's smoothed click rate: the entity's own, with 20 impressions added at the whole log's rate; null without rows."""
    rates = {
        f"{log}_{days}": F.try_divide(F.col(f"{log}_clicks_{days}d_cnt"), F.col(f"{log}_impressions_{days}d_cnt"))
        for log in LOGS
        for days in STATISTIC_WINDOWS
    }
    whole = statistics.where(F.col("entity") == WHOLE_LOG).select(
        "ds", *(rate.alias(name) for name, rate in rates.items())
    )
    prior = F.lit(SMOOTHING_IMPRESSIONS)
    smoothed = {
        f"{log}_smoothed_ctr_{days}d": (F.col(f"{log}_clicks_{days}d_cnt") + prior * F.col(f"{log}_{days}"))
        / (F.col(f"{log}_impressions_{days}d_cnt") + prior)
        for log in LOGS
        for days in STATISTIC_WINDOWS
    }
    return reduce(DataFrame.drop, rates, statistics.join(F.broadcast(whole), "ds", "left").withColumns(smoothed))
