"""The distinct texts of behaviours, and of what was shown, each stored once under its hash, and added by an insert-only MERGE."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from functools import reduce

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from contracts.features import CANDIDATE_ACTION, LOGS
from contracts.locations import Locations
from contracts.settings import Deployment
from contracts.tables import owner_key
from lake.partitions import read_partitions
from lake.reader import LakeReader
from lake.writing import NOTHING, Build, insert_new, record_builds
from spark_jobs.texts import behaviour_text, text_hash

TABLE = "behaviour_texts"


def run(spark: SparkSession, locations: Locations, _: Deployment, days: Sequence[date]) -> list[Build]:
    """Adds the texts that the table does not have yet; the build of a day records its number of distinct texts.

    Raises:
        ParentMissing: a day's log was never ingested.
    """
    reader, owners = LakeReader(locations), [owner_key(ds=day) for day in days]
    hint = f"Make it: tributary spark_jobs ingest_logs --from {days[0]} --to {days[-1]}"
    read = {
        key: digest for log in LOGS for key, digest in reader.require_builds(f"{log}_log", owners, hint=hint).items()
    }
    logs = [read_partitions(spark, locations, f"{log}_log", days) for log in LOGS]
    texts = reduce(DataFrame.unionByName, map(aggregate_texts, logs)).distinct()
    figures = insert_new(spark, locations, TABLE, texts, by="ds")
    builds = []
    for day, owner in zip(days, owners, strict=True):
        row_cnt, digest = figures.get(day, NOTHING)
        inputs = {f"{log}_log/{owner}": read[f"{log}_log/{owner}"] for log in LOGS}
        builds.append(Build(table_name=TABLE, owner=owner, row_cnt=row_cnt, digest=digest, inputs=inputs))
    record_builds(spark, locations, builds)
    return builds


def partitions(days: Sequence[date], _: Deployment) -> dict[str, list[str]]:
    """What `run` locks: two days may add to the table at once, for equal texts are equal rows."""
    return {TABLE: [owner_key(ds=day) for day in days]}


def aggregate_texts(rows: DataFrame) -> DataFrame:
    """Log rows -> the distinct texts of a day, of its behaviours and of what was shown: ds, text_hash, text."""
    read_as = F.explode(F.array_distinct(F.array(F.lit(CANDIDATE_ACTION), F.col("action"))))
    shown = rows.where(F.col("item_text").isNotNull()).select("ds", "action", "item_text").distinct()
    worded = shown.select("ds", read_as.alias("action"), "item_text")
    texts = worded.select("ds", behaviour_text(F.col("action"), F.col("item_text")).alias("text"))
    return (
        texts.where(F.col("text").isNotNull())
        .distinct()
        .select("ds", text_hash(F.col("text")).alias("text_hash"), "text")
    )
