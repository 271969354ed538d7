"""What Spark measures on a table's days: one pass for the figures and one that counts rows by value, by day.

Two tables need more: samples are joined with the histories that they point into, the ad log with the natural log's ids.
Arrays are not filtered or sorted where one element or a count gives the same answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from contracts.features import Feature, features_in_log
from contracts.locations import Locations
from contracts.periods import ONE_DAY, days_between
from contracts.settings import Deployment, table_address
from contracts.tables import LANDING_COLUMNS, Table, owner_key
from lake.reader import LakeReader
from validation.distributions import BUCKETS, COUNTED, PLACES, UNKNOWN, Distribution, distributions_of
from validation.figures import Measured
from validation.suites import HISTORIES, log_behind, log_of

SPREAD_ROWS = 1_000_000  # of a day with more rows, about so many are sampled for the distributions
# Prefixes, among the figures of the pass, of a column's count of nulls, of a feature's count of unknown values, and of the
# one value of a constant column.
NULLS, UNKNOWNS, ONLY = "nulls_", "unknowns_", "only_"
HOURS = 24


def load_days(spark: SparkSession, locations: Locations, name: str, days: Sequence[date]) -> DataFrame:
    """Rows of these days of a table."""
    return spark.read.format("delta").load(table_address(locations, name)).where(F.col("ds").isin(*days))


def measure(rows: DataFrame, table: Table, deployment: Deployment, *, most_rows: int = 0) -> dict[date, Measured]:
    """Figures and distributions by day, for days that have a row.

    Args:
        rows: rows of one or more days; a column of the contract that they lack is not measured.
        table: the contract of their table.
        deployment: the deployment's settings, for its time zone and allowed lateness.
        most_rows: number of rows of the largest day, as its build records it.
    """
    figures_by_day = {
        row["ds"]: row.asDict() for row in rows.groupBy("ds").agg(*_figures(rows, table, deployment)).collect()
    }
    by_value = _by_value(rows, table, deployment, one_in=-(-most_rows // SPREAD_ROWS))
    measured = {}
    for day, figures in figures_by_day.items():
        p50, p95 = figures.pop("percentiles", None) or (None, None)
        nulls, unknowns, only = (_taken(figures, prefix) for prefix in (NULLS, UNKNOWNS, ONLY))
        constant = {
            name: _in_words(table, name, value)
            for name, value in only.items()
            if value is not None and not nulls.get(name)
        }
        figures.pop("ds")
        measured[day] = Measured(
            **figures,
            **by_value.get(day, {}),
            history_p50=p50,
            history_p95=p95,
            nulls=nulls,
            unknowns=unknowns,
            constant=constant,
        )
    return measured


def _taken(figures: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Takes the figures with this prefix out, by the column that each is about."""
    return {name.removeprefix(prefix): figures.pop(name) for name in list(figures) if name.startswith(prefix)}


def _in_words(table: Table, name: str, value: Any) -> str:
    if table.column(name).type == "string":  # only its hash is known
        return "one text"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _figures(rows: DataFrame, table: Table, deployment: Deployment) -> list[Column]:
    present = set(rows.columns)
    figures = [F.count(F.lit(1)).alias("rows")]
    figures += [
        F.count_if(F.col(c.name).isNull()).alias(NULLS + c.name)
        for c in table.columns
        if c.nullable and c.name in present
    ]
    if "click" in present:
        figures.append(F.sum("click").alias("clicks"))
    log = log_of(table)
    if log is None:  # of a log, they are counted by value
        distinct = {name: f"{one}_id" for one, name in COUNTED.items() if f"{one}_id" in present}
        figures += [F.approx_count_distinct(column).alias(name) for name, column in distinct.items()]
    else:
        figures += [
            F.count_if(_reads_as_unknown(f)).alias(UNKNOWNS + f.name) for f in features_in_log(log) if f.name in present
        ]
        figures += [_only_value(table, name) for name in LANDING_COLUMNS[log] if name in present]
    if log is not None and {"event_ts", "late"} <= present:
        figures.append(F.count_if(_outside_day(deployment)).alias("rows_outside_day"))
    if "history_end" in present:
        figures += [F.count_if(F.col("history_end") > 0).alias("with_history"), *_lengths(F.col("history_end"))]
    if table.name == HISTORIES and _has_times(rows):
        last = F.element_at("behaviours", -1)["event_ts"]
        local_day = F.to_date(F.from_utc_timestamp(last, deployment.day_timezone))
        times = F.col("behaviours.event_ts")
        figures += [
            F.count_if(F.sort_array(times) != times).alias("rows_unsorted"),
            F.count_if((F.size("behaviours") > 0) & (local_day > F.col("ds"))).alias("rows_after_day"),
            *_lengths(F.size("behaviours")),
        ]
    return figures


