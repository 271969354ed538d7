"""Reads landing files, whatever their format: a row is judged by the same rules."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path

import pyarrow.parquet as pa_parquet
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from contracts.features import Log
from contracts.tables import LANDING_COLUMNS
from lake.landing_files import Format, format_of
from spark_jobs.rules import CORRUPT, RAW


def read_landing(spark: SparkSession, log: Log, files: Mapping[Path, tuple[str, ...]]) -> DataFrame:
    """All rows of the files, as they were delivered.

    Args:
        spark: the session.
        log: natural or ad.
        files: landing files of any days, formats and orders of columns, and the columns that each names.

    Returns:
        `raw_<column>` for each landing column (null where the file lacks an optional one): text, or, where all files are
        Parquet and of one type, as they are; `_corrupt` (the line, where it does not have the header's number of fields, or
        is no JSON), `file`, and `ds`, the landing day.
    """
    alike: dict[tuple[Format, tuple[str, ...]], list[Path]] = defaultdict(list)
    for path, columns in files.items():
        kind = format_of(path)
        assert kind is not None, path
        alike[kind, columns if kind == "csv" else tuple(sorted(columns))].append(path)
    frames = []
    for (kind, columns), paths in alike.items():
        frames += _read_parquet(spark, paths) if kind == "parquet" else [_read_text(spark, kind, columns, paths)]
    frames = [_raw_columns(frame, log) for frame in frames]
    types = {tuple(frame.dtypes) for frame in frames}
    return reduce(DataFrame.unionByName, frames if len(types) == 1 else map(_as_text, frames))


def _read_text(spark: SparkSession, kind: Format, columns: tuple[str, ...], files: Sequence[Path]) -> DataFrame:
    schema = ", ".join(f"`{name}` string" for name in (*columns, CORRUPT))
    reader = spark.read.schema(schema).option("mode", "PERMISSIVE").option("columnNameOfCorruptRecord", CORRUPT)
    paths = [str(path) for path in files]
    if kind == "csv":
        return reader.option("header", True).option("escape", '"').option("enforceSchema", True).csv(paths)
    return reader.json(paths)


def _read_parquet(spark: SparkSession, files: Sequence[Path]) -> list[DataFrame]:
    """One frame a schema: a column may be delivered as another type one day."""
    alike: dict[str, list[str]] = defaultdict(list)
    for path in files:
        alike[str(pa_parquet.read_schema(path).remove_metadata())].append(str(path))
    return [spark.read.parquet(*paths).withColumn(CORRUPT, F.lit(None).cast("string")) for paths in alike.values()]


def _raw_columns(rows: DataFrame, log: Log) -> DataFrame:
    # Cut by slashes, not by a regular expression: this is done for every row.
    file = F.substring_index(F.col("_metadata.file_path"), "/", -3)
    day = F.substring_index(F.substring_index(file, "/", 2), "/", -1).cast("date")
    raw = [(F.col(f"`{name}`") if name in rows.columns else F.lit(None).cast("string")).alias(RAW + name) for name in LANDING_COLUMNS[log]]
    return rows.select(*raw, CORRUPT, file.alias("file"), day.alias("ds"))


def _as_text(rows: DataFrame) -> DataFrame:
    return rows.withColumns({name: F.col(name).cast("string") for name in rows.columns if name.startswith(RAW)})
