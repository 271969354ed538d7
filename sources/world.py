"""The simulator's world: who likes what, in two domains that share it (or, as a negative control, do not).

A click's logit is: the domain's base + taste (user . item) + item quality + the user's openness + position + hour +
recent interest in the item's category, over days and over hours. Users and items, tastes, qualities and interests are
shared by the natural and the ad domain; the ad domain adds a smaller taste of its own, shows a third of the items with
a popularity of its own, at other hours and in slots further apart, and has a lower base.

Shapes: U users, I items ever born, C categories, D taste dimensions, N impressions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date

import numpy as np

from contracts.errors import BadInput
from contracts.features import LOGS, Log
from sources.catalogue import BEFORE_ALL, Catalogue
from sources.texts import item_texts
from sources.visits import HOUR_MS, Bursts, draw_times, draw_visits

# Where on its page a request's candidates stand: natural ones one after the other, ads in slots among natural content.
PLACES: dict[Log, np.ndarray] = {"natural": np.arange(6), "ad": np.array([1, 4, 8, 12, 17, 23])}
# Readiness to click by hour: natural content in the evening, ads around noon.
_PEAK_HOUR: dict[Log, int] = {"natural": 21, "ad": 13}
HOUR_LOGITS = {log: 0.2 * np.cos(2 * np.pi * (np.arange(24) - peak) / 24) for log, peak in _PEAK_HOUR.items()}


@dataclass(frozen=True, kw_only=True)
class WorldSettings:
    """Strengths are standard deviations of a term of the logit over impressions, unless stated otherwise.

    Attributes:
        users, items, seed: size and seed.
        unrelated_domains: the ad domain draws tastes, qualities and openness of its own; all else stays equal.
        taste_dim: dimensions of a taste.
        num_segments, num_categories: clusters of user tastes and of item tastes, delivered as features.
        taste, quality, openness: strength of user x item taste, of the item by itself, of the user by itself.
        ad_only_taste: share of the ad taste's variance that the natural domain knows nothing of.
        position, ad_position: what lies between the first two places takes off the logit: in the natural domain so does
            every further place, in the ad domain ever less (by the logarithm of the slot).
        recency: what full attention to one category in the last days adds to the logit.
        burst: what an interest that lives for hours adds to the logit of its category, when it begins.
        burst_rate: share of the visits that bring such an interest.
        burst_hours: how long it lives, on average.
        monthly_drift: share of a user's taste variance that is new after 30 days.
        item_turnover: share of the items that end within 30 days, each followed by a new one.
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
    ad_position: float = 0.15
    recency: float = 0.3
    burst: float = 1.2
    burst_rate: float = 0.4
    burst_hours: float = 2.0
    monthly_drift: float = 0.05
    item_turnover: float = 0.1
    natural_rate: float = 0.25
    ad_rate: float = 0.09
    natural_requests: float = 0.9
    ad_requests: float = 0.13
    ad_items: float = 1 / 3

    def __post_init__(self) -> None:
        for name, least in (
            ("users", 2),
            ("items", 18),
            ("seed", 0),
        ):  # 18: a request needs 6 different items of a third
            if getattr(self, name) < least:
                raise BadInput("simulate", f"--{name}", expected=f"a number >= {least}", found=getattr(self, name))
        if not 0 <= self.item_turnover < 1:
            raise BadInput("simulate", "--item-turnover", expected="a share in [0, 1)", found=self.item_turnover)
        if not 0 <= self.burst_rate <= 1:
            raise BadInput("simulate", "--burst-rate", expected="a share in [0, 1]", found=self.burst_rate)


@dataclass(frozen=True, kw_only=True)
class Tastes:
    """One set of tastes. `user_UD` and `item_ID` are standard normal; `quality_I` and `openness_U` too."""

    user_UD: np.ndarray
    item_ID: np.ndarray
    quality_I: np.ndarray
    openness_U: np.ndarray

    @classmethod
    def draw(cls, settings: WorldSettings, rng: np.random.Generator) -> Tastes:
        """Draws the tastes of all users and items from a standard normal distribution."""
        return cls(
            user_UD=rng.standard_normal((settings.users, settings.taste_dim)),
            item_ID=rng.standard_normal((settings.items, settings.taste_dim)),
            quality_I=rng.standard_normal(settings.items),
            openness_U=rng.standard_normal(settings.users),
        )

    def with_items(self, count: int, rng: np.random.Generator) -> Tastes:
        """These tastes, and `count` items more."""
        item_ID = np.concatenate([self.item_ID, rng.standard_normal((count, self.item_ID.shape[1]))])
        return replace(self, item_ID=item_ID, quality_I=np.concatenate([self.quality_I, rng.standard_normal(count)]))

    def affinity(self, user_N: np.ndarray, item_N: np.ndarray) -> np.ndarray:
        """User . item, of about unit variance over impressions (N)."""
        affinity_N: np.ndarray = np.einsum("nd,nd->n", self.user_UD[user_N], self.item_ID[item_N]) / np.sqrt(
            self.user_UD.shape[1]
        )
        return affinity_N

    def drifted(self, share: float, rng: np.random.Generator) -> Tastes:
        """These tastes with `share` of the users' variance drawn anew."""
        fresh_UD = rng.standard_normal(self.user_UD.shape)
        return replace(self, user_UD=np.sqrt(1 - share) * self.user_UD + np.sqrt(share) * fresh_UD)


