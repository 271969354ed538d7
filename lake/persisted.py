"""Rows that a job reads more than once: the one place that keeps something in Spark's cache (docs/adr/0016).

That cache belongs to the server, outlives the client, and looks rows up by the paths of the files they were read from:
rows that a killed client left in it would be taken for the content of corrected files. So what is kept here can only be
looked up by the job that keeps it, and is named after its session, so that the next job can remove it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

DATABASE = "global_temp"  # Spark's name for views that all sessions of a server see
_PREFIX = "tributary"


@contextmanager
def persisted(rows: DataFrame) -> Iterator[DataFrame]:
    """The same rows, which Spark computes once and keeps until the block ends.

    Args:
        rows: a frame whose session no other thread closes meanwhile; it is computed on first use.
    """
    from pyspark.sql import functions as F

    spark = rows.sparkSession
    name = f"{_prefix(getattr(spark, 'session_id', 'own'))}{uuid.uuid4().hex}"
    # The condition holds for every row and costs nothing. It makes this plan different from any other that reads the
    # same paths.
    own = rows.where(F.lit(name).isNotNull())
    try:
        own.createGlobalTempView(name)
        spark.catalog.cacheTable(f"{DATABASE}.{name}")
        yield spark.table(f"{DATABASE}.{name}")
    finally:
        spark.catalog.dropGlobalTempView(name)  # this removes the cached rows too


def drop_persisted(spark: SparkSession, session_id: str) -> int:
    """Drops the rows that an ended session left in the server's cache; returns how many frames those were."""
    left = spark.sql(f"SHOW VIEWS IN {DATABASE} LIKE '{_prefix(session_id)}*'").collect()
    return sum(spark.catalog.dropGlobalTempView(row["viewName"]) for row in left)


def _prefix(session_id: str) -> str:
    return f"{_PREFIX}_{session_id.replace('-', '')}_"
