"""The way back from hashed ids: each string that a day kept, stored once next to its id, by an insert-only MERGE.

Two strings may have one hash. Both rows stay, and whoever adds the second is warned: their entities are one in every
other table. Why it is so: docs/adr/0020.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from contracts.features import Log
from contracts.locations import Locations
from contracts.masking import shown
from contracts.settings import Deployment, table_address
from contracts.tables import LANDING_COLUMNS, STRINGS_JOINED_BY, owner_key
from lake.reader import open_table
from lake.writing import NOTHING, Build, insert_new
from spark_jobs.rules import trimmed_text

TABLE = "id_strings"
STRING = "string_"  # prefix of a kept column's string, next to its hash
COLLIDING = "colliding"  # the count of a day's strings whose id stands for another string too
_LONGEST_LIST = 5


def kept_columns(log: Log, deployment: Deployment) -> list[str]:
    """The columns of a log whose strings are kept."""
    return [name for name in LANDING_COLUMNS[log] if name in deployment.kept_strings]


def with_strings(rows: DataFrame, columns: Sequence[str]) -> DataFrame:
    """Adds to typed rows the string of each of these columns, as it was hashed; null where there is no id."""
    strings = (F.when(F.col(name).isNotNull(), F.expr(trimmed_text(name))).alias(STRING + name) for name in columns)
    return rows.select("*", *strings)  # not withColumns: Spark Connect refuses to add no column


def aggregate_strings(rows: DataFrame, columns: Sequence[str]) -> DataFrame:
    """Rows `with_strings` -> the distinct strings of a day: ds, field, id, string."""
    pairs = F.explode(
        F.array(
            *(
                F.struct(F.lit(name).alias("field"), F.col(name).alias("id"), F.col(STRING + name).alias("string"))
                for name in columns
            )
        )
    )
    return rows.select("ds", pairs.alias("pair")).select("ds", "pair.*").where(F.col("id").isNotNull()).distinct()


def add_strings(
    spark: SparkSession,
    locations: Locations,
    deployment: Deployment,
    log: Log,
    kept: DataFrame,
    days: Sequence[date],
) -> tuple[list[Build], list[str]]:
    """Adds the strings that the table does not have yet.

    The builds name no inputs: the log's builds of the same days do, and a build that the settings have no string for any
    more would stay stale for ever.

    Args:
        spark: the Spark session.
        locations: the deployment's paths.
        deployment: the deployment's settings.
        log: the log that the rows are of.
        kept: the rows that its days keep, `with_strings`.
        days: the days.

    Returns:
        The builds of the days, which the caller records, and what to warn of: ids that stand for several strings.
    """
    columns = kept_columns(log, deployment)
    if not columns:
        return [], []
    strings = aggregate_strings(kept, columns)
    figures = insert_new(spark, locations, TABLE, strings, by="ds")
    collisions = _collisions(spark, locations, strings)
    builds = []
    for day in days:
        row_cnt, digest = figures.get(day, NOTHING)
        counts = {COLLIDING: sum(row["ds"] == day for row in collisions)}
        owner = owner_key(ds=day, log=log)
        builds.append(Build(table_name=TABLE, owner=owner, row_cnt=row_cnt, digest=digest, counts=counts))
    warnings = list(dict.fromkeys(map(_warning, collisions)))
    more = [f"and {len(warnings) - _LONGEST_LIST:,} more such hashes"] if len(warnings) > _LONGEST_LIST else []
    return builds, [*warnings[:_LONGEST_LIST], *more]


def _collisions(spark: SparkSession, locations: Locations, strings: DataFrame) -> list[Mapping[str, object]]:
    """Of these strings those whose id stands for another string too, each with all strings of its id."""
    there = spark.read.format("delta").load(table_address(locations, TABLE))
    other = there.select("field", "id", F.col("string").alias("other"))
    rows = strings.join(other, ["field", "id"]).where(F.col("string") != F.col("other"))
    rows = rows.groupBy("ds", "field", "id", "string").agg(F.array_sort(F.collect_set("other")).alias("others"))
    return [row.asDict() for row in rows.orderBy("ds", "field", "id", "string").collect()]


def _warning(row: Mapping[str, object]) -> str:
    others = row["others"]
    assert isinstance(others, list)
    strings = sorted([row["string"], *others])
    texts = " and ".join(shown(text, fields=[str(row["field"])], columns=[str(row["field"])]) for text in strings)
    return (
        f"{row['field']} {row['id']} is the hash of {len(strings)} strings, {texts}: they are one in every other table"
    )


def with_published(spark: SparkSession, locations: Locations, deployment: Deployment, vectors: DataFrame) -> DataFrame:
    """Adds the column `string` to rows of vectors: null for ids whose string is not published, or was never kept."""
    if not deployment.published_strings or open_table(table_address(locations, TABLE)) is None:
        return vectors.withColumn("string", F.lit(None).cast("string"))
    strings = (
        spark.read.format("delta")
        .load(table_address(locations, TABLE))
        .where(F.col("field").isin(*deployment.published_strings))
        .groupBy("field", "id")
        .agg(F.concat_ws(STRINGS_JOINED_BY, F.array_sort(F.collect_set("string"))).alias("string"))
    )
    with_field = vectors.withColumn("field", F.concat("entity", F.lit("_id")))
    return with_field.join(strings, ["field", "id"], "left").drop("field")
