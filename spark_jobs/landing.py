"""Reads landing files, whatever their format: a row is judged by the same rules.

Only the landing columns are read, by their names in the contract, so that no name or type of another column matters.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from functools import reduce
from urllib.parse import unquote

from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

from contracts import tables
from contracts.errors import BadInput
from contracts.features import Log
from contracts.tables import LANDING_COLUMNS
from lake.landing_bytes import Quotes
from lake.landing_files import LandingFile
from lake.parquet_columns import Delivered
from spark_jobs.rules import CORRUPT, RAW

BY_FOLDER = "by folder"  # the landing day is the name of the file's folder
ROW_INDEX = "row_index"
FRAMES_JUDGED_APART = 2
_EXACT_BELOW = float(2**53)  # a double holds every whole number below this exactly
_GLOB_MARKS = re.compile(r"([\\\[\]{}*?])")
_PLAIN_NAME = re.compile(r"[\w.=-]*", re.ASCII)
# Closes the object that a JSON line is put into. A line that holds more than one value, or text behind it, does not
# reach it.
_END_OF_LINE = "tributary: the end of the line"
_LINE_MARK = "\u0001"  # parts no fields: it makes Spark's CSV reader give lines, without the header
_CSV_OPTIONS = {"mode": "PERMISSIVE", "columnNameOfCorruptRecord": CORRUPT, "escape": '"'}


def read_landing(
    spark: SparkSession,
    log: Log,
    files: Iterable[LandingFile],
    *,
    string_ids: Sequence[str] = (),
    day: date | str | None = BY_FOLDER,
) -> DataFrame:
    """All rows of the files, as they were delivered.

    Args:
        spark: the session.
        log: natural or ad.
        files: landing files of any days, formats and orders of columns.
        string_ids: landing columns that the deployment declares as string ids.
        day: the landing day of all files; None where it is not known; by default the name of each file's folder.

    Returns:
        `raw_<column>` for each landing column (null where a file lacks an optional one): text, or, where all files have
            it
        as one type that holds nothing else, that type; `_corrupt` (the line, where it does not have the header's number
            of
        fields, or is no JSON object), `file`, `row_index` (of a Parquet file's row, from 0), and `ds`, the landing day.
    """
    files = list(files)
    frames = [
        *_csv_frames(spark, log, files),
        *_json_frames(spark, log, files),
        *_parquet_frames(spark, log, files, string_ids),
    ]
    types = {tuple(frame.dtypes) for frame in frames}
    rows = reduce(
        DataFrame.unionAll, frames if len(types) == 1 else map(_as_text, frames)
    )  # all have the same columns in order
    if len(frames) > FRAMES_JUDGED_APART:
        # Spark moves projections below a union, and would plan and compile them once for every frame; it does not move
        # them below this.
        rows = rows.where(F.rand() >= 0)
    rows = rows.withColumn("file", _file_name(files))
    by_folder = F.substring_index(F.substring_index("file", "/", 2), "/", -1).try_cast("date")
    ds = by_folder if day == BY_FOLDER else F.lit(day).cast("date")
    return rows.select(*(RAW + name for name in LANDING_COLUMNS[log]), CORRUPT, "file", ROW_INDEX, ds.alias("ds"))


@contextmanager
def reading(files: Iterable[LandingFile]) -> Iterator[None]:
    """Turns Spark's error about a file that it cannot read into BadInput that names the file."""
    try:
        yield
    except PySparkException as error:
        match = (
            re.search(r"reading file (?:file:)?(/\S+?)\. ", str(error).replace("\n", " "))
            if "FAILED_READ_FILE" in str(error)
            else None
        )
        if match is None:
            raise
        opened = "/" + unquote(match[1]).lstrip("/")
        path = next((file.path for file in files if str(file.opened) == opened), opened)
        causes = [line for line in str(error).splitlines() if line.startswith("Caused by: ")]
        raise BadInput(
            path,
            "file",
            expected="a file that Spark can read",
            found=causes[-1] if causes else str(error).splitlines()[0],
            hint="It may have been damaged on its way: deliver it again.",
        ) from error


def _csv_frames(spark: SparkSession, log: Log, files: Iterable[LandingFile]) -> Iterator[DataFrame]:
    """Yields a frame for each order of the landing columns, since fields of a line are known by their place."""
    alike: dict[tuple[Quotes, tuple[str, ...]], list[LandingFile]] = defaultdict(list)
    for file in files:
        if file.kind == "csv":
            alike[file.quotes, tuple(name if name in LANDING_COLUMNS[log] else "" for name in file.columns)].append(
                file
            )
    for (quotes, columns), of_kind in alike.items():
        names = [*(f"c{place}" for place in range(len(columns))), CORRUPT]
        fields: dict[str, Column] = {name: F.col(f"c{place}") for place, name in enumerate(columns) if name}
        if quotes == "irregular":
            rows = _read_lines(spark, of_kind, names)
        else:
            reader = spark.read.schema(_texts(names)).options(**_CSV_OPTIONS, header=True, enforceSchema=True)
            rows = reader.option("multiLine", quotes == "spanning").csv(_paths(of_kind))
            if quotes == "spanning" and columns[-1]:  # where the first line ends in LF and another in CR LF
                fields[columns[-1]] = F.regexp_replace(fields[columns[-1]], "\r\\z", "")
        yield _raw_columns(rows, log, fields)


def _read_lines(spark: SparkSession, files: Sequence[LandingFile], names: Sequence[str]) -> DataFrame:
    """Rows of CSV files of irregular quotes, line by line; a line whose last field opens a quote that does not close is set aside whole."""
    reader = spark.read.schema(_texts(["line", "beyond"])).options(
        header=True, enforceSchema=True, sep=_LINE_MARK, quote="", columnNameOfCorruptRecord="beyond"
    )
    line = F.coalesce("beyond", "line")
    rows = reader.csv(_paths(files)).select(line.alias("line"), F.col("_metadata.file_path").alias("path"))
    rows = rows.select(
        "line", "path", F.from_csv("line", ", ".join(f"{name} string" for name in names), _CSV_OPTIONS).alias("fields")
    )
    last = F.coalesce(F.col("fields")[names[-2]], F.lit(""))
    quoted = F.concat(F.lit(',"'), F.replace(last, F.lit('"'), F.lit('""')), F.lit('"'))
    is_whole = F.endswith("line", F.concat(F.lit(","), last)) | F.endswith("line", quoted)
    corrupt = F.when(F.col("fields").isNull() | F.col("fields")[CORRUPT].isNotNull() | ~is_whole, F.col("line"))
    return rows.select(*(F.col("fields")[name].alias(name) for name in names[:-1]), corrupt.alias(CORRUPT), "path")


def _json_frames(spark: SparkSession, log: Log, files: Iterable[LandingFile]) -> Iterator[DataFrame]:
    """A frame for files of plain lines and one for all others, whatever keys the lines have."""
    of_kind = [file for file in files if file.kind == "jsonl"]
    for is_plain in (True, False):
        alike = [file for file in of_kind if file.has_plain_lines == is_plain]
        if alike:
            rows = _read_plain_objects(spark, log, alike) if is_plain else _read_objects(spark, log, alike)
            values = {name: F.when(F.col(CORRUPT).isNull(), F.col("values")[name]) for name in LANDING_COLUMNS[log]}
            yield _raw_columns(rows, log, values)


def _read_plain_objects(spark: SparkSession, log: Log, files: Sequence[LandingFile]) -> DataFrame:
    reader = spark.read.schema(_texts([*LANDING_COLUMNS[log], CORRUPT])).options(
        mode="PERMISSIVE", columnNameOfCorruptRecord=CORRUPT
    )
    rows = reader.json(_paths(files))
    return rows.select(
        F.col("_metadata.file_path").alias("path"), F.struct(*LANDING_COLUMNS[log]).alias("values"), CORRUPT
    )


def _read_objects(spark: SparkSession, log: Log, files: Sequence[LandingFile]) -> DataFrame:
    """Lines are read as text and parsed as a whole: Spark's JSON reader would drop what follows the first object of a line."""
    schema = StructType([StructField("object", _texts(LANDING_COLUMNS[log])), StructField(_END_OF_LINE, StringType())])
    lines = spark.read.text(_paths(files)).select("value", F.col("_metadata.file_path").alias("path"))
    lines = lines.where(F.btrim("value", F.lit(" \t\r\n\x0b\x0c")) != "")
    whole = F.concat(F.lit('{"object":'), "value", F.lit(f',"{_END_OF_LINE}":"1"}}'))
    rows = lines.select("value", "path", F.from_json(whole, schema, {"mode": "PERMISSIVE"}).alias("parsed"))
    values = F.col("parsed")["object"]
    corrupt = F.when(values.isNull() | F.col("parsed")[_END_OF_LINE].isNull(), F.col("value"))
    return rows.select("path", values.alias("values"), corrupt.alias(CORRUPT))


def _parquet_frames(
    spark: SparkSession, log: Log, files: Iterable[LandingFile], string_ids: Sequence[str]
) -> Iterator[DataFrame]:
    """A frame for all files whose columns have the same types; a file may lack some of them."""
    groups: list[tuple[dict[str, Delivered], list[LandingFile]]] = []
    for file in (file for file in files if file.kind == "parquet"):
        for columns, of_kind in groups:
            if all(columns.get(name, how) == how for name, how in file.parquet.items()):
                columns |= file.parquet
                of_kind.append(file)
                break
        else:
            groups.append((dict(file.parquet), [file]))
    for columns, of_kind in groups:
        schema = ", ".join(
            f"{name} {how.stored}" for name, how in columns.items()
        )  # names of the contract, none of the files'
        reader = spark.read.schema(schema).options(datetimeRebaseMode="CORRECTED", int96RebaseMode="CORRECTED")
        rows = reader.parquet(*_paths(of_kind)).withColumn(CORRUPT, F.lit(None).cast("string"))
        contract = tables.table(f"{log}_log")
        values = {
            name: _value(name, how, contract.column(name), hashed=name in string_ids) for name, how in columns.items()
        }
        yield _raw_columns(rows, log, values, row_index=F.col("_metadata.row_index"))


def _value(name: str, how: Delivered, column: tables.Column, *, hashed: bool) -> Column:
    """A Parquet value in the type that the contract's rules judge, or as text."""
    value = F.col(name)
    if how.kind == "nothing":
        return F.lit(None).cast("string")
    if how.kind == "nanoseconds":  # cut to microseconds, as times of text are
        return F.timestamp_micros(F.expr(f"({name} - pmod({name}, 1000)) div 1000"))
    if how.kind in ("double", "decimal") and column.type in ("bigint", "int"):
        return _whole_number(value, how, hashed=hashed)
    conversions: dict[str, Callable[[Column], Column]] = {
        "uuid": _uuid_text,
        "bytes": lambda bytes_: bytes_.cast("string"),
        "boolean": lambda flag: flag.cast("int"),
        "date": lambda day: day.cast("timestamp"),
    }
    if how.kind in conversions:
        value = conversions[how.kind](value)
    return value.cast("string") if column.type == "string" else value


def _whole_number(value: Column, how: Delivered, *, hashed: bool) -> Column:
    """The text of a whole number; of anything else its text, or null where it would be hashed into an id."""
    if how.kind == "double":
        is_whole = (F.abs(value) < F.lit(_EXACT_BELOW)) & (value == F.floor(value))
        whole = value.cast("bigint").cast("string")
    else:
        is_whole, whole = value == F.floor(value), F.floor(value).cast("string")
    return F.when(is_whole, whole) if hashed else F.when(is_whole, whole).otherwise(value.cast("string"))


def _uuid_text(value: Column) -> Column:
    digits = F.lower(F.hex(value))
    return F.concat_ws(
        "-", *(F.substring(digits, start, length) for start, length in ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12)))
    )


