"""Which checks a table has. They derive from its contract, so that a new column is judged without a line here.

Pure: a check says how to make its expectation, but nothing here imports Great Expectations. A check's subject is either
the table's own rows, or its figures: a frame with one row a day (`validation.figures`) for what no column can tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from contracts.errors import BadInput
from contracts.features import LOGS, Log
from contracts.tables import TABLES, Column, Table

Severity = Literal["fail", "warn"]
Subject = Literal["rows", "figures"]

NESTED_TYPES = ("array<", "struct<", "map<")  # no expectation on single values applies; their producers test them


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that should hold of a table and day.

    Attributes:
        name: what kind of check; unique together with `field`.
        field: the column it judges, if one.
        severity: `fail` stops the day, `warn` reports.
        expected: what should hold, for people.
        subject: what it is judged on: the table's rows, or the figures of each day.
        expectation: class name in `great_expectations.expectations`.
        arguments: its arguments, as JSON values.
    """

    name: str
    field: str | None = None
    severity: Severity = "fail"
    expected: str
    subject: Subject = "rows"
    expectation: str
    arguments: Mapping[str, Any]

    @property
    def id(self) -> str:
        return self.name if self.field is None else f"{self.name}({self.field})"

    @property
    def needs(self) -> frozenset[str]:
        """Columns of the table without which it cannot be judged."""
        if self.subject == "figures":
            return frozenset()
        named = [self.arguments[key] for key in ("column", "column_A", "column_B") if key in self.arguments]
        return frozenset([*named, *self.arguments.get("column_list", ())])


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Bounds that no contract states; shares are of the rows read.

    Attributes:
        quarantined_share_warn, quarantined_share_fail: largest share of quarantined rows.
        duplicate_share_warn: largest share of duplicate rows.
        usual_days: how many days before a day its row count is compared with.
        rows_to_usual_warn: lowest and highest ratio of a day's rows to the median of those days.
        click_rate_warn: lowest and highest click rate.
        history_share_warn: smallest share of samples whose user has a history.
    """

    quarantined_share_warn: float = 0.01
    quarantined_share_fail: float = 0.20
    duplicate_share_warn: float = 0.05
    usual_days: int = 7
    rows_to_usual_warn: tuple[float, float] = (0.5, 2.0)
    click_rate_warn: tuple[float, float] = (0.001, 0.95)
    history_share_warn: float = 0.01

    def __post_init__(self) -> None:
        shares = ("quarantined_share_warn", "quarantined_share_fail", "duplicate_share_warn", "history_share_warn")
        for name in shares:
            if not 0 <= getattr(self, name) <= 1:
                raise BadInput("thresholds", name, expected="a share, 0 .. 1", found=getattr(self, name))
        for name in ("rows_to_usual_warn", "click_rate_warn"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise BadInput("thresholds", name, expected="a lowest value not above the highest", found=(low, high))


DEFAULT_THRESHOLDS = Thresholds()


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
        checks += _log_checks(thresholds)
    if log_behind(table) is not None:
        checks += _sample_checks(thresholds)
    if any(column.name == "click" for column in table.columns):
        checks.append(_between("click_rate", "click_rate", thresholds.click_rate_warn, severity="warn", field="click",
                               expected=f"a click rate of {_span(*thresholds.click_rate_warn)}"))
    ids = [check.id for check in checks]
    assert len(set(ids)) == len(ids), f"{table.name}: a check is derived twice"
    return tuple(checks)


def _table_checks(table: Table) -> list[Check]:
    checks = [
        Check(name="columns", expected=f"exactly the {len(table.columns)} columns of the contract",
              expectation="ExpectTableColumnsToMatchSet",
              arguments={"column_set": list(table.column_names), "exact_match": True}),
        _between("rows", "rows", (1, None), expected="at least one row, every day"),
        _between("rows_as_built", "rows_off_build", (0, 0), expected="0 rows more or fewer than the build of the partition records"),
    ]
    if table.unique:
        checks.append(_unique(table))
    return checks


def _unique(table: Table) -> Check:
    """The key with the day: rows are unique within a partition, and a range judges many at once."""
    return Check(name="unique", field=table.unique[0] if len(table.unique) == 1 else None,
                 expected=f"no two rows of a day with the same {', '.join(table.unique)}",
                 expectation="ExpectCompoundColumnsToBeUnique", arguments={"column_list": [*table.owner, *table.unique]})


def _column_checks(table: Table, column: Column) -> list[Check]:
    if column.type.startswith(NESTED_TYPES) or column.name in table.owner:  # the batch is selected by the owner columns
        return []
    checks = []
    if not column.nullable:
        checks.append(Check(name="not_null", field=column.name, expected="no null",
                            expectation="ExpectColumnValuesToNotBeNull", arguments={"column": column.name}))
    if column.minimum is not None or column.maximum is not None:
        checks.append(Check(name="range", field=column.name, expected=_bounds(column.minimum, column.maximum),
                            expectation="ExpectColumnValuesToBeBetween",
                            arguments={"column": column.name, "min_value": column.minimum, "max_value": column.maximum}))
    if column.allowed is not None:
        checks.append(Check(name="allowed", field=column.name, expected=f"one of {', '.join(map(str, column.allowed))}",
                            expectation="ExpectColumnValuesToBeInSet",
                            arguments={"column": column.name, "value_set": list(column.allowed)}))
    return checks


def _log_checks(limits: Thresholds) -> list[Check]:
    low, high = limits.rows_to_usual_warn
    return [
        Check(name="counts_recorded", subject="figures", expected="the build records rows read, kept, duplicate and quarantined",
              expectation="ExpectColumnValuesToNotBeNull", arguments={"column": "rows_unaccounted"}),
        _between("rows_reconcile", "rows_unaccounted", (0, 0), expected="rows read = kept + duplicates + quarantined: 0 rows lost"),
        _between("quarantined", "quarantined_share", (None, limits.quarantined_share_fail),
                 expected=f"at most {_percent(limits.quarantined_share_fail)} of the rows read in quarantine"),
        _between("quarantined_some", "quarantined_share", (None, limits.quarantined_share_warn), severity="warn",
                 expected=f"at most {_percent(limits.quarantined_share_warn)} of the rows read in quarantine"),
        _between("duplicates", "duplicate_share", (None, limits.duplicate_share_warn), severity="warn",
                 expected=f"at most {_percent(limits.duplicate_share_warn)} of the rows read are duplicates"),
        _between("rows_as_usual", "rows_to_usual", (low, high), severity="warn",
                 expected=f"{low:g} .. {high:g} times the median rows of up to {limits.usual_days} days before"),
    ]


def _sample_checks(limits: Thresholds) -> list[Check]:
    return [
        Check(name="point_in_time", field="sample_ts", expected="sample_ts not after event_ts",
              expectation="ExpectColumnPairValuesAToBeGreaterThanB",
              arguments={"column_A": "event_ts", "column_B": "sample_ts", "or_equal": True}),
        _between("rows_of_log", "rows_off_log", (0, 0), expected="one row for each row of the log that is not late: 0 rows off"),
        _between("history", "history_share", (limits.history_share_warn, None), severity="warn", field="history_end",
                 expected=f"at least {_percent(limits.history_share_warn)} of the rows with a history"),
    ]


def _between(name: str, figure: str, bounds: tuple[float | None, float | None], *, expected: str,
             severity: Severity = "fail", field: str | None = None) -> Check:
    low, high = bounds
    return Check(name=name, field=field, severity=severity, expected=expected, subject="figures",
                 expectation="ExpectColumnValuesToBeBetween", arguments={"column": figure, "min_value": low, "max_value": high})


def _bounds(low: int | None, high: int | None) -> str:
    if high is None:
        return f">= {low}"
    return f"<= {high}" if low is None else f"{low} .. {high}"


def _percent(share: float) -> str:
    return f"{share:.3%}".rstrip("0%").rstrip(".") + " %"


def _span(low: float, high: float) -> str:
    return f"{_percent(low)} .. {_percent(high)}"
