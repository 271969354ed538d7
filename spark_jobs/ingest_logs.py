"""Landing files -> natural_log, ad_log and quarantine: typed, deduplicated, bad rows set aside with the rule they break.

A day is a function of the landing files of that day and of the allowed lateness before it, so a live run and a backfill
agree. Every row read is kept, a duplicate, in quarantine, or left out because its user was forgotten.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from contracts import tables
from contracts.errors import BadInput
from contracts.features import LOGS, Log
from contracts.landing import MISSING, STORE, SideName
from contracts.locations import Locations
from contracts.periods import ONE_DAY, days_between
from contracts.quality import UNKNOWN
from contracts.settings import SETTINGS_FILE, Deployment
from contracts.tables import LANDING_COLUMNS, landing_key, owner_key
from lake.forgotten import WORD_ENDS, Forgotten
from lake.landing_days import Deliveries, LandingDay, distinct
from lake.landing_files import SUFFIXES
from lake.persisted import persisted
from lake.progress import each
from lake.side_tables import SideTable, side_tables
from lake.sql import literal
from lake.writing import Build, record_builds, write_partitions
from spark_jobs import id_strings
from spark_jobs.landing import read_landing, reading, without_constraints
from spark_jobs.rules import (
    CORRUPT,
    DELIVERED,
    LONGEST_FOUND,
    POSITIVE_BITS,
    RAW,
    Rule,
    readable,
    rules_for,
    typed,
    value_rules_for,
)
from spark_jobs.side_by_side import side_by_side
from spark_jobs.side_tables import SIDES_MISSING, read_sides

UNKNOWN_RULES = "unknown"
NOT_READ = f"not read, since only files that end in {', '.join(SUFFIXES)} and lie in the day's folder itself are"
STATUS_COUNTS = ("read", "kept", "duplicates", "conflicting_duplicates", "quarantined", "forgotten", "late")


def run(
    spark: SparkSession,
    locations: Locations,
    deployment: Deployment,
    days: Sequence[date],
    *,
    allow_empty: bool = False,
) -> list[Build]:
    """Ingests both logs of these consecutive days in one pass.

    Args:
        spark: the Spark session.
        locations: the deployment's paths.
        deployment: the deployment's settings.
        days: consecutive landing days.
        allow_empty: whether landing days without a row are accepted.

    Raises:
        BadInput: a landing day is missing or empty, a file lacks a column, or is cut off.
    """
    sides = side_tables(locations, deployment)
    delivered = {
        log: _delivered(locations, deployment, log, days, allow_empty, sides) for log in LOGS
    }  # all are checked before any is written
    forgotten = Forgotten.read(locations)
    with without_constraints(spark), ExitStack() as kept:  # both are read before either is written
        judge = partial(_judged, spark, locations, deployment, forgotten=forgotten, kept=kept)
        judged = side_by_side([partial(judge, days, delivered[log]) for log in LOGS])
        written = side_by_side(
            [
                partial(_write, spark, locations, deployment, days, delivered[log], of_log)
                for log, of_log in zip(LOGS, judged, strict=True)
            ]
        )
    builds = [build for of_log in written for build in of_log]
    record_builds(spark, locations, builds)
    return builds


def partitions(days: Sequence[date], deployment: Deployment) -> dict[str, list[str]]:
    """What `run` writes, by table: its locks."""
    with_strings = [log for log in LOGS if id_strings.kept_columns(log, deployment)]
    return {
        **{f"{log}_log": [owner_key(ds=day) for day in days] for log in LOGS},
        "quarantine": [owner_key(ds=day, log=log) for day in days for log in LOGS],
        **(
            {id_strings.TABLE: [owner_key(ds=day, log=log) for day in days for log in with_strings]}
            if with_strings
            else {}
        ),
    }


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """What a log's days are made from.

    Attributes:
        log: natural or ad.
        landing_days: the landing days that are read.
        side_tables: those that the log's columns are made of.
    """

    log: Log
    landing_days: Mapping[date, LandingDay]
    side_tables: tuple[SideTable, ...]

    def inputs(self, day: date, deployment: Deployment) -> dict[str, str]:
        """Digests of the landing days, and of the part of the side tables, that a day reads, as its build records them."""
        first = day - timedelta(days=deployment.allowed_lateness_days)
        read = {
            landing_key(self.log, of_day): landing_day.digest
            for of_day, landing_day in self.landing_days.items()
            if first <= of_day <= day
        }
        return read | {landing_key(table.name, day): table.digest(day) for table in self.side_tables}


def _delivered(
    locations: Locations,
    deployment: Deployment,
    log: Log,
    days: Sequence[date],
    allow_empty: bool,
    sides: Mapping[SideName, SideTable],
) -> Delivered:
    """The landing days that `days` are made from: themselves, and those of the allowed lateness before.

    Before the deployment's `ad_start` a day needs no ad files: it has no rows, as declared. Files that exist are read
    nevertheless.
    """
    lookback = timedelta(days=deployment.allowed_lateness_days)
    first = max(days[0] - lookback, min(deployment.history_start, days[0]))
    deliveries = Deliveries(locations, deployment, log)
    landing_days = {}
    for day in each(
        list(days_between(first, days[-1] + ONE_DAY)), description=f"look at {log} landing files", unit="day"
    ):
        landing_days[day] = found = deliveries.day(day, allow_empty=allow_empty)
        for what, names in (
            ("columns that no contract knows are left out", sorted(found.undeclared)),
            (NOT_READ, found.unread),
        ):
            if names and day >= days[0]:
                warn(f"{found.where}: {what}: {', '.join(names)}")
    read = tuple(sides[name] for name in deployment.landing.sides_read(log))
    return Delivered(log=log, landing_days=landing_days, side_tables=read)


def warn(text: str) -> None:
    """Prints a warning on stderr."""
    print(f"warning: {text}", file=sys.stderr, flush=True)


def all_quarantined(counts: Mapping[str, int]) -> bool:
    """Whether every row of a file goes to quarantine, which is reported as a fault of the whole file."""
    return counts["read"] > 0 and counts["read"] == counts["quarantined"]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A log's rows of some days, each with what becomes of it; and how many there are of each, by day and file."""

    rows: DataFrame
    counts: list[dict[str, Any]]


