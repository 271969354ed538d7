"""Reads landing files, whatever their format: a row is judged by the same rules.

Only columns that landing columns are made of are read, so that no name or type of another column matters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from functools import reduce
from pathlib import Path
from urllib.parse import unquote

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from contracts import tables
from contracts.errors import BadInput
from contracts.features import Log
from contracts.landing import IN_HOME, STORE, LandingSettings
from contracts.settings import SETTINGS_FILE
from contracts.tables import LANDING_COLUMNS
from lake.landing_files import Delivery, LandingFile
from spark_jobs.landing_formats import PATH, ROW_INDEX, Frame, frames_of
from spark_jobs.landing_values import accepted, day_of, types_of, with_places
from spark_jobs.rules import CORRUPT, DELIVERED, PARTITION, RAW
from spark_jobs.side_tables import SIDES_MISSING, Sides

BY_FOLDER = "by folder"  # the landing day is what the file's path, or the row, tells
FRAMES_JUDGED_APART = 2
_PLAIN_NAME = re.compile(r"[\w.=-]*", re.ASCII)


def read_landing(
    spark: SparkSession,
    log: Log,
    files: Iterable[LandingFile],
    *,
    landing: LandingSettings = IN_HOME,
    string_ids: Sequence[str] = (),
    day: date | str | None = BY_FOLDER,
    sides: Sides | None = None,
) -> DataFrame:
    """All rows of the files, as they were delivered.

    Args:
        spark: the session.
        log: natural or ad.
        files: landing files of any days, formats and orders of columns.
        landing: how the logs are delivered.
        string_ids: landing columns that the deployment declares as string ids.
        day: the landing day of all files; None where it is not known; by default what each file's path or row tells.
        sides: the side tables that the log's columns are made of; None: none are.

    Returns:
        `raw_<column>` for each landing column (null where a file lacks an optional one): text, or, where all files have
        it as one type that holds nothing else, that type; `_corrupt` (the line, where it does not have the header's
        number of fields, or is no JSON object), `_delivered` (where their columns are not ours, a row in these, and whose
        it is: a struct, or its JSON), `_partition` (how a row contradicts its folder), `file`, `row_index` (of a Parquet
        file's row, from 0), `ds`, the landing day, and, with side tables, what `Sides.join` adds.

    Raises:
        BadInput: an expression does not fit their columns.
    """
    files = list(files)
    delivery = Delivery.of_log(log, landing)
    frames = [_ours(frame, log, landing, string_ids, day, sides) for frame in frames_of(spark, files, delivery)]
    types = {tuple(frame.dtypes) for frame in frames}
    # All have the same columns in order.
    rows = reduce(DataFrame.unionAll, frames if len(types) == 1 else map(_as_text, frames))
    if len(frames) > FRAMES_JUDGED_APART:
        # Spark moves projections below a union, and would plan and compile them once for every frame; it does not move
        # them below this.
        rows = rows.where(F.rand() >= 0)
    if not delivery.source.is_home:
        return rows.withColumnRenamed(PATH, "file")
    rows = rows.withColumn("file", _file_name(files)).drop(PATH)
    by_folder = F.substring_index(F.substring_index("file", "/", 2), "/", -1).try_cast("date")
    return rows.withColumn("ds", by_folder if day == BY_FOLDER else F.lit(day).cast("date"))


@contextmanager
def reading(files: Iterable[LandingFile]) -> Iterator[None]:
    """Turns Spark's error about a file that it cannot read, or about a value that an expression cannot take, into BadInput."""
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:  # the latter: what a session of its own does not translate
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
            found=_said(error),
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


def _unreadable(found: str, files: Iterable[LandingFile], error: Exception) -> BadInput:
    opened = unquote(found) if found.startswith(STORE) else "/" + unquote(found).lstrip("/")
    causes = [line for line in str(error).splitlines() if line.startswith("Caused by: ")] or [_said(error)]
    for file in files:
        if file.kind == "delta" and opened.startswith(f"{file.path}/"):
            return BadInput(
                file.path,
                "table",
                expected=f"the files of its version {file.version}",
                found=f"{opened} cannot be read: {causes[-1]}",
                hint="If the table was rewritten and vacuumed meanwhile, run this again: it reads the newest version.",
            )
    path = next((file.path for file in files if str(file.opened) == opened), opened)
    return BadInput(
        path,
        "file",
        expected="a file that Spark can read",
        found=causes[-1],
        hint="It may have been damaged on its way: deliver it again.",
    )


def _said(error: Exception) -> str:
    """The line of an error that names its class, `[...]`; else the first."""
    lines = str(error).splitlines()
    return next((line for line in lines if "[" in line), lines[0])


def _ours(
    frame: Frame,
    log: Log,
    landing: LandingSettings,
    string_ids: Sequence[str],
    day: date | str | None,
    sides: Sides | None,
) -> DataFrame:
    """The landing columns of a frame, and where each row is from."""
    source, rows, types = landing.of(log), frame.rows, dict(frame.types)
    if not source.is_home:
        rows, types = with_places(frame)
    if source.where is not None:  # a line that cannot be read has no values to judge it by: it is kept, and set aside
        rows = rows.where(f"{CORRUPT} IS NOT NULL OR ({source.where})")
    if sides is not None:
        rows = sides.join(rows, types, frame)
    texts = {name: source.expression(name) for name in LANDING_COLUMNS[log] if name in source.columns or name in types}
    unknown = {name: text for name, text in texts.items() if name in source.columns or types[name] is None}
    kinds = {name: kind for name, kind in types.items() if kind} | types_of(rows, unknown, frame)
    contract = tables.table(f"{log}_log")
    nothing = F.lit(None).cast("string")

    def value_of(name: str) -> Column:
        if name not in texts:
            return nothing
        column, value = contract.column(name), F.expr(texts[name])
        if sides is not None:
            value = sides.known(value, texts[name], kinds[name], column)
        return accepted(value, kinds[name], column, frame, hashed=name in string_ids)

    raw = {name: value_of(name) for name in LANDING_COLUMNS[log]}
    columns: list[Column | str] = [*(value.alias(RAW + name) for name, value in raw.items()), CORRUPT, PATH, ROW_INDEX]
    columns += [SIDES_MISSING] if sides is not None else []
    if source.is_home:
        return rows.select(*columns, nothing.alias(DELIVERED), nothing.alias(PARTITION))
    # Under a name of ours, so that whoever deletes a user's rows finds them whatever the team calls its users.
    user_id = raw["user_id"].cast("string").alias("user_id")
    delivered = F.struct(user_id, F.col(DELIVERED).alias("delivered")) if types else nothing
    ds = day_of(rows, frame) if day == BY_FOLDER else F.lit(day).cast("date")
    return rows.select(*columns, delivered.alias(DELIVERED), F.col(PARTITION), ds.alias("ds"))


def _as_text(rows: DataFrame) -> DataFrame:
    texts = {name: F.col(name).cast("string") for name in rows.columns if name.startswith(RAW)}
    if dict(rows.dtypes)[DELIVERED] != "string":
        texts[DELIVERED] = F.to_json(DELIVERED)
    return rows.withColumns(texts)


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
