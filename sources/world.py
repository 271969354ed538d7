"""The simulator's world: who likes what, in two domains that share it (or, as a negative control, do not).

A click's logit is: the domain's base + taste (user . item) + item quality + the user's openness + position + hour +
recent interest in the item's category. Users and items, tastes and qualities are shared by the natural and the ad domain;
the ad domain adds a smaller taste of its own, shows a third of the items with a popularity of its own, and has a lower base.

Shapes: U users, I items, C categories, D taste dimensions, N impressions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date

import numpy as np

from contracts.errors import BadInput
from contracts.features import LOGS, Log

# Share of a day's requests that fall into each hour: quiet at night, a small peak at noon, a large one in the evening.
HOUR_WEIGHTS = np.array([5, 3, 2, 1, 1, 2, 4, 7, 9, 9, 9, 10, 12, 11, 9, 9, 10, 11, 13, 15, 16, 15, 12, 8], dtype=float)
HOUR_LOGITS = 0.2 * np.cos(2 * np.pi * (np.arange(24) - 21) / 24)  # readiness to click is highest at 21:00


@dataclass(frozen=True, kw_only=True)
class WorldSettings:
    """Strengths are standard deviations of a term of the logit over impressions, unless said otherwise.

    Attributes:
        users, items, seed: size and seed.
        unrelated_domains: the ad domain draws tastes, qualities and openness of its own; all else stays equal.
        taste_dim: dimensions of a taste.
        num_segments, num_categories: clusters of user tastes and of item tastes, delivered as features.
        taste, quality, openness: strength of user x item taste, of the item alone, of the user alone.
        ad_only_taste: share of the ad taste's variance that the natural domain knows nothing of.
        position: what each place further down takes off the logit.
        recency: what full attention to one category lately adds to the logit.
        monthly_drift: share of a user's taste variance that is new after 30 days.
        natural_rate, ad_rate: click-through rates aimed at.
        natural_requests, ad_requests: requests per user and day, on average.
        ad_items: share of the items that are advertised.
    """

    users: int = 2000
    items: int = 1500
    seed: int = 7
    unrelated_domains: bool = False
    taste_dim: int = 6
    num_segments: int = 8
    num_categories: int = 12
    taste: float = 1.1
    quality: float = 0.35
    openness: float = 0.4
    ad_only_taste: float = 0.1
    position: float = 0.08
    recency: float = 0.3
    monthly_drift: float = 0.05
    natural_rate: float = 0.25
    ad_rate: float = 0.09
    natural_requests: float = 0.9
    ad_requests: float = 0.13
    ad_items: float = 1 / 3

    def __post_init__(self) -> None:
        for name, least in (("users", 2), ("items", 18), ("seed", 0)):  # 18: a request needs 6 different items of a third
            if getattr(self, name) < least:
                raise BadInput("simulate", f"--{name}", expected=f"a number >= {least}", found=getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class Tastes:
    """One set of tastes. `user_UD` and `item_ID` are standard normal; `quality_I` and `openness_U` too."""

    user_UD: np.ndarray
    item_ID: np.ndarray
    quality_I: np.ndarray
    openness_U: np.ndarray

    @classmethod
    def draw(cls, settings: WorldSettings, rng: np.random.Generator) -> Tastes:
        return cls(
            user_UD=rng.standard_normal((settings.users, settings.taste_dim)),
            item_ID=rng.standard_normal((settings.items, settings.taste_dim)),
            quality_I=rng.standard_normal(settings.items),
            openness_U=rng.standard_normal(settings.users),
        )

    def affinity(self, user_N: np.ndarray, item_N: np.ndarray) -> np.ndarray:
        """User . item, of about unit variance over impressions (N)."""
        return np.einsum("nd,nd->n", self.user_UD[user_N], self.item_ID[item_N]) / np.sqrt(self.user_UD.shape[1])

    def drifted(self, share: float, rng: np.random.Generator) -> Tastes:
        """These tastes with `share` of the users' variance drawn anew."""
        fresh_UD = rng.standard_normal(self.user_UD.shape)
        return replace(self, user_UD=np.sqrt(1 - share) * self.user_UD + np.sqrt(share) * fresh_UD)


@dataclass(frozen=True, kw_only=True)
class Supply:
    """What a domain shows: requests per user and day (U) and the share of impressions that each item gets (I)."""

    requests_U: np.ndarray
    popularity_I: np.ndarray


