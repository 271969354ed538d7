"""Which checks a table has. They derive from its contract, so that a new column is judged without a line here.

A check declares how to make its expectation, but nothing here imports Great Expectations. A check's subject is either
the table's own rows, or its figures, a frame with one row a day (`validation.figures`), for what no column shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from contracts.errors import BadInput
from contracts.features import LOGS, Log
from contracts.tables import TABLES, Column, Table
from validation.distributions import distributions_of
from validation.thresholds import DEFAULT_THRESHOLDS, Thresholds

Severity = Literal["fail", "warn"]
Subject = Literal["rows", "figures"]

HISTORIES = "user_histories"
NESTED_TYPES = (
    "array<",
    "struct<",
    "map<",
)  # no expectation on single values applies; the tests of their producers check them


@dataclass(frozen=True, kw_only=True)
class Check:
    """One condition that should hold for a table and day.

    Attributes:
        name: what kind of check; unique together with `field`.
        field: the column it judges, if one.
        severity: `fail` stops the day, `warn` only reports.
        expected: what should hold, for people.
        subject: what it is judged on: the table's rows, or the figures of each day.
        expectation: class name in `great_expectations.expectations`.
        arguments: its arguments, as JSON values.
        context_figures: further figures that explain the judged one; they are reported with the result.
    """

    name: str
    field: str | None = None
    severity: Severity = "fail"
    expected: str
    subject: Subject = "rows"
    expectation: str
    arguments: Mapping[str, Any]
    context_figures: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Its name, with the column in brackets if it judges one."""
        return self.name if self.field is None else f"{self.name}({self.field})"

    @property
    def figure(self) -> str | None:
        """The figure that it judges, which reports plot over time; None if it judges rows."""
        return self.arguments["column"] if self.subject == "figures" else None

    @property
    def needs(self) -> frozenset[str]:
        """Columns of the table without which it cannot be judged."""
        if self.subject == "figures":
            return frozenset()
        named = [self.arguments[key] for key in ("column", "column_A", "column_B") if key in self.arguments]
        return frozenset([*named, *self.arguments.get("column_list", ())])


def judged_table(name: str) -> Table:
    """The contract of a table that can be judged by day.

    Raises:
        BadInput: there is no such table, or its partitions are not days.
    """
    possible = [table.name for table in TABLES.values() if table.owner == ("ds",)]
    if name not in possible:
        raise BadInput("--table", "table", expected=f"one of {', '.join(possible)}", found=name)
    return TABLES[name]


def log_of(table: Table) -> Log | None:
    """The log that a table is, or None."""
    return next((log for log in LOGS if table.name == f"{log}_log"), None)


def log_behind(table: Table) -> str | None:
    """Name of the log table that a table of samples is made from, or None."""
    return next((f"{log}_log" for log in LOGS if table.name == f"{log}_samples"), None)


def derive_suite(table: Table, thresholds: Thresholds = DEFAULT_THRESHOLDS) -> tuple[Check, ...]:
    """All checks of a table, in the order in which a report lists them."""
    checks = [*_table_checks(table), *(check for column in table.columns for check in _column_checks(table, column))]
    if log_of(table) is not None:
        checks += _log_checks(table, thresholds)
    if log_behind(table) is not None:
        checks += _sample_checks(thresholds)
    if table.name == HISTORIES:
        checks += _history_checks()
    if any(column.name == "click" for column in table.columns):
        checks += _click_checks(thresholds)
    checks += _checks_against_the_week(table, thresholds)
    ids = [check.id for check in checks]
    assert len(set(ids)) == len(ids), f"{table.name}: a check is derived twice"
    return tuple(checks)


def _table_checks(table: Table) -> list[Check]:
    checks = [
        Check(
            name="columns",
            expected=f"exactly the {len(table.columns)} columns of the contract",
            expectation="ExpectTableColumnsToMatchSet",
            arguments={"column_set": list(table.column_names), "exact_match": True},
        ),
        _between("rows", "rows", (1, None), expected="at least one row, every day"),
        _between(
            "rows_as_built",
            "rows_off_build",
            (0, 0),
            expected="0 rows more or fewer than the build of the partition records",
        ),
    ]
    if table.unique:
        checks.append(_unique(table))
    return checks


def _unique(table: Table) -> Check:
    """The key with the day: rows are unique within a partition, and a range judges many at once."""
    return Check(
        name="unique",
        field=table.unique[0] if len(table.unique) == 1 else None,
        expected=f"no two rows of a day with the same {', '.join(table.unique)}",
        expectation="ExpectCompoundColumnsToBeUnique",
        arguments={"column_list": [*table.owner, *table.unique]},
    )


def _column_checks(table: Table, column: Column) -> list[Check]:
    if column.type.startswith(NESTED_TYPES) or column.name in table.owner:  # the batch is selected by the owner columns
        return []
    checks = []
    if not column.nullable:
        checks.append(
            Check(
                name="not_null",
                field=column.name,
                expected="no null",
                expectation="ExpectColumnValuesToNotBeNull",
                arguments={"column": column.name},
            )
        )
    if column.minimum is not None or column.maximum is not None:
        checks.append(
            Check(
                name="range",
                field=column.name,
                expected=_bounds(column.minimum, column.maximum),
                expectation="ExpectColumnValuesToBeBetween",
                arguments={"column": column.name, "min_value": column.minimum, "max_value": column.maximum},
            )
        )
    if column.allowed is not None:
        checks.append(
            Check(
                name="allowed",
                field=column.name,
                expected=f"one of {', '.join(map(str, column.allowed))}",
                expectation="ExpectColumnValuesToBeInSet",
                arguments={"column": column.name, "value_set": list(column.allowed)},
            )
        )
    if column.longest is not None:
        checks.append(
            Check(
                name="longest",
                field=column.name,
                expected=f"at most {column.longest:,} characters",
                expectation="ExpectColumnValueLengthsToBeBetween",
                arguments={"column": column.name, "max_value": column.longest},
            )
        )
    return checks


def _log_checks(table: Table, limits: Thresholds) -> list[Check]:
    low, high = limits.rows_to_usual_warn
    checks = [
        Check(
            name="counts_recorded",
            subject="figures",
            expected="the build records rows read, kept, duplicate and quarantined",
            expectation="ExpectColumnValuesToNotBeNull",
            arguments={"column": "rows_unaccounted"},
        ),
        _between(
            "rows_reconcile",
            "rows_unaccounted",
            (0, 0),
            expected="rows read = kept + duplicates + quarantined: 0 rows lost",
        ),
        _between(
            "event_day",
            "rows_outside_day",
            (0, 0),
            field="event_ts",
            expected="0 rows of another day than ds, or, where late, beyond the allowed lateness",
        ),
        _between(
            "quarantined",
            "quarantined_share",
            (None, limits.quarantined_share_fail),
            expected=f"at most {_percent(limits.quarantined_share_fail)} of the rows read in quarantine",
        ),
        _between(
            "quarantined_some",
            "quarantined_share",
            (None, limits.quarantined_share_warn),
            severity="warn",
            expected=f"at most {_percent(limits.quarantined_share_warn)} of the rows read in quarantine",
        ),
        _between(
            "duplicates",
            "duplicate_share",
            (None, limits.duplicate_share_warn),
            severity="warn",
            expected=f"at most {_percent(limits.duplicate_share_warn)} of the rows read are duplicates",
        ),
        _between(
            "late",
            "late_share",
            (None, limits.late_share_warn),
            severity="warn",
            expected=f"at most {_percent(limits.late_share_warn)} of the rows of an earlier day",
        ),
        _between(
            "undeclared_columns",
            "undeclared_columns",
            (None, 0),
            severity="warn",
            expected="0 columns in the landing files that the contract does not know",
        ),
        _between(
            "rows_as_usual",
            "rows_to_usual",
            (low, high),
            severity="warn",
            context_figures=("usual_rows",),
            expected=f"{low:g} .. {high:g} times the median rows of up to {limits.usual_days} days before",
        ),
        _between(
            "constant_columns",
            "constant_columns",
            (None, 0),
            severity="warn",
            expected="0 delivered columns with one value in all rows",
        ),
    ]
    return checks + _shared_checks(limits) if log_of(table) == "ad" else checks


def _shared_checks(limits: Thresholds) -> list[Check]:
    return [
        _between(
            f"shared_{entity}s",
            f"shared_{entity}s_share",
            (share, None),
            severity="warn",
            field=f"{entity}_id",
            expected=f"at least {_percent(share)} of the {entity}s also in the natural log, of the day or "
            f"{limits.usual_days} days before",
        )
        for entity, share in (("user", limits.shared_users_warn), ("item", limits.shared_items_warn))
    ]


