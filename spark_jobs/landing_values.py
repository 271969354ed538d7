"""Values of a team's columns as the contracts' types, and what the path of a row's file tells."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from contracts import tables
from contracts.errors import BadInput
from contracts.landing import LandingSource
from contracts.settings import SETTINGS_FILE
from lake.landing_files import partition_values
from lake.parquet_columns import Kind, kinds_of
from spark_jobs.landing_formats import PATH, Frame
from spark_jobs.rules import CORRUPT, PARTITION

FOLDER_DAY = "_folder_day"  # the day that a file's path names
_PLAIN_PATH = re.compile(r"(s3a:/)?/[\w./=-]*", re.ASCII)
_EXACT_BELOW = float(2**53)  # a double holds every whole number below this exactly
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


def with_places(frame: Frame) -> tuple[DataFrame, dict[str, str | None]]:
    """Adds what a file's path tells: its name, its day, and the values of Hive's partition columns that the file itself lacks."""
    rows, types = frame.rows, dict(frame.types)
    nothing = F.lit(None).cast("string")
    if frame.delivery.source.table is not None:
        return rows.withColumns({PATH: _decoded(), PARTITION: nothing}), types
    opened = [str(file.opened) for file in frame.files]
    # Most paths are as Spark says them but for what it begins them with: that is then added once a file, not removed
    # once a row.
    is_plain = all(map(_PLAIN_PATH.fullmatch, opened))
    begins = ("file:", "file://") if is_plain and not frame.delivery.source.is_in_store else ("",)
    places = [
        (begin + path, file.shown, file.day, partition_values(file.path))
        for path, file in zip(opened, frame.files, strict=True)
        for begin in begins
    ]
    by_path = rows.sparkSession.createDataFrame(
        places, f"_opened string, _file string, {FOLDER_DAY} date, {_PARTITIONS} map<string, string>"
    )
    by = F.col(PATH) if is_plain else _decoded()
    rows = rows.join(F.broadcast(by_path), by == F.col("_opened"), "left")
    file = F.coalesce("_file", F.raise_error(F.concat(F.lit("tributary: no landing file has the path "), PATH)))
    names = sorted({name for *_, values in places for name in values})
    own = [name for name in names if name in types]
    contradicts = [_contradiction(name) for name in own]
    added = {name: F.col(_PARTITIONS)[name] for name in names if name not in types}
    partition = F.when(F.col(CORRUPT).isNull(), F.coalesce(*contradicts)) if contradicts else nothing
    rows = rows.withColumns({PATH: file, PARTITION: partition, **added})
    return rows, types | dict.fromkeys(added, "string")


def _decoded() -> Column:
    """The path of a row's file, of which Spark gives a URI."""
    return F.regexp_replace(F.url_decode(F.replace(PATH, F.lit("+"), F.lit("%2B"))), "^file:/+", "/")


def _contradiction(name: str) -> Column:
    """What a row says of a partition column, if its folder says otherwise; null where they agree, or the row says nothing."""
    own, folder = F.col(f"`{name}`").cast("string"), F.col(_PARTITIONS)[name]
    agree = (own == folder) | F.coalesce(own.try_cast("bigint") == folder.try_cast("bigint"), F.lit(False))
    return F.when(
        own.isNotNull() & ~agree, F.concat_ws("", F.lit(f"{name} is "), own, F.lit(" in a folder of "), folder)
    )


def types_of(rows: DataFrame, texts: Mapping[str, str], frame: Frame) -> dict[str, str]:
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
                raise _does_not_fit(_setting(name, frame), text, frame, str(own).splitlines()[0]) from None
        raise error


def _does_not_fit(name: str, text: str, frame: Frame, found: str, hint: str = "") -> BadInput:
    columns = ", ".join(name for name in frame.types if name)
    return BadInput(
        _section(frame),
        name,
        expected=f"an expression over the columns of {frame.files[0].path}: {columns}",
        found=f"{text!r}: {found}",
        hint=hint,
    )


def day_of(rows: DataFrame, frame: Frame) -> Column:
    """The day of a row: that of its file's path, or what the setting `day` makes of its columns."""
    source = frame.delivery.source
    if source.has_days:
        return F.col(FOLDER_DAY)
    assert source.day is not None
    kind = types_of(rows, {"day": source.day}, frame)["day"]
    value = F.expr(source.day)
    if kind == "date":
        return value
    if _kind_of(kind) not in ("integer", "text"):
        hint = "It must be a date, or 2026-01-31 or 20260131 as text or number."
        raise _does_not_fit("day", source.day, frame, f"the type {kind}", hint)
    return _day_of_text(value.cast("string"))


def _day_of_text(text: Column) -> Column:
    """A day that is written as 2026-01-31 or 20260131; null where it is neither."""
    return F.coalesce(F.try_to_date(text, "yyyy-MM-dd"), F.try_to_date(text, "yyyyMMdd"))


def _kind_of(kind: str) -> Kind:
    return next((found for name, found in _KINDS.items() if kind.startswith(name)), "nested")


def accepted(
    value: Column, kind: str, column: tables.Column, frame: Frame, *, hashed: bool, setting: str | None = None
) -> Column:
    """A value in the type that the contract's rules judge, or as text.

    Args:
        value: the value.
        kind: Spark's name of its type.
        column: the landing column in its contract.
        frame: whose value it is, for messages.
        hashed: whether it is declared as a string id.
        setting: what the settings call it, for messages; by default the column's name.

    Raises:
        BadInput: values of this type hold none of the landing column.
    """
    of_kind = _kind_of(kind)
    if of_kind not in kinds_of(column, hashed=hashed):
        hint = _UNIT_HINT if column.type == "timestamp" and of_kind in ("integer", "double", "decimal") else ""
        raise BadInput(
            _section(frame),
            _setting(setting or column.name, frame),
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


def _section(frame: Frame) -> str:
    return f"{SETTINGS_FILE} [landing.{frame.delivery.name}]"


def _setting(name: str, frame: Frame) -> str:
    return f"columns.{name}" if isinstance(frame.delivery.source, LandingSource) and name != "day" else name
