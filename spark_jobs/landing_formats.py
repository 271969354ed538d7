"""Files of each format as frames of their own columns; which rows mean what is not decided here."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

from contracts.landing import Place
from lake.landing_bytes import Quotes
from lake.landing_files import Delivery, LandingFile, partition_values
from lake.parquet_columns import Delivered
from spark_jobs.rules import CORRUPT, DELIVERED

PATH = "_path"
ROW_INDEX = "row_index"
_GLOB_MARKS = re.compile(r"([\\\[\]{}*?])")
# Closes the object that a JSON line is put into. A line that holds more than one value, or text behind it, does not
# reach it.
_END_OF_LINE = "tributary: the end of the line"
_LINE_MARK = "\u0001"  # parts no fields: it makes Spark's CSV reader give lines, without the header
_FILE_PATH = "_metadata.file_path"
# Types by which Spark's names of types are made short, of kinds of Parquet columns that are not read as they are stored.
_TYPES_OF_KINDS = {"nanoseconds": "timestamp", "uuid": "string", "nothing": "string"}


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Rows of files that are read alike.

    Attributes:
        rows: their columns that are read, by name, and `_corrupt` (the line, where it has not the header's number of
            fields, or is no JSON object), PATH (of the file, as a URI), ROW_INDEX (in a Parquet file, from 0) and
            DELIVERED (those columns as they lie in the file).
        types: Spark's type of each of their columns; None where Spark knows it only.
        files: the files.
    """

    rows: DataFrame
    types: Mapping[str, str | None]
    files: Sequence[LandingFile]

    @property
    def delivery(self) -> Delivery:
        """What its files are delivered as."""
        return self.files[0].delivery


def frames_of(spark: SparkSession, files: Iterable[LandingFile], delivery: Delivery) -> list[Frame]:
    """All rows of the files.

    Args:
        spark: the session.
        files: files of any days, formats and orders of columns.
        delivery: what they are delivered as.
    """
    files, source = list(files), delivery.source
    names = delivery.names(file.path for file in files)
    by_kind: dict[str, list[LandingFile]] = defaultdict(list)
    for file in files:
        by_kind[file.kind].append(file)
    return [
        *_csv_frames(spark, by_kind["csv"], names, source),
        *_json_frames(spark, by_kind["jsonl"], names, source),
        *_parquet_frames(spark, by_kind["parquet"]),
        *_schema_frames(spark, by_kind["orc"], names),
        *_schema_frames(spark, by_kind["avro"], names),
        *_delta_frames(spark, by_kind["delta"], names),
    ]


def _csv_frames(
    spark: SparkSession, files: Sequence[LandingFile], wanted: Sequence[str], source: Place
) -> Iterator[Frame]:
    """A frame for each order of the columns that are read: fields are told apart by their places."""
    alike: dict[tuple[Quotes, tuple[str, ...]], list[LandingFile]] = defaultdict(list)
    for file in files:
        alike[file.quotes, tuple(name if name in wanted else "" for name in file.columns)].append(file)
    options: dict[str, Any] = {
        "mode": "PERMISSIVE",
        "columnNameOfCorruptRecord": CORRUPT,
        # Fields of a row are counted only where all are parsed, whichever are wanted afterwards.
        "columnPruning": False,
        "sep": source.delimiter,
        "quote": source.quote,
        "escape": source.quote,
    }
    for (quotes, columns), of_kind in alike.items():
        names = [*(f"c{place}" for place in range(len(columns))), CORRUPT]
        fields: dict[str, Column] = {name: F.col(f"c{place}") for place, name in enumerate(columns) if name}
        if quotes == "irregular":
            rows = _read_lines(spark, of_kind, names, options, source)
        else:
            reader = spark.read.schema(_texts(names)).options(**options, header=source.header, enforceSchema=True)
            rows = reader.option("multiLine", quotes == "spanning").csv(_paths(of_kind))
            if quotes == "spanning" and columns[-1]:  # where the first line ends in LF and another in CR LF
                fields[columns[-1]] = F.regexp_replace(fields[columns[-1]], "\r\\z", "")
        yield _text_frame(rows, fields, of_kind, source)


