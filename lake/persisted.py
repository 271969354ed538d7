"""Rows that a job reads more than once: the one place that keeps something in Spark's cache (docs/adr/0016).

That cache belongs to the server, outlives the client, and finds what was read from files by their paths: rows that a killed
client left in it would be taken for the content of corrected files. So what is kept here is found by the job that keeps it
and by nobody else, and lies under a name that says whose it is, so that the next one can clear it away.
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
    """The same rows, computed once and kept by Spark until the block ends.

    Args:
        rows: of a session that no other thread closes meanwhile; they are computed when they are first asked for.
    """
    from pyspark.sql import functions as F

    spark = rows.sparkSession
    name = f"{_prefix(getattr(spark, 'session_id', 'own'))}{uuid.uuid4().hex}"
    # The condition holds for every row and costs nothing. It is what makes this plan equal to no other that reads the same paths.
    own = rows.where(F.lit(name).isNotNull())
    try:
        own.createGlobalTempView(name)
        spark.catalog.cacheTable(f"{DATABASE}.{name}")
        yield spark.table(f"{DATABASE}.{name}")
    finally:
        spark.catalog.dropGlobalTempView(name)  # and with the view what is kept of it


def drop_persisted(spark: SparkSession, session_id: str) -> int:
    """Drops what a session that has ended left in the server's cache; returns how many sets of rows that were."""
    left = spark.sql(f"SHOW VIEWS IN {DATABASE} LIKE '{_prefix(session_id)}*'").collect()
    return sum(spark.catalog.dropGlobalTempView(row["viewName"]) for row in left)


def _prefix(session_id: str) -> str:
    return f"{_PREFIX}_{session_id.replace('-', '')}_"
