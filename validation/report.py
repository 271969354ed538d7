"""The report of a table and day: one HTML file that holds all it shows, and the verdict as JSON beside it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from math import ceil, log10
from pathlib import Path

from contracts.locations import Locations
from contracts.tables import TABLES
from validation import markup
from validation.figures import DayFigures
from validation.found import figure_text
from validation.quarantine import COLUMNS, ROWS_SHOWN, Quarantined, read_quarantined
from validation.suites import log_of
from validation.verdict import Result, Verdict, earlier_days, keep_wider, report_path, sidecar_path, write_atomically

DAYS_PLOTTED = 14
SEVERITIES = {"fail": "stops the day", "warn": "warns"}
SUMMARIES = {
    "pass": "Every check held.",
    "warn": "Every check that may stop the day held; warnings are to be looked at.",
    "fail": "A check that stops the day failed: later steps wait until it is mended or accepted.",
    "accepted": "A check that stops the day failed, and the day was accepted as it is.",
}


def write_report(locations: Locations, verdict: Verdict) -> Path:
    """Writes the report and its JSON, whatever the verdict; returns the report's path."""
    quarantined = read_quarantined(locations, verdict.table, [day.ds for day in verdict.days])
    history = earlier_days(locations, verdict, max(DAYS_PLOTTED, len(verdict.days)))
    path = report_path(locations, verdict)
    keep_wider(locations, verdict)
    write_atomically(path, render_report(verdict, history=history, quarantined=quarantined))
    write_atomically(sidecar_path(locations, verdict.table, verdict.last_day), verdict.to_json())
    return path


def render_report(verdict: Verdict, *, history: list[DayFigures], quarantined: Quarantined | None) -> str:
    """The page.

    Args:
        verdict: what was found.
        history: figures of the days to plot, those of the verdict among them.
        quarantined: bad rows of a log; None for other tables.
    """
    parts = [_header(verdict), markup.section("Rows", _counts(verdict) + _plots(verdict, history)),
             markup.section("Checks", _checks(verdict))]
    if len(verdict.days) > 1:
        parts.append(markup.section(f"Day by day: {len(verdict.days)} days judged together", _day_by_day(verdict)))
    if quarantined is not None:
        parts.append(markup.section("Quarantine", _quarantine(quarantined)))
    return markup.page(f"{verdict.table}, {verdict.period}: {verdict.status}", "\n".join(parts))


def _header(verdict: Verdict) -> str:
    failed, warned = len(verdict.failed("fail")), len(verdict.failed("warn"))
    covers = "" if verdict.first_day == verdict.last_day else f" This report covers {verdict.period}."
    accepted = ""
    if verdict.acceptance is not None:
        accepted = (f"<p>Accepted on {verdict.acceptance.accepted_ts:%Y-%m-%d %H:%M} UTC: "
                    f"{markup.text(verdict.acceptance.reason)}</p>\n")
    return (
        f'<header>\n<p><a href="../index.html">All reports</a></p>\n<h1>{markup.text(verdict.table)}, {markup.text(verdict.period)} '
        f"{markup.badge(verdict.status)}</h1>\n<p>{markup.text(SUMMARIES[verdict.status] + covers)}</p>\n{accepted}"
        f'<p class="soft">A row is {markup.text(TABLES[verdict.table].grain)} · {len(verdict.results)} checks: '
        f"{failed} failed, {warned} warned · "
        f"judged {verdict.run_ts:%Y-%m-%d %H:%M:%S} UTC by Great Expectations</p>\n</header>"
    )


def _counts(verdict: Verdict) -> str:
    days = verdict.days
    shown = [("in the table", f"{verdict.rows:,}")]
    if log_of(TABLES[verdict.table]) is not None:
        for name, label in (("read", "read"), ("kept", "kept"), ("duplicates", "duplicates"),
                            ("conflicting_duplicates", "of them conflicting"), ("quarantined", "quarantined"), ("late", "late")):
            shown.append((label, figure_text(name, _total(days, name))))
    for name, label in (("click_rate", "click rate"), ("history_share", "with a history")):
        share = _mean(days, name)
        if share is not None:
            shown.append((label, figure_text(name, share)))
    return markup.cards(shown)


def _total(days: tuple[DayFigures, ...], name: str) -> float | None:
    values = [getattr(day, name) for day in days]
    return None if any(value is None for value in values) else sum(values)