def _reads_as_unknown(feature: Feature) -> Column:
    known = [value for value in feature.unknown_values if value is not None]
    column = F.col(feature.name)
    return column.isNull() | column.isin(known) if known else column.isNull()


def _only_value(table: Table, name: str) -> Column:
    """The value that all rows with one share, of a text its hash; null if there are several."""
    value = F.xxhash64(name) if table.column(name).type == "string" else F.col(name)
    return F.when(F.min(value) == F.max(value), F.min(value)).alias(ONLY + name)


def _lengths(length: Column) -> list[Column]:
    return [
        F.avg(length).alias("history_mean"),
        F.max(length).alias("history_max"),
        F.percentile(length, F.array(F.lit(0.5), F.lit(0.95))).alias("percentiles"),
    ]


def _outside_day(deployment: Deployment) -> Column:
    """Whether an event lies on another day than it may: ds, or where late 1 .. k days before; a null is judged elsewhere."""
    behind = F.datediff("ds", F.to_date(F.from_utc_timestamp("event_ts", deployment.day_timezone)))
    allowed = F.when(F.col("late"), behind.between(1, deployment.allowed_lateness_days)).otherwise(behind == 0)
    return F.coalesce(~allowed, F.lit(False))


def _has_times(rows: DataFrame) -> bool:
    kind = rows.schema["behaviours"].dataType if "behaviours" in rows.columns else None
    return (
        isinstance(kind, T.ArrayType)
        and isinstance(kind.elementType, T.StructType)
        and "event_ts" in kind.elementType.names
    )


def _by_value(rows: DataFrame, table: Table, deployment: Deployment, *, one_in: int) -> dict[date, dict[str, Any]]:
    """By day, fields of `Measured` that come from counting rows by value, in one job.

    These are the distributions of what is watched for drift, for which one row in `one_in` is enough, and for a log, of
    all its rows, the hours of the day and how many rows each user, item and request has.
    """
    is_log = log_of(table) is not None
    watched = [spread for spread in distributions_of(table) if spread.column in rows.columns]
    hours = [_hour(deployment)] if is_log and "event_ts" in rows.columns else []
    if not watched and not hours:
        return {}
    places = F.array(*hours, *map(_bucket, watched))
    if one_in > 1 and "event_id" in rows.columns:
        is_sampled = F.pmod(F.xxhash64("event_id"), F.lit(one_in)) == 0
        places = F.when(is_sampled, places).otherwise(F.array(*hours) if hours else F.lit(None))
    placed = rows.select("ds", F.posexplode(places).alias("which", "place")).where(F.col("place").isNotNull())
    counts = placed.groupBy("ds", "which", "place").agg(F.count(F.lit(1)).alias("rows"))
    names = [name for name in COUNTED if is_log and f"{name}_id" in rows.columns]
    for which, name in enumerate(names, start=len(hours) + len(watched)):
        counts = counts.unionByName(_rows_each(rows, f"{name}_id", which), allowMissingColumns=True)
    by_day: dict[date, dict[str, Any]] = defaultdict(lambda: defaultdict(dict))
    for row in counts.collect():
        figures, which = by_day[row["ds"]], row["which"] - len(hours)
        if which >= len(watched):
            name = names[which - len(watched)]
            figures[COUNTED[name]] = row["distinct"]
            figures["impressions_mean"][name] = row["rows"] / row["distinct"]
            figures["impressions_p50"][name], figures["impressions_p95"][name] = row["percentiles"]
            figures["impressions_max"][name] = row["most"]
        elif which < 0:
            figures["hours"][row["place"]] = row["rows"]
        else:
            spread = figures["distributions"].setdefault(watched[which].column, [0] * PLACES)
            spread[row["place"]] = row["rows"]
    for figures in by_day.values():
        figures["distributions"] = {column: tuple(values) for column, values in figures["distributions"].items()}
        if hours:
            figures["hours"] = tuple(figures["hours"].get(hour, 0) for hour in range(HOURS))
    return by_day


