"""Judges a table and day: Spark reads and measures the rows, Great Expectations judges them.

Two runs of Great Expectations over the rows, because it asks Spark two or three times for each failed or passed check when
it is to give details: first all checks with a bare yes or no, which share their jobs (7 jobs and 1 s for 25 checks where
details of all take 53 jobs and 5 s), then the failed ones alone with counts and examples.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from contracts.errors import BadInput, ParentMissing
from contracts.locations import Locations
from contracts.periods import ONE_DAY, days_between
from contracts.tables import Table, owner_key
from lake.reader import LakeReader
from validation.figures import DayBuilds, DayFigures, Measured, day_figures
from validation.found import found_of
from validation.suites import DEFAULT_THRESHOLDS, Check, Thresholds, derive_suite, judged_table, log_behind, log_of
from validation.verdict import Result, Verdict, read_verdict

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

COMMANDS = {
    "natural_log": "ingest_logs", "ad_log": "ingest_logs", "natural_samples": "build_samples", "ad_samples": "build_samples",
    "user_histories": "build_user_histories", "entity_statistics": "build_statistics",
}
YES_OR_NO = {"result_format": "BOOLEAN_ONLY"}
# BASIC: SUMMARY and COMPLETE would also collect the key of every bad row on the driver.
WITH_EXAMPLES = {"result_format": "BASIC", "partial_unexpected_count": 20}
BY_DAY = {"result_format": "COMPLETE", "unexpected_index_column_names": ["ds"]}  # one row a day: harmless here


def run(spark: SparkSession, locations: Locations, table: str, day: date, *, thresholds: Thresholds = DEFAULT_THRESHOLDS) -> Verdict:
    """Judges one day of a table; see `run_range`."""
    return run_range(spark, locations, table, day, day, thresholds=thresholds)


def run_range(spark: SparkSession, locations: Locations, table: str, first: date, last: date, *,
              thresholds: Thresholds = DEFAULT_THRESHOLDS) -> Verdict:
    """Judges days `first` .. `last` of a table at once: the rows of all days together, the figures day by day.

    Args:
        spark: a session, classic or Spark Connect.
        locations: the deployment's paths.
        table: a table whose partitions are days.
        first, last: the days, both inclusive.
        thresholds: bounds that no contract states.

    Returns:
        The verdict, which keeps the acceptance of an earlier one of the same rows. Nothing is written.

    Raises:
        BadInput: no such table, or `last` before `first`.
        ParentMissing: a day was never built; the message names the command that builds it.
    """
    contract = judged_table(table)
    builds = require_builds(locations, table, first, last, usual_days=thresholds.usual_days)
    checks = derive_suite(contract, thresholds)
    with _rows_of(spark, locations, contract, first, last) as rows:
        measured = _measure(rows)
        days = tuple(day_figures(contract, day, measured.get(day, Measured()), builds, usual_days=thresholds.usual_days)
                     for day in days_between(first, last + ONE_DAY))
        results = _judge(checks, rows, days)
    digests = {owner_key(ds=day): builds.own[day]["digest"] for day in days_between(first, last + ONE_DAY)}
    earlier = read_verdict(locations, table, last)
    kept = earlier.acceptance if earlier is not None and earlier.digests == digests else None
    return Verdict(table=table, first_day=first, last_day=last, run_ts=datetime.now(UTC), results=results, days=days,
                   digests=digests, acceptance=kept)


def require_builds(locations: Locations, table: str, first: date, last: date, *, usual_days: int = 0) -> DayBuilds:
    """Build records of the days, and for a log those of `usual_days` days before, as far as they exist.

    Raises:
        BadInput: no such table, or `last` before `first`.
        ParentMissing: a day of the table, or of the log behind its samples, was never built.
    """
    contract = judged_table(table)
    if last < first:
        raise BadInput("--to", "to", expected=f"a day not before {first}", found=last)
    reader = LakeReader(locations)
    wanted = list(days_between(first, last + ONE_DAY))
    before = list(days_between(first - ONE_DAY * usual_days, first)) if log_of(contract) else []
    behind = log_behind(contract)
    return DayBuilds(own=_builds(reader, table, wanted, before), log=_builds(reader, behind, wanted, []) if behind else {})


def _builds(reader: LakeReader, table: str, wanted: Sequence[date], optional: Sequence[date]) -> dict[date, dict[str, Any]]:
    found = reader.builds(table, [owner_key(ds=day) for day in (*optional, *wanted)])
    missing = [day for day in wanted if owner_key(ds=day) not in found]
    if missing:
        more = f" and of {len(missing) - 1} more days" if len(missing) > 1 else ""
        raise ParentMissing(f"{table}: expected a build of {missing[0]}{more}, found none. "
                            f"Make it with: tributary spark_jobs {COMMANDS[table]} --ds {missing[0]}")
    return {day: found[owner_key(ds=day)] for day in (*optional, *wanted) if owner_key(ds=day) in found}


@contextmanager
def _rows_of(spark: SparkSession, locations: Locations, table: Table, first: date, last: date) -> Iterator[DataFrame]:
    """The days' rows, persisted while in use: Great Expectations reads them several times."""
    from pyspark.sql import functions as F

    loaded = spark.read.format("delta").load(str(locations.table(table.name)))
    rows = loaded.where(F.col("ds").between(F.lit(first), F.lit(last))).persist()
    try:
        yield rows
    finally:
        rows.unpersist()


