"""A lake with a past, made quickly: logs written straight into their tables, partials copied between lakes."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import date
from typing import Any

from pyspark.sql import functions as F

from benchmarks.made_logs import Size, write_landing
from contracts.features import LOGS
from contracts.locations import Locations
from contracts.tables import TABLES
from lake.partitions import read_partitions
from lake.progress import each
from lake.reader import open_table
from lake.writing import record_builds, replace_partitions, write_partitions

CHUNK_DAYS = 15


def seed_logs(spark: Any, locations: Locations, days: Sequence[date], size: Size) -> None:
    """Logs of days that nobody is going to ingest: the rows that ingestion would keep, without landing files left behind."""
    scratch = Locations(locations.home / "seeding")
    chunks = [days[begin : begin + CHUNK_DAYS] for begin in range(0, len(days), CHUNK_DAYS)]
    for chunk in each(chunks, description="seed logs", unit=f"{CHUNK_DAYS} days"):
        for day in chunk:
            write_landing(scratch, day, size)
        builds = []
        for log in LOGS:
            contract = TABLES[f"{log}_log"]
            rows = spark.read.parquet(*(str(scratch.landing_day(log, day)) for day in chunk))
            rows = rows.withColumns({"ds": F.to_date("event_ts"), "late": F.lit(False), "arrival_ts": F.lit(None)})
            typed = rows.select(
                *(F.col(column.name).cast(column.type).alias(column.name) for column in contract.columns)
            )
            builds += write_partitions(spark, locations, contract.name, typed, owners=[{"ds": day} for day in chunk])
        record_builds(spark, locations, builds)
        shutil.rmtree(scratch.home)


def forget_day(spark: Any, locations: Locations, day: date) -> None:
    """Takes a day out of every table that is partitioned by it; what it added to the sets of texts stays."""
    for contract in TABLES.values():
        path = locations.table(contract.name)
        if "ds" in contract.owner and "ds" in contract.partition_columns and open_table(str(path)) is not None:
            spark.sql(f"DELETE FROM delta.`{path}` WHERE ds = '{day}'").collect()


def copy_partials(spark: Any, source: Locations, target: Locations, days: Sequence[date]) -> None:
    """Copies partials; a partial depends only on its own day, so it is the same whatever came before."""
    owners = [{"ds": day, "log": log} for day in days for log in LOGS]
    for name in ("behaviour_partials", "statistic_partials"):
        rows = read_partitions(spark, source, name, days)
        replace_partitions(spark, target, name, rows, owners=owners)