def _read_lines(
    spark: SparkSession,
    files: Sequence[LandingFile],
    names: Sequence[str],
    options: Mapping[str, Any],
    source: Place,
) -> DataFrame:
    """Rows of CSV files of irregular quotes, line by line; a line whose last field opens a quote that does not close is set aside whole."""
    reader = spark.read.schema(_texts(["line", "beyond"])).options(
        header=source.header, enforceSchema=True, sep=_LINE_MARK, quote="", columnNameOfCorruptRecord="beyond"
    )
    line = F.coalesce("beyond", "line")
    rows = reader.csv(_paths(files)).select(line.alias("line"), F.col(_FILE_PATH).alias(PATH))
    rows = rows.select(
        "line", PATH, F.from_csv("line", ", ".join(f"{name} string" for name in names), options).alias("fields")
    )
    last = F.coalesce(F.col("fields")[names[-2]], F.lit(""))
    sign, quote = source.delimiter, source.quote
    quoted = F.concat(F.lit(sign + quote), F.replace(last, F.lit(quote), F.lit(quote * 2)), F.lit(quote))
    is_whole = F.endswith("line", F.concat(F.lit(sign), last)) | F.endswith("line", quoted)
    corrupt = F.when(F.col("fields").isNull() | F.col("fields")[CORRUPT].isNotNull() | ~is_whole, F.col("line"))
    return rows.select(*(F.col("fields")[name].alias(name) for name in names[:-1]), corrupt.alias(CORRUPT), PATH)


def _json_frames(
    spark: SparkSession, files: Sequence[LandingFile], names: Sequence[str], source: Place
) -> Iterator[Frame]:
    """A frame for files of plain lines and one for all others, whatever keys the lines have."""
    of_folders = {name for file in files for name in partition_values(file.path)} - {
        name for file in files for name in file.columns
    }
    names = [name for name in names if source.is_home or name not in of_folders]
    nested = {name: kind for name, kind in source.types.items() if name in names and _is_nested(kind)}
    schema = ", ".join(f"{_quoted(name)} {nested.get(name, 'string')}" for name in names)
    for is_plain in (True, False):
        alike = [file for file in files if file.has_plain_lines == is_plain]
        if alike:
            rows, fields = (_read_plain_objects if is_plain else _read_objects)(spark, names, schema, alike)
            values = {name: F.when(F.col(CORRUPT).isNull(), value) for name, value in fields.items()}
            yield _text_frame(rows, values, alike, source)


def _read_plain_objects(
    spark: SparkSession, names: Sequence[str], schema: str, files: Sequence[LandingFile]
) -> tuple[DataFrame, dict[str, Column]]:
    reader = spark.read.schema(f"{schema}, {CORRUPT} string").options(
        mode="PERMISSIVE", columnNameOfCorruptRecord=CORRUPT
    )
    return reader.json(_paths(files)), {name: F.col(_quoted(name)) for name in names}


def _read_objects(
    spark: SparkSession, names: Sequence[str], schema: str, files: Sequence[LandingFile]
) -> tuple[DataFrame, dict[str, Column]]:
    """Lines are read as text and parsed as a whole: Spark's JSON reader would drop what follows the first object of a line."""
    line_schema = f"object struct<{schema}>, {_quoted(_END_OF_LINE)} string"
    lines = spark.read.text(_paths(files)).select("value", F.col(_FILE_PATH).alias(PATH))
    lines = lines.where(F.btrim("value", F.lit(" \t\r\n\x0b\x0c")) != "")
    whole = F.concat(F.lit('{"object":'), "value", F.lit(f',"{_END_OF_LINE}":"1"}}'))
    rows = lines.select("value", PATH, F.from_json(whole, line_schema, {"mode": "PERMISSIVE"}).alias("parsed"))
    values = F.col("parsed")["object"]
    corrupt = F.when(values.isNull() | F.col("parsed")[_END_OF_LINE].isNull(), F.col("value"))
    rows = rows.select(PATH, values.alias("values"), corrupt.alias(CORRUPT))
    return rows, {name: F.col("values")[name] for name in names}


def _text_frame(rows: DataFrame, values: Mapping[str, Column], files: Sequence[LandingFile], source: Place) -> Frame:
    """Texts in the types that the settings name; a text that is none of its type reads as null."""
    types: dict[str, str | None] = {name: source.types.get(name, "string") for name in values}
    typed = dict(values)
    for name, kind in types.items():
        if kind != "string" and kind is not None and not _is_nested(kind):
            typed[name] = F.btrim(values[name]).try_cast(kind)
    known = {name: kind if kind == "string" else None for name, kind in types.items()}
    return _frame(rows, typed, known, files, delivered=values)


def _is_nested(kind: str) -> bool:
    return kind.lstrip().lower().startswith(("array", "struct", "map"))


