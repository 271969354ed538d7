"""Which periods the models of a deployment can have: their first ones, the logs that these read, and what the first A-CTR goes without."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from contracts.commands import table_text
from contracts.kinds import KINDS, Cadence
from contracts.periods import ONE_DAY, Parent, Period
from contracts.settings import Deployment
from contracts.transfer import TRANSFER_SETTINGS, is_read, reads

TITLES = ("model", "first period", "reads logs of", "days", "made after")


def first_period(deployment: Deployment, kind: str) -> Period:
    """The first period that a kind of model has."""
    lineage = deployment.lineage
    start = lineage.first_periods.get(kind, deployment.history_start)
    return deployment.periods.containing(KINDS[kind].cadence, start)


def ancestors(deployment: Deployment, releases: Sequence[Parent]) -> list[Parent]:
    """All releases that these are made from, and these, parents before children.

    Args:
        deployment: its variants decide which parents an A-CTR reads.
        releases: those of a chain in the order of their periods.
    """
    known: dict[tuple[str, date], Parent] = {}

    def visit(release: Parent) -> None:
        if (release.kind, release.period) in known:
            return
        for parent in deployment.lineage.parents(release.kind, release.period):
            if reads(parent.role, deployment.variants):
                visit(parent)
        known[release.kind, release.period] = release

    for release in releases:
        visit(release)
    return list(known.values())


def table(deployment: Deployment) -> str:
    """A row for each kind of model that the deployment makes: its first period, the days whose logs that reads, and when it can be made."""
    rows = []
    for kind in KINDS.values():
        if is_read(kind.name, deployment.variants):
            period = first_period(deployment, kind.name)
            days = deployment.lineage.certain_days(kind.name, period.start, replay_days=deployment.replay_days)
            rows.append(
                (
                    kind.name,
                    str(period.start) if kind.cadence == "day" else str(period),
                    str(days[0]) if len(days) == 1 else f"{days[0]} .. {days[-1]}",
                    len(days),
                    period.end - ONE_DAY,
                )
            )
    return table_text(TITLES, rows)


def gaps(deployment: Deployment) -> list[str]:
    """What of the natural log the first A-CTR goes without because too few days lie before it, each with the days that would be enough."""
    settings = [TRANSFER_SETTINGS[variant] for variant in deployment.variants]
    start = deployment.history_start
    week = deployment.periods.closed_before("week", deployment.actr_start)
    months = [month for month in deployment.lineage.snapshots_of_day(week.start) if month is not None]
    lines = []
    if any(one.cpm for one in settings) and week.start < start:
        whole = _first_whole(deployment, "week", start)
        what = "CPM of a whole week" if deployment.lineage.exists(week) else "CPM"
        lines.append(_gap(deployment, what, f"the first whole week of logs is {_span(whole)}", whole.end))
    if any(one.merged_table for one in settings) and all(month < start for month in months):
        month = _first_whole(deployment, "month", start)
        reader = _first_whole(deployment, "week", month.end)
        where = f"the first whole month of logs is {_span(month)}, and the first CPM after it that of {_span(reader)}"
        lines.append(_gap(deployment, "TPM of a whole month" if months else "TPM", where, reader.end))
    return lines


def report(deployment: Deployment) -> list[str]:
    """Lines about the first periods, what the first A-CTR rests on, and what it goes without."""
    first = Parent(role="predecessor", kind="actr", period=deployment.actr_start)
    below = [f"{one.kind} {one.period}" for one in ancestors(deployment, [first])[:-1]]
    return [
        table(deployment),
        "",
        f"the first A-CTR, of {deployment.actr_start}, rests on: {', '.join(below) or 'no other model'}",
        *(f"warning: {gap}" for gap in gaps(deployment)),
    ]


def _gap(deployment: Deployment, what: str, where: str, enough: date) -> str:
    end = deployment.history_end
    ends = end is not None and enough > end
    more = f", but the logs end on {end}: declare shorter weeks and months ([periods])" if ends else ""
    return (
        f"the first A-CTR, of actr_start {deployment.actr_start}, rests on no {what}: {where}. "
        f"With actr_start {enough} or later it would{more}."
    )


def _first_whole(deployment: Deployment, cadence: Cadence, day: date) -> Period:
    """The first period that begins on or after `day`."""
    period = deployment.periods.containing(cadence, day)
    return period if period.start >= day else deployment.periods.containing(cadence, period.end)


def _span(period: Period) -> str:
    return f"{period.start} .. {period.end - ONE_DAY}"
