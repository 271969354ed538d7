"""Earlier days: their figures are read from the files next to their reports, and from the table only if there are none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

from contracts.locations import Locations
from contracts.periods import ONE_DAY
from contracts.tables import Table, owner_key
from validation.distributions import distributions_of
from validation.figures import DayFigures
from validation.verdict import Verdict, figures_on, verdicts_by_day


def known_before(
    locations: Locations, table: Table, builds: Mapping[date, Mapping[str, Any]], first: date, usual_days: int
) -> dict[date, DayFigures]:
    """Figures of the days before `first` as they were judged, of those that have not been built again since."""
    verdicts = verdicts_by_day(locations, table.name, first - ONE_DAY * usual_days, first - ONE_DAY)
    return {
        day: figures
        for day, verdict in verdicts.items()
        if day in builds
        and _speaks_for(verdict, day, builds[day])
        and _is_complete(table, figures := figures_on(verdict, day))
    }


def week_before(figures: Iterable[DayFigures], day: date, usual_days: int) -> list[DayFigures]:
    """The figures of the `usual_days` days before `day`."""
    return [known for known in figures if day - ONE_DAY * usual_days <= known.ds < day]


def _speaks_for(verdict: Verdict, day: date, build: Mapping[str, Any]) -> bool:
    digest: str = build["digest"]
    return verdict.digests.get(owner_key(ds=day)) == digest


def _is_complete(table: Table, figures: DayFigures) -> bool:
    """Whether all columns whose drift is watched were counted: not before they were declared."""
    return not figures.rows or {spread.column for spread in distributions_of(table)} <= set(figures.distributions)
