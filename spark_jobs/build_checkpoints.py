"""Running merges of the day partials, every ten days from `history_start`; they bound the cost of every later day.

`behaviour_checkpoints` hold each user's last 200 positives, `statistic_checkpoints` each entity's totals. A checkpoint
is a pure function of the day partials before it; it is made when first needed, and rebuilt when one of them has
changed. It is made from the newest older checkpoint that is up to date and the partials since, so one step costs the
same however many days of history there are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from contracts.features import HISTORY_LENGTH, LOGS
from contracts.locations import Locations
from contracts.periods import CHECKPOINT_DAYS, days_between
from contracts.settings import Deployment
from contracts.tables import owner_key
from lake.partitions import read_partitions
from lake.reader import LakeReader
from lake.writing import Build, record_builds, write_partitions
from spark_jobs.inputs import require_partials


@dataclass(frozen=True, kw_only=True)
class Running:
    """A running merge.

    Attributes:
        table: the table of its checkpoints.
        partials: the table of the partials that it merges.
        keys: the columns by which it merges, next to `log`.
        merge: a function of the rows of checkpoint and partials, and of the end of their last day, that returns one row
            per key and log.
    """

    table: str
    partials: str
    keys: tuple[str, ...]
    merge: Callable[[DataFrame, datetime], DataFrame]

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of a partial that the merge reads."""
        return ("log", *self.keys, *(("behaviours",) if self is BEHAVIOURS else ("impressions", "clicks")))


def merge_behaviours(parts: DataFrame, end: datetime) -> DataFrame:
    """Rows with behaviours -> one row per (log, user_id): the last 200 that were known before `end`, then the others, oldest first."""
    merged = parts.groupBy("log", "user_id").agg(
        F.sort_array(F.flatten(F.collect_list("behaviours"))).alias("behaviours")
    )
    before, after = split_behaviours(F.col("behaviours"), F.lit(end))
    return merged.withColumn("behaviours", F.concat(last_behaviours(before), after))


def merge_statistics(parts: DataFrame, _: datetime) -> DataFrame:
    """Rows with counts -> one row per (log, entity, entity_id): their sums."""
    return parts.groupBy("log", "entity", "entity_id").agg(
        F.sum("impressions").alias("impressions"), F.sum("clicks").alias("clicks")
    )


BEHAVIOURS = Running(
    table="behaviour_checkpoints", partials="behaviour_partials", keys=("user_id",), merge=merge_behaviours
)
STATISTICS = Running(
    table="statistic_checkpoints", partials="statistic_partials", keys=("entity", "entity_id"), merge=merge_statistics
)


def run(
    spark: SparkSession,
    locations: Locations,
    deployment: Deployment,
    until: date,
    *,
    of: tuple[Running, ...] = (BEHAVIOURS, STATISTICS),
) -> list[Build]:
    """Makes the checkpoints of `until`, unless they exist and were made from the present partials.

    Raises:
        ParentMissing: a day's partial was never built.
    """
    reader = LakeReader(locations)
    wanted = [
        running for running in of if not _is_good(reader, running, until, _inputs(reader, deployment, running, until))
    ]
    builds = [build for running in wanted for build in make(spark, locations, deployment, running, until)]
    if builds:
        record_builds(spark, locations, builds)
    return builds


def partitions(until: date, *, of: tuple[Running, ...] = (BEHAVIOURS, STATISTICS)) -> dict[str, list[str]]:
    """What `run` writes, by table: its locks."""
    return {running.table: [owner_key(until_ds=until, log=log) for log in LOGS] for running in of}


def digests(reader: LakeReader, running: Running, until: date) -> dict[str, str]:
    """Digests of one checkpoint's partitions by `table/owner`, as a build that reads it records them."""
    return reader.require_builds(
        running.table,
        [owner_key(until_ds=until, log=log) for log in LOGS],
        hint=f"Make it: tributary spark_jobs build_checkpoints --ds {until}",
    )


def split_behaviours(behaviours: Column, instant: Column) -> tuple[Column, Column]:
    """Splits an array that is sorted by time: what is before an instant, and the rest, which is empty unless a behaviour arrived late."""
    has_later = F.coalesce(F.try_element_at(behaviours, F.lit(-1))["event_ts"] >= instant, F.lit(False))
    before = F.when(has_later, F.filter(behaviours, lambda behaviour: behaviour["event_ts"] < instant)).otherwise(
        behaviours
    )
    after = F.when(has_later, F.filter(behaviours, lambda behaviour: behaviour["event_ts"] >= instant))
    return before, F.coalesce(after, F.slice(behaviours, 1, 0))


def last_behaviours(behaviours: Column) -> Column:
    """The last 200 of an array that is sorted by time."""
    return F.slice(behaviours, F.greatest(F.size(behaviours) - HISTORY_LENGTH + 1, F.lit(1)), HISTORY_LENGTH)


def make(
    spark: SparkSession, locations: Locations, deployment: Deployment, running: Running, until: date
) -> list[Build]:
    """Makes one checkpoint, whether it exists or not, without recording its build."""
    reader = LakeReader(locations)
    inputs = _inputs(reader, deployment, running, until)
    base = _newest_good_before(reader, deployment, running, until)
    since = list(days_between(base or deployment.history_start, until))
    parts = read_partitions(spark, locations, running.partials, since).select(*running.columns)
    if base is not None:
        merged = read_partitions(spark, locations, running.table, [base], by="until_ds")
        parts = parts.unionByName(merged.select(*running.columns))
    owners = [{"until_ds": until, "log": log} for log in LOGS]
    by_owner = {
        owner_key(**o): {key: digest for key, digest in inputs.items() if key.endswith(f"log={o['log']}")}
        for o in owners
    }
    return write_partitions(
        spark,
        locations,
        running.table,
        running.merge(parts, deployment.day_start(until)).withColumn("until_ds", F.lit(until)),
        owners=owners,
        inputs=by_owner,
    )


def _inputs(reader: LakeReader, deployment: Deployment, running: Running, until: date) -> dict[str, str]:
    return require_partials(reader, running.partials, list(days_between(deployment.history_start, until)))


def _is_good(reader: LakeReader, running: Running, until: date, inputs: dict[str, str]) -> bool:
    """Whether the checkpoint exists and was made from these inputs."""
    built = reader.builds(running.table, [owner_key(until_ds=until, log=log) for log in LOGS])
    recorded = {key: digest for build in built.values() for key, digest in build["inputs"].items()}
    return len(built) == len(LOGS) and recorded == inputs


def _newest_good_before(reader: LakeReader, deployment: Deployment, running: Running, until: date) -> date | None:
    older = until - timedelta(days=CHECKPOINT_DAYS)
    while older > deployment.history_start:
        if _is_good(reader, running, older, _inputs(reader, deployment, running, older)):
            return older
        older -= timedelta(days=CHECKPOINT_DAYS)
    return None
