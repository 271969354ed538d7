"""The page "Data quality": a calendar of tables and days, what is stale with the commands that mend it, the model reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from contracts.periods import ONE_DAY, days_between
from contracts.quality import JudgedDay, StaleDay, StaleFound, Status
from contracts.steps import VALIDATED_TABLES
from pages import markup

SIGNS: dict[Status, str] = {"pass": "✓", "warn": "!", "fail": "✕", "accepted": "≈"}
MEANINGS: dict[Status, str] = {"pass": "passed", "warn": "warned", "fail": "failed: it stops what follows",
                               "accepted": "failed, and was accepted"}
STALE_SIGN, NO_SIGN = "↻", "·"
MONTHS_SHOWN = 2
BROKEN_SHOWN = 10
CHECKS_SHOWN = 3
STYLE = """.days { table-layout: fixed; border-collapse: separate; border-spacing: 2px; min-width: 860px; margin-bottom: 18px; }
.days caption { text-align: left; font-weight: 600; padding: 0 0 6px; }
.days th, .days td { border: 0; padding: 0; text-align: center; font-size: 12px; font-variant-numeric: tabular-nums; }
.days th:first-child { width: 136px; text-align: left; font-size: 13.5px; color: var(--ink); overflow-wrap: anywhere; }
.mark { display: block; border-radius: 4px; font-size: 13px; font-weight: 700; line-height: 24px; min-height: 24px; text-align: center;
  text-decoration: none; }
