"""The report of a table and day: one HTML file that needs no other file, and the verdict as JSON next to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import Literal

from markupsafe import Markup

from contracts.locations import Locations
from contracts.periods import ONE_DAY, days_between
from contracts.quality import rows_in_words
from contracts.tables import TABLES
from pages import markup, pictures
from pages.files import write_atomically
from pages.pictures import nice_ticks
from validation.figures import DayFigures
from validation.found import figure_text
from validation.profile import PER_ENTITY, profile_of
from validation.quarantine import Quarantined, read_quarantined
from validation.suites import log_of
from validation.verdict import Result, Verdict, figures_on, history_of, keep_wider, report_path, sidecar_path, state_on

DAYS_PICTURED = 30
SEVERITIES = {"fail": "stops the day", "warn": "warns"}
SUMMARIES = {
    "pass": "Every check held.",
    "warn": "Every check that may stop the day held; warnings are to be looked at.",
    "fail": "A check that stops the day failed: later steps wait until it is repaired or accepted.",
    "accepted": "A check that stops the day failed, and the day was accepted as it is.",
}
History = Mapping[date, Verdict]


def write_report(locations: Locations, verdict: Verdict) -> Path:
    """Writes the report and its JSON, whatever the verdict; returns the report's path."""
    quarantined = read_quarantined(locations, verdict.table, [day.ds for day in verdict.days])
    history = history_of(locations, verdict, max(DAYS_PICTURED, len(verdict.days)))
    path = report_path(locations, verdict)
    keep_wider(locations, verdict)
    write_atomically(path, render_report(verdict, history=history, quarantined=quarantined))
    write_atomically(sidecar_path(locations, verdict.table, verdict.last_day), verdict.to_json())
    return path


def render_report(verdict: Verdict, *, history: History, quarantined: Quarantined | None) -> str:
    """The page.

    Args:
        verdict: what was found.
        history: which verdict speaks for each of the last days, those of this one among them.
        quarantined: bad rows of a log; None for other tables.
    """
    known = [figures_on(own, day) for day, own in history.items()]
    used = [(name, label) for name, label in DAY_COLUMNS if any(day.figure(name) is not None for day in verdict.days)]
    return markup.render(
        "validation/templates/report.html.jinja",
        verdict=verdict,
        summary=SUMMARIES[verdict.status],
        grain=TABLES[verdict.table].grain,
        no_ads=_no_ads(verdict),
        severities=SEVERITIES,
        days_pictured=DAYS_PICTURED,
        counts=_counts(verdict),
        unknown=_unknown(verdict),
        plots=_plots(verdict, known),
        only_day=len(known) < 2,
        profile=profile_of(verdict),
        per_entity=[label for _, label in PER_ENTITY],
        quarantined=quarantined,
        picture=partial(_picture, verdict=verdict, history=history),
        day_columns=[label for _, label in used],
        day_rows=[
            [day.ds, *(figure_text(name, day.figure(name)) for name, _ in used)] for day in reversed(verdict.days)
        ],
    )


def _no_ads(verdict: Verdict) -> str:
    """The page's remark on days before advertisements began; "" if there are none."""
    early = [day for day in verdict.days if day.ads_from is not None]
    if not early:
        return ""
    days = "" if len(verdict.days) == 1 else f"{early[0].ds} .. {early[-1].ds}: "
    return days + rows_in_words(0, early[0].ads_from)


CARDS = (
    ("click_rate", "click rate"),
    ("history_share", "with a history"),
    ("text_share", "with an item text"),
    ("shared_users_share", "users shared"),
    ("shared_items_share", "items shared"),
)


