"""How a column's values are spread, in a few counts a day, and how far two spreads lie apart.

Counts of a day are kept with its verdict, so that a comparison with the days before reads no row of theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import log
from typing import Literal

from contracts.features import FEATURES, LOGS, STATISTIC_WINDOWS, Entity, Statistic
from contracts.tables import Table

BUCKETS = 64
UNKNOWN = BUCKETS  # the place of nulls, after the buckets
PLACES = BUCKETS + 1
UNITS_PER_BIN = 50  # with fewer, chance alone moves the index by as much as a real shift would
WARM_UP_DAYS = 7  # what is summed over the past grows while a lake is young, which is no drift
DRIFT_WINDOW = WARM_UP_DAYS if WARM_UP_DAYS in STATISTIC_WINDOWS else min(STATISTIC_WINDOWS)

Counts = tuple[int, ...]  # PLACES counts
Kind = Literal["hashed", "value", "magnitude"]
Unit = Literal["users", "items", "requests"]
UNITS: dict[Entity, Unit] = {"user": "users", "item": "items"}  # categories are too few to tell a shift of their counts from chance


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """A column whose values are counted by bucket.

    Attributes:
        column: its name.
        kind: bucket of a value: `hashed`, by a hash, for ids; `value`, itself, the last for all beyond; `magnitude`, by the
            power of two that value + 1 reaches.
        unit: what its values come in: rows of a user, item or request resemble each other, so they are no independent draws.
        warm_up_days: days since history_start that nothing is compared with.
    """

    column: str
    kind: Kind
    unit: Unit
    warm_up_days: int = 0


@cache
def distributions_of(table: Table) -> tuple[Distribution, ...]:
    """Columns of a table whose drift is watched: a log's features; a samples table's derived features, history and statistics."""
    names = set(table.column_names)
    is_samples = "history_end" in names
    found = [
        Distribution(column=feature.name, kind="hashed" if feature.maximum is None else "value",
                     unit="users" if feature.side == "user" else "requests")
        for feature in FEATURES if feature.name in names and "click" in names and (feature.source == "derived") == is_samples
    ]
    if is_samples:
        found.append(Distribution(column="history_end", kind="magnitude", unit="users", warm_up_days=WARM_UP_DAYS))
        for entity, unit in UNITS.items():
            for source in LOGS:
                found += [Distribution(column=column, kind="magnitude", unit=unit, warm_up_days=DRIFT_WINDOW)
                          for column in Statistic(entity=entity, log=source, window_days=DRIFT_WINDOW).columns]
    return tuple(found)


def total(counts: Sequence[Counts]) -> Counts:
    """Counts of several days together."""
    return tuple(map(sum, zip(*counts, strict=True))) if counts else (0,) * PLACES


def bins_of(reference: Counts, most: int) -> list[list[int]]:
    """Places put together into bins of about equal weight in the reference, and one of all that it never held.

    A place of enough weight is a bin of its own, `most` of them at most; the others are put together in their order, which
    for magnitudes joins neighbours and for hashes is as good as any: by weight, the bins would be chosen by what chance
    had made heavy, and any other day would seem to differ.
    """
    enough = sum(reference) / most
    bins = [[place] for place, weight in enumerate(reference) if weight >= enough]
    light: list[int] = []
    for place, weight in enumerate(reference):
        if 0 < weight < enough:
            light.append(place)
            if sum(reference[p] for p in light) >= enough:
                bins.append(light)
                light = []
    return [places for places in (*bins, light, [place for place, weight in enumerate(reference) if not weight]) if places]


def number_of_bins(units: int, reference_units: int) -> int:
    """How many bins so few independent draws can fill; below two nothing can be compared."""
    return min(BUCKETS, min(units, reference_units) // UNITS_PER_BIN)


def stability_index(counts: Counts, reference: Counts, *, units: int, reference_units: int) -> float | None:
    """Population stability index: sum over bins of (p - q) ln(p / q); None where there is too little to compare.

    Half a unit's rows are added to each bin, so that an empty one is not infinitely far.

    Args:
        counts, reference: of a day, and of what it is compared with.
        units, reference_units: how many independent draws each of them is.
    """
    most = number_of_bins(units, reference_units)
    if most < 2 or not sum(counts) or not sum(reference):
        return None
    bins = bins_of(reference, most)

    def shares(values: Counts, draws: int) -> list[float]:
        half = 0.5 * sum(values) / draws
        return [(sum(values[place] for place in places) + half) / (sum(values) + half * len(bins)) for places in bins]

    pairs = zip(shares(counts, units), shares(reference, reference_units), strict=True)
    return sum((p - q) * log(p / q) for p, q in pairs)
