"""Confidence intervals by a bootstrap over users: a draw takes users with replacement, with all rows of each user.

Every metric here is a ratio of sums over users (GAUC, LogLoss, a click rate), so a draw needs only the users' sums, and
metrics that share a denominator are judged on the same draws. AUC and ECE are not such ratios, and have no interval.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
SEED = 7
NOT_A_NUMBER = "not a number"  # The verdict on a difference where one of the two values is NaN.
LEAST_USERS = 10  # With fewer users a percentile interval means nothing, so a value has none.
_DRAWN_AT_ONCE = 1_000_000  # How many counts are in memory at once.

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value and its 95 % interval; `low` and `high` are None where the value is NaN or comes from fewer than `LEAST_USERS` users."""

    value: float
    low: float | None
    high: float | None

    @property
    def verdict(self) -> str:
        """In words, whether the interval of a difference excludes zero."""
        if np.isnan(self.value):
            return NOT_A_NUMBER
        if self.low is None or self.high is None:
            return "too few users to say"
        return "above zero" if self.low > 0 else "below zero" if self.high < 0 else "not distinguishable from zero"


def bootstrap_sums(columns_UK: Floats) -> Floats:
    """Returns the sums of each column over users drawn with replacement, `DRAWS` x K; the same U gets the same draws."""
    count = len(columns_UK)
    generator = np.random.default_rng(SEED)
    at_once = max(1, _DRAWN_AT_ONCE // count)
    parts = []
    for done in range(0, DRAWS, at_once):
        draws = min(at_once, DRAWS - done)
        drawn = (
            generator.integers(0, count, size=(draws, count), dtype=np.int32)
            + np.arange(draws, dtype=np.int64)[:, None] * count
        )
        times_DU = np.bincount(drawn.ravel(), minlength=draws * count).reshape(
            draws, count
        )  # ten times faster than `multinomial`
        parts.append(times_DU.astype(np.float64) @ columns_UK)
    return np.concatenate(parts)


def ratios(numerators: Mapping[str, NDArray[Any]], denominator: Floats) -> dict[str, Estimate]:
    """Returns ratios of sums over users by name, each with its interval; empty where no user counts.

    Args:
        numerators: by name, the users' values, U; where one of them is NaN, so is the ratio, and it has no interval.
        denominator: the users' weights, U, >= 0; users of weight 0 are left out.
    """
    taking_part = denominator > 0
    weight = denominator[taking_part]
    if not len(weight):
        return {}
    columns = np.stack([*(values[taking_part] for values in numerators.values()), weight], axis=1)
    values = columns.sum(axis=0)
    plain = {
        name: Estimate(value=float(value / values[-1]), low=None, high=None)
        for name, value in zip(numerators, values, strict=False)
    }
    if len(weight) < LEAST_USERS:
        return plain
    drawn = bootstrap_sums(columns)
    bounds = np.quantile(drawn[:, :-1] / drawn[:, -1:], [0.025, 0.975], axis=0).T
    return {
        name: one if np.isnan(one.value) else replace(one, low=float(low), high=float(high))
        for (name, one), (low, high) in zip(plain.items(), bounds, strict=True)
    }
