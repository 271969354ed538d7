"""The simulator's items: each is born, is shown more often for some days, and ends one day; ids are never used again.

The number of live items is the same every day: where one ends, a new one replaces it at midnight, and is advertised if
the old one was. An item's life does not depend on its quality, so its age reveals nothing about tastes.

Shapes: I items ever born, by index; N of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from contracts.features import LOGS, Log

RAMP_DAYS = 7  # a newborn's share of impressions grows to its full one over this time
BEFORE_ALL = -10_000  # day of birth of the items that are there from the start
_POPULARITY_SPREAD = 0.8  # standard deviation of the logarithm


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """All items ever born, on one day.

    Attributes:
        category_I: index of the category, from 0.
        advertiser_I, campaign_I: ids; an advertiser's campaigns are its own.
        text_I: the item's text.
        popularity_I: by log, share of impressions once fully grown, to a common factor; 0 where it is not advertised.
        born_I: day of birth, counted from the simulation's first day.
        lives_I: whether it is still shown.
    """

    category_I: np.ndarray
    advertiser_I: np.ndarray
    campaign_I: np.ndarray
    text_I: np.ndarray
    popularity_I: Mapping[Log, np.ndarray]
    born_I: np.ndarray
    lives_I: np.ndarray

    @classmethod
    def draw(
        cls,
        category_N: np.ndarray,
        text_N: np.ndarray,
        advertised_N: np.ndarray,
        advertisers: int,
        born: int,
        rng: np.random.Generator,
    ) -> Catalogue:
        """N new items.

        Args:
            category_N: index of the category.
            text_N: the items' texts.
            advertised_N: whether the ad domain shows them.
            advertisers: ids are drawn from 1 to this.
            born: day of birth.
            rng: generator of these items.
        """
        count = len(category_N)
        advertiser_N = rng.integers(1, advertisers + 1, count)
        popularity = {log: rng.lognormal(0.0, _POPULARITY_SPREAD, count) for log in LOGS}
        return cls(
            category_I=category_N,
            advertiser_I=advertiser_N,
            campaign_I=advertiser_N * 10 + rng.integers(0, 4, count),  # the campaign's id carries the advertiser's
            text_I=text_N,
            popularity_I={**popularity, "ad": popularity["ad"] * advertised_N},
            born_I=np.full(count, born),
            lives_I=np.ones(count, dtype=bool),
        )

    def followed_by(self, newborn: Catalogue, ended_I: np.ndarray) -> Catalogue:
        """This catalogue with some items ended, followed by the new ones."""
        joined = {
            name: np.concatenate([getattr(self, name), getattr(newborn, name)])
            for name in ("category_I", "advertiser_I", "campaign_I", "text_I", "born_I")
        }
        lives_I = np.concatenate([self.lives_I & ~ended_I, newborn.lives_I])
        popularity = {log: np.concatenate([self.popularity_I[log], newborn.popularity_I[log]]) for log in LOGS}
        return replace(self, **joined, lives_I=lives_I, popularity_I=popularity)

    def shares(self, log: Log, day_number: int) -> np.ndarray:
        """Share of each item (I) in the impressions of a day; 0 for those that have ended."""
        grown_I = np.minimum((day_number - self.born_I + 1) / RAMP_DAYS, 1.0)
        shown_I = self.popularity_I[log] * grown_I * self.lives_I
        shares_I: np.ndarray = shown_I / shown_I.sum()
        return shares_I

    @property
    def num_born_later(self) -> int:
        """Number of items that were born after the simulation began."""
        return int((self.born_I > BEFORE_ALL).sum())

    @property
    def num_ended(self) -> int:
        """Number of items that are no longer shown."""
        return int((~self.lives_I).sum())
