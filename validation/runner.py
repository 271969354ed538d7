"""Judges a table and day: Spark reads and measures the rows, Great Expectations judges them.

Two runs of Great Expectations over the rows, because it asks Spark two or three times for each failed or passed check
when it is to give details: first all checks with a bare yes or no, which share their jobs (7 jobs and 1 s for 25 checks
where details of all take 53 jobs and 5 s), then only the failed ones, with counts and examples.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from contracts.errors import BadInput, ParentMissing
from contracts.locations import Locations
from contracts.periods import ONE_DAY, days_between
from contracts.settings import Deployment
from contracts.steps import maker
from contracts.tables import TABLES, Table, owner_key
from lake.persisted import persisted
from lake.reader import LakeReader
from validation.figures import DayBuilds, DayFigures, Measured, compared, day_figures
from validation.found import found_of
from validation.suites import HISTORIES, Check, derive_suite, judged_table, log_behind, log_of
from validation.thresholds import DEFAULT_THRESHOLDS, Thresholds
from validation.trailing import known_before, week_before
from validation.verdict import Result, Verdict, read_verdict

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

YES_OR_NO = {"result_format": "BOOLEAN_ONLY"}
# BASIC: SUMMARY and COMPLETE would also collect the key of every bad row on the driver.
WITH_EXAMPLES = {"result_format": "BASIC", "partial_unexpected_count": 20}
BY_DAY = {"result_format": "COMPLETE", "unexpected_index_column_names": ["ds"]}  # one row a day: harmless here


def run(
    spark: SparkSession,
    locations: Locations,
    table: str,
    day: date,
    *,
    deployment: Deployment | None = None,
    thresholds: Thresholds = DEFAULT_THRESHOLDS,
) -> Verdict:
    """Judges one day of a table; see `run_range`."""
    return run_range(spark, locations, table, day, day, deployment=deployment, thresholds=thresholds)


def run_range(
    spark: SparkSession,
    locations: Locations,
    table: str,
    first: date,
    last: date,
    *,
    deployment: Deployment | None = None,
    thresholds: Thresholds = DEFAULT_THRESHOLDS,
) -> Verdict:
    """Judges days `first` .. `last` of a table at once: the rows of all days together, the figures day by day.

    Each day is compared with the days before it, as they were judged; those that were not are measured here, and where
    they were never built, there is nothing to compare with.

    Args:
        spark: a session, classic or Spark Connect.
        locations: the deployment's paths.
        table: a table whose partitions are days.
        first: the first day.
        last: the last day, inclusive.
        deployment: the deployment's settings; by default those of its home folder.
        thresholds: bounds that no contract states.

    Returns:
        The verdict, which keeps the acceptance of an earlier one of the same rows. Nothing is written.

    Raises:
        BadInput: no such table, or `last` before `first`.
        ParentMissing: a day was never built; the message names the command that builds it.
    """
    contract = judged_table(table)
    settings = deployment or Deployment.load(locations.home)
    builds = require_builds(locations, table, first, last, usual_days=thresholds.usual_days)
    judged = _Judged(
        spark=spark, locations=locations, table=contract, builds=builds, deployment=settings, thresholds=thresholds
    )
    checks = derive_suite(contract, thresholds)
    wanted = list(days_between(first, last + ONE_DAY))
    before = _days_before(judged, first)
    with persisted(_rows_of(judged, wanted)) as rows:  # Great Expectations reads them several times
        days = _figures(judged, rows, wanted, before)
        results = _judge(checks, rows, days)
    digests = {owner_key(ds=day): builds.own[day]["digest"] for day in wanted}
    earlier = read_verdict(locations, table, last)
    kept = earlier.acceptance if earlier is not None and earlier.digests == digests else None
    return Verdict(
        table=table,
        first_day=first,
        last_day=last,
        run_ts=datetime.now(UTC),
        results=results,
        days=days,
        digests=digests,
        acceptance=kept,
    )


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """The table whose days are judged, where it is read, and what it is judged by."""

    spark: SparkSession
    locations: Locations
    table: Table
    builds: DayBuilds
    deployment: Deployment
    thresholds: Thresholds


def _may_be_empty(table: Table, days: Sequence[date], deployment: Deployment) -> frozenset[date]:
    """Days on which the deployment expects no row of this log."""
    behind = log_behind(table)
    log = log_of(TABLES[behind] if behind else table)
    return frozenset(day for day in days if log is not None and deployment.may_be_empty(log, day))


def _rows_of(judged: _Judged, days: Sequence[date]) -> DataFrame:
    from validation.measuring import load_days

    return load_days(judged.spark, judged.locations, judged.table.name, days)


def _days_before(judged: _Judged, first: date) -> list[DayFigures]:
    """Figures of the days before the first one: kept ones, and of the others as much as a comparison needs."""
    from validation.measuring import measure

    table, builds, usual_days = judged.table, judged.builds, judged.thresholds.usual_days
    known = known_before(judged.locations, table, builds.own, first, usual_days)
    unknown = [day for day in builds.own if day < first and day not in known and builds.own[day]["row_cnt"]]
    if unknown:
        rows = _rows_of(judged, unknown)
        for day, measured in measure(rows, table, judged.deployment, most_rows=_most_rows(builds, unknown)).items():
            known[day] = day_figures(table, day, measured, builds, usual_days=usual_days)
    return list(known.values())


def _figures(
    judged: _Judged, rows: DataFrame, days: Sequence[date], before: Sequence[DayFigures]
) -> tuple[DayFigures, ...]:
    """Figures of the days, each compared with its own week before."""
    from validation.measuring import measure_all

    table, builds, deployment, usual_days = judged.table, judged.builds, judged.deployment, judged.thresholds.usual_days
    measured = measure_all(
        judged.spark,
        judged.locations,
        rows,
        table,
        days,
        deployment,
        most_rows=_most_rows(builds, days),
        usual_days=usual_days,
    )
    single = [day_figures(table, day, measured.get(day, Measured()), builds, usual_days=usual_days) for day in days]
    may_be_empty = _may_be_empty(table, days, deployment)
    single = [
        replace(day, ads_from=deployment.ad_start) if day.ds in may_be_empty and not day.rows else day for day in single
    ]
    return tuple(
        compared(
            table,
            figures,
            week_before([*before, *single], figures.ds, usual_days),
            history_start=deployment.history_start,
        )
        for figures in single
    )


def _most_rows(builds: DayBuilds, days: Sequence[date]) -> int:
    return max(int(builds.own[day]["row_cnt"]) for day in days)


def require_builds(locations: Locations, table: str, first: date, last: date, *, usual_days: int = 0) -> DayBuilds:
    """Build records of the days, and of `usual_days` days before, as far as they exist.

    Raises:
        BadInput: no such table, or `last` before `first`.
        ParentMissing: a day of the table, or of the log and the histories behind its samples, was never built.
    """
    contract = judged_table(table)
    if last < first:
        raise BadInput("--to", "to", expected=f"a day not before {first}", found=last)
    reader = LakeReader(locations)
    wanted = list(days_between(first, last + ONE_DAY))
    before = list(days_between(first - ONE_DAY * usual_days, first))
    own = _builds(reader, table, wanted, before)
    behind = log_behind(contract)
    if behind is None:
        return DayBuilds(own=own, log={})
    _builds(reader, HISTORIES, wanted, [])
    return DayBuilds(own=own, log=_builds(reader, behind, wanted, before))


def _builds(
    reader: LakeReader, table: str, wanted: Sequence[date], optional: Sequence[date]
) -> dict[date, dict[str, Any]]:
    records = reader.builds(table, [owner_key(ds=day) for day in (*optional, *wanted)])
    missing = [day for day in wanted if owner_key(ds=day) not in records]
    if missing:
        more = f" and of {len(missing) - 1} more days" if len(missing) > 1 else ""
        raise ParentMissing(
            f"{table}: expected a build of {missing[0]}{more}, found none. "
            f"Make it with: tributary {maker(table)} --ds {missing[0]}"
        )
    return {day: records[owner_key(ds=day)] for day in (*optional, *wanted) if owner_key(ds=day) in records}


def _judge(checks: Sequence[Check], rows: DataFrame, days: Sequence[DayFigures]) -> tuple[Result, ...]:
    """Results of all checks, in their order."""
    total = sum(day.rows for day in days)
    on_rows = [check for check in checks if check.subject == "rows" and check.needs <= set(rows.columns)]
    on_figures = [check for check in checks if check.subject == "figures"]
    outcomes = _expect(on_rows, rows, YES_OR_NO)
    failed = [check for check in on_rows if not outcomes[check.id]["success"]]
    if failed:
        outcomes |= _expect(failed, rows, WITH_EXAMPLES)
    outcomes |= _expect(on_figures, _figures_frame(on_figures, days), BY_DAY)
    return tuple(
        Result(
            name=check.name,
            field=check.field,
            severity=check.severity,
            expected=check.expected,
            success=check.id in outcomes and outcomes[check.id]["success"],
            found=found_of(check, outcomes.get(check.id), days, total_rows=total, columns=rows.columns),
            figure=check.figure,
            low=check.arguments.get("min_value") if check.figure else None,
            high=check.arguments.get("max_value") if check.figure else None,
        )
        for check in checks
    )


def _figures_frame(checks: Iterable[Check], days: Sequence[DayFigures]) -> Any:
    """One row a day, with the figures that the checks judge; one that does not apply is null, which no bound judges."""
    import pandas as pd

    names = list(dict.fromkeys(str(check.figure) for check in checks))
    frame = pd.DataFrame([{"ds": str(day.ds)} | {name: day.judged(name) for name in names} for day in days])
    return frame.astype({name: float for name in names})


def _expect(checks: Sequence[Check], frame: Any, result_format: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Runs one checkpoint; by check id `{"success": bool, "result": dict}`.

    Raises:
        RuntimeError: an expectation could not be judged. Its columns exist, so it is the engine's failure, not the
            data's.
    """
    gx, expectations = _great_expectations()
    context = gx.get_context(mode="ephemeral")
    context.enable_analytics(False)
    context.variables.progress_bars = {"globally": False}
    is_pandas = type(frame).__module__.startswith("pandas")
    source = (
        context.data_sources.add_pandas("source")
        if is_pandas
        else context.data_sources.add_spark("source", persist=False)
    )
    batch = source.add_dataframe_asset("asset").add_batch_definition_whole_dataframe("batch")
    made = [getattr(expectations, check.expectation)(**check.arguments, meta={"check": check.id}) for check in checks]
    suite = context.suites.add(gx.ExpectationSuite(name="suite", expectations=made))
    validation = context.validation_definitions.add(gx.ValidationDefinition(name="validation", data=batch, suite=suite))
    checkpoint = context.checkpoints.add(
        gx.Checkpoint(name="checkpoint", validation_definitions=[validation], result_format=dict(result_format))
    )
    (validated,) = checkpoint.run(batch_parameters={"dataframe": frame}).run_results.values()
    outcomes = {}
    for result in validated.results:
        # One exception stands there flat, several by metric: then there is no such key.
        if result.exception_info.get("raised_exception", bool(result.exception_info)):
            raise RuntimeError(
                f"{result.expectation_config.meta['check']}: could not be judged: {result.exception_info}"
            )
        outcomes[result.expectation_config.meta["check"]] = {"success": bool(result.success), "result": result.result}
    assert outcomes.keys() == {check.id for check in checks}
    return outcomes


def _great_expectations() -> tuple[Any, Any]:
    """The library and its expectations; the import takes seconds, so it is done when first needed."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read by the library at import
    import great_expectations as gx
    import great_expectations.expectations as expectations

    return gx, expectations
