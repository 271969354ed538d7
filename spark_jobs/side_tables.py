"""Side tables next to the rows of a log: each row gets the attributes that held when its event happened.

What holds when: contracts/landing.py, `SideSource`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import reduce

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from contracts import tables
from contracts.errors import BadInput
from contracts.features import Log
from contracts.landing import ENTITY_OF_SIDE, SideName, side_columns
from contracts.settings import SETTINGS_FILE, Deployment
from lake.landing_files import LandingFile
from lake.side_tables import SideTable
from spark_jobs.landing_formats import Frame, frames_of
from spark_jobs.landing_values import accepted, day_of, types_of, with_places
from spark_jobs.rules import CORRUPT, RAW, typed

SIDES_MISSING = "_sides_missing"  # names of the side tables that lack a row's user or item
_EVENT_TS = "_side_event_ts"
_EVENT_DAY = "_side_event_day"
_ID = "_side_id_"  # prefix of the name of a side table: the id by which a row finds its attributes
_KEY, _DAY, _SINCE, _VERSIONS = "_side_key", "_side_day", "since", "_side_versions"
UNKNOWN_VALUE = "0"  # of a required column whose user or item a side table lacks


@dataclass(frozen=True, kw_only=True)
class Sides:
    """The side tables of a log, as they are read for some event days.

    Attributes:
        log: natural or ad.
        deployment: the deployment's settings.
        rows: by side table, `_side_key`, the struct of its attributes under its name, and, of snapshots, `_side_day`;
            of rows that hold from a time, `_side_versions` instead of the struct, sorted by time.
        snapshots: by side table with snapshots, the snapshot that holds on each event day.
        files: the files of all of them.
    """

    log: Log
    deployment: Deployment
    rows: Mapping[SideName, DataFrame]
    snapshots: Mapping[SideName, Mapping[date, date]]
    files: tuple[LandingFile, ...]

    def join(self, rows: DataFrame, types: Mapping[str, str | None], frame: Frame) -> DataFrame:
        """Adds for each side table a struct of the attributes that held, null where it lacks the row's user or item, and SIDES_MISSING.

        Args:
            rows: rows in a team's columns.
            types: Spark's types of the columns, as in `Frame`.
            frame: what the rows are of.
        """
        rows = self._with_keys(rows, types, frame)
        for side, attributes in self.rows.items():
            found = attributes.withColumnRenamed(_KEY, _KEY + side)
            on = F.col(_ID + side) == F.col(_KEY + side)
            if side in self.snapshots:
                found = found.withColumnRenamed(_DAY, _DAY + side)
                on = on & (self._snapshot_of(side) == F.col(_DAY + side))
            rows = rows.join(found, on, "left")
            if self.deployment.landing.side(side).since is not None:
                held = F.filter(_VERSIONS, lambda version: version[_SINCE] <= F.col(_EVENT_TS))
                rows = rows.withColumn(side, F.try_element_at(held, F.lit(-1))[side]).drop(_VERSIONS)
        missing = (F.when(F.col(side).isNull(), F.lit(side)) for side in self.rows)
        return rows.withColumn(SIDES_MISSING, F.array_compact(F.array(*missing)))

    def known(self, value: Column, text: str, kind: str, column: tables.Column) -> Column:
        """The value of an expression; the unknown one where it reads a side table that lacks the row's user or item.

        Args:
            value: the expression's.
            text: the expression.
            kind: Spark's name of its type.
            column: the landing column in its contract.
        """
        read = [side for side in self.rows if side in side_columns(text)]
        if not read:
            return value
        is_missing = reduce(Column.__or__, (F.col(side).isNull() for side in read))
        unknown = F.lit(None if column.nullable else UNKNOWN_VALUE).cast(kind)
        return F.when(is_missing, unknown).otherwise(value)

    def _with_keys(self, rows: DataFrame, types: Mapping[str, str | None], frame: Frame) -> DataFrame:
        """Adds the ids and the time by which a row finds its attributes, typed as ingestion types them."""
        source = self.deployment.landing.of(self.log)
        columns = {_ID + side: ENTITY_OF_SIDE[side] for side in self.rows} | {_EVENT_TS: "event_ts"}
        keys = {made: _Key(column=of, setting=of, text=source.expression(of)) for made, of in columns.items()}
        rows = _with_typed(rows, keys, frame, self.deployment)
        return rows.withColumn(_EVENT_DAY, F.to_date(F.from_utc_timestamp(_EVENT_TS, self.deployment.day_timezone)))

    def _snapshot_of(self, side: SideName) -> Column:
        pairs = [F.lit(day) for pair in self.snapshots[side].items() for day in pair]
        return F.create_map(*pairs)[F.col(_EVENT_DAY)] if pairs else F.lit(None).cast("date")


def read_sides(
    spark: SparkSession, deployment: Deployment, log: Log, side_tables: Sequence[SideTable], days: Sequence[date]
) -> Sides | None:
    """Opens the side tables that a log's columns are made of; None where there are none.

    Args:
        spark: the session.
        deployment: the deployment's settings.
        log: natural or ad.
        side_tables: the side tables that the log's columns are made of.
        days: landing days of the log's rows; rows whose events are older than the allowed lateness find no snapshot.

    Raises:
        BadInput: a file cannot be read, lacks a column, or has another type of column than others; or an expression
            does not fit the columns.
    """
    if not side_tables:
        return None
    rows: dict[SideName, DataFrame] = {}
    snapshots: dict[SideName, Mapping[date, date]] = {}
    files: list[LandingFile] = []
    for table in side_tables:
        event_days = sorted({event_day for day in days for event_day in table.event_days(day)})
        if table.source.has_snapshots:
            held = {day: found for day in event_days if (found := table.snapshot_for(day)) is not None}
            snapshots[table.name] = held
        of_table = table.files(event_days)
        files += of_table
        rows[table.name] = _read(
            spark, deployment, table, of_table, sorted(set(snapshots.get(table.name, {}).values()))
        )
    return Sides(log=log, deployment=deployment, rows=rows, snapshots=snapshots, files=tuple(files))


def _read(
    spark: SparkSession, deployment: Deployment, table: SideTable, files: Sequence[LandingFile], days: Sequence[date]
) -> DataFrame:
    """The rows of a side table, one for each key, and of snapshots for each key and day; of equal keys the least row by its JSON."""
    frames = [_attributes(frame, deployment, table) for frame in frames_of(spark, files, table.delivery)]
    if not frames:  # no snapshot holds: every row lacks its user or item
        return spark.createDataFrame([], f"{_KEY} bigint, {_DAY} date, {table.name} struct<nothing: string>")
    _refuse_other_types(frames, files, table)
    rows = reduce(DataFrame.unionAll, frames).where(F.col(_KEY).isNotNull())
    of_row = F.to_json(F.struct(table.name))
    if table.source.since is not None:
        version = F.struct(F.col(_SINCE), of_row.alias("json"), F.col(table.name))
        versions = F.sort_array(F.collect_list(version)).alias(_VERSIONS)
        return rows.where(F.col(_SINCE).isNotNull()).groupBy(_KEY).agg(versions)
    if table.source.has_snapshots:
        rows = rows.where(F.col(_DAY).isin(*days))
    keys = [_KEY, _DAY] if table.source.has_snapshots else [_KEY]
    return rows.groupBy(*keys).agg(F.min_by(table.name, of_row).alias(table.name))


def _attributes(frame: Frame, deployment: Deployment, table: SideTable) -> DataFrame:
    """Keys, days or times, and attributes of the rows of a frame; a line that cannot be read has none, and is left out."""
    source, entity = table.source, ENTITY_OF_SIDE[table.name]
    rows, _ = with_places(frame)
    rows = rows.where(f"{CORRUPT} IS NULL" + (f" AND ({source.where})" if source.where is not None else ""))
    keys = {_KEY: _Key(column=entity, setting="key", text=source.key)}
    if source.since is not None:
        keys[_SINCE] = _Key(column="event_ts", setting="since", text=source.since)
    rows = _with_typed(rows, keys, frame, deployment)
    columns: list[Column | str] = [*keys]
    if source.has_snapshots:
        columns.append(day_of(rows, frame).alias(_DAY))
    attributes = F.struct(*(F.col(f"`{name}`") for name in table.delivery.own))
    return rows.select(*columns, attributes.alias(table.name))


@dataclass(frozen=True, kw_only=True)
class _Key:
    """An expression that is read as a landing column is: the column whose type it takes, and the setting that it stands in."""

    column: str
    setting: str
    text: str


def _with_typed(rows: DataFrame, keys: Mapping[str, _Key], frame: Frame, deployment: Deployment) -> DataFrame:
    """Adds the values of expressions as ingestion types them.

    Args:
        rows: rows in a team's columns.
        keys: by name of the new column.
        frame: what the rows are of.
        deployment: the deployment's settings.
    """
    contract = tables.table("natural_log")  # ids and times are the same in both logs
    kinds = types_of(rows, {key.setting: key.text for key in keys.values()}, frame)
    hashed = {name: key.column in deployment.string_ids for name, key in keys.items()}
    raw = {
        name: accepted(
            F.expr(key.text),
            kinds[key.setting],
            contract.column(key.column),
            frame,
            hashed=hashed[name],
            setting=key.setting,
        )
        for name, key in keys.items()
    }
    rows = rows.select("*", *(value.alias(RAW + name) for name, value in raw.items()))
    types = dict(rows.dtypes)
    columns = {name: replace(contract.column(key.column), name=name) for name, key in keys.items()}
    return rows.withColumns(
        {name: F.expr(typed(column, types[RAW + name], hashed=hashed[name])) for name, column in columns.items()}
    )


def _refuse_other_types(frames: Sequence[DataFrame], files: Sequence[LandingFile], table: SideTable) -> None:
    first, *others = (dict(frame.dtypes)[table.name] for frame in frames)
    for other in others:
        if other != first:
            raise BadInput(
                f"{SETTINGS_FILE} [landing.{table.name}]",
                "path",
                expected=f"files whose columns have the same types, such as those of {files[0].path}: {first}",
                found=other,
                hint="Name the types of the columns of text files by `types`; deliver others again.",
            )
