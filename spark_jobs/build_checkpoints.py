"""The running merge of the behaviour partials, every ten days from `history_start`: each user's last 200 positives.

A checkpoint is a pure function of the day partials before it, made when first needed, and again when one of them has
changed. It is made from the newest older checkpoint that is still good and the partials since, so one step costs the same
however many days of history there are.
"""

from __future__ import annotations

from datetime import date, timedelta

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from contracts.features import HISTORY_LENGTH, LOGS
from contracts.locations import Locations
from contracts.periods import CHECKPOINT_DAYS, days_between
from contracts.settings import Deployment
from contracts.tables import owner_key
from lake.reader import LakeReader
from lake.writing import Build, read_delta, replace_partitions
from spark_jobs.inputs import require_partials

TABLE = "behaviour_checkpoints"


def run(spark: SparkSession, locations: Locations, deployment: Deployment, until: date) -> list[Build]:
    """Makes the checkpoint of `until` unless it is there and rests on the partials as they are now.

    Raises:
        ParentMissing: a day's partial was never built.
    """
    reader = LakeReader(locations)
    inputs = _inputs(reader, deployment, until)
    if _is_good(reader, until, inputs):
        return []
    base = _newest_good_before(reader, deployment, until)
    rows = merged_behaviours(spark, locations, base=base, first_day=base or deployment.history_start, until=until)
    last = rows.withColumns({"behaviours": last_behaviours(F.col("behaviours")), "until_ds": F.lit(until)})
    owners = [{"until_ds": until, "log": log} for log in LOGS]
    by_owner = {owner_key(**o): {key: digest for key, digest in inputs.items() if key.endswith(f"log={o['log']}")} for o in owners}
    return replace_partitions(spark, locations, TABLE, last, owners=owners, inputs=by_owner)


def partitions(until: date) -> dict[str, list[str]]:
    """What `run` writes, by table: its locks."""
    return {TABLE: [owner_key(until_ds=until, log=log) for log in LOGS]}


def merged_behaviours(spark: SparkSession, locations: Locations, *, base: date | None, first_day: date, until: date) -> DataFrame:
    """One row per (log, user_id): positives of the checkpoint `base` and of the days [first_day, until), oldest first."""
    parts = read_delta(spark, locations, "behaviour_partials").where((F.col("ds") >= F.lit(first_day)) & (F.col("ds") < F.lit(until)))
    parts = parts.select("log", "user_id", "behaviours")
    if base is not None:
        merged = read_delta(spark, locations, TABLE).where(F.col("until_ds") == F.lit(base))
        parts = parts.unionByName(merged.select("log", "user_id", "behaviours"))
    return parts.groupBy("log", "user_id").agg(F.sort_array(F.flatten(F.collect_list("behaviours"))).alias("behaviours"))


def last_behaviours(behaviours: Column) -> Column:
    """The last 200 of an array that is sorted by time."""
    return F.slice(behaviours, F.greatest(F.size(behaviours) - HISTORY_LENGTH + 1, F.lit(1)), HISTORY_LENGTH)


def _inputs(reader: LakeReader, deployment: Deployment, until: date) -> dict[str, str]:
    return require_partials(reader, "behaviour_partials", list(days_between(deployment.history_start, until)))


def _is_good(reader: LakeReader, until: date, inputs: dict[str, str]) -> bool:
    """Whether the checkpoint is there and rests on these inputs."""
    built = reader.builds(TABLE, [owner_key(until_ds=until, log=log) for log in LOGS])
    recorded = {key: digest for build in built.values() for key, digest in build["inputs"].items()}
    return len(built) == len(LOGS) and recorded == inputs


def _newest_good_before(reader: LakeReader, deployment: Deployment, until: date) -> date | None:
    older = until - timedelta(days=CHECKPOINT_DAYS)
    while older > deployment.history_start:
        if _is_good(reader, older, _inputs(reader, deployment, older)):
            return older
        older -= timedelta(days=CHECKPOINT_DAYS)
    return None
