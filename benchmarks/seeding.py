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
from lake.progress import each
from lake.writing import read_delta, record_builds, replace_partitions, write_partitions

CHUNK_DAYS = 15


def seed_logs(spark: Any, locations: Locations, days: Sequence[date], size: Size) -> None:
    """Logs of days that nobody is going to ingest: the rows that ingestion would keep, without landing files left behind."""
    scratch = Locations(locations.home / "seeding")
    chunks = [days[begin:begin + CHUNK_DAYS] for begin in range(0, len(days), CHUNK_DAYS)]
    for chunk in each(chunks, description="seed logs", unit=f"{CHUNK_DAYS} days"):
        for day in chunk:
            write_landing(scratch, day, size)
        builds = []
        for log in LOGS:
            contract = TABLES[f"{log}_log"]
            rows = spark.read.parquet(*(str(scratch.landing_day(log, day)) for day in chunk))
            rows = rows.withColumns({"ds": F.to_date("event_ts"), "late": F.lit(False), "arrival_ts": F.lit(None)})
            typed = rows.select(*(F.col(column.name).cast(column.type).alias(column.name) for column in contract.columns))
            builds += write_partitions(spark, locations, contract.name, typed, owners=[{"ds": day} for day in chunk])
        record_builds(spark, locations, builds)
        shutil.rmtree(scratch.home)


def copy_partials(spark: Any, source: Locations, target: Locations, days: Sequence[date]) -> None:
    """A partial depends on its own day alone, so it is the same whatever came before."""
    owners = [{"ds": day, "log": log} for day in days for log in LOGS]
    for name in ("behaviour_partials", "statistic_partials"):
        rows = read_delta(spark, source, name).where(F.col("ds").between(F.lit(days[0]), F.lit(days[-1])))
        replace_partitions(spark, target, name, rows, owners=owners)