def _judged(
    spark: SparkSession,
    locations: Locations,
    deployment: Deployment,
    days: Sequence[date],
    delivered: Delivered,
    *,
    forgotten: Forgotten | None,
    kept: ExitStack,
) -> Judged | None:
    """Reads and judges a log's rows, which Spark keeps until `kept` is closed; None where no file is needed."""
    log, landing_days = delivered.log, delivered.landing_days
    files = distinct(file for of_day in landing_days.values() for file in of_day.files)
    if not files:
        return None
    sides = read_sides(spark, deployment, log, delivered.side_tables, list(landing_days))
    with reading([*files, *(sides.files if sides else ())]):
        rows = read_landing(
            spark, log, files, landing=deployment.landing, string_ids=deployment.string_ids, sides=sides
        )
        if not deployment.landing.of(log).has_days:  # files or a table of more days; a row without a day is refused
            rows = rows.where(F.col("ds").between(min(landing_days), days[-1]) | F.col("ds").isNull())
        strings = id_strings.kept_columns(log, deployment)
        rows = id_strings.with_strings(with_judged(rows, log, deployment, forgotten), strings)
        rows = with_broken_rule(rows, log, deployment, keep=[id_strings.STRING + name for name in strings])
        rows = with_status(rows, log=log, lateness_days=deployment.allowed_lateness_days)
        rows = kept.enter_context(persisted(rows.where(F.coalesce(F.col("ds") >= days[0], F.lit(True)))))
        counted = rows.groupBy("ds", "file").agg(*status_counts(), *unknown_counts(log, deployment).values())
        counts = [row.asDict() for row in counted.collect()]
    _refuse_without_day(counts, log)
    for row in filter(all_quarantined, counts):
        warn(f"{landing_address(locations, row['file'])}: all {row['read']:,} rows go to quarantine")
    return Judged(rows=rows, counts=counts)


