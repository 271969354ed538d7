"""Figures of a table and day beyond single columns: volumes, shares, and how they compare with earlier days.

They are computed from what was measured on the rows and from `builds`; Great Expectations judges them, one row for each
day.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import date
from statistics import median
from typing import Any

from contracts.periods import ONE_DAY
from contracts.quality import UNKNOWN
from contracts.tables import Table
from validation.distributions import Counts, distributions_of, number_of_bins, stability_index, total
from validation.suites import log_behind, log_of

CONSTANT_ROWS = 100  # a day of fewer may have columns of one value by chance
ADDENDS = ("kept", "duplicates", "quarantined")  # what the rows read by `ingest_logs` must add up to


@dataclass(frozen=True, kw_only=True)
class RowFigures:
    """Figures that need only the rows of a day; None where the table has no such column. See `DayFigures`."""

    clicks: int | None = None
    users: int | None = None
    items: int | None = None
    requests: int | None = None
    rows_outside_day: int | None = None
    history_mean: float | None = None
    history_p50: float | None = None
    history_p95: float | None = None
    history_max: int | None = None
    rows_beyond_history: int | None = None
    rows_seeing_ahead: int | None = None
    rows_seeing_less: int | None = None
    rows_unsorted: int | None = None
    rows_after_day: int | None = None
    shared_users_share: float | None = None
    shared_items_share: float | None = None
    impressions_mean: Mapping[str, float] = field(default_factory=dict)
    impressions_p50: Mapping[str, float] = field(default_factory=dict)
    impressions_p95: Mapping[str, float] = field(default_factory=dict)
    impressions_max: Mapping[str, int] = field(default_factory=dict)
    hours: Counts = ()
    constant: Mapping[str, str] = field(default_factory=dict)
    distributions: Mapping[str, Counts] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Measured(RowFigures):
    """What Spark measured on a day's rows, with the counts from which shares are computed."""

    rows: int = 0
    with_history: int | None = None
    nulls: Mapping[str, int] = field(default_factory=dict)
    unknowns: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DayFigures(RowFigures):
    """One day of one table; None means that it does not apply, or that nothing is there to compare with.

    Attributes:
        ds: the day.
        rows: rows in the table.
        rows_off_build: rows in the table less the rows that its build records.
        ads_from: the declared first day with advertisements, where the day lies before it and has no row.
        clicks, click_rate: rows with a click; clicks / rows.
        users, items, requests: numbers of distinct ones; approximate but for a log's.
        impressions_mean, impressions_p50, impressions_p95, impressions_max: logs: how many rows a user, an item and a request (the keys)
            has.
        hours: logs: rows by the hour of their event in the deployment's time zone, from 0.
        unknown_share: logs: by feature, share of the rows in which it reads as unknown (`Feature.unknown_values`).
        constant: logs: by column, the value that all rows share, in words; columns that are null throughout are not among them.
        constant_columns: how many those are; None, as `constant` is empty, for a day of fewer than `CONSTANT_ROWS` rows.
        read, kept, duplicates, conflicting_duplicates, quarantined, late, undeclared_columns: logs: counts of
            `ingest_logs`; conflicting duplicates are among the duplicates, late rows among the kept; columns that no
            contract knows.
        unknown: logs: by rule, rows kept in which the value of an optional feature broke it and reads as unknown.
        rows_unaccounted: logs: rows read less those kept, duplicate or quarantined.
        quarantined_share, duplicate_share: logs: of the rows read.
        late_share, text_share: logs: of the rows; those with an item text.
        rows_outside_day: logs: rows whose event_ts lies on another day than ds, or for late ones beyond the allowed
            lateness.
        shared_users_share, shared_items_share: ad log: of its distinct ones, those also in the natural log of the day
            or the week before.
        rows_off_log: samples: rows less the rows of the log that are not late.
        history_share: samples: share of rows whose user has a history.
        history_mean, history_p50, history_p95, history_max: behaviours that a sample sees, or that a history holds.
        rows_beyond_history: samples: rows whose history_end is larger than their user's history.
        rows_seeing_ahead, rows_seeing_less: samples: rows whose last visible behaviour is too young, whose first
            invisible one is not.
        rows_unsorted, rows_after_day: histories: rows out of order; rows with a behaviour that is younger than the day.
        compared_days: number of earlier days that the day was compared with.
        usual_rows: logs: median rows of the days before; rows_to_usual: rows / usual_rows.
        usual_click_rate: the click rate of all days before together; click_rate_to_usual: click_rate / usual_click_rate.
        missing_share, missing_rise: for each column, the share of nulls, and by how much it is above that of the days before.
        drift, drift_bins: for each column, the population stability index against the days before, and the largest number
            of bins that it was computed over.
        distributions: for each column, the rows in each bucket, which later days compare theirs with.
    """

    ds: date
    rows: int
    rows_off_build: int
    ads_from: date | None = None
    click_rate: float | None = None
    read: int | None = None
    kept: int | None = None
    duplicates: int | None = None
    conflicting_duplicates: int | None = None
    quarantined: int | None = None
    late: int | None = None
    undeclared_columns: int | None = None
    unknown: Mapping[str, int] = field(default_factory=dict)
    rows_unaccounted: int | None = None
    quarantined_share: float | None = None
    duplicate_share: float | None = None
    late_share: float | None = None
    text_share: float | None = None
    unknown_share: Mapping[str, float] = field(default_factory=dict)
    constant_columns: int | None = None
    rows_off_log: int | None = None
    history_share: float | None = None
    compared_days: int | None = None
    usual_rows: float | None = None
    rows_to_usual: float | None = None
    usual_click_rate: float | None = None
    click_rate_to_usual: float | None = None
    missing_share: Mapping[str, float] = field(default_factory=dict)
    missing_rise: Mapping[str, float] = field(default_factory=dict)
    drift: Mapping[str, float] = field(default_factory=dict)
    drift_bins: Mapping[str, int] = field(default_factory=dict)

    def figure(self, name: str) -> float | None:
        """A figure by its name; one of a column is named such as `drift(item_id)`."""
        outer, _, column = name.partition("(")
        value = getattr(self, outer)
        figure: float | None = value.get(column.rstrip(")")) if column else value
        return figure

    def judged(self, name: str) -> float | None:
        """The figure as checks judge it: None for the rows of a day before the first advertisements, which may have none."""
        return None if name == "rows" and self.ads_from is not None else self.figure(name)

    def as_json(self) -> dict[str, Any]:
        """The figures as JSON values, without those that do not apply."""
        return {name: value for name, value in asdict(self).items() if value not in (None, {}, ())} | {
            "ds": str(self.ds)
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> DayFigures:
        """Reads what `as_json` wrote; unknown names are ignored."""
        known = {f.name for f in fields(cls)}
        counts = {name: tuple(places) for name, places in values.get("distributions", {}).items()}
        ads_from = values.get("ads_from")
        return cls(
            **{name: value for name, value in values.items() if name in known}
            | {
                "ds": date.fromisoformat(values["ds"]),
                "distributions": counts,
                "hours": tuple(values.get("hours", ())),
                "ads_from": None if ads_from is None else date.fromisoformat(ads_from),
            }
        )


@dataclass(frozen=True, kw_only=True)
class DayBuilds:
    """Rows of `builds` by day: of the table, and for samples of the log behind it."""

    own: Mapping[date, Mapping[str, Any]]
    log: Mapping[date, Mapping[str, Any]]


def day_figures(table: Table, day: date, measured: Measured, builds: DayBuilds, *, usual_days: int) -> DayFigures:
    """Figures of one day; of earlier days only the builds are used.

    Args:
        table: contract of the table.
        day: a day whose builds are in `builds`.
        measured: what was measured on its rows.
        builds: build records by day; a log also needs those of the `usual_days` days before, as far as they exist.
        usual_days: how many days before the rows are compared with.
    """
    build = builds.own[day]
    figures: dict[str, Any] = {f.name: getattr(measured, f.name) for f in fields(RowFigures)}
    figures |= {
        "click_rate": _ratio(measured.clicks, measured.rows),
        "history_share": _ratio(measured.with_history, measured.rows),
        "missing_share": {column: nulls / measured.rows for column, nulls in measured.nulls.items() if measured.rows},
    }
    if log_of(table) is not None:
        figures |= _log_figures(build["counts"])
        usual = usual_rows(builds, day, usual_days)
        missing_text = figures["missing_share"].get("item_text")
        is_judged = measured.rows >= CONSTANT_ROWS
        figures |= {
            "usual_rows": usual,
            "rows_to_usual": _ratio(measured.rows, usual),
            "late_share": _ratio(build["counts"].get("late"), measured.rows),
            "text_share": None if missing_text is None else 1 - missing_text,
            "unknown_share": {name: rows / measured.rows for name, rows in measured.unknowns.items() if measured.rows},
            "constant": measured.constant if is_judged else {},
            "constant_columns": len(measured.constant) if is_judged else None,
        }
    if log_behind(table) is not None and day in builds.log:
        log = builds.log[day]
        figures["rows_off_log"] = measured.rows - (log["row_cnt"] - log["counts"].get("late", 0))
    return DayFigures(ds=day, rows=measured.rows, rows_off_build=measured.rows - build["row_cnt"], **figures)


def compared(table: Table, figures: DayFigures, before: Iterable[DayFigures], *, history_start: date) -> DayFigures:
    """The figures, with how they compare with those of the days before.

    Args:
        table: contract of the table.
        figures: the day's figures.
        before: figures of the days to compare with, as far as they are known.
        history_start: first day with logs.
    """
    past = [day for day in before if day.rows]
    drift, bins = _drift(table, figures, past, history_start)
    usual_rate = _ratio(_sum(day.clicks for day in past), _sum(day.rows for day in past))
    rise = {}
    for column, share in figures.missing_share.items():
        known = [day for day in past if column in day.missing_share]
        rows = sum(day.rows for day in known)
        if rows:
            rise[column] = share - sum(day.missing_share[column] * day.rows for day in known) / rows
    return replace(
        figures,
        compared_days=len(past),
        usual_click_rate=usual_rate,
        click_rate_to_usual=_ratio(figures.click_rate, usual_rate),
        missing_rise=rise,
        drift=drift,
        drift_bins=bins,
    )


def _drift(
    table: Table, figures: DayFigures, past: Sequence[DayFigures], history_start: date
) -> tuple[dict[str, float], dict[str, int]]:
    drift, bins = {}, {}
    for spread in distributions_of(table):
        start = history_start + ONE_DAY * spread.warm_up_days
        known = [day for day in past if day.ds >= start and spread.column in day.distributions]
        if spread.column not in figures.distributions or not known:
            continue
        units = [getattr(day, spread.unit) or 0 for day in (figures, *known)]
        reference = total([day.distributions[spread.column] for day in known])
        index = stability_index(
            figures.distributions[spread.column], reference, units=units[0], reference_units=sum(units[1:])
        )
        if index is not None:
            drift[spread.column], bins[spread.column] = index, number_of_bins(units[0], sum(units[1:]))
    return drift, bins


def usual_rows(builds: DayBuilds, day: date, days: int) -> float | None:
    """Median rows of up to `days` days before; None if none of them was built."""
    before = [day - ONE_DAY * back for back in range(1, days + 1)]
    rows = [builds.own[past]["row_cnt"] for past in before if past in builds.own]
    return float(median(rows)) if rows else None


def _log_figures(counts: Mapping[str, int]) -> dict[str, Any]:
    read = counts.get("read")
    forgotten = counts.get("forgotten", 0)  # builds from before users could be forgotten have no such count
    recorded = read is not None and all(name in counts for name in ADDENDS)
    return {
        **{name: counts.get(name) for name in ("read", *ADDENDS, "conflicting_duplicates", "late")},
        "undeclared_columns": counts.get("undeclared_columns", 0),
        "unknown": {
            name.removeprefix(UNKNOWN): count for name, count in counts.items() if name.startswith(UNKNOWN) and count
        },
        "rows_unaccounted": read - sum(counts[name] for name in ADDENDS) - forgotten
        if recorded and read is not None
        else None,
        "quarantined_share": _ratio(counts.get("quarantined"), read),
        "duplicate_share": _ratio(counts.get("duplicates"), read),
    }


def _ratio(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