def _counts(verdict: Verdict) -> list[tuple[str, str]]:
    days = verdict.days
    shown = [("in the table", f"{verdict.rows:,}")]
    if log_of(TABLES[verdict.table]) is not None:
        for name, label in (
            ("read", "read"),
            ("kept", "kept"),
            ("duplicates", "duplicates"),
            ("conflicting_duplicates", "of them conflicting"),
            ("quarantined", "quarantined"),
            ("late", "late"),
        ):
            shown.append((label, figure_text(name, _total(days, name))))
    for name, label in CARDS:
        share = _mean(days, name)
        if share is not None:
            shown.append((label, figure_text(name, share)))
    lengths = [(name, label) for name, label in LENGTHS if len(days) == 1 and days[0].figure(name) is not None]
    shown += [(label, figure_text(name, days[0].figure(name))) for name, label in lengths]
    return shown


LENGTHS = (
    ("history_mean", "behaviours, mean"),
    ("history_p50", "median"),
    ("history_p95", "95th percentile"),
    ("history_max", "longest"),
)


def _total(days: Sequence[DayFigures], name: str) -> float | None:
    values = [day.figure(name) for day in days]
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _mean(days: Sequence[DayFigures], name: str) -> float | None:
    """Mean of a share of the rows, over all rows of the days."""
    known = [(value, day.rows) for day in days if (value := day.figure(name)) is not None]
    rows = sum(count for _, count in known)
    return sum(share * count for share, count in known) / rows if rows else None


def _picture(result: Result, *, verdict: Verdict, history: History) -> Markup:
    """The check over the last days: its figure where it has one, else what it came to."""
    days = list(days_between(verdict.last_day - ONE_DAY * (DAYS_PICTURED - 1), verdict.last_day + ONE_DAY))
    values = [
        figures_on(history[day], day).figure(result.figure) if result.figure and day in history else None
        for day in days
    ]
    states = [state_on(history[day], result.id, day) if day in history else None for day in days]
    judged = [state for state in states if state is not None]
    spoken = f"{len(judged)} of {len(days)} days judged, {judged.count('warn')} warned, {judged.count('fail')} failed"
    if not any(value is not None for value in values):
        return pictures.strip(states, spoken=spoken)
    return pictures.sparkline(values, states, low=result.low, high=result.high, spoken=spoken)


def _plots(verdict: Verdict, known: Sequence[DayFigures]) -> list[Markup]:
    plots = [_plot("bars", "Rows a day", [(day.ds, float(day.rows)) for day in known], verdict, "rows")]
    rates = [(day.ds, day.click_rate) for day in known if day.click_rate is not None]
    return [*plots, _plot("line", "Click rate", rates, verdict, "click_rate")] if rates else plots


def _plot(
    kind: Literal["bars", "line"], caption: str, points: list[tuple[date, float]], verdict: Verdict, name: str
) -> Markup:
    values = [value for _, value in points]
    ticks = [(tick, _tick_label(name, tick)) for tick in nice_ticks(max(values))]
    own = [verdict.first_day <= day <= verdict.last_day for day, _ in points]
    return pictures.plot(
        kind, [f"{day:%b} {day.day}" for day, _ in points], values, caption=caption, ticks=ticks, strong=own
    )


def _tick_label(name: str, value: float) -> str:
    return f"{value * 100:g} %" if name.endswith("rate") else f"{value:,.10g}"


DAY_COLUMNS = (
    ("rows", "rows"),
    ("read", "read"),
    ("duplicates", "duplicates"),
    ("quarantined", "quarantined"),
    ("late", "late"),
    ("click_rate", "click rate"),
    ("history_share", "with a history"),
    ("history_mean", "behaviours, mean"),
)


def _unknown(verdict: Verdict) -> list[tuple[str, str, str]]:
    """How many values of optional features were illegal, by rule, and of which share of the rows; their rows were kept."""
    kept = _total(verdict.days, "kept") or 0
    counts = Counter[str]()
    for day in verdict.days:
        counts.update(day.unknown)
    return [(rule, f"{count:,}", f"{count / kept * 100:.1f} %" if kept else "") for rule, count in counts.most_common()]
