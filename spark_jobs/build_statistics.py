"""Window statistics of the users, items and categories of a day, over the days before it.

Each window is summed from the day partials that lie in it: as bounded as differences of running totals while windows are
short, exact, and one pass serves any range of days (docs/adr).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from contracts.features import LOGS, STATISTIC_WINDOWS
from contracts.locations import Locations
from contracts.periods import ONE_DAY, days_between
from contracts.settings import Deployment
from contracts.tables import owner_key
from lake.reader import LakeReader
from lake.writing import Build, read_delta, replace_partitions
from spark_jobs.inputs import partial_owners, require_partials, statistic_days

TABLE = "entity_statistics"


def run(spark: SparkSession, locations: Locations, deployment: Deployment, days: Sequence[date]) -> list[Build]:
    """Builds the statistics of consecutive days.

    Raises:
        ParentMissing: a partial of the longest window was never built.
    """
    first = max(deployment.history_start, days[0] - timedelta(days=max(STATISTIC_WINDOWS)))
    read = require_partials(LakeReader(locations), "statistic_partials", list(days_between(first, days[-1] + ONE_DAY)))
    inputs = {owner_key(ds=day): {key: read[key] for owner in partial_owners(statistic_days(day, deployment))
                                  for key in [f"statistic_partials/{owner}"]} for day in days}
    partials = read_delta(spark, locations, "statistic_partials").where(F.col("ds").between(F.lit(first), F.lit(days[-1])))
    statistics = aggregate_windows(partials).where(F.col("ds") >= F.lit(days[0]))
    return replace_partitions(spark, locations, TABLE, statistics, owners=[{"ds": day} for day in days], inputs=inputs)


def partitions(days: Sequence[date], _: Deployment) -> dict[str, list[str]]:
    """What `run` writes, by table: its locks."""
    return {TABLE: [owner_key(ds=day) for day in days]}


def aggregate_windows(partials: DataFrame) -> DataFrame:
    """Partials -> one row per (ds, entity, entity_id) that is active on ds: sums over each window of days before ds."""
    figures = ("impressions", "clicks")
    daily = partials.groupBy("entity", "entity_id", "ds").agg(
        *(F.sum(F.when(F.col("log") == log, F.col(figure)).otherwise(0)).alias(f"{log}_{figure}") for log in LOGS for figure in figures))
    no_impressions = F.lit(0).cast("bigint")
    by_day = Window.partitionBy("entity", "entity_id").orderBy(F.datediff("ds", F.lit(date(1970, 1, 1))))
    sums = {f"{log}_{figure}_{days}d_cnt": F.coalesce(F.sum(f"{log}_{figure}").over(by_day.rangeBetween(-days, -1)), no_impressions)
            for log in LOGS for days in STATISTIC_WINDOWS for figure in figures}
    return daily.withColumns(sums).select("entity", "entity_id", *sums, "ds")
