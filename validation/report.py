"""The report of a table and day: one HTML file that needs no other file, and the verdict as JSON next to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Literal

from contracts.locations import Locations
from contracts.periods import ONE_DAY, days_between
from contracts.quality import rows_in_words
from contracts.tables import TABLES
from pages import markup, pictures
from pages.files import write_atomically
from pages.pictures import nice_ticks
from validation.figures import DayFigures
from validation.found import figure_text
from validation.quarantine import Quarantined, read_quarantined
from validation.suites import log_of
from validation.verdict import Result, Verdict, figures_on, history_of, keep_wider, report_path, sidecar_path, state_on

DAYS_PICTURED = 30
SEVERITIES = {"fail": "stops the day", "warn": "warns"}
SUMMARIES = {
    "pass": "Every check held.",
    "warn": "Every check that may stop the day held; warnings are to be looked at.",
    "fail": "A check that stops the day failed: later steps wait until it is mended or accepted.",
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
    broken = [*verdict.failed("fail"), *verdict.failed("warn")]
    held = [result for result in verdict.results if result.success]
    parts = [_header(verdict)]
    if broken:
        parts.append(markup.section("To look at", _check_table(broken, verdict, history)))
    parts.append(markup.section("Rows", _counts(verdict) + _plots(verdict, history)))
    if quarantined is not None:
        parts.append(markup.section("Quarantine", _quarantine(quarantined)))
    if any(day.unknown for day in verdict.days):
        parts.append(markup.section("Values read as unknown", _unknown(verdict)))
    parts.append(markup.section("Checks", _held(held, verdict, history)))
    if len(verdict.days) > 1:
        parts.append(markup.section(f"Day by day: {len(verdict.days)} days judged together", _day_by_day(verdict)))
    return markup.page(f"{verdict.table}, {verdict.period}: {verdict.status}", "\n".join(parts))


def _header(verdict: Verdict) -> str:
    failed, warned = len(verdict.failed("fail")), len(verdict.failed("warn"))
    early = [day for day in verdict.days if day.ads_from is not None]
    no_ads = ""
    if early:
        days = "" if len(verdict.days) == 1 else f"{early[0].ds} .. {early[-1].ds}: "
        no_ads = f"<p>{markup.text(days + rows_in_words(0, early[0].ads_from))}.</p>\n"
    covers = "" if verdict.first_day == verdict.last_day else f" This report covers {verdict.period}."
    more = ""
    if verdict.acceptance is not None:
        more = f"<p>Accepted on {verdict.acceptance.accepted_ts:%Y-%m-%d %H:%M} UTC: {markup.text(verdict.acceptance.reason)}</p>\n"
    elif verdict.status == "fail":
        accept = f'tributary validation accept --table {verdict.table} --ds {verdict.last_day} --reason "..."'
        more = f"<p>Mend the input and build the day again, or let it pass as it is:</p>{markup.listing(accept)}\n"
    return (
        f'<header>\n<p><a href="../index.html">All reports</a></p>\n<h1>{markup.text(verdict.table)}, {markup.text(verdict.period)} '
        f"{markup.badge(verdict.status)}</h1>\n<p>{markup.text(SUMMARIES[verdict.status] + covers)}</p>\n{no_ads}{more}"
        f'<p class="soft">A row is {markup.text(TABLES[verdict.table].grain)} · {len(verdict.results)} checks: '
        f"{failed} failed, {warned} warned · "
        f"judged {verdict.run_ts:%Y-%m-%d %H:%M:%S} UTC by Great Expectations</p>\n</header>"
    )


CARDS = (("click_rate", "click rate"), ("history_share", "with a history"), ("text_share", "with an item text"),
         ("shared_users_share", "users shared"), ("shared_items_share", "items shared"))


def _counts(verdict: Verdict) -> str:
    days = verdict.days
    shown = [("in the table", f"{verdict.rows:,}")]
    if log_of(TABLES[verdict.table]) is not None:
        for name, label in (("read", "read"), ("kept", "kept"), ("duplicates", "duplicates"),
                            ("conflicting_duplicates", "of them conflicting"), ("quarantined", "quarantined"), ("late", "late")):
            shown.append((label, figure_text(name, _total(days, name))))
    for name, label in CARDS:
        share = _mean(days, name)
        if share is not None:
            shown.append((label, figure_text(name, share)))
    lengths = [(name, label) for name, label in LENGTHS if len(days) == 1 and days[0].figure(name) is not None]
    shown += [(label, figure_text(name, days[0].figure(name))) for name, label in lengths]
    return markup.cards(shown)


LENGTHS = (("history_mean", "behaviours, mean"), ("history_p50", "median"), ("history_p95", "95th percentile"), ("history_max", "longest"))


def _total(days: Sequence[DayFigures], name: str) -> float | None:
    values = [day.figure(name) for day in days]
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _mean(days: Sequence[DayFigures], name: str) -> float | None:
    """Mean of a share of the rows, over all rows of the days."""
    known = [(value, day.rows) for day in days if (value := day.figure(name)) is not None]
    rows = sum(count for _, count in known)
    return sum(share * count for share, count in known) / rows if rows else None


def _held(held: Sequence[Result], verdict: Verdict, history: History) -> str:
    """Checks of figures, then, folded away, the many that a column's declaration alone asks for."""
    figures = [result for result in held if result.figure is not None]
    rows = [result for result in held if result.figure is None]
    folded = f"<details><summary>{len(rows)} checks of columns and rows</summary>\n{_check_table(rows, verdict, history)}</details>"
    return f'<p class="soft">{len(held)} checks held</p>' + (_check_table(figures, verdict, history) if figures else "") + folded


