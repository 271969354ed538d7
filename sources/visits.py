"""When the simulator's users visit, and what they are interested in meanwhile.

A user's day has three times at which a visit may happen: in the morning, around noon, in the evening. Requests of both
logs fall into them, ads more often into the earlier ones. Some visits bring a burst of interest in one category, that
is strong when the visit begins and fades within some hours, perhaps after the next visit, perhaps after midnight.

Shapes: U users, V visits, N impressions. Times are milliseconds since the day's midnight, UTC.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from contracts.features import Log

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
LAST_MS = DAY_MS - 2_000  # no request later than this: its candidates would reach into the next day
# Share of a day's requests that fall into each hour: quiet at night, a small peak at noon, a large one in the evening.
HOUR_WEIGHTS = np.array([5, 3, 2, 1, 1, 2, 4, 7, 9, 9, 9, 10, 12, 11, 9, 9, 10, 11, 13, 15, 16, 15, 12, 8], dtype=float)
VISIT_HOURS = ((0, 11), (11, 17), (17, 24))  # first hour, and the one after the last
# Share of a log's requests in each visit. The natural ones follow the hours' weights; ads are shown earlier in the day.
VISIT_SHARES: dict[Log, np.ndarray] = {
    "natural": np.array([HOUR_WEIGHTS[first:last].sum() for first, last in VISIT_HOURS]) / HOUR_WEIGHTS.sum(),
    "ad": np.array([0.40, 0.35, 0.25]),
}
_MEAN_STAY_MS = 25 * 60_000


def draw_visits(users: int, rng: np.random.Generator) -> np.ndarray:
    """When each user's visits of a day begin (U x V)."""
    starts = []
    for first, last in VISIT_HOURS:
        weights = HOUR_WEIGHTS[first:last]
        hour_U = first + rng.choice(last - first, users, p=weights / weights.sum())
        starts.append(hour_U * HOUR_MS + rng.integers(0, HOUR_MS, users))
    return np.minimum(np.stack(starts, axis=1), LAST_MS - 1)


def draw_times(log: Log, user_N: np.ndarray, visit_ms_UV: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """When each request (N) of these users is made: in one of their visits, most within the first half hour."""
    visit_N = rng.choice(visit_ms_UV.shape[1], len(user_N), p=VISIT_SHARES[log])
    start_N = visit_ms_UV[user_N, visit_N]
    stay_N = rng.exponential(_MEAN_STAY_MS, len(user_N)).astype(np.int64)
    times_N: np.ndarray = start_N + stay_N % (LAST_MS - start_N)  # what would fall past the day falls into it
    return times_N


@dataclass(frozen=True, kw_only=True)
class Bursts:
    """Interests of the users' visits.

    Attributes:
        start_ms_UV: when each begins; negative if on an earlier day.
        category_UV: what it is in; -1 if the visit brings none.
        life_ms_UV: time in which it falls to 1/e.
    """

    start_ms_UV: np.ndarray
    category_UV: np.ndarray
    life_ms_UV: np.ndarray

    @classmethod
    def draw(
        cls, visit_ms_UV: np.ndarray, *, rate: float, categories: int, mean_hours: float, rng: np.random.Generator
    ) -> Bursts:
        """Bursts of a day: `rate` of the visits bring one."""
        shape = visit_ms_UV.shape
        category_UV = rng.integers(0, categories, shape)
        return cls(
            start_ms_UV=visit_ms_UV,
            category_UV=np.where(rng.random(shape) < rate, category_UV, -1),
            life_ms_UV=np.maximum(rng.exponential(mean_hours * HOUR_MS, shape), 60_000.0),
        )

    def and_of_yesterday(self, yesterday: Bursts) -> Bursts:
        """Today's bursts, and what is left of those that began on the day before."""
        return Bursts(
            start_ms_UV=np.concatenate([self.start_ms_UV, yesterday.start_ms_UV - DAY_MS], axis=1),
            category_UV=np.concatenate([self.category_UV, yesterday.category_UV], axis=1),
            life_ms_UV=np.concatenate([self.life_ms_UV, yesterday.life_ms_UV], axis=1),
        )

    def strength(self, user_N: np.ndarray, category_N: np.ndarray, time_ms_N: np.ndarray) -> np.ndarray:
        """Interest (N) of a user in a category at a time, from 0 to 1: that of the strongest burst."""
        strongest_N = np.zeros(len(user_N))
        for visit in range(
            self.start_ms_UV.shape[1]
        ):  # one visit at a time: a day of a million impressions stays small
            hit_H = np.flatnonzero(self.category_UV[user_N, visit] == category_N)
            user_H = user_N[hit_H]
            age_H = time_ms_N[hit_H] - self.start_ms_UV[user_H, visit]
            value_H = np.where(age_H >= 0, np.exp(-np.maximum(age_H, 0) / self.life_ms_UV[user_H, visit]), 0.0)
            strongest_N[hit_H] = np.maximum(strongest_N[hit_H], value_H)
        return strongest_N