def _mean(days: tuple[DayFigures, ...], name: str) -> float | None:
    """Mean of a share of the rows, over all rows of the days."""
    known = [(getattr(day, name), day.rows) for day in days if getattr(day, name) is not None]
    rows = sum(count for _, count in known)
    return sum(share * count for share, count in known) / rows if rows else None


def _checks(verdict: Verdict) -> str:
    """The broken checks, the gravest first, then those that held."""
    broken = [*verdict.failed("fail"), *verdict.failed("warn")]
    held = [result for result in verdict.results if result.success]
    folded = f'<details open><summary>{len(held)} checks held</summary>\n{_check_table(held)}</details>'
    return (_check_table(broken) if broken else "") + folded


def _check_table(results: Sequence[Result]) -> str:
    rows = [[markup.badge("pass" if result.success else result.severity), SEVERITIES[result.severity], markup.text(result.name),
             f"<code>{markup.text(result.field)}</code>" if result.field else "", markup.text(result.expected), markup.text(result.found)]
            for result in results]
    return markup.table(["Verdict", "Severity", "Check", "Field", "Expected", "Found"], rows, names=(0, 1, 2, 3))


def _plots(verdict: Verdict, history: list[DayFigures]) -> str:
    plots = [_plot("bars", "Rows a day", [(day.ds, float(day.rows)) for day in history], verdict, "rows")]
    rates = [(day.ds, day.click_rate) for day in history if day.click_rate is not None]
    if rates:
        plots.append(_plot("line", "Click rate", rates, verdict, "click_rate"))
    note = "" if len(history) > 1 else '<p class="soft">Earlier days show here once they have been judged.</p>'
    return f'<div class="plots">{"".join(plots)}</div>{note}'


def _plot(kind: str, caption: str, points: list[tuple[date, float]], verdict: Verdict, name: str) -> str:
    values = [value for _, value in points]
    ticks = [(tick, _tick_label(name, tick)) for tick in nice_ticks(max(values))]
    own = [verdict.first_day <= day <= verdict.last_day for day, _ in points]
    return markup.plot(kind, [f"{day:%b} {day.day}" for day, _ in points], values, caption=caption, ticks=ticks, strong=own)


def _tick_label(name: str, value: float) -> str:
    return f"{value * 100:g} %" if name.endswith("rate") else f"{value:,.10g}"


def nice_ticks(largest: float) -> list[float]:
    """0, a middle and a top that are round numbers, the top not below `largest`."""
    if largest <= 0:
        return [0.0, 1.0]
    power = 10.0 ** (ceil(log10(largest)) - 1)
    top = next(power * factor for factor in (1, 2, 4, 6, 8, 10, 20) if power * factor >= largest * (1 - 1e-9))
    return [0.0, top / 2, top]


DAY_COLUMNS = (("rows", "rows"), ("read", "read"), ("duplicates", "duplicates"), ("quarantined", "quarantined"), ("late", "late"),
               ("click_rate", "click rate"), ("history_share", "with a history"))


def _day_by_day(verdict: Verdict) -> str:
    used = [(name, label) for name, label in DAY_COLUMNS if any(getattr(day, name) is not None for day in verdict.days)]
    rows = [[markup.text(day.ds), *(markup.text(figure_text(name, getattr(day, name))) for name, _ in used)]
            for day in reversed(verdict.days)]
    return markup.table(["Day", *(label for _, label in used)], rows, numbers=range(1, len(used) + 1))


def _quarantine(quarantined: Quarantined) -> str:
    if not quarantined.total:
        return "<p>No row broke a rule.</p>"
    rules = [[markup.text(rule), f"<code>{markup.text(field)}</code>", f"{count:,}"] for rule, field, count in quarantined.rules]
    titles = ["Day" if name == "ds" else name.capitalize() for name in COLUMNS]
    rows = [[f"<code>{markup.text(value)}</code>" if name in ("field", "found") else markup.text(value)
             for name, value in zip(COLUMNS, row, strict=True)] for row in quarantined.rows]
    shown = f"{len(rows)} of {quarantined.total:,} rows" if quarantined.total > ROWS_SHOWN else "the rows"
    return (markup.table(["Rule", "Field", "Rows"], rules, numbers=(2,), names=(0,))
            + f'<p class="soft" style="margin-top:18px">Below: {shown}; user ids are masked, digits as 9 and letters as x. '
            "The whole rows are in the table <code>quarantine</code>.</p>"
            + markup.table(titles, rows, names=(0, 5)))