def _write(
    spark: SparkSession,
    locations: Locations,
    deployment: Deployment,
    days: Sequence[date],
    delivered: Delivered,
    judged: Judged | None,
) -> list[Build]:
    """Writes a log and its quarantine; without `judged` the days have no rows, as declared."""
    log = delivered.log
    of_files = judged.counts if judged is not None else []
    of_values = unknown_counts(log, deployment)
    if judged is None:
        kept, bad = (spark.createDataFrame([], tables.table(name).ddl) for name in (f"{log}_log", "quarantine"))
    else:
        kept, bad = judged.rows.where(F.col("status") == "kept"), to_quarantine(judged.rows, log)
    counts = {
        owner_key(ds=day): {
            name: sum(row[name] for row in of_files if row["ds"] == day) for name in (*STATUS_COUNTS, *of_values)
        }
        | {"undeclared_columns": len(delivered.landing_days[day].undeclared)}
        for day in days
    }
    inputs = {day: delivered.inputs(day, deployment) for day in days}
    strings: list[Build] = []
    if judged is not None:  # the strings of hashed ids, before the rows that name them by their hashes are there
        strings, warnings = id_strings.add_strings(spark, locations, deployment, log, kept, days)
        for text in warnings:
            warn(text)
    logs = write_partitions(
        spark,
        locations,
        f"{log}_log",
        kept,
        owners=[{"ds": day} for day in days],
        inputs={owner_key(ds=day): inputs[day] for day in days},
        counts=counts,
    )
    quarantined = write_partitions(
        spark,
        locations,
        "quarantine",
        bad,
        owners=[{"ds": day, "log": log} for day in days],
        inputs={owner_key(ds=day, log=log): inputs[day] for day in days},
    )
    return logs + quarantined + strings


def landing_address(locations: Locations, file: str) -> str:
    """Where a file lies, by what the column `file` says of it."""
    return file if file.startswith(STORE) else str(locations.landing / file)


def _refuse_without_day(of_files: Sequence[Mapping[str, Any]], log: Log) -> None:
    lost = [row for row in of_files if row["ds"] is None]
    if lost:
        raise BadInput(
            f"{SETTINGS_FILE} [landing.{log}]",
            "day",
            expected="a day for every row",
            found=f"{sum(row['read'] for row in lost):,} rows without one in {lost[0]['file']}",
            hint="Leave rows out by `where`, or name the days of the others.",
        )


def with_judged(rows: DataFrame, log: Log, deployment: Deployment, forgotten: Forgotten | None) -> DataFrame:
    """Delivered rows as rules judge them: typed, and with `is_forgotten`."""
    return with_forgotten(with_typed(rows, log, deployment), forgotten, hashed="user_id" in deployment.string_ids)


def with_typed(rows: DataFrame, log: Log, deployment: Deployment) -> DataFrame:
    """Adds each landing column as its contract's type (null where unreadable), `unknown`, `event_day` and `late`."""
    contract, types = tables.table(f"{log}_log"), dict(rows.dtypes)
    values = {
        name: F.expr(typed(contract.column(name), types[RAW + name], hashed=name in deployment.string_ids))
        for name in LANDING_COLUMNS[log]
    }
    event_day = F.to_date(F.from_utc_timestamp("event_ts", deployment.day_timezone))
    rows = with_unknown(rows.withColumns(values), value_rules_for(log, deployment))
    if deployment.landing.sides_read(log):
        missing = F.transform(SIDES_MISSING, lambda side: F.concat(side, F.lit(MISSING)))
        rows = rows.withColumn(
            UNKNOWN_RULES, F.concat(F.coalesce(UNKNOWN_RULES, F.array().cast("array<string>")), missing)
        )
    return rows.withColumns({"event_day": event_day}).withColumns({"late": F.col("event_day") < F.col("ds")})