def _parquet_frames(spark: SparkSession, files: Sequence[LandingFile]) -> Iterator[Frame]:
    """A frame for all files whose columns have the same types; a file may lack some of them."""
    groups: list[tuple[dict[str, Delivered], list[LandingFile]]] = []
    for file in files:
        for columns, of_kind in groups:
            if all(columns.get(name, how) == how for name, how in file.parquet.items()):
                columns |= file.parquet
                of_kind.append(file)
                break
        else:
            groups.append((dict(file.parquet), [file]))
    for columns, of_kind in groups:
        # The names are those that are read, never all of the file's.
        schema = ", ".join(
            f"{_quoted(name)} {how.stored or _nested_type(of_kind, name)}" for name, how in columns.items()
        )
        reader = spark.read.options(datetimeRebaseMode="CORRECTED", int96RebaseMode="CORRECTED")
        rows = (reader.schema(schema) if schema else reader).parquet(*_paths(of_kind))
        rows = rows.withColumn(CORRUPT, F.lit(None).cast("string"))
        types = {
            name: None if how.kind == "nested" else _TYPES_OF_KINDS.get(how.kind, how.stored)
            for name, how in columns.items()
        }
        values = {name: _as_its_kind(name, how) for name, how in columns.items()}
        yield _frame(rows, values, types, of_kind, row_index=F.col("_metadata.row_index"))


def _nested_type(files: Sequence[LandingFile], name: str) -> str:
    import pyarrow.parquet as pq
    from pyspark.sql.pandas.types import from_arrow_type

    from lake.store_files import parquet_source

    file = next(file for file in files if name in file.parquet)
    return from_arrow_type(pq.read_schema(parquet_source(file.path)).field(name).type, True).simpleString()


def _as_its_kind(name: str, how: Delivered) -> Column:
    """A Parquet value as what it is, where Spark has read it as something else."""
    as_kind: dict[str, Callable[[Column], Column]] = {
        "nothing": lambda _: F.lit(None).cast("string"),
        "nanoseconds": lambda _: F.timestamp_micros(  # cut to microseconds, as times of text are
            F.expr(f"({_quoted(name)} - pmod({_quoted(name)}, 1000)) div 1000")
        ),
        "uuid": _uuid_text,
    }
    value, convert = F.col(_quoted(name)), as_kind.get(how.kind)
    return value if convert is None else convert(value)


def _uuid_text(value: Column) -> Column:
    digits = F.lower(F.hex(value))
    return F.concat_ws(
        "-", *(F.substring(digits, start, length) for start, length in ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12)))
    )


def _schema_frames(spark: SparkSession, files: Sequence[LandingFile], wanted: Sequence[str]) -> Iterator[Frame]:
    """A frame for all files that have the same of the wanted columns, as they lie there."""
    alike: dict[tuple[str, ...], list[LandingFile]] = defaultdict(list)
    for file in files:
        alike[tuple(name for name in file.columns if name in wanted)].append(file)
    for names, of_kind in alike.items():
        rows = spark.read.format(of_kind[0].kind).load(_paths(of_kind))
        yield _as_they_are(rows, names, of_kind)


def _delta_frames(spark: SparkSession, files: Sequence[LandingFile], wanted: Sequence[str]) -> Iterator[Frame]:
    for file in files:
        rows = spark.read.format("delta").option("versionAsOf", file.version).load(_address(file))
        yield _as_they_are(rows, [name for name in file.columns if name in wanted], [file])


def _as_they_are(rows: DataFrame, names: Sequence[str], files: Sequence[LandingFile]) -> Frame:
    values = {name: F.col(_quoted(name)) for name in names}
    rows = rows.withColumn(CORRUPT, F.lit(None).cast("string"))
    return _frame(rows, values, dict.fromkeys(names), files)


def _frame(
    rows: DataFrame,
    values: Mapping[str, Column],
    types: Mapping[str, str | None],
    files: Sequence[LandingFile],
    *,
    row_index: Column | None = None,
    delivered: Mapping[str, Column] | None = None,
) -> Frame:
    path = F.col(PATH) if PATH in rows.columns else F.col(_FILE_PATH)
    index = F.lit(None).cast("bigint") if row_index is None else row_index
    named = [value.alias(name) for name, value in values.items()]
    whole = [value.alias(name) for name, value in (delivered or values).items()]
    delivered_row = F.struct(*whole) if whole else F.lit(None).cast("string")
    rows = rows.select(*named, CORRUPT, path.alias(PATH), index.alias(ROW_INDEX), delivered_row.alias(DELIVERED))
    return Frame(rows=rows, types=types, files=files)


def _texts(names: Sequence[str]) -> StructType:
    return StructType([StructField(name, StringType()) for name in names])


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _address(file: LandingFile) -> str:
    return str(file.opened)


def _paths(files: Iterable[LandingFile]) -> list[str]:
    """Paths as Spark takes them: it reads a path as a pattern."""
    return [_GLOB_MARKS.sub(r"\\\1", _address(file)) for file in files]
