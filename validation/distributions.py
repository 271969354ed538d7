"""Distributions of a column's values, as a few counts for each day, and the distance between two of them.

A day's counts are kept with its verdict, so that a comparison with earlier days reads none of their rows.
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
UNKNOWN = BUCKETS  # the index of the count of nulls, after the buckets
PLACES = BUCKETS + 1
UNITS_PER_BIN = 50  # with fewer, noise moves the index by as much as a real shift would
WARM_UP_DAYS = 7  # sums over the days before grow while a lake is young, which is no drift
DRIFT_WINDOW = WARM_UP_DAYS if WARM_UP_DAYS in STATISTIC_WINDOWS else min(STATISTIC_WINDOWS)

Counts = tuple[int, ...]  # PLACES counts
Kind = Literal["hashed", "value", "magnitude"]
Unit = Literal["users", "items", "requests"]
UNITS: dict[Entity, Unit] = {
    "user": "users",
    "item": "items",
}  # not by categories: they are too few for a shift of their counts to differ from chance

COUNTED: dict[str, Unit] = {str(entity): unit for entity, unit in UNITS.items()} | {
    "request": "requests"
}  # by the ids of columns such as user_id


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """A column whose values are counted by bucket.

    Attributes:
        column: the column's name.
        kind: how a value gets its bucket. `hashed`: by a hash, for ids; `value`: by itself, all larger ones in the
            last; `magnitude`: by the power of two that value + 1 reaches.
        unit: what counts as one independent draw, since rows of the same user, item or request resemble each other.
        warm_up_days: days after history_start that are not used for comparisons.
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
    distributions = [
        Distribution(
            column=feature.name,
            kind="hashed" if feature.maximum is None else "value",
            unit="users" if feature.side == "user" else "requests",
        )
        for feature in FEATURES
        if feature.name in names and "click" in names and (feature.source == "derived") == is_samples
    ]
    if is_samples:
        distributions.append(
            Distribution(column="history_end", kind="magnitude", unit="users", warm_up_days=WARM_UP_DAYS)
        )
        for entity, unit in UNITS.items():
            for source in LOGS:
                distributions += [
                    Distribution(column=column, kind="magnitude", unit=unit, warm_up_days=DRIFT_WINDOW)
                    for column in Statistic(entity=entity, log=source, window_days=DRIFT_WINDOW).columns
                ]
    return tuple(distributions)


def total(counts: Sequence[Counts]) -> Counts:
    """The sum of the counts of several days."""
    return tuple(map(sum, zip(*counts, strict=True))) if counts else (0,) * PLACES


def bins_of(reference: Counts, most: int) -> list[list[int]]:
    """Groups places into bins of about equal weight in the reference, and one bin of all places that it never held.

    A place of enough weight is a bin by itself, at most `most` of them; the others are grouped in their order, which
    for magnitudes joins neighbours and for hashes is as good as any. Grouping by weight would fit the bins to the noise
    of the reference, and any other day would seem to differ.
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
    return [
        places for places in (*bins, light, [place for place, weight in enumerate(reference) if not weight]) if places
    ]


def number_of_bins(units: int, reference_units: int) -> int:
    """How many bins can be filled by so many independent draws; with fewer than two, nothing can be compared."""
    return min(BUCKETS, min(units, reference_units) // UNITS_PER_BIN)


def stability_index(counts: Counts, reference: Counts, *, units: int, reference_units: int) -> float | None:
    """Population stability index: sum over bins of (p - q) ln(p / q); None if there is too little to compare.

    Half a unit's rows are added to each bin, so that an empty bin does not make the distance infinite.

    Args:
        counts: counts of the day.
        reference: counts of the days that it is compared with.
        units: number of independent draws in `counts`.
        reference_units: number of independent draws in `reference`.
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