def _rows_each(rows: DataFrame, column: str, which: int) -> DataFrame:
    """By day, how many values a column has, and how many rows each of them."""
    each = rows.where(F.col(column).isNotNull()).groupBy("ds", column).agg(F.count(F.lit(1)).alias("rows"))
    return each.groupBy("ds").agg(
        F.lit(which).alias("which"),
        F.sum("rows").alias("rows"),
        F.count(F.lit(1)).alias("distinct"),
        F.max("rows").alias("most"),
        F.percentile("rows", F.array(F.lit(0.5), F.lit(0.95))).alias("percentiles"),
    )


def _hour(deployment: Deployment) -> Column:
    return F.hour(F.from_utc_timestamp("event_ts", deployment.day_timezone)).cast("int")


def _bucket(spread: Distribution) -> Column:
    value = F.col(spread.column).cast("bigint")
    if spread.kind == "hashed":
        bucket = F.pmod(F.xxhash64(value), F.lit(BUCKETS))
    elif spread.kind == "value":
        bucket = F.greatest(F.lit(0), F.least(value, F.lit(BUCKETS - 1)))
    else:  # binary digits of value + 1, which no rounding of a logarithm touches
        bucket = F.least(F.length(F.bin(F.greatest(value, F.lit(0)) + 1)) - 1, F.lit(BUCKETS - 1))
    return F.when(value.isNull(), F.lit(UNKNOWN)).otherwise(bucket).cast("int")


def with_histories(
    measured: Mapping[date, Measured], samples: DataFrame, histories: DataFrame, delay_seconds: int
) -> dict[date, Measured]:
    """Adds how the samples' `history_end` compares with their users' histories.

    Args:
        measured: what was measured so far, by day.
        samples: rows of the samples table of those days.
        histories: rows of user_histories of the same days.
        delay_seconds: feedback delay; a behaviour is seen if event_ts + delay < sample_ts.
    """
    needed = {"ds", "user_id", "sample_ts", "history_end"}
    if not needed <= set(samples.columns) or not _has_times(histories):
        return dict(measured)
    requests = samples.groupBy(*sorted(needed)).agg(
        F.count(F.lit(1)).alias("rows")
    )  # candidates of a request stand or fall together
    times = histories.select("ds", "user_id", F.col("behaviours.event_ts").alias("times"))
    old_enough = F.col("sample_ts") - F.make_dt_interval(secs=F.lit(delay_seconds))
    end = F.col("history_end")
    size = F.when(F.col("times").isNull(), 0).otherwise(F.size("times"))
    last_seen, first_unseen = F.get("times", end - 1), F.get("times", end)

    def rows_where(condition: Column, name: str) -> Column:
        return F.coalesce(F.sum(F.when(condition, F.col("rows"))), F.lit(0)).alias(name)

    rows = (
        requests.join(times, ["ds", "user_id"], "left")
        .groupBy("ds")
        .agg(
            rows_where(end > size, "rows_beyond_history"),
            rows_where(last_seen >= old_enough, "rows_seeing_ahead"),
            rows_where(first_unseen < old_enough, "rows_seeing_less"),
        )
        .collect()
    )
    return _extended(measured, rows)


