"""The result of a check in words, from the outcome of its expectation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from contracts.masking import printable, shown
from validation.figures import DayFigures
from validation.suites import Check

EXAMPLES = 5
PASSED = {
    "not_null": "no null",
    "range": "all in range",
    "allowed": "all allowed",
    "unique": "no duplicate",
    "point_in_time": "none later",
    "longest": "none longer",
}
SHARES = ("_share", "_rate")
RATIOS = ("rows_to_usual", "click_rate_to_usual", "history_mean")
WORDS = {
    "usual_rows": "usual {} rows",
    "click_rate": "{}",
    "usual_click_rate": "usual {}",
    "missing_share": "share {}",
    "drift_bins": "up to {} bins",
    "history_mean": "mean {}",
    "history_p50": "median {}",
    "history_p95": "95th percentile {}",
    "history_max": "longest {}",
}


def found_of(
    check: Check,
    outcome: Mapping[str, Any] | None,
    days: Sequence[DayFigures],
    *,
    total_rows: int,
    columns: Sequence[str],
) -> str:
    """The result of a check, in words.

    Args:
        check: the check.
        outcome: `{"success": bool, "result": dict}`; None if a column that it needs is missing.
        days: figures of each day judged.
        total_rows: number of rows of all days together.
        columns: the columns that the table actually has.
    """
    if outcome is None:
        return f"not judged, no such column: {', '.join(sorted(check.needs - set(columns)))}"
    if check.subject == "figures":
        return _found_in_figures(check, outcome, days)
    if check.name == "columns":
        return _found_columns(check, columns)
    if outcome["success"]:
        return f"{PASSED[check.name]} in {total_rows:,} rows"
    return _found_bad_rows(check, outcome["result"], total_rows, columns)


def figure_text(name: str, value: float | None) -> str:
    """A figure as text: shares as percentages, whole numbers with separated thousands."""
    if value is None:
        return "none"
    outer = name.partition("(")[0]
    if outer == "drift":
        return f"{value:.3f}"
    if outer == "missing_rise":
        return f"{value * 100:+.2f} points"
    if outer.endswith(SHARES):
        return f"{value:.2%}".replace("%", " %")
    return f"{value:,.0f}" if float(value).is_integer() and outer not in RATIOS else f"{value:,.2f}"


def _found_in_figures(check: Check, outcome: Mapping[str, Any], days: Sequence[DayFigures]) -> str:
    name = check.arguments["column"]
    if check.name == "counts_recorded" and outcome["success"]:
        return "recorded"
    if check.name == "constant_columns" and not outcome["success"]:
        return _found_constant(days)
    values = {str(day.ds): day.figure(name) for day in days}
    applicable = {day: value for day, value in values.items() if value is not None}
    if not applicable:
        return _why_none(check, days) if outcome["success"] else "no such figure"
    if len(values) == 1:
        return figure_text(name, next(iter(applicable.values()))) + _context(check, days[0])
    low, high = min(applicable.values()), max(applicable.values())
    spread = figure_text(name, low) + ("" if low == high else f" .. {figure_text(name, high)}")
    if outcome["success"]:
        return f"{spread} on {len(applicable)} days"
    bad = [str(index["ds"]) for index in outcome["result"].get("unexpected_index_list") or ()]
    named = ", ".join(f"{day} ({figure_text(name, values[day])})" for day in bad[:EXAMPLES])
    return f"{len(bad)} of {len(values)} days: {named}{', ...' if len(bad) > EXAMPLES else ''}"


def constants_of(day: DayFigures) -> dict[str, str]:
    """By column of a log that holds one value all day, the value as it may be shown."""
    return {name: shown(value, fields=[name], columns=[name]) for name, value in sorted(day.constant.items())}


def _found_constant(days: Sequence[DayFigures]) -> str:
    """The columns, each with its value; of several days, on how many of them."""
    days_of: dict[str, list[str]] = defaultdict(list)
    for day in days:
        for name, value in constants_of(day).items():
            days_of[f"{name} {value}"].append(str(day.ds))
    if len(days) == 1:
        return ", ".join(days_of)
    return "; ".join(
        f"{one} on {len(on)} of {len(days)} days" + ("" if len(on) > 1 else f" ({on[0]})")
        for one, on in sorted(days_of.items(), key=lambda pair: -len(pair[1]))
    )


def _context(check: Check, day: DayFigures) -> str:
    """Further figures that explain the judged one, in brackets."""
    parts = [
        WORDS[name.partition("(")[0]].format(figure_text(name, value))
        for name in check.context_figures
        if (value := day.figure(name)) is not None
    ]
    return f" ({', '.join(parts)})" if parts else ""


def _why_none(check: Check, days: Sequence[DayFigures]) -> str:
    """Why there was nothing to judge: comparisons need earlier days, and drift enough rows."""
    if check.name == "drift" and any(day.compared_days for day in days):
        return "nothing to compare with: too few rows, or the lake is too young"
    if check.name in ("drift", "missing", "rows_as_usual", "click_rate_as_usual"):
        return "nothing to compare with"
    return "nothing to judge"


def _found_columns(check: Check, columns: Sequence[str]) -> str:
    declared = check.arguments["column_set"]
    missing = [name for name in declared if name not in columns]
    undeclared = [name for name in columns if name not in declared]
    parts = [
        f"{what}: {', '.join(map(printable, names))}"
        for what, names in (("missing", missing), ("undeclared", undeclared))
        if names
    ]
    return "; ".join(parts) or f"{len(columns)} columns, all declared"


def _found_bad_rows(check: Check, result: Mapping[str, Any], total_rows: int, columns: Sequence[str]) -> str:
    bad = result.get("unexpected_count", 0)
    counted = f"{bad:,} of {total_rows:,} rows"
    if check.name == "not_null":
        return counted
    examples = list(
        dict.fromkeys(_example(check, value, columns) for value in result.get("partial_unexpected_list") or ())
    )
    return f"{counted}, such as {', '.join(examples[:EXAMPLES])}" if examples else counted


def _example(check: Check, value: Any, columns: Sequence[str]) -> str:
    if isinstance(value, Mapping):  # of several columns; the day is left out, since the report names it
        return ", ".join(
            f"{name} {shown(part, fields=[name], columns=columns)}" for name, part in value.items() if name != "ds"
        )
    if isinstance(value, (tuple, list)):
        names = [check.arguments.get("column_A", check.field), check.arguments.get("column_B", check.field)]
        return " / ".join(
            shown(part, fields=[str(name)], columns=columns) for name, part in zip(names, value, strict=True)
        )
    return shown(value, fields=sorted(check.needs), columns=columns)