class World:
    """State of the simulated world on one day; `next_day` moves it on.

    Everything random comes from generators seeded by (seed, purpose, day), so that a longer simulation begins with the
    same days as a shorter one.
    """

    def __init__(self, settings: WorldSettings) -> None:
        self.settings = settings
        rng = np.random.default_rng([settings.seed, 0])
        shared, ad_alone, ad_extra = (Tastes.draw(settings, rng) for _ in range(3))  # always all: the rest stays equal
        self._tastes: dict[str, Tastes] = {"natural": shared, "ad": ad_alone if settings.unrelated_domains else shared}
        self._ad_extra = ad_extra
        self.segment_U = _nearest(shared.user_UD, rng.standard_normal((settings.num_segments, settings.taste_dim)))
        self.category_I = _nearest(shared.item_ID, rng.standard_normal((settings.num_categories, settings.taste_dim)))
        self.supply: dict[str, Supply] = self._draw_supply(rng)
        self.advertiser_I = rng.integers(1, max(2, settings.items // 25) + 1, settings.items)
        # An advertiser's campaigns are its own: the campaign's id carries the advertiser's.
        self.campaign_I = self.advertiser_I * 10 + rng.integers(0, 4, settings.items)
        self._recent: dict[str, np.ndarray] = {log: np.zeros((settings.users, settings.num_categories)) for log in LOGS}
        if not settings.unrelated_domains:
            self._recent["ad"] = self._recent["natural"]
        rates: dict[Log, float] = {"natural": settings.natural_rate, "ad": settings.ad_rate}
        self._base = {log: self._calibrated(log, rate, rng) for log, rate in rates.items()}

    def probability(self, log: Log, user_N: np.ndarray, item_N: np.ndarray, position_N: np.ndarray, hour_N: np.ndarray) -> np.ndarray:
        """True probability (N) that each impression is clicked today; users and items by index from 0."""
        return _sigmoid(self._base[log] + self._preference(log, user_N, item_N, position_N, hour_N))

    def affinity(self, log: Log, user_N: np.ndarray, item_N: np.ndarray) -> np.ndarray:
        """How well item and user suit each other in this domain (N), of about unit variance."""
        affinity_N = self._tastes[log].affinity(user_N, item_N)
        if log == "ad":
            own = self.settings.ad_only_taste
            affinity_N = np.sqrt(1 - own) * affinity_N + np.sqrt(own) * self._ad_extra.affinity(user_N, item_N)
        return affinity_N

    def remember(self, log: Log, user_N: np.ndarray, item_N: np.ndarray) -> None:
        """Adds today's clicks to the users' recent interest, which counts from tomorrow on."""
        np.add.at(self._recent[log], (user_N, self.category_I[item_N]), 1.0)

    def next_day(self, day_number: int) -> None:
        """Lets recent interest fade and tastes drift, after the day `day_number` (from 0)."""
        for recent_UC in {id(array): array for array in self._recent.values()}.values():
            recent_UC *= 0.7
        rng = np.random.default_rng([self.settings.seed, 1, day_number])
        share = 1 - (1 - self.settings.monthly_drift) ** (1 / 30)
        shared = self._tastes["natural"].drifted(share, rng)
        self._tastes = {
            "natural": shared,
            "ad": self._tastes["ad"].drifted(share, rng) if self.settings.unrelated_domains else shared,
        }

    def _preference(self, log: Log, user_N: np.ndarray, item_N: np.ndarray, position_N: np.ndarray, hour_N: np.ndarray) -> np.ndarray:
        settings, tastes, recent_UC = self.settings, self._tastes[log], self._recent[log]
        attention_N = recent_UC[user_N, self.category_I[item_N]] / (1.0 + recent_UC.sum(axis=1)[user_N])
        return (
            settings.taste * self.affinity(log, user_N, item_N)
            + settings.quality * tastes.quality_I[item_N]
            + settings.openness * tastes.openness_U[user_N]
            - settings.position * position_N
            + HOUR_LOGITS[hour_N]
            + settings.recency * attention_N
        )

    def _draw_supply(self, rng: np.random.Generator) -> dict[str, Supply]:
        settings = self.settings
        activity_U = rng.lognormal(0.0, 0.6, settings.users)
        ad_activity_U = np.sqrt(activity_U) * rng.lognormal(0.0, 0.3, settings.users)
        natural_I = rng.lognormal(0.0, 0.8, settings.items)
        advertised = rng.permutation(settings.items)[: max(6, round(settings.items * settings.ad_items))]
        ad_I = np.zeros(settings.items)
        ad_I[advertised] = rng.lognormal(0.0, 0.8, len(advertised))
        return {
            "natural": Supply(requests_U=settings.natural_requests * activity_U / activity_U.mean(),
                              popularity_I=natural_I / natural_I.sum()),
            "ad": Supply(requests_U=settings.ad_requests * ad_activity_U / ad_activity_U.mean(), popularity_I=ad_I / ad_I.sum()),
        }

    def _calibrated(self, log: Log, rate: float, rng: np.random.Generator) -> float:
        """The base at which a large draw of the domain's impressions has this click-through rate; by bisection."""
        supply, count = self.supply[log], 50_000
        user_N = rng.choice(self.settings.users, count, p=supply.requests_U / supply.requests_U.sum())
        item_N = rng.choice(self.settings.items, count, p=supply.popularity_I)
        hour_N = rng.choice(24, count, p=HOUR_WEIGHTS / HOUR_WEIGHTS.sum())
        preference_N = self._preference(log, user_N, item_N, rng.integers(0, 6, count), hour_N)
        low, high = -20.0, 20.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if _sigmoid(middle + preference_N).mean() < rate else (low, middle)
        return (low + high) / 2


def day_seed(seed: int, log: Log, day_number: int) -> np.random.Generator:
    """The generator of one log's impressions on one day."""
    return np.random.default_rng([seed, 2 + LOGS.index(log), day_number])


def day_instant(day: date) -> np.datetime64:
    """Midnight UTC of a day, in milliseconds."""
    return np.datetime64(day, "ms")


def _nearest(points_ND: np.ndarray, centres_KD: np.ndarray) -> np.ndarray:
    """Index 0..K-1 of the direction that each point (N) lies nearest to."""
    unit_KD = centres_KD / np.linalg.norm(centres_KD, axis=1, keepdims=True)
    nearest_N: np.ndarray = np.argmax(points_ND @ unit_KD.T, axis=1)
    return nearest_N


def _sigmoid(logit: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-logit))