def with_shared(
    measured: Mapping[date, Measured], ads: DataFrame, natural: DataFrame, usual_days: int
) -> dict[date, Measured]:
    """Adds the shares of the ad log's users and items that the natural log knows.

    Args:
        measured: what was measured so far, by day.
        ads: rows of the ad log of those days.
        natural: ds, entity, entity_id: the entities in the natural log of the same days and the `usual_days` before.
        usual_days: how many days before a day are included.
    """
    if not {"user_id", "item_id"} <= set(ads.columns):
        return dict(measured)
    known = natural.groupBy("entity", "entity_id").agg(F.collect_set("ds").alias("seen"))
    joined = entities_of(ads).join(known, ["entity", "entity_id"], "left")
    # The newest day that is not after ds is enough; the others add nothing.
    newest = F.array_max(F.filter("seen", lambda day: day <= F.col("ds")))
    is_shared = F.coalesce(newest >= F.date_sub("ds", usual_days), F.lit(False)).cast("int")
    shares = joined.groupBy("ds").pivot("entity", ["user", "item"]).agg(F.avg(is_shared))
    named = shares.select("ds", *(F.col(entity).alias(f"shared_{entity}s_share") for entity in ("user", "item")))
    return _extended(measured, named.collect())


def entities_of(rows: DataFrame) -> DataFrame:
    """Rows of a log -> ds, entity, entity_id: its distinct users and items."""
    pairs = F.array(
        *(
            F.struct(F.lit(entity).alias("entity"), F.col(f"{entity}_id").alias("entity_id"))
            for entity in ("user", "item")
        )
    )
    return rows.select("ds", F.explode(pairs).alias("pair")).select("ds", "pair.*").distinct()


def natural_entities(spark: SparkSession, locations: Locations, days: Sequence[date]) -> DataFrame | None:
    """ds, entity, entity_id of these days of the natural log; None if none of them was built.

    From the day's partials where they are built, which count each user and item once; else from the log.
    """
    reader = LakeReader(locations)
    logs = reader.builds("natural_log", [owner_key(ds=day) for day in days])
    partials = reader.builds("statistic_partials", [owner_key(ds=day, log="natural") for day in days])
    counted = [day for day in days if owner_key(ds=day, log="natural") in partials]
    others = [day for day in days if day not in counted and owner_key(ds=day) in logs]
    parts = []
    if counted:
        rows = load_days(spark, locations, "statistic_partials", counted)
        parts.append(
            rows.where((F.col("log") == "natural") & F.col("entity").isin("user", "item")).select(
                "ds", "entity", "entity_id"
            )
        )
    if others:
        parts.append(entities_of(load_days(spark, locations, "natural_log", others)))
    return None if not parts else parts[0] if len(parts) == 1 else parts[0].unionByName(parts[1])


def measure_all(
    spark: SparkSession,
    locations: Locations,
    rows: DataFrame,
    table: Table,
    days: Sequence[date],
    deployment: Deployment,
    *,
    most_rows: int,
    usual_days: int,
) -> dict[date, Measured]:
    """Everything that `measure` gives, and what only some tables need."""
    measured = measure(rows, table, deployment, most_rows=most_rows)
    if log_behind(table) is not None:
        histories = load_days(spark, locations, HISTORIES, days)
        measured = with_histories(measured, rows, histories, deployment.feedback_delay_seconds)
    if log_of(table) == "ad":
        built = LakeReader(locations).builds("natural_log", [owner_key(ds=day) for day in days])
        natural = natural_entities(
            spark, locations, list(days_between(min(days) - ONE_DAY * usual_days, max(days) + ONE_DAY))
        )
        if natural is not None:
            both = {
                day: found
                for day, found in with_shared(measured, rows, natural, usual_days).items()
                if owner_key(ds=day) in built
            }
            measured |= both
    return measured


def _extended(measured: Mapping[date, Measured], found: Sequence[Any]) -> dict[date, Measured]:
    by_day = {row["ds"]: {name: value for name, value in row.asDict().items() if name != "ds"} for row in found}
    return {day: replace(figures, **by_day.get(day, {})) for day, figures in measured.items()}
