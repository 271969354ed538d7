"""Suites derive from the contracts; figures from the builds. No Spark, no Great Expectations."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest

from contracts.errors import BadInput
from contracts.steps import VALIDATED_TABLES
from contracts.tables import TABLES, Column, Table
from validation.figures import CONSTANT_ROWS, DayBuilds, DayFigures, Measured, day_figures
from validation.found import figure_text, found_of
from validation.suites import Check, derive_suite, judged_table
from validation.thresholds import Thresholds

DAY = date(2026, 1, 9)
BY_DAY = [table for table in TABLES.values() if table.owner == ("ds",)]
# How many checks a table had when this was last looked at: a check that vanishes is noticed, a new column raises it.
FEWEST_CHECKS = {"natural_log": 46, "ad_log": 54, "natural_samples": 143, "ad_samples": 147, "user_histories": 9}


def checks_of(name: str) -> dict[str, Check]:
    return {check.id: check for check in derive_suite(TABLES[name])}


@pytest.mark.parametrize("table", BY_DAY, ids=lambda table: table.name)
def test_each_rule_of_the_contract_has_its_check(table: Table) -> None:
    checks = {check.id: check for check in derive_suite(table)}
    expected: dict[str, dict[str, Any]] = {}
    for column in table.columns:
        if column.name == "ds" or column.type.startswith("array"):
            continue
        if not column.nullable:
            expected[f"not_null({column.name})"] = {"column": column.name}
        if (column.minimum, column.maximum) != (None, None):
            expected[f"range({column.name})"] = {
                "column": column.name,
                "min_value": column.minimum,
                "max_value": column.maximum,
            }
        if column.allowed is not None:
            expected[f"allowed({column.name})"] = {"column": column.name, "value_set": list(column.allowed)}
        if column.longest is not None:
            expected[f"longest({column.name})"] = {"column": column.name, "max_value": column.longest}
    found = {id: check for id, check in checks.items() if check.name in ("not_null", "range", "allowed", "longest")}
    assert {id: check.arguments for id, check in found.items()} == expected
    assert {check.severity for check in found.values()} <= {"fail"}
    assert checks["columns"].arguments == {"column_set": list(table.column_names), "exact_match": True}
    (unique,) = (check for check in checks.values() if check.name == "unique")
    assert unique.arguments["column_list"] == ["ds", *table.unique]


def test_no_check_was_lost() -> None:
    assert {name: len(derive_suite(TABLES[name])) for name in VALIDATED_TABLES} == FEWEST_CHECKS


def test_a_nullable_column_may_be_null_and_is_still_bounded() -> None:
    table = Table(
        name="made",
        grain="a row",
        owner=("ds",),
        columns=(
            Column(name="a", type="bigint", meaning="", nullable=True, maximum=9),
            Column(name="ds", type="date", meaning=""),
        ),
    )
    assert {"range(a)", "missing(a)"} == {check.id for check in derive_suite(table) if check.field == "a"}


@pytest.mark.parametrize(
    ("table", "check", "severity", "bounds"),
    [
        ("ad_log", "rows", "fail", (1, None)),
        ("ad_log", "rows_as_built", "fail", (0, 0)),
        ("ad_log", "rows_reconcile", "fail", (0, 0)),
        ("ad_log", "quarantined", "fail", (None, 0.20)),
        ("ad_log", "quarantined_some", "warn", (None, 0.01)),
        ("ad_log", "duplicates", "warn", (None, 0.05)),
        ("ad_log", "rows_as_usual", "warn", (0.5, 2.0)),
        ("ad_log", "event_day(event_ts)", "fail", (0, 0)),
        ("ad_log", "late", "warn", (None, 0.10)),
        ("ad_log", "undeclared_columns", "warn", (None, 0)),
        ("ad_log", "constant_columns", "warn", (None, 0)),
        ("ad_log", "shared_users(user_id)", "warn", (0.10, None)),
        ("ad_log", "shared_items(item_id)", "warn", (0.01, None)),
        ("ad_log", "click_rate_as_usual(click)", "warn", (0.5, 2.0)),
        ("ad_log", "missing(item_text)", "warn", (None, 0.10)),
        ("ad_log", "drift(campaign_id)", "warn", (None, 0.25)),
        ("ad_samples", "drift(hour)", "warn", (None, 0.25)),
        ("ad_samples", "drift(history_end)", "warn", (None, 0.25)),
        ("ad_samples", "history_ends_inside(history_end)", "fail", (0, 0)),
        ("ad_samples", "nothing_later_seen(history_end)", "fail", (0, 0)),
        ("ad_samples", "nothing_earlier_unseen(history_end)", "fail", (0, 0)),
        ("user_histories", "sorted(behaviours)", "fail", (0, 0)),
        ("user_histories", "nothing_after_the_day(behaviours)", "fail", (0, 0)),
        ("ad_log", "click_rate(click)", "warn", (0.001, 0.95)),
        ("ad_samples", "click_rate(click)", "warn", (0.001, 0.95)),
        ("ad_samples", "rows_of_log", "fail", (0, 0)),
        ("ad_samples", "history(history_end)", "warn", (0.01, None)),
    ],
)
def test_figures_have_their_bounds(table: str, check: str, severity: str, bounds: tuple[Any, Any]) -> None:
    found = checks_of(table)[check]
    assert (found.subject, found.severity) == ("figures", severity)
    assert (found.arguments["min_value"], found.arguments["max_value"]) == bounds
    figures = DayFigures(ds=DAY, rows=0, rows_off_build=0)
    assert all(
        figures.figure(name) is None or name.startswith("rows")
        for name in (found.arguments["column"], *found.context_figures)
    )


def test_the_natural_log_is_not_asked_what_it_shares_with_itself() -> None:
    assert not [id for id in checks_of("natural_log") if id.startswith("shared")]


def test_thresholds_reach_the_suite_and_its_words() -> None:
    suite = derive_suite(TABLES["ad_log"], Thresholds(quarantined_share_warn=0.002))
    (check,) = (check for check in suite if check.name == "quarantined_some")
    assert check.arguments["max_value"] == 0.002
    assert "0.2 %" in check.expected
    with pytest.raises(BadInput, match="duplicate_share_warn: expected a share"):
        Thresholds(duplicate_share_warn=5)


def test_only_tables_by_day_are_judged() -> None:
    with pytest.raises(BadInput, match="expected one of natural_log"):
        judged_table("releases")


def build(rows: int, **counts: int) -> dict[str, Any]:
    return {"row_cnt": rows, "counts": counts}


def test_figures_of_a_log() -> None:
    before = {DAY - timedelta(days=back): build(rows) for back, rows in ((1, 50), (2, 100), (7, 400), (8, 9_999))}
    own = before | {DAY: build(90, read=100, kept=90, duplicates=4, conflicting_duplicates=1, quarantined=5, late=2)}
    figures = day_figures(
        TABLES["natural_log"], DAY, Measured(rows=88, clicks=22), DayBuilds(own=own, log={}), usual_days=7
    )
    assert figures.rows_off_build == -2
    assert figures.rows_unaccounted == 1
    assert (figures.quarantined_share, figures.duplicate_share, figures.click_rate) == (0.05, 0.04, 0.25)
    assert (figures.usual_rows, figures.rows_to_usual) == (100, 0.88)
    assert figures.rows_off_log is None


def test_figures_without_anything_to_compare_with() -> None:
    empty = day_figures(TABLES["ad_log"], DAY, Measured(), DayBuilds(own={DAY: build(0)}, log={}), usual_days=7)
    assert (empty.rows_unaccounted, empty.click_rate, empty.rows_to_usual, empty.quarantined_share) == (None,) * 4


def test_figures_of_samples_compare_with_the_log_without_its_late_rows() -> None:
    builds = DayBuilds(own={DAY: build(97)}, log={DAY: build(100, late=2)})
    figures = day_figures(TABLES["ad_samples"], DAY, Measured(rows=97, clicks=0, with_history=0), builds, usual_days=7)
    assert (figures.rows_off_log, figures.history_share, figures.rows_unaccounted) == (-1, 0, None)


def test_columns_of_one_value_are_one_warning_that_names_them() -> None:
    (check,) = (check for check in derive_suite(TABLES["natural_log"]) if check.name == "constant_columns")
    outcome = {"success": False, "result": {}}
    build_of = {DAY: build(CONSTANT_ROWS)}
    constant = {"user_segment_id": "0", "dwell_seconds": "0", "user_id": "48213"}
    measured = Measured(rows=CONSTANT_ROWS, constant=constant, unknowns={"user_segment_id": CONSTANT_ROWS})
    day = day_figures(TABLES["natural_log"], DAY, measured, DayBuilds(own=build_of, log={}), usual_days=7)
    assert (day.constant_columns, day.unknown_share) == (3, {"user_segment_id": 1.0})

    def words(*days: DayFigures) -> str:
        return found_of(check, outcome, days, total_rows=1, columns=())

    assert words(day) == "dwell_seconds 0, user_id 99999, user_segment_id 0"
    other = DayFigures(ds=DAY + timedelta(days=1), rows=9, rows_off_build=0, constant={"dwell_seconds": "0"})
    assert words(day, other) == (
        "dwell_seconds 0 on 2 of 2 days; user_id 99999 on 1 of 2 days (2026-01-09); "
        "user_segment_id 0 on 1 of 2 days (2026-01-09)"
    )


def test_a_day_of_few_rows_has_columns_of_one_value_by_chance() -> None:
    measured = Measured(rows=CONSTANT_ROWS - 1, constant={"position": "0"})
    few = {DAY: build(CONSTANT_ROWS - 1)}
    day = day_figures(TABLES["natural_log"], DAY, measured, DayBuilds(own=few, log={}), usual_days=7)
    assert (day.constant_columns, day.constant) == (None, {})


def test_what_was_found_names_the_days_and_masks_user_ids() -> None:
    checks, columns = checks_of("ad_log"), TABLES["ad_log"].column_names
    days = [
        DayFigures(ds=DAY, rows=7, rows_off_build=0, click_rate=0.97),
        DayFigures(ds=DAY + timedelta(days=1), rows=3, rows_off_build=0),
    ]
    outcome = {"success": False, "result": {"unexpected_index_list": [{"ds": str(DAY)}]}}
    rate = found_of(checks["click_rate(click)"], outcome, days, total_rows=10, columns=columns)
    assert rate == "1 of 2 days: 2026-01-09 (97.00 %)"
    bad = {"success": False, "result": {"unexpected_count": 2, "partial_unexpected_list": [-48213, -48213]}}
    assert (
        found_of(checks["range(user_id)"], bad, days, total_rows=10, columns=columns) == "2 of 10 rows, such as -99999"
    )
    assert (
        found_of(checks["range(item_id)"], bad, days, total_rows=10, columns=columns) == "2 of 10 rows, such as -48213"
    )
    assert "no such column: item_id" in found_of(checks["range(item_id)"], None, days, total_rows=10, columns=["ds"])
    found = found_of(checks["columns"], {"success": False}, days, total_rows=10, columns=[*columns[1:], "extra"])
    assert found == "missing: event_id; undeclared: extra"


def test_figures_read_well() -> None:
    assert [
        figure_text(*pair)
        for pair in (("rows", 1234567.0), ("click_rate", 0.1234), ("rows_to_usual", 1.0), ("late", None))
    ] == ["1,234,567", "12.34 %", "1.00", "none"]