def _check_table(results: Sequence[Result], verdict: Verdict, history: History) -> str:
    rows = [[markup.badge("pass" if result.success else result.severity), SEVERITIES[result.severity], _name(result),
             markup.text(result.expected), markup.text(result.found), _picture(result, verdict, history)] for result in results]
    return markup.table(["Verdict", "Severity", "Check", "Expected", "Found", f"Last {DAYS_PICTURED} days"], rows, names=(0, 1))


def _name(result: Result) -> str:
    return markup.text(result.name) + (f" <code>{markup.text(result.field)}</code>" if result.field else "")


def _picture(result: Result, verdict: Verdict, history: History) -> str:
    """The check over the last days: its figure where it has one, else what it came to."""
    days = list(days_between(verdict.last_day - ONE_DAY * (DAYS_PICTURED - 1), verdict.last_day + ONE_DAY))
    values = [figures_on(history[day], day).figure(result.figure) if result.figure and day in history else None
              for day in days]
    states = [state_on(history[day], result.id, day) if day in history else None for day in days]
    judged = [state for state in states if state is not None]
    spoken = f"{len(judged)} of {len(days)} days judged, {judged.count('warn')} warned, {judged.count('fail')} failed"
    if not any(value is not None for value in values):
        return pictures.strip(states, spoken=spoken)
    return pictures.sparkline(values, states, low=result.low, high=result.high, spoken=spoken)


def _plots(verdict: Verdict, history: History) -> str:
    known = [figures_on(own, day) for day, own in history.items()]
    plots = [_plot("bars", "Rows a day", [(day.ds, float(day.rows)) for day in known], verdict, "rows")]
    rates = [(day.ds, day.click_rate) for day in known if day.click_rate is not None]
    if rates:
        plots.append(_plot("line", "Click rate", rates, verdict, "click_rate"))
    note = "" if len(known) > 1 else '<p class="soft">Earlier days show here once they have been judged.</p>'
    return f'<div class="plots">{"".join(plots)}</div>{note}'


def _plot(kind: Literal["bars", "line"], caption: str, points: list[tuple[date, float]], verdict: Verdict, name: str) -> str:
    values = [value for _, value in points]
    ticks = [(tick, _tick_label(name, tick)) for tick in nice_ticks(max(values))]
    own = [verdict.first_day <= day <= verdict.last_day for day, _ in points]
    return pictures.plot(kind, [f"{day:%b} {day.day}" for day, _ in points], values, caption=caption, ticks=ticks, strong=own)


def _tick_label(name: str, value: float) -> str:
    return f"{value * 100:g} %" if name.endswith("rate") else f"{value:,.10g}"


DAY_COLUMNS = (("rows", "rows"), ("read", "read"), ("duplicates", "duplicates"), ("quarantined", "quarantined"), ("late", "late"),
               ("click_rate", "click rate"), ("history_share", "with a history"), ("history_mean", "behaviours, mean"))


def _day_by_day(verdict: Verdict) -> str:
    used = [(name, label) for name, label in DAY_COLUMNS if any(day.figure(name) is not None for day in verdict.days)]
    rows = [[markup.text(day.ds), *(markup.text(figure_text(name, day.figure(name))) for name, _ in used)]
            for day in reversed(verdict.days)]
    return markup.table(["Day", *(label for _, label in used)], rows, numbers=range(1, len(used) + 1))


def _unknown(verdict: Verdict) -> str:
    """How many values of optional features were illegal, by rule; their rows were kept."""
    kept = _total(verdict.days, "kept") or 0
    counts = Counter[str]()
    for day in verdict.days:
        counts.update(day.unknown)
    rows = [[f"<code>{markup.text(rule)}</code>", f"{count:,}", f"{count / kept * 100:.1f} %" if kept else ""]
            for rule, count in counts.most_common()]
    return ('<p class="soft">Values of optional features that broke a rule: each reads as unknown, and its row was kept.</p>'
            + markup.table(["Rule", "Rows", "Of the rows kept"], rows, numbers=(1, 2)))


def _quarantine(quarantined: Quarantined) -> str:
    if not quarantined.total:
        return "<p>No row broke a rule.</p>"
    shown = f"{quarantined.rows_shown} of {quarantined.total:,} rows are shown" if quarantined.rows_shown < quarantined.total else \
        f"All {quarantined.total:,} rows are shown"
    parts = [f'<p class="soft">{shown}; user ids are masked, digits as 9 and letters as x. The line below each rule reads all of its '
             "rows, whole, in a Spark session on this lake.</p>"]
    for rule in quarantined.rules:
        rows = [[f"<code>{markup.text(found)}</code>", markup.text(file), markup.text(day)] for found, file, day in rule.rows]
        expected = f": expected {markup.text(rule.expected)}" if rule.expected else ""
        plural = "" if rule.count == 1 else "s"
        parts.append(f'<h3>{markup.text(rule.rule)} <code>{markup.text(rule.field)}</code></h3>'
                     f"<p>{rule.count:,} row{plural}{expected}</p>"
                     + (markup.table(["Found", "File", "Day"], rows, names=(2,)) if rows else "") + markup.listing(rule.finder))
    return "".join(parts)