def _measure(rows: DataFrame) -> dict[date, Measured]:
    """One pass by day, which also fills the persisted rows."""
    from pyspark.sql import functions as F

    figures = [F.count(F.lit(1)).alias("rows")]
    if "click" in rows.columns:
        figures.append(F.sum("click").alias("clicks"))
    if "history_end" in rows.columns:
        figures.append(F.count_if(F.col("history_end") > 0).alias("with_history"))
    collected = [row.asDict() for row in rows.groupBy("ds").agg(*figures).collect()]
    return {row.pop("ds"): Measured(**row) for row in collected}


def _judge(checks: Sequence[Check], rows: DataFrame, days: Sequence[DayFigures]) -> tuple[Result, ...]:
    """Results of all checks, in their order."""
    total = sum(day.rows for day in days)
    on_rows = [check for check in checks if check.subject == "rows" and check.needs <= set(rows.columns)]
    on_figures = [check for check in checks if check.subject == "figures"]
    outcomes = _expect(on_rows, rows, YES_OR_NO)
    failed = [check for check in on_rows if not outcomes[check.id]["success"]]
    if failed:
        outcomes |= _expect(failed, rows, WITH_EXAMPLES)
    outcomes |= _expect(on_figures, _figures_frame(days), BY_DAY)
    return tuple(
        Result(name=check.name, field=check.field, severity=check.severity, expected=check.expected,
               success=check.id in outcomes and outcomes[check.id]["success"],
               found=found_of(check, outcomes.get(check.id), days, total_rows=total, columns=rows.columns))
        for check in checks
    )


def _figures_frame(days: Iterable[DayFigures]) -> Any:
    """One row a day; a figure that does not apply is null, which no bound judges."""
    import pandas as pd

    frame = pd.DataFrame([{name: getattr(day, name) for name in DayFigures.__dataclass_fields__} for day in days])
    return frame.astype({name: float for name in frame.columns if name != "ds"} | {"ds": str})


def _expect(checks: Sequence[Check], frame: Any, result_format: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Runs one checkpoint; by check id `{"success": bool, "result": dict}`.

    Raises:
        RuntimeError: an expectation could not be judged. Its columns exist, so it is the engine's failure, not the data's.
    """
    gx, expectations = _great_expectations()
    context = gx.get_context(mode="ephemeral")
    context.enable_analytics(False)
    context.variables.progress_bars = {"globally": False}
    is_pandas = type(frame).__module__.startswith("pandas")
    source = context.data_sources.add_pandas("source") if is_pandas else context.data_sources.add_spark("source", persist=False)
    batch = source.add_dataframe_asset("asset").add_batch_definition_whole_dataframe("batch")
    made = [getattr(expectations, check.expectation)(**check.arguments, meta={"check": check.id}) for check in checks]
    suite = context.suites.add(gx.ExpectationSuite(name="suite", expectations=made))
    validation = context.validation_definitions.add(gx.ValidationDefinition(name="validation", data=batch, suite=suite))
    checkpoint = context.checkpoints.add(
        gx.Checkpoint(name="checkpoint", validation_definitions=[validation], result_format=dict(result_format)))
    (validated,) = checkpoint.run(batch_parameters={"dataframe": frame}).run_results.values()
    outcomes = {}
    for result in validated.results:
        # One exception stands there flat, several by metric: then there is no such key.
        if result.exception_info.get("raised_exception", bool(result.exception_info)):
            raise RuntimeError(f"{result.expectation_config.meta['check']}: could not be judged: {result.exception_info}")
        outcomes[result.expectation_config.meta["check"]] = {"success": bool(result.success), "result": result.result}
    assert outcomes.keys() == {check.id for check in checks}
    return outcomes


def _great_expectations() -> tuple[Any, Any]:
    """The library and its expectations; the import takes seconds, so it is done when first needed."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read by the library at import
    import great_expectations as gx
    import great_expectations.expectations as expectations

    return gx, expectations
