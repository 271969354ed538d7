"""Reads landing files: finds them, checks their headers before anything runs, and reads them as text."""

from __future__ import annotations

import csv
import hashlib
from collections import defaultdict
from collections.abc import Sequence
from datetime import date
from functools import reduce
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from contracts.errors import BadInput
from contracts.features import Log
from contracts.locations import Locations
from contracts.tables import LANDING_COLUMNS, OPTIONAL_LANDING_COLUMNS
from spark_jobs.rules import CORRUPT, RAW


def landing_files(locations: Locations, log: Log, day: date, *, allow_empty: bool = False) -> list[Path]:
    """A landing day's files.

    Args:
        locations: the deployment's paths.
        log: natural or ad.
        day: day of arrival.
        allow_empty: a person says that files without a row are right.

    Raises:
        BadInput: no folder, no file, or only files without a row.
    """
    folder = locations.landing_day(log, day)
    if not folder.is_dir():
        raise BadInput(folder, "landing day", expected="a folder with CSV files", found="no such folder",
                       hint="An absent day is never taken for an empty one: deliver its files, then run this again.")
    files = sorted(path for path in folder.iterdir() if path.suffix == ".csv")
    if not files:
        raise BadInput(folder, "landing day", expected="at least one .csv file", found="none")
    if not allow_empty and not any(_has_rows(path) for path in files):
        raise BadInput(files[0], "rows", expected="at least one row on this landing day", found="none",
                       hint="If the day was empty indeed, say so: tributary spark_jobs ingest_logs --allow-empty.")
    return files


def check_header(path: Path, log: Log) -> tuple[str, ...]:
    """The columns of a landing file, in its order.

    Raises:
        BadInput: a column is missing, or named twice.
    """
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        header = tuple(name.strip() for name in next(csv.reader(file), []))
    expected = [name for name in LANDING_COLUMNS[log] if name not in OPTIONAL_LANDING_COLUMNS]
    for name in expected:
        if name not in header:
            raise BadInput(path, name, expected=f"a column of this name in the header (needed: {', '.join(expected)})",
                           found=f"columns {', '.join(header) or 'none'}")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise BadInput(path, twice[0], expected="a column named once", found="named twice")
    return header


def digest_of_files(files: Sequence[Path]) -> str:
    """sha256 over the content of a landing day's files, in the order of their names."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def read_landing(spark: SparkSession, log: Log, files: Sequence[Path]) -> DataFrame:
    """All rows of the files as text.

    Returns:
        `raw_<column>` for each landing column (null where the file lacks an optional one), `_corrupt` (the line, where it
        does not have the header's number of fields), `file`, and `ds`, the landing day.
    """
    by_header: dict[tuple[str, ...], list[Path]] = defaultdict(list)
    for path in files:
        by_header[check_header(path, log)].append(path)
    frames = [_read_alike(spark, log, header, paths) for header, paths in by_header.items()]
    return reduce(DataFrame.unionByName, frames)


def _read_alike(spark: SparkSession, log: Log, header: tuple[str, ...], files: Sequence[Path]) -> DataFrame:
    schema = ", ".join(f"`{name}` string" for name in (*header, CORRUPT))
    reader = spark.read.schema(schema).option("header", True).option("mode", "PERMISSIVE").option("escape", '"')
    rows = reader.option("columnNameOfCorruptRecord", CORRUPT).option("enforceSchema", True).csv([str(path) for path in files])
    path = F.col("_metadata.file_path")
    raw = [(F.col(f"`{name}`") if name in header else F.lit(None).cast("string")).alias(RAW + name) for name in LANDING_COLUMNS[log]]
    return rows.select(*raw, CORRUPT, F.regexp_extract(path, r"([^/]+/[^/]+/[^/]+)$", 1).alias("file"),
                       F.regexp_extract(path, r"/(\d{4}-\d{2}-\d{2})/[^/]+$", 1).cast("date").alias("ds"))


def _has_rows(path: Path) -> bool:
    with path.open("rb") as file:
        file.readline()
        return bool(file.readline().strip())