def _sample_checks(limits: Thresholds) -> list[Check]:
    return [
        Check(
            name="point_in_time",
            field="sample_ts",
            expected="sample_ts not after event_ts",
            expectation="ExpectColumnPairValuesAToBeGreaterThanB",
            arguments={"column_A": "event_ts", "column_B": "sample_ts", "or_equal": True},
        ),
        _between(
            "rows_of_log",
            "rows_off_log",
            (0, 0),
            expected="one row for each row of the log that is not late: 0 rows off",
        ),
        _between(
            "history_ends_inside",
            "rows_beyond_history",
            (0, 0),
            field="history_end",
            context_figures=("history_max",),
            expected="0 rows that see more behaviours than their user's history of the day holds",
        ),
        _between(
            "nothing_later_seen",
            "rows_seeing_ahead",
            (0, 0),
            field="history_end",
            expected="0 rows that see a behaviour younger than sample_ts less the feedback delay",
        ),
        _between(
            "nothing_earlier_unseen",
            "rows_seeing_less",
            (0, 0),
            field="history_end",
            expected="0 rows that do not see a behaviour old enough to be seen",
        ),
        _between(
            "history",
            "history_share",
            (limits.history_share_warn, None),
            severity="warn",
            field="history_end",
            context_figures=("history_mean", "history_p50", "history_p95", "history_max"),
            expected=f"at least {_percent(limits.history_share_warn)} of the rows with a history",
        ),
    ]


def _history_checks() -> list[Check]:
    return [
        _between(
            "sorted", "rows_unsorted", (0, 0), field="behaviours", expected="0 histories out of order, oldest first"
        ),
        _between(
            "nothing_after_the_day",
            "rows_after_day",
            (0, 0),
            field="behaviours",
            expected="0 histories with a behaviour after the day",
        ),
        _between(
            "length",
            "history_max",
            (1, None),
            severity="warn",
            field="behaviours",
            context_figures=("history_mean", "history_p50", "history_p95"),
            expected="at least one behaviour in the longest history",
        ),
    ]


def _click_checks(limits: Thresholds) -> list[Check]:
    low, high = limits.click_rate_to_usual_warn
    return [
        _between(
            "click_rate",
            "click_rate",
            limits.click_rate_warn,
            severity="warn",
            field="click",
            expected=f"a click rate of {_span(*limits.click_rate_warn)}",
        ),
        _between(
            "click_rate_as_usual",
            "click_rate_to_usual",
            (low, high),
            severity="warn",
            field="click",
            context_figures=("click_rate", "usual_click_rate"),
            expected=f"{low:g} .. {high:g} times the click rate of up to {limits.usual_days} days before",
        ),
    ]


def _checks_against_the_week(table: Table, limits: Thresholds) -> list[Check]:
    """Missing rates of what may be null, and drift; nested columns have neither."""
    missing = [
        _between(
            "missing",
            f"missing_rise({column.name})",
            (None, limits.missing_rise_warn),
            severity="warn",
            field=column.name,
            context_figures=(f"missing_share({column.name})",),
            expected=f"at most {limits.missing_rise_warn * 100:g} points more nulls than in up to {limits.usual_days} days before",
        )
        for column in table.columns
        if column.nullable and not column.type.startswith(NESTED_TYPES)
    ]
    return missing + [
        _between(
            "drift",
            f"drift({spread.column})",
            (None, limits.drift_warn),
            severity="warn",
            field=spread.column,
            context_figures=(f"drift_bins({spread.column})",),
            expected=f"a stability index of at most {limits.drift_warn:g} against up to {limits.usual_days} days before",
        )
        for spread in distributions_of(table)
    ]


def _between(
    name: str,
    figure: str,
    bounds: tuple[float | None, float | None],
    *,
    expected: str,
    severity: Severity = "fail",
    field: str | None = None,
    context_figures: tuple[str, ...] = (),
) -> Check:
    low, high = bounds
    return Check(
        name=name,
        field=field,
        severity=severity,
        expected=expected,
        subject="figures",
        context_figures=context_figures,
        expectation="ExpectColumnValuesToBeBetween",
        arguments={"column": figure, "min_value": low, "max_value": high},
    )


def _bounds(low: int | None, high: int | None) -> str:
    if high is None:
        return f">= {low}"
    return f"<= {high}" if low is None else f"{low} .. {high}"


def _percent(share: float) -> str:
    return f"{share:.3%}".rstrip("0%").rstrip(".") + " %"


def _span(low: float, high: float) -> str:
    return f"{_percent(low)} .. {_percent(high)}"
