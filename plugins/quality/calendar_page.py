"""The page "Data quality": a calendar of tables and days, what is stale with the commands that repair it, the model reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from contracts.periods import ONE_DAY, days_between
from contracts.quality import JudgedDay, StaleDay, StaleReport, Status
from contracts.steps import VALIDATED_TABLES
from pages import markup
from pages.markup import NO_SIGN, SIGNS, Mark

MEANINGS: dict[Status, str] = {
    "pass": "passed",
    "warn": "warned",
    "fail": "failed: it stops what follows",
    "accepted": "failed, and was accepted",
}
STALE_SIGN = "↻"
MONTHS_SHOWN = 2
BROKEN_SHOWN = 10
CHECKS_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Known:
    """All that the page shows.

    Attributes:
        judged: verdicts by table and day.
        stale: what was found stale when somebody last looked; None if nobody has.
        model_reports: names of the reports of ad models, `<first day>_<last day>`.
    """

    judged: Sequence[JudgedDay]
    stale: StaleReport | None
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
    days = [day.day for day in known.judged]
    return markup.render(
        "plugins/quality/templates/calendar.html.jinja",
        span=(min(days), max(days)) if days else None,
        stale=_stale(known.stale, now),
        newest=[day for day in _in_order(known.judged) if day.day == max(days)],
        shown=shown,
        meanings=MEANINGS,
        stale_sign=STALE_SIGN,
        links=_other_months(known, shown) if shown else [],
        model_reports=known.model_reports,
        broken_shown=BROKEN_SHOWN,
        checks=checks,
        months=[(first, *_month(first, known)) for first in _months_shown(known, shown)] if shown else [],
        broken=_to_look_at(known, shown) if shown else [],
    )


def render_stale(found: StaleReport | None, now: datetime) -> str:
    """What is stale, how long ago somebody looked, and the commands that repair it."""
    return markup.render("plugins/quality/templates/stale.html.jinja", stale=_stale(found, now))


def _stale(found: StaleReport | None, now: datetime) -> dict[str, object] | None:
    if found is None:
        return None
    tables = dict.fromkeys(day.table for day in found.days)
    return {
        "looked": f"{found.looked_ts:%Y-%m-%d %H:%M} UTC, {_age(now, found.looked_ts)} ago",
        "releases": found.releases,
        "tables": [_stale_row(table, [day for day in found.days if day.table == table]) for table in tables],
        "commands": found.commands,
        "backfills": found.backfills,
    }


def _months_shown(known: Known, month: date) -> list[date]:
    return [first for first in known.months if first <= month][:MONTHS_SHOWN] or [month]


def _other_months(known: Known, month: date) -> list[tuple[date, str]]:
    """The months before and after the one that is shown, each with what stands before its name."""
    later = [first for first in known.months if first > month]
    earlier = [first for first in known.months if first < month]
    return [
        *((first, "←") for first in earlier[:1]),
        *((first, "→") for first in later[-1:]),
        *((first, "newest:") for first in later[:-1][:1]),
    ]


def _month(first: date, known: Known) -> tuple[list[date], list[tuple[str, list[Mark | None]]]]:
    """The days of a month, and for each table a mark a day."""
    days = list(days_between(first, _after(first)))
    judged = {(day.table, day.day): day for day in known.judged}
    stale = {(day.table, day.day): day for day in (known.stale.days if known.stale else ())}
    spoken = [day.day for day in known.judged]
    return days, [
        (table, [_mark(table, day, judged.get((table, day)), stale.get((table, day)), spoken) for day in days])
        for table in _tables(known)
    ]


def _after(month: date) -> date:
    """The first day of the next month."""
    return (month.replace(day=28) + ONE_DAY * 4).replace(day=1)


def _mark(
    table: str, day: date, judged: JudgedDay | None, stale: StaleDay | None, spoken: Sequence[date]
) -> Mark | None:
    """One day of a table; a link to what was judged where there is a report."""
    if judged is None and stale is None:
        inside = bool(spoken) and min(spoken) <= day <= max(spoken)
        return Mark(kind="absent", sign=NO_SIGN, meaning=f"{table}, {day}: not judged") if inside else None
    broken = f": {checks(judged)}" if judged is not None and judged.broken else ""
    found = "not judged" if judged is None else f"{judged.status}, {judged.rows_in_words}{broken}"
    kind, sign = (
        ("stale", STALE_SIGN) if stale else (judged.status, SIGNS[judged.status]) if judged else ("absent", NO_SIGN)
    )
    return Mark(
        kind=kind,
        sign=sign,
        meaning=f"{table}, {day}: {found}" + (f"; stale since then: {stale.why}" if stale else ""),
        address=judged.report if judged else "",
    )


def _to_look_at(known: Known, month: date) -> list[JudgedDay]:
    """The newest days up to the end of the month that failed or warned."""
    broken = [day for day in known.judged if day.status in ("fail", "warn") and day.day < _after(month)]
    return sorted(broken, key=lambda day: (day.status == "fail", day.day), reverse=True)


def _stale_row(table: str, days: Sequence[StaleDay]) -> tuple[str, str, str]:
    """A table, its stale days and why they are."""
    named = sorted(day.day for day in days)
    span = f"{named[0]}" if named[0] == named[-1] else f"{named[0]} .. {named[-1]}, {len(set(named))} in all"
    reasons = list(dict.fromkeys(day.why for day in days))
    return table, span, reasons[0] + (f" and {len(reasons) - 1} more" if len(reasons) > 1 else "")


def _tables(known: Known) -> list[str]:
    """The tables that are judged by rule, then others that were."""
    return [*VALIDATED_TABLES, *sorted({day.table for day in known.judged} - set(VALIDATED_TABLES))]


def _in_order(judged: Sequence[JudgedDay]) -> list[JudgedDay]:
    places = {table: place for place, table in enumerate(VALIDATED_TABLES)}
    return sorted(judged, key=lambda day: (places.get(day.table, len(places)), day.table, day.day))


def checks(day: JudgedDay) -> str:
    """Names of the first checks that did not hold, and how many more there are."""
    more = len(day.broken) - CHECKS_SHOWN
    return ", ".join(day.broken[:CHECKS_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _age(now: datetime, then: datetime) -> str:
    minutes = max(0, int((now - then).total_seconds() // 60))
    for unit, length in (("day", 24 * 60), ("hour", 60)):
        if minutes >= 2 * length:
            return f"{minutes // length} {unit}s"
    return f"{minutes} minutes"