def with_unknown(rows: DataFrame, rules: Sequence[Rule]) -> DataFrame:
    """Makes values that break a rule null, and adds `unknown`, the names of the rules that a row's values have broken."""
    if not rules:
        return rows.withColumn(UNKNOWN_RULES, F.lit(None).cast("array<string>"))
    broken = ", ".join(f"CASE WHEN {rule.broken} THEN {literal(rule.name)} END" for rule in rules)
    rows = rows.withColumn(UNKNOWN_RULES, F.expr(f"array_compact(array({broken}))"))
    names = {rule.field: [one.name for one in rules if one.field == rule.field] for rule in rules}
    return rows.withColumns(
        {
            field: F.when(~F.arrays_overlap(UNKNOWN_RULES, F.array(*map(F.lit, of_field))), F.col(field))
            for field, of_field in names.items()
        }
    )


def with_forgotten(rows: DataFrame, forgotten: Forgotten | None, *, hashed: bool) -> DataFrame:
    """Adds `is_forgotten`: of a user who was forgotten on the event's day or after it; of a line without fields, if one of its words is.

    Args:
        rows: typed rows.
        forgotten: who was forgotten; None where nobody was.
        hashed: whether users are strings in the landing files, which are hashed.
    """
    if forgotten is None:
        return rows.withColumn("is_forgotten", F.lit(False))

    def user_hash(user_id: Column) -> Column:
        return F.sha2(F.concat(F.lit(forgotten.salt), user_id.cast("string")), 256)

    def id_of(word: Column) -> Column:
        return F.xxhash64(word).bitwiseAND(F.lit(POSITIVE_BITS)) if hashed else word.try_cast("bigint")

    days = rows.sparkSession.createDataFrame(list(forgotten.days.items()), "user_hash string, forgotten_on date")
    rows = rows.withColumn("user_hash", user_hash(F.col("user_id"))).join(F.broadcast(days), "user_hash", "left")
    by_user = F.col("forgotten_on").isNotNull() & F.coalesce(F.col("event_day") <= F.col("forgotten_on"), F.lit(True))
    words = F.split(F.col(CORRUPT), WORD_ENDS)
    in_line = F.coalesce(F.exists(words, lambda word: user_hash(id_of(word)).isin(*forgotten.days)), F.lit(False))
    return rows.withColumn("is_forgotten", by_user | in_line).drop("user_hash", "forgotten_on")


def with_broken_rule(rows: DataFrame, log: Log, deployment: Deployment, *, keep: Sequence[str] = ()) -> DataFrame:
    """Adds `rule`, `field`, `expected` and `found` of the first rule that a row breaks, and `raw`, the whole row as JSON.

    All of them are null where it keeps every rule; the columns as they were delivered are dropped, but for those of
    `keep`.
    """
    rules = rules_for(log, deployment)
    verdicts = " ".join(
        f"WHEN {rule.broken} THEN named_struct('rule', {literal(rule.name)}, 'field', {literal(rule.field)}, "
        f"'expected', {literal(rule.expected)}, 'found', {readable(f'left({rule.found}, {LONGEST_FOUND})')})"
        for rule in rules
    )
    any_broken = " OR ".join(rule.broken for rule in rules)  # tried first, since nearly every row keeps them all
    fields = ", ".join(f"{RAW}{name} AS {name}" for name in LANDING_COLUMNS[log])
    is_home = deployment.landing.of(log).is_home
    # Made JSON only where it is kept: of a row that breaks a rule.
    is_struct = not is_home and dict(rows.select(DELIVERED).dtypes)[DELIVERED] != "string"
    delivered = f"to_json({DELIVERED})" if is_struct else f"coalesce({DELIVERED}, to_json(struct({fields})))"
    raw = f"CASE WHEN {CORRUPT} IS NULL THEN {delivered} ELSE to_json(struct({CORRUPT} AS line)) END"
    rows = rows.withColumn("broken", F.expr(f"CASE WHEN {any_broken} THEN CASE {verdicts} END END"))
    rows = rows.withColumn("raw", F.expr(f"CASE WHEN broken IS NOT NULL THEN {readable(raw)} END"))
    names = [*LANDING_COLUMNS[log], UNKNOWN_RULES, "is_forgotten", "late", "file", "ds", *keep]
    return rows.select(*names, "broken.rule", "broken.field", "broken.expected", "broken.found", "raw")