a.mark:hover, a.mark:focus-visible { outline: 2px solid currentColor; }
.mark.absent { color: var(--soft); }
.mark.stale { color: var(--accent); background: var(--back); box-shadow: inset 0 0 0 1.5px currentColor; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 22px; list-style: none; margin: 0 0 14px; padding: 0; }
.legend li { display: flex; gap: 8px; align-items: center; font-size: 13.5px; }
.legend .mark { width: 26px; }
.months { display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 0 0 12px; }
"""


@dataclass(frozen=True, kw_only=True)
class Known:
    """All that the page shows.

    Attributes:
        judged: verdicts by table and day.
        stale: what was found stale when somebody last looked; None if nobody has.
        model_reports: names of the reports of ad models, `<first day>_<last day>`.
    """

    judged: Sequence[JudgedDay]
    stale: StaleFound | None
    model_reports: Sequence[str]

    @property
    def months(self) -> list[date]:
        """First days of the months with anything to show, the newest first."""
        days = {one.day for one in self.judged} | {one.day for one in (self.stale.days if self.stale else ())}
        return sorted({day.replace(day=1) for day in days}, reverse=True)


def render_calendar(known: Known, *, month: date | None, now: datetime) -> str:
    """The page.

    Args:
        known: what there is to show.
        month: first day of the month that is shown, with the one before it; the newest by default.
        now: the present instant, with a time zone: what was looked at has an age.
    """
    shown = month or next(iter(known.months), None)
    parts = [_header(known)]
    if shown is not None:
        parts.append(markup.section("Calendar", _calendar(known, shown)))
        parts.append(_to_look_at(known, shown))
    parts += [markup.section("Stale", render_stale(known.stale, now)), _models(known.model_reports)]
    return markup.page("Data quality", "\n".join(filter(None, parts)), style=STYLE)


def render_stale(found: StaleFound | None, now: datetime) -> str:
    """What is stale, how long ago somebody looked, and the commands that mend it."""
    look = f"Look again: {_code('tributary spark_jobs list_stale')}"
    if found is None:
        return f"<p>Nobody has looked yet whether the inputs of any day have changed since it was built. {look}</p>"
    looked = markup.text(f"{found.looked_ts:%Y-%m-%d %H:%M} UTC, {_age(now, found.looked_ts)} ago")
    if not found.days and not found.releases:
        return f"<p>Nothing was stale at {looked}: every partition was made from its inputs as they were then. {look}</p>"
    parts = [f"<p>Found at {looked}. {look}</p>"]
    if found.days:
        tables = dict.fromkeys(day.table for day in found.days)
        rows = [_stale_row(table, [day for day in found.days if day.table == table]) for table in tables]
        parts.append(markup.table(["Table", "Days", "Changed"], rows, names=(0,)))
        commands = "\n".join(map(markup.text, found.commands))
        parts.append(f"<p>Mend all of it by {_code('tributary dags mend')}, or step by step, in this order:</p>"
                     f"<pre><code>{commands}</code></pre>")
    if found.releases:
        parts.append(markup.table(["Model", "Why it is stale"], [[_code(name), markup.text(why)] for name, why in found.releases]))
        backfills = "\n".join(map(markup.text, found.backfills))
        parts.append(f"<p>Make them again by {_code('tributary dags mend')}, or, once no day is stale, in this order:</p>"
                     f"<pre><code>{backfills}</code></pre>")
    return "\n".join(parts)


def _header(known: Known) -> str:
    if not known.judged:
        return (f"<header><h1>Data quality</h1><p>No day has been judged yet. {_code('tributary validation run --ds DAY')} judges one; "
                f"{_code('tributary validation index')} finds what was judged before.</p></header>")
    days = [day.day for day in known.judged]
    newest = max(days)
    verdicts = " ".join(f"{markup.text(day.table)} {markup.badge(day.status)}" for day in _in_order(known.judged) if day.day == newest)
    return f"<header><h1>Data quality</h1><p>{min(days)} .. {newest}. The newest day: {verdicts}</p></header>"


def _calendar(known: Known, month: date) -> str:
    months = [first for first in known.months if first <= month][:MONTHS_SHOWN]
    grids = [_month(first, known) for first in months or [month]]
    signs = [f'<li><span class="mark {status}">{SIGNS[status]}</span>{MEANINGS[status]}</li>' for status in SIGNS]
    signs += [f'<li><span class="mark stale">{STALE_SIGN}</span>stale: what it was made from has changed</li>',
              f'<li><span class="mark absent">{NO_SIGN}</span>not judged</li>']
    return f'{_other_months(known, month)}<ul class="legend">{"".join(signs)}</ul>\n' + "\n".join(grids)


def _other_months(known: Known, month: date) -> str:
    """Links to the months beside the one that is shown."""
    later = [first for first in known.months if first > month]
    earlier = [first for first in known.months if first < month]
    links = [_month_link(earlier[0], "←")] if earlier else []
    links += [_month_link(later[-1], "→")] if later else []
    links += [_month_link(known.months[0], "newest:")] if len(later) > 1 else []
    return f'<nav class="months" aria-label="other months">{"".join(links)}</nav>' if links else ""


def _month_link(first: date, before: str) -> str:
    return f'<a href="index.html?month={first:%Y-%m}">{before} {first:%B %Y}</a>'


def _month(first: date, known: Known) -> str:
    """A month: a row a table, a column a day."""
    after = (first.replace(day=28) + ONE_DAY * 4).replace(day=1)
    days = list(days_between(first, after))
    judged = {(day.table, day.day): day for day in known.judged}
    stale = {(day.table, day.day): day for day in (known.stale.days if known.stale else ())}
    spoken = [day.day for day in known.judged]
    lines = []
    for table in _tables(known):
        cells = "".join(f"<td>{_mark(table, day, judged.get((table, day)), stale.get((table, day)), spoken)}</td>" for day in days)
        lines.append(f'<tr><th scope="row">{markup.text(table)}</th>{cells}</tr>')
    titles = "".join(f'<th scope="col">{day.day}</th>' for day in days)
    return (f'<table class="days"><caption>{first:%B %Y}</caption><thead><tr><th scope="col"></th>{titles}</tr></thead><tbody>\n'
            + "\n".join(lines) + "\n</tbody></table>")


def _mark(table: str, day: date, judged: JudgedDay | None, stale: StaleDay | None, spoken: Sequence[date]) -> str:
    """One day of a table; a link to what was judged where there is a report."""
    if judged is None and stale is None:
        inside = bool(spoken) and min(spoken) <= day <= max(spoken)
        said = markup.text(f"{table}, {day}: not judged")
        return f'<span class="mark absent" title="{said}">{NO_SIGN}</span>' if inside else ""
    broken = f": {_checks(judged)}" if judged is not None and judged.broken else ""
    found = "not judged" if judged is None else f"{judged.status}, {judged.rows_in_words}{broken}"
    said = markup.text(f"{table}, {day}: {found}" + (f"; stale since then: {stale.why}" if stale else ""))
    kind, sign = ("stale", STALE_SIGN) if stale else (judged.status, SIGNS[judged.status]) if judged else ("absent", NO_SIGN)
    if judged is None:
        return f'<span class="mark {kind}" title="{said}">{sign}</span>'
    return f'<a class="mark {kind}" href="{markup.text(judged.report)}" title="{said}" aria-label="{said}">{sign}</a>'


def _to_look_at(known: Known, month: date) -> str:
    """The newest days up to the end of the month that failed or warned."""
    end = (month.replace(day=28) + ONE_DAY * 4).replace(day=1)
    broken = [day for day in known.judged if day.status in ("fail", "warn") and day.day < end]
    broken.sort(key=lambda day: (day.status == "fail", day.day), reverse=True)
    if not broken:
        return ""
    rows = [[f'<a href="{markup.text(day.report)}">{markup.text(day.day)}</a>', markup.text(day.table), markup.badge(day.status),
             f"{day.rows:,}", markup.text(_checks(day))] for day in broken[:BROKEN_SHOWN]]
    more = f'<p class="soft">and {len(broken) - BROKEN_SHOWN} more</p>' if len(broken) > BROKEN_SHOWN else ""
    table = markup.table(["Day", "Table", "Verdict", "Rows", "Checks"], rows, numbers=(3,), names=(0, 1, 2))
    return markup.section("To look at", table + more)


def model_links(reports: Sequence[str]) -> str:
    """Links to reports of ad models, those of the newest days first."""
    newest_first = sorted(reports, key=lambda name: name.split("_")[::-1], reverse=True)
    links = (f'<li><a href="models/{markup.text(name)}.html">{markup.text(name.replace("_", " .. "))}</a></li>' for name in newest_first)
    return f"<ul>{''.join(links)}</ul>"


def _models(reports: Sequence[str]) -> str:
    if not reports:
        return markup.section("Model reports", f"<p>None yet. {_code('tributary training report --from DAY --to DAY')} writes one.</p>")
    return markup.section("Model reports", f"<p>What the ad models scored, over the days</p>{model_links(reports)}")


def _stale_row(table: str, days: Sequence[StaleDay]) -> list[str]:
    named = sorted(day.day for day in days)
    span = f"{named[0]}" if named[0] == named[-1] else f"{named[0]} .. {named[-1]}, {len(set(named))} in all"
    reasons = list(dict.fromkeys(day.why for day in days))
    return [markup.text(table), markup.text(span), markup.text(reasons[0] + (f" and {len(reasons) - 1} more" if len(reasons) > 1 else ""))]


def _tables(known: Known) -> list[str]:
    """The tables that are judged by rule, then others that were."""
    return [*VALIDATED_TABLES, *sorted({day.table for day in known.judged} - set(VALIDATED_TABLES))]


def _in_order(judged: Sequence[JudgedDay]) -> list[JudgedDay]:
    places = {table: place for place, table in enumerate(VALIDATED_TABLES)}
    return sorted(judged, key=lambda day: (places.get(day.table, len(places)), day.table, day.day))


def _checks(day: JudgedDay) -> str:
    more = len(day.broken) - CHECKS_SHOWN
    return ", ".join(day.broken[:CHECKS_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _code(command: str) -> str:
    return f"<code>{markup.text(command)}</code>"


def _age(now: datetime, then: datetime) -> str:
    minutes = max(0, int((now - then).total_seconds() // 60))
    for unit, length in (("day", 24 * 60), ("hour", 60)):
        if minutes >= 2 * length:
            return f"{minutes // length} {unit}s"
    return f"{minutes} minutes"