def _raw_columns(rows: DataFrame, log: Log, values: dict[str, Column], *, row_index: Column | None = None) -> DataFrame:
    raw = [values.get(name, F.lit(None).cast("string")).alias(RAW + name) for name in LANDING_COLUMNS[log]]
    path = F.col("path") if "path" in rows.columns else F.col("_metadata.file_path")
    index = F.lit(None).cast("bigint") if row_index is None else row_index
    return rows.select(*raw, CORRUPT, path.alias("path"), index.alias(ROW_INDEX))


def _as_text(rows: DataFrame) -> DataFrame:
    return rows.withColumns({name: F.col(name).cast("string") for name in rows.columns if name.startswith(RAW)})


def _texts(names: Sequence[str]) -> StructType:
    return StructType([StructField(name, StringType()) for name in names])


def _paths(files: Iterable[LandingFile]) -> list[str]:
    """Paths as Spark takes them: it reads a path as a pattern."""
    return [_GLOB_MARKS.sub(r"\\\1", str(file.opened)) for file in files]


def shown_name(file: LandingFile) -> str:
    """`<log>/<day>/<name>` as the column `file` has it; bytes that are no UTF-8 are replaced."""
    return os.fsencode("/".join(file.path.parts[-3:])).decode(errors="replace")


def _file_name(files: Sequence[LandingFile]) -> Column:
    """`<log>/<day>/<name>` of the file that a row is from, of its column `path`; what most names do not need is left out."""
    # Cut by slashes, not by a regular expression: this is done for every row.
    name = F.substring_index("path", "/", -3)
    if not all(_PLAIN_NAME.fullmatch(part) for file in files for part in file.opened.parts[-3:]):
        name = F.url_decode(F.replace(name, F.lit("+"), F.lit("%2B")))
    linked = {"/".join(file.opened.parts[-3:]): shown_name(file) for file in files if file.opened != file.path}
    if linked:
        name = F.coalesce(F.create_map(*(F.lit(text) for pair in linked.items() for text in pair))[name], name)
    return name