def with_status(rows: DataFrame, *, log: Log, lateness_days: int) -> DataFrame:
    """Adds `status` (kept, duplicate, quarantined, forgotten) and `conflicting`: a duplicate whose payload differs from the first.

    A row duplicates another if its event_id was seen before on the same landing day (the smallest payload hash is kept)
    or on one of the `lateness_days` before it.
    """
    payload = F.xxhash64(*(name for name in LANDING_COLUMNS[log] if name != "arrival_ts"))
    good = F.col("rule").isNull() & ~F.col("is_forgotten")
    # Bad rows have no reliable event_id: each stands by itself, under a negative key, so that one window serves all.
    own_key = -F.xxhash64("raw", "file").bitwiseAND(F.lit(POSITIVE_BITS)) - F.lit(1)
    rows = rows.withColumns({"payload": payload, "group_id": F.when(good, F.col("event_id")).otherwise(own_key)})
    seen = Window.partitionBy("group_id").orderBy("ds", "payload", "arrival_ts", "file")
    rows = rows.withColumns({"previous_ds": F.lag("ds").over(seen), "first_payload": F.first("payload").over(seen)})
    is_duplicate = good & F.coalesce(F.datediff("ds", "previous_ds") <= lateness_days, F.lit(False))
    status = (
        F.when(F.col("is_forgotten"), "forgotten")
        .when(~good, "quarantined")
        .when(is_duplicate, "duplicate")
        .otherwise("kept")
    )
    return rows.withColumns(
        {"status": status, "conflicting": is_duplicate & (F.col("payload") != F.col("first_payload"))}
    ).drop("payload", "group_id", "previous_ds", "first_payload")


def to_quarantine(rows: DataFrame, log: Log) -> DataFrame:
    """The bad rows, in the quarantine's columns."""
    return rows.where(F.col("status") == "quarantined").select(
        "rule",
        "field",
        "expected",
        "found",
        "file",
        "raw",
        F.lit(str(uuid.uuid4())).alias("run_id"),
        F.lit(log).alias("log"),
        "ds",
    )


def unknown_counts(log: Log, deployment: Deployment) -> dict[str, Column]:
    """Aggregates by name: rows kept in which a rule, or a side table without the row's user or item, made a value unknown."""
    kept = F.col("status") == "kept"
    rules = [rule.name for rule in value_rules_for(log, deployment)]
    return {
        UNKNOWN + name: F.sum(F.when(kept & F.array_contains(UNKNOWN_RULES, name), 1).otherwise(0)).alias(
            UNKNOWN + name
        )
        for name in (*rules, *(side + MISSING for side in deployment.landing.sides_read(log)))
    }


def status_counts() -> list[Column]:
    """Aggregates: how many rows there are of each of STATUS_COUNTS."""

    def count(condition: Column) -> Column:
        return F.sum(F.when(condition, 1).otherwise(0))

    status = F.col("status")
    return [
        F.count(F.lit(1)).alias("read"),
        count(status == "kept").alias("kept"),
        count(status == "duplicate").alias("duplicates"),
        count(F.col("conflicting")).alias("conflicting_duplicates"),
        count(status == "quarantined").alias("quarantined"),
        count(status == "forgotten").alias("forgotten"),
        count((status == "kept") & F.col("late")).alias("late"),
    ]
