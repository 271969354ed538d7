"""Reads landing files, whatever their format: a row is judged by the same rules.

Only columns that landing columns are made of are read, so that no name or type of another column matters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from functools import reduce
from pathlib import Path
from urllib.parse import unquote

from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from contracts import tables
from contracts.errors import BadInput
from contracts.features import Log
from contracts.landing import HOME, STORE, LandingSource
from contracts.settings import SETTINGS_FILE
from contracts.tables import LANDING_COLUMNS
from lake.landing_files import LandingFile, names_read, partition_values
from lake.parquet_columns import Kind, kinds_of
from spark_jobs.landing_formats import PATH, ROW_INDEX, Frame, frames_of
from spark_jobs.rules import CORRUPT, DELIVERED, PARTITION, RAW

BY_FOLDER = "by folder"  # the landing day is what the file's path, or the row, tells
FRAMES_JUDGED_APART = 2
_EXACT_BELOW = float(2**53)  # a double holds every whole number below this exactly
_PLAIN_NAME = re.compile(r"[\w.=-]*", re.ASCII)
_PARTITIONS = "_partitions"  # values that the folders of a file's path name
# Kinds of values by how Spark's name of their type begins; the first that fits.
_KINDS: dict[str, Kind] = {
    **dict.fromkeys(("tinyint", "smallint", "int", "bigint"), "integer"),
    "decimal": "decimal",
    **dict.fromkeys(("float", "double"), "double"),
    "boolean": "boolean",
    **dict.fromkeys(("string", "varchar", "char"), "text"),
    "binary": "bytes",
    "timestamp": "time",
    "date": "date",
    "void": "nothing",
}
_UNIT_HINT = "For numbers since 1970: timestamp_seconds(x), timestamp_millis(x), timestamp_micros(x) or timestamp_micros(x div 1000)."


def read_landing(
    spark: SparkSession,
    log: Log,
    files: Iterable[LandingFile],
    *,
    source: LandingSource = HOME,
    string_ids: Sequence[str] = (),
    day: date | str | None = BY_FOLDER,
) -> DataFrame:
    """All rows of the files, as they were delivered.

    Args:
        spark: the session.
        log: natural or ad.
        files: landing files of any days, formats and orders of columns.
        source: how the log is delivered.
        string_ids: landing columns that the deployment declares as string ids.
        day: the landing day of all files; None where it is not known; by default what each file's path or row tells.

    Returns:
        `raw_<column>` for each landing column (null where a file lacks an optional one): text, or, where all files have
        it as one type that holds nothing else, that type; `_corrupt` (the line, where it does not have the header's
        number of fields, or is no JSON object), `_delivered` (a row in their columns, and whose it is, as JSON, where those
        are not ours), `_partition` (how a row contradicts its folder), `file`, `row_index` (of a Parquet file's row, from 0),
        and `ds`, the landing day.

    Raises:
        BadInput: an expression does not fit their columns.
    """
    files = list(files)
    names = names_read(log, source, (file.path for file in files))
    frames = [_ours(frame, log, source, string_ids, day) for frame in frames_of(spark, files, names, source)]
    types = {tuple(frame.dtypes) for frame in frames}
    rows = reduce(
        DataFrame.unionAll, frames if len(types) == 1 else map(_as_text, frames)
    )  # all have the same columns in order
    if len(frames) > FRAMES_JUDGED_APART:
        # Spark moves projections below a union, and would plan and compile them once for every frame; it does not move
        # them below this.
        rows = rows.where(F.rand() >= 0)
    if not source.is_home:
        return rows.withColumnRenamed(PATH, "file")
    rows = rows.withColumn("file", _file_name(files)).drop(PATH)
    by_folder = F.substring_index(F.substring_index("file", "/", 2), "/", -1).try_cast("date")
    return rows.withColumn("ds", by_folder if day == BY_FOLDER else F.lit(day).cast("date"))


@contextmanager
def reading(files: Iterable[LandingFile]) -> Iterator[None]:
    """Turns Spark's error about a file that it cannot read, or about a value that an expression cannot take, into BadInput."""
    try:
        yield
    except PySparkException as error:
        text = str(error).replace("\n", " ")
        match = re.search(r"reading file (?:file:)?(\S+?)\. ", text) if "FAILED_READ_FILE" in text else None
        if match is not None:
            raise _unreadable(match[1], files, error) from error
        failed = re.search(
            r"\[(CAST_INVALID_INPUT|CAST_OVERFLOW|DIVIDE_BY_ZERO|ARITHMETIC_OVERFLOW|INVALID_\w+|[A-Z_]*CANNOT_PARSE\w*)",
            text,
        )
        if failed is None:
            raise
        raise BadInput(
            f"{SETTINGS_FILE} [landing]",
            "columns",
            expected="expressions that have a value, or null, for every row",
            found=str(error).splitlines()[0],
            hint="Functions whose names begin with try_, such as try_cast, give null instead, and the row goes to quarantine.",
        ) from error


@contextmanager
def without_constraints(spark: SparkSession) -> Iterator[None]:
    """Plans landing rows without the filters that Spark derives from others.

    Over the rules of a row and the expressions of a team's own columns, finding them takes minutes and gigabytes.
    """
    name = "spark.sql.constraintPropagation.enabled"
    before = spark.conf.get(name)
    spark.conf.set(name, "false")
    try:
        yield
    finally:
        spark.conf.set(name, str(before))


def _unreadable(found: str, files: Iterable[LandingFile], error: PySparkException) -> BadInput:
    opened = unquote(found) if found.startswith(STORE) else "/" + unquote(found).lstrip("/")
    path = next((file.path for file in files if str(file.opened) == opened), opened)
    causes = [line for line in str(error).splitlines() if line.startswith("Caused by: ")]
    return BadInput(
        path,
        "file",
        expected="a file that Spark can read",
        found=causes[-1] if causes else str(error).splitlines()[0],
        hint="It may have been damaged on its way: deliver it again.",
    )


def _ours(
    frame: Frame, log: Log, source: LandingSource, string_ids: Sequence[str], day: date | str | None
) -> DataFrame:
    """The landing columns of a frame, and where each row is from."""
    rows, types = frame.rows, dict(frame.types)
    if not source.is_home:
        rows, types = _with_places(rows, types, frame.files, source)
    if source.where is not None:  # a line that cannot be read has no values to judge it by: it is kept, and set aside
        rows = rows.where(f"{CORRUPT} IS NOT NULL OR ({source.where})")
    texts = {name: source.expression(name) for name in LANDING_COLUMNS[log] if name in source.columns or name in types}
    unknown = {name: text for name, text in texts.items() if name in source.columns or types[name] is None}
    kinds = {name: kind for name, kind in types.items() if kind} | _types_of(rows, unknown, frame, log)
    contract = tables.table(f"{log}_log")
    nothing = F.lit(None).cast("string")
    raw = {
        name: _accepted(F.expr(texts[name]), kinds[name], contract.column(name), frame, log, hashed=name in string_ids)
        if name in texts
        else nothing
        for name in LANDING_COLUMNS[log]
    }
    columns: list[Column | str] = [*(value.alias(RAW + name) for name, value in raw.items()), CORRUPT, PATH, ROW_INDEX]
    if source.is_home:
        return rows.select(*columns, nothing.alias(DELIVERED), nothing.alias(PARTITION))
    # Under a name of ours, so that whoever deletes a user's rows finds them whatever the team calls its users.
    user_id = raw["user_id"].cast("string").alias("user_id")
    delivered = F.to_json(F.struct(user_id, F.col(DELIVERED).alias("delivered"))) if types else nothing
    ds = _day(rows, source, frame, log) if day == BY_FOLDER else F.lit(day).cast("date")
    return rows.select(*columns, delivered.alias(DELIVERED), F.col(PARTITION), ds.alias("ds"))


def _with_places(
    rows: DataFrame, types: dict[str, str | None], files: Sequence[LandingFile], source: LandingSource
) -> tuple[DataFrame, dict[str, str | None]]:
    """Adds what a file's path tells: its name, its day, and the values of Hive's partition columns that the file itself lacks."""
    path = F.url_decode(F.replace(PATH, F.lit("+"), F.lit("%2B")))
    path = F.regexp_replace(path, "^file:/+", "/")
    nothing = F.lit(None).cast("string")
    if source.table is not None:
        return rows.withColumns({PATH: path, PARTITION: nothing}), types
    places = [(str(file.opened), file.shown, file.day, partition_values(file.path)) for file in files]
    by_path = rows.sparkSession.createDataFrame(
        places, f"_opened string, _file string, _folder_day date, {_PARTITIONS} map<string, string>"
    )
    rows = rows.withColumn(PATH, path).join(F.broadcast(by_path), F.col(PATH) == F.col("_opened"), "left")
    file = F.coalesce("_file", F.raise_error(F.concat(F.lit("tributary: no landing file has the path "), PATH)))
    names = sorted({name for *_, values in places for name in values})
    own = [name for name in names if name in types]
    contradicts = [_contradiction(name) for name in own]
    added = {name: F.col(_PARTITIONS)[name] for name in names if name not in types}
    partition = F.when(F.col(CORRUPT).isNull(), F.coalesce(*contradicts)) if contradicts else nothing
    rows = rows.withColumns({PATH: file, PARTITION: partition, **added})
    return rows, types | dict.fromkeys(added, "string")


def _contradiction(name: str) -> Column:
    """What a row says of a partition column, if its folder says otherwise; null where they agree, or the row says nothing."""
    own, folder = F.col(f"`{name}`").cast("string"), F.col(_PARTITIONS)[name]
    agree = (own == folder) | F.coalesce(own.try_cast("bigint") == folder.try_cast("bigint"), F.lit(False))
    return F.when(
        own.isNotNull() & ~agree, F.concat_ws("", F.lit(f"{name} is "), own, F.lit(" in a folder of "), folder)
    )


def _types_of(rows: DataFrame, texts: Mapping[str, str], frame: Frame, log: Log) -> dict[str, str]:
    """Spark's types of expressions over a frame.

    Raises:
        BadInput: one does not fit the columns; the message names its setting.
    """
    if not texts:
        return {}
    try:
        return dict(rows.select(PATH, *(F.expr(text).alias(name) for name, text in texts.items())).dtypes)
    except AnalysisException as error:
        for name, text in texts.items():
            try:
                rows.select(PATH, F.expr(text)).dtypes  # noqa: B018 - next to a column, an aggregate is an error
            except AnalysisException as own:
                raise _does_not_fit(f"columns.{name}", text, frame, log, str(own).splitlines()[0]) from None
        raise error


def _does_not_fit(name: str, text: str, frame: Frame, log: Log, found: str, hint: str = "") -> BadInput:
    columns = ", ".join(name for name in frame.types if name)
    return BadInput(
        f"{SETTINGS_FILE} [landing.{log}]",
        name,
        expected=f"an expression over the columns of {frame.files[0].path}: {columns}",
        found=f"{text!r}: {found}",
        hint=hint,
    )


def _day(rows: DataFrame, source: LandingSource, frame: Frame, log: Log) -> Column:
    """The landing day of a row of a log that is delivered outside of the home folder."""
    if source.has_days:
        return F.col("_folder_day")
    assert source.day is not None
    kind = _types_of(rows, {"day": source.day}, frame, log)["day"]
    value = F.expr(source.day)
    if kind == "date":
        return value
    if _kind_of(kind) not in ("integer", "text"):
        raise _does_not_fit(
            "day",
            source.day,
            frame,
            log,
            f"the type {kind}",
            "It must be a date, or 2026-01-31 or 20260131 as text or number.",
        )
    return day_of_text(value.cast("string"))


def day_of_text(text: Column) -> Column:
    """A day that is written as 2026-01-31 or 20260131; null where it is neither."""
    return F.coalesce(F.try_to_date(text, "yyyy-MM-dd"), F.try_to_date(text, "yyyyMMdd"))


def _kind_of(kind: str) -> Kind:
    return next((found for name, found in _KINDS.items() if kind.startswith(name)), "nested")


def _accepted(value: Column, kind: str, column: tables.Column, frame: Frame, log: Log, *, hashed: bool) -> Column:
    """A value in the type that the contract's rules judge, or as text.

    Args:
        value: the value.
        kind: Spark's name of its type.
        column: the landing column in its contract.
        frame: whose value it is, for messages.
        log: natural or ad.
        hashed: whether it is declared as a string id.

    Raises:
        BadInput: values of this type hold none of the landing column.
    """
    of_kind = _kind_of(kind)
    if of_kind not in kinds_of(column, hashed=hashed):
        hint = _UNIT_HINT if column.type == "timestamp" and of_kind in ("integer", "double", "decimal") else ""
        raise BadInput(
            f"{SETTINGS_FILE} [landing.{log}]",
            f"columns.{column.name}",
            expected=f"{'an id' if hashed else column.legal_values}",
            found=f"the type {kind} in {frame.files[0].path}",
            hint=hint,
        )
    if of_kind in ("double", "decimal") and column.type in ("bigint", "int"):
        return _whole_number(value, of_kind, hashed=hashed)
    if of_kind == "boolean":
        value = value.cast("int")
    elif of_kind == "date":
        value = value.cast("timestamp")
    elif of_kind in ("bytes", "nothing"):
        value = value.cast("string")
    return value.cast("string") if column.type == "string" and of_kind != "text" else value


def _whole_number(value: Column, kind: Kind, *, hashed: bool) -> Column:
    """The text of a whole number; of anything else its text, or null where it would be hashed into an id."""
    if kind == "double":
        is_whole = (F.abs(value) < F.lit(_EXACT_BELOW)) & (value == F.floor(value))
        whole = value.cast("bigint").cast("string")
    else:
        is_whole, whole = value == F.floor(value), F.floor(value).cast("string")
    return F.when(is_whole, whole) if hashed else F.when(is_whole, whole).otherwise(value.cast("string"))


def _as_text(rows: DataFrame) -> DataFrame:
    return rows.withColumns({name: F.col(name).cast("string") for name in rows.columns if name.startswith(RAW)})


def _file_name(files: Sequence[LandingFile]) -> Column:
    """`<log>/<day>/<name>` of the file that a row is from, of its column PATH; what most names do not need is left out."""
    # Cut by slashes, not by a regular expression: this is done for every row.
    name = F.substring_index(PATH, "/", -3)
    opened = {"/".join(Path(str(file.opened)).parts[-3:]): file for file in files}
    if not all(_PLAIN_NAME.fullmatch(part) for path in opened for part in path.split("/")):
        name = F.url_decode(F.replace(name, F.lit("+"), F.lit("%2B")))
    linked = {path: file.shown for path, file in opened.items() if file.opened != file.path}
    if linked:
        name = F.coalesce(F.create_map(*(F.lit(text) for pair in linked.items() for text in pair))[name], name)
    return name