class World:
    """State of the simulated world on one day; `next_day` moves it on.

    Everything random comes from generators seeded by (seed, purpose, day), so that a longer simulation begins with the
    same days as a shorter one.

    Attributes:
        day_number: the day, from 0.
        catalogue: all items ever born.
        segment_U: index of each user's segment, from 0.
        requests_U: by log, requests of each user on a day, on average.
        visit_ms_UV: when each user's visits of the day begin, in milliseconds since midnight.
    """

    def __init__(self, settings: WorldSettings) -> None:
        self.settings = settings
        self.day_number = 0
        rng = np.random.default_rng([settings.seed, 0])
        self._shared, self._ad_alone, self._ad_extra = (Tastes.draw(settings, rng) for _ in range(3))
        self.segment_U = _nearest(
            self._shared.user_UD, rng.standard_normal((settings.num_segments, settings.taste_dim))
        )
        self._category_centres_CD = rng.standard_normal((settings.num_categories, settings.taste_dim))
        advertised_I = np.zeros(settings.items, dtype=bool)
        advertised_I[rng.permutation(settings.items)[: max(6, round(settings.items * settings.ad_items))]] = True
        self.catalogue = self._new_items(advertised_I, born=BEFORE_ALL, rng=rng)
        self.requests_U = self._draw_requests(rng)
        self._recent: dict[Log, np.ndarray] = {log: np.zeros((settings.users, settings.num_categories)) for log in LOGS}
        if not settings.unrelated_domains:
            self._recent["ad"] = self._recent["natural"]
        self.visit_ms_UV, self._bursts = self._visits_and_bursts(0)
        rates: dict[Log, float] = {"natural": settings.natural_rate, "ad": settings.ad_rate}
        self._base = {log: self._calibrated(log, rate, rng) for log, rate in rates.items()}

    def probability(
        self, log: Log, user_N: np.ndarray, item_N: np.ndarray, position_N: np.ndarray, time_ms_N: np.ndarray
    ) -> np.ndarray:
        """True probability (N) that each impression is clicked today.

        Args:
            log: the domain.
            user_N: the users' indexes, from 0.
            item_N: the items' indexes, from 0.
            position_N: the rank on the page, 0 on top.
            time_ms_N: time of the request, in milliseconds since midnight.
        """
        return _sigmoid(self._base[log] + self._preference(log, user_N, item_N, position_N, time_ms_N))

    def affinity(self, log: Log, user_N: np.ndarray, item_N: np.ndarray) -> np.ndarray:
        """How well item and user suit each other in this domain (N), of about unit variance."""
        affinity_N = self._tastes(log).affinity(user_N, item_N)
        if log == "ad":
            own = self.settings.ad_only_taste
            affinity_N = np.sqrt(1 - own) * affinity_N + np.sqrt(own) * self._ad_extra.affinity(user_N, item_N)
        return affinity_N

    def item_shares(self, log: Log) -> np.ndarray:
        """Share of each item (I) in today's impressions; 0 for those that have ended or are not advertised."""
        return self.catalogue.shares(log, self.day_number)

    def burst_strength(self, log: Log, user_N: np.ndarray, item_N: np.ndarray, time_ms_N: np.ndarray) -> np.ndarray:
        """Short-lived interest (N) of a user in an item's category at a time of today, from 0 to 1."""
        return self._bursts[log].strength(user_N, self.catalogue.category_I[item_N], time_ms_N)

    def remember(self, log: Log, user_N: np.ndarray, item_N: np.ndarray) -> None:
        """Adds today's clicks to the users' recent interest, which counts from tomorrow on."""
        np.add.at(self._recent[log], (user_N, self.catalogue.category_I[item_N]), 1.0)

    def next_day(self) -> None:
        """Moves on by a day: recent interest fades, tastes drift, items end and others are born, visits are new."""
        for recent_UC in {id(array): array for array in self._recent.values()}.values():
            recent_UC *= 0.7
        rng = np.random.default_rng([self.settings.seed, 1, self.day_number])
        share = _daily(self.settings.monthly_drift)
        self._shared, self._ad_alone = self._shared.drifted(share, rng), self._ad_alone.drifted(share, rng)
        self.day_number += 1
        self._replace_items(np.random.default_rng([self.settings.seed, 4, self.day_number]))
        self.visit_ms_UV, self._bursts = self._visits_and_bursts(self.day_number)

    def _tastes(self, log: Log) -> Tastes:
        return self._ad_alone if log == "ad" and self.settings.unrelated_domains else self._shared

    def _preference(
        self, log: Log, user_N: np.ndarray, item_N: np.ndarray, position_N: np.ndarray, time_ms_N: np.ndarray
    ) -> np.ndarray:
        settings, tastes, recent_UC = self.settings, self._tastes(log), self._recent[log]
        attention_N = recent_UC[user_N, self.catalogue.category_I[item_N]] / (1.0 + recent_UC.sum(axis=1)[user_N])
        position_cost_N = (
            settings.position * position_N if log == "natural" else settings.ad_position * np.log1p(position_N)
        )
        logit_N: np.ndarray = (
            settings.taste * self.affinity(log, user_N, item_N)
            + settings.quality * tastes.quality_I[item_N]
            + settings.openness * tastes.openness_U[user_N]
            - position_cost_N
            + HOUR_LOGITS[log][time_ms_N // HOUR_MS]
            + settings.recency * attention_N
            + settings.burst * self.burst_strength(log, user_N, item_N, time_ms_N)
        )
        return logit_N

    def _replace_items(self, rng: np.random.Generator) -> None:
        """Some items end; as many are born, and advertised where those were."""
        catalogue = self.catalogue
        ended_I = catalogue.lives_I & (rng.random(len(catalogue.lives_I)) < _daily(self.settings.item_turnover))
        count = int(ended_I.sum())
        # Both sets of tastes grow, whichever is in use: unrelated domains differ in nothing else.
        self._shared, self._ad_alone, self._ad_extra = (
            t.with_items(count, rng) for t in (self._shared, self._ad_alone, self._ad_extra)
        )
        self.catalogue = catalogue.followed_by(
            self._new_items(catalogue.popularity_I["ad"][ended_I] > 0, born=self.day_number, rng=rng), ended_I
        )

    def _new_items(self, advertised_N: np.ndarray, *, born: int, rng: np.random.Generator) -> Catalogue:
        """The items (N) that the tastes end with, and that the catalogue lacks."""
        first = len(self._shared.item_ID) - len(advertised_N)
        category_N = _nearest(self._shared.item_ID[first:], self._category_centres_CD)
        text_N = item_texts(category_N, self._shared.quality_I[first:], rng)
        return Catalogue.draw(category_N, text_N, advertised_N, max(2, self.settings.items // 25), born, rng)

    def _visits_and_bursts(self, day_number: int) -> tuple[np.ndarray, dict[Log, Bursts]]:
        """Visits of a day (U x V), and the interests that live on it."""
        settings = self.settings
        days = (day_number, max(day_number - 1, 0))  # the first day repeats itself before it began
        visits = [draw_visits(settings.users, np.random.default_rng([settings.seed, 5, number])) for number in days]
        bursts: dict[Log, Bursts] = {}
        for log in LOGS:
            purpose = 7 if log == "ad" and settings.unrelated_domains else 6
            today, yesterday = (
                Bursts.draw(
                    visit_ms_UV,
                    rate=settings.burst_rate,
                    categories=settings.num_categories,
                    mean_hours=settings.burst_hours,
                    rng=np.random.default_rng([settings.seed, purpose, number]),
                )
                for visit_ms_UV, number in zip(visits, days, strict=True)
            )
            bursts[log] = today.and_of_yesterday(yesterday)
        return visits[0], bursts

    def _draw_requests(self, rng: np.random.Generator) -> dict[Log, np.ndarray]:
        settings = self.settings
        activity_U = rng.lognormal(0.0, 0.6, settings.users)
        ad_activity_U = np.sqrt(activity_U) * rng.lognormal(0.0, 0.3, settings.users)
        return {
            "natural": settings.natural_requests * activity_U / activity_U.mean(),
            "ad": settings.ad_requests * ad_activity_U / ad_activity_U.mean(),
        }

    def _calibrated(self, log: Log, rate: float, rng: np.random.Generator) -> float:
        """The base at which a large draw of the domain's impressions has this click-through rate; by bisection."""
        count = 50_000
        user_N = rng.choice(self.settings.users, count, p=self.requests_U[log] / self.requests_U[log].sum())
        item_N = rng.choice(self.settings.items, count, p=self.item_shares(log))
        time_ms_N = draw_times(log, user_N, self.visit_ms_UV, rng)
        preference_N = self._preference(log, user_N, item_N, rng.choice(PLACES[log], count), time_ms_N)
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


def _daily(monthly: float) -> float:
    """The share of a day that makes this share of 30."""
    return float(1 - (1 - monthly) ** (1 / 30))


def _nearest(points_ND: np.ndarray, centres_KD: np.ndarray) -> np.ndarray:
    """Index 0..K-1 of the direction that each point (N) lies nearest to."""
    unit_KD = centres_KD / np.linalg.norm(centres_KD, axis=1, keepdims=True)
    nearest_N: np.ndarray = np.argmax(points_ND @ unit_KD.T, axis=1)
    return nearest_N


def _sigmoid(logit: np.ndarray) -> np.ndarray:
    probability: np.ndarray = 1.0 / (1.0 + np.exp(-logit))
    return probability
