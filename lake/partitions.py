"""Reads whole partitions of a table into Spark.

The table's log is read by `deltalake`, and Spark gets the list of files: planning a scan through Delta costs a Spark
job over the table's state after every commit, most of a small day (docs/adr/0007). The files are those of one snapshot,
and stay until VACUUM.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import TYPE_CHECKING

from contracts import tables
from contracts.locations import Locations
from contracts.settings import table_address
from lake.reader import rows_by_file
from lake.sql import literals

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def read_partitions(
    spark: SparkSession, locations: Locations, name: str, days: Iterable[date], *, by: str = "ds"
) -> DataFrame:
    """Rows of some days, with the contract's columns; a day or table that was never written has none.

    A column that was declared later reads as null in the partitions written before.

    Args:
        spark: the Spark session.
        locations: the deployment's paths.
        name: a table of the contracts.
        days: the days to read, as values of the column `by`.
        by: a date column that the table is partitioned by.
    """
    contract, address = tables.table(name), table_address(locations, name)
    assert by in contract.partition_columns, (name, by)
    wanted = literals(map(str, days))
    files = rows_by_file(address, f"{by} IN ({wanted})") if wanted else {}
    if not files:
        return spark.createDataFrame([], contract.ddl)
    return spark.read.schema(contract.ddl).option("basePath", address).parquet(*(f"{address}/{file}" for file in files))
