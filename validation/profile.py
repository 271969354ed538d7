"""What a report shows of a log beyond its checks: its users, items, requests and hours, and what its columns hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from contracts.tables import LANDING_COLUMNS, TABLES
from pages import pictures
from pages.pictures import nice_ticks
from validation.distributions import COUNTED, total
from validation.figures import DayFigures
from validation.found import constants_of, figure_text
from validation.suites import log_of
from validation.verdict import Verdict

PER_ENTITY = (
    ("impressions_mean", "mean"),
    ("impressions_p50", "median"),
    ("impressions_p95", "95th percentile"),
    ("impressions_max", "most"),
)


@dataclass(frozen=True, kw_only=True)
class Profile:
    """How the rows of a log's days are made up.

    Attributes:
        day: the last day with a row, which `entities` is about.
        entities: for users, items and requests: how many there are, and the distribution of the impressions that each has.
        hours: chart of the impressions of all days by hour; None if no time was measured.
        columns: each delivered column with its share of unknown (of features) or missing (of others) values, and what is
            to be noted.
    """

    day: str
    entities: list[tuple[str, ...]]
    hours: Markup | None
    columns: list[tuple[str, str, str]]


def profile_of(verdict: Verdict) -> Profile | None:
    """The profile of a log's days; None for another table, for days without a row, and for those measured before there was one."""
    log = log_of(TABLES[verdict.table])
    days = [day for day in verdict.days if day.rows and day.impressions_mean]
    if log is None or not days:
        return None
    last = days[-1]
    return Profile(
        day=str(last.ds),
        entities=[
            (
                unit,
                figure_text(unit, last.figure(unit)),
                *(figure_text(name, last.figure(f"{name}({entity})")) for name, _ in PER_ENTITY),
            )
            for entity, unit in COUNTED.items()
            if entity in last.impressions_mean
        ],
        hours=_hours([day for day in days if day.hours]),
        columns=[(name, _share(days, name), _note(days, name)) for name in LANDING_COLUMNS[log]],
    )


def _hours(days: Sequence[DayFigures]) -> Markup | None:
    if not days:
        return None
    counts = total([day.hours for day in days])
    return pictures.plot(
        "bars",
        [f"{hour}:00" for hour in range(len(counts))],
        [float(count) for count in counts],
        caption="Impressions by hour of the day",
        ticks=[(tick, f"{tick:,.10g}") for tick in nice_ticks(max(counts))],
        strong=[True] * len(counts),
    )


def _share(days: Sequence[DayFigures], name: str) -> str:
    """The share of all rows in which a column is unknown or missing, where either was measured; "" where it cannot be."""
    known = [
        (share, day.rows)
        for day in days
        if (share := day.unknown_share.get(name, day.missing_share.get(name))) is not None
    ]
    rows = sum(count for _, count in known)
    return figure_text("unknown_share", sum(share * count for share, count in known) / rows) if rows else ""


def _note(days: Sequence[DayFigures], name: str) -> str:
    if all(day.missing_share.get(name) == 1 for day in days):
        return "never delivered"
    values = [constants_of(day).get(name) for day in days]
    constant = [value for value in values if value is not None]
    if not constant:
        return ""
    always = f"always {constant[0]}" if len(set(constant)) == 1 else "one value a day"
    return always if len(constant) == len(days) else f"{always}, on {len(constant)} of {len(days)} days"
