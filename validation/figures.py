"""Figures of a table and day that no single column tells: volumes, shares, and how they compare with the days before.

Computed from what was measured on the rows and from `builds`; Great Expectations judges them, one row a day.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import date
from statistics import median
from typing import Any

from contracts.periods import ONE_DAY
from contracts.tables import Table
from validation.suites import log_behind, log_of

ADDENDS = ("kept", "duplicates", "quarantined")  # what the rows read by `ingest_logs` must add up to


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one pass over a day's rows found; None where the table has no such column."""

    rows: int = 0
    clicks: int | None = None
    with_history: int | None = None


@dataclass(frozen=True, kw_only=True)
class DayFigures:
    """One day of one table; None means that it does not apply, or that nothing is there to compare with.

    Attributes:
        ds: the day.
        rows: rows in the table.
        rows_off_build: rows in the table less the rows that its build records.
        click_rate: clicks / rows.
        read, kept, duplicates, conflicting_duplicates, quarantined, late: logs: counts of `ingest_logs`;
            conflicting duplicates are among the duplicates, late rows among the kept.
        rows_unaccounted: logs: rows read less those kept, duplicate or quarantined.
        quarantined_share, duplicate_share: logs: of the rows read.
        usual_rows: logs: median rows of the days before.
        rows_to_usual: logs: rows / usual_rows.
        rows_off_log: samples: rows less the rows of the log that are not late.
        history_share: samples: share of rows whose user has a history.
    """

    ds: date
    rows: int
    rows_off_build: int
    click_rate: float | None = None
    read: int | None = None
    kept: int | None = None
    duplicates: int | None = None
    conflicting_duplicates: int | None = None
    quarantined: int | None = None
    late: int | None = None
    rows_unaccounted: int | None = None
    quarantined_share: float | None = None
    duplicate_share: float | None = None
    usual_rows: float | None = None
    rows_to_usual: float | None = None
    rows_off_log: int | None = None
    history_share: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Without the figures that do not apply."""
        return {name: value for name, value in asdict(self).items() if value is not None} | {"ds": str(self.ds)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> DayFigures:
        known = {f.name for f in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known} | {"ds": date.fromisoformat(values["ds"])})


@dataclass(frozen=True, kw_only=True)
class DayBuilds:
    """Rows of `builds` by day: of the table, and for samples of the log behind it."""

    own: Mapping[date, Mapping[str, Any]]
    log: Mapping[date, Mapping[str, Any]]


def day_figures(table: Table, day: date, measured: Measured, builds: DayBuilds, *, usual_days: int) -> DayFigures:
    """Figures of one day.

    Args:
        table: contract of the table.
        day: a day whose builds are in `builds`.
        measured: what its rows tell.
        builds: build records by day; a log also needs those of the `usual_days` days before, as far as they exist.
        usual_days: how many days before the rows are compared with.
    """
    build = builds.own[day]
    figures: dict[str, Any] = {"click_rate": _ratio(measured.clicks, measured.rows),
                               "history_share": _ratio(measured.with_history, measured.rows)}
    if log_of(table) is not None:
        figures |= _log_figures(build["counts"])
        usual = usual_rows(builds, day, usual_days)
        figures |= {"usual_rows": usual, "rows_to_usual": _ratio(measured.rows, usual)}
    if log_behind(table) is not None:
        log = builds.log[day]
        figures["rows_off_log"] = measured.rows - (log["row_cnt"] - log["counts"].get("late", 0))
    return DayFigures(ds=day, rows=measured.rows, rows_off_build=measured.rows - build["row_cnt"], **figures)


def usual_rows(builds: DayBuilds, day: date, days: int) -> float | None:
    """Median rows of up to `days` days before; None if none of them was built."""
    before = [day - ONE_DAY * back for back in range(1, days + 1)]
    rows = [builds.own[past]["row_cnt"] for past in before if past in builds.own]
    return float(median(rows)) if rows else None


def _log_figures(counts: Mapping[str, int]) -> dict[str, Any]:
    read = counts.get("read")
    recorded = read is not None and all(name in counts for name in ADDENDS)
    return {
        **{name: counts.get(name) for name in ("read", *ADDENDS, "conflicting_duplicates", "late")},
        "rows_unaccounted": read - sum(counts[name] for name in ADDENDS) if recorded and read is not None else None,
        "quarantined_share": _ratio(counts.get("quarantined"), read),
        "duplicate_share": _ratio(counts.get("duplicates"), read),
    }


def _ratio(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole
