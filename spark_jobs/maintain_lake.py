"""Keeps the lake's files few and large: OPTIMIZE, then VACUUM of what no version within the retention refers to.

No row changes, so no digest does. VACUUM keeps removed files for each table's own retention (120 days), which covers
the longest replay and every version that a training run may have pinned; it never runs with a shorter one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import SparkSession

from contracts.locations import Locations
from contracts.settings import table_address
from contracts.tables import TABLES
from lake.progress import each
from lake.reader import open_table


@dataclass(frozen=True, kw_only=True)
class Maintained:
    """One table before and after."""

    table: str
    files_before: int
    files_after: int
    size_bytes: int


def run(spark: SparkSession, locations: Locations, names: Sequence[str] = ()) -> list[Maintained]:
    """Maintains these tables, all that exist by default."""
    wanted = [name for name in names or TABLES if open_table(table_address(locations, name)) is not None]
    return [_maintain(spark, locations, name) for name in each(wanted, description="maintain", unit="table")]


def _maintain(spark: SparkSession, locations: Locations, name: str) -> Maintained:
    path = f"delta.`{table_address(locations, name)}`"
    before = spark.sql(f"DESCRIBE DETAIL {path}").collect()[0]
    spark.sql(f"OPTIMIZE {path}").collect()
    spark.sql(f"VACUUM {path}").collect()
    after = spark.sql(f"DESCRIBE DETAIL {path}").collect()[0]
    return Maintained(
        table=name, files_before=before["numFiles"], files_after=after["numFiles"], size_bytes=after["sizeInBytes"]
    )
