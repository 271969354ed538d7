"""Intervals by a bootstrap over users: a draw takes users with replacement, all rows of a user together.

Every figure here is a ratio of sums over users (GAUC, LogLoss, a click rate), so a draw needs the users' sums alone, and
figures that share a denominator are judged on the same draws. AUC and ECE are no such ratios and have no interval.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
SEED = 7
NOT_A_NUMBER = "not a number"  # the verdict on a difference of figures of which one is NaN
LEAST_USERS = 10  # of fewer, a percentile interval says nothing: they have a figure and no interval
_DRAWN_AT_ONCE = 1_000_000  # counts in memory

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure and its 95 % interval; `low` and `high` are None where it is NaN, or fewer than `LEAST_USERS` users are behind it."""

    value: float
    low: float | None
    high: float | None

    @property
    def verdict(self) -> str:
        """Of a difference: whether its interval excludes zero."""
        if np.isnan(self.value):
            return NOT_A_NUMBER
        if self.low is None or self.high is None:
            return "too few users to say"
        return "above zero" if self.low > 0 else "below zero" if self.high < 0 else "not distinguishable from zero"


def bootstrap_sums(columns_UK: Floats) -> Floats:
    """Sums of each column over users that were drawn with replacement, `DRAWS` x K; the same draws for the same U."""
    count = len(columns_UK)
    generator = np.random.default_rng(SEED)
    at_once = max(1, _DRAWN_AT_ONCE // count)
    parts = []
    for done in range(0, DRAWS, at_once):
        draws = min(at_once, DRAWS - done)
        drawn = generator.integers(0, count, size=(draws, count), dtype=np.int32) + np.arange(draws, dtype=np.int64)[:, None] * count
        times_DU = np.bincount(drawn.ravel(), minlength=draws * count).reshape(draws, count)  # ten times faster than `multinomial`
        parts.append(times_DU.astype(np.float64) @ columns_UK)
    return np.concatenate(parts)


def ratios(numerators: Mapping[str, NDArray[Any]], denominator: Floats) -> dict[str, Estimate]:
    """Ratio of sums over users, each with its interval.

    Args:
        numerators: U by name; a ratio is NaN, and has no interval, where one of its users' values is.
        denominator: U, >= 0; users without a share in it are left out.
    """
    taking_part = denominator > 0
    weight = denominator[taking_part]
    if not len(weight):
        return {}
    columns = np.stack([*(values[taking_part] for values in numerators.values()), weight], axis=1)
    values = columns.sum(axis=0)
    found = {name: Estimate(value=float(value / values[-1]), low=None, high=None) for name, value in zip(numerators, values, strict=False)}
    if len(weight) < LEAST_USERS:
        return found
    drawn = bootstrap_sums(columns)
    bounds = np.quantile(drawn[:, :-1] / drawn[:, -1:], [0.025, 0.975], axis=0).T
    return {name: one if np.isnan(one.value) else replace(one, low=float(low), high=float(high))
            for (name, one), (low, high) in zip(found.items(), bounds, strict=True)}
