"""One fixed set of scored rows, and each library's AUC, GAUC and LogLoss on it as a plain formula. Needs only numpy.

A formula stands for a library where that is not installed; `benchmarks.metrics` shows that it gives what the library
gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
ROWS, USERS, ORDERS, SEED = 3000, 400, 8, 11
STEPS = 64  # scores are multiples of 1/64: many are equal, and float32 holds each exactly
THRESHOLDS = 200  # of TorchEasyRec's AUC, by default


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Scored rows, N each: scores in [0, 1], clicks 0 or 1, user ids from 0, weights of the rows."""

    scores: Floats
    clicks: Ints
    users: Ints
    weights: Floats

    def at(self, places: Any) -> Rows:
        """The rows at some places, in that order."""
        return Rows(
            scores=self.scores[places],
            clicks=self.clicks[places],
            users=self.users[places],
            weights=self.weights[places],
        )

    def with_score(self, place: int, score: float) -> Rows:
        """With another score at one place."""
        scores = self.scores.copy()
        scores[place] = score
        return replace(self, scores=scores)

    def by_user(self) -> list[Rows]:
        """The rows of each user, in their order."""
        return [self.at(np.flatnonzero(self.users == user)) for user in np.unique(self.users)]

    def judged(self) -> list[Rows]:
        """Of users with both labels."""
        return [own for own in self.by_user() if 0 < own.clicks.sum() < len(own.clicks)]


def fixed_rows() -> Rows:
    """The set: few users have many rows and many users few, some of these with only one label."""
    rng = np.random.default_rng(SEED)
    users = np.minimum((USERS * rng.random(ROWS) ** 2.5).astype(np.int64), USERS - 1)
    logit = -1 + 1.3 * rng.normal(size=ROWS) + 0.8 * rng.normal(size=USERS)[users]
    clicks = (rng.random(ROWS) < 1 / (1 + np.exp(-logit))).astype(np.int64)
    seen = 1 / (1 + np.exp(-(0.7 * logit + 0.7 * rng.normal(size=ROWS))))
    scores = np.clip(np.round(seen * STEPS), 1, STEPS - 1) / STEPS
    return Rows(scores=scores, clicks=clicks, users=users, weights=rng.integers(1, 5, ROWS).astype(np.float64))


def cases(rows: Rows) -> Mapping[str, list[Rows]]:
    """What each figure is taken of: the set; its rows without equal scores, and in other orders; users with both labels; a bad score."""
    rng = np.random.default_rng(SEED)
    of_both = np.concatenate([np.flatnonzero(rows.users == own.users[0]) for own in rows.judged()])
    clicked = int(np.flatnonzero((rows.clicks == 1) & (rows.users == rows.judged()[0].users[0]))[0])
    apart = replace(rows, scores=rows.scores + rng.permutation(ROWS) / 2**18)
    return {
        "all": [rows],
        "no ties": [apart],
        "orders": [rows.at(rng.permutation(ROWS)) for _ in range(ORDERS)],
        "both labels": [rows.at(np.sort(of_both))],
        "NaN": [rows.with_score(clicked, np.nan)],
        "infinite": [rows.with_score(clicked, np.inf)],
        "certain and wrong": [rows.with_score(clicked, 0.0)],
    }


def area(rows: Rows, equal: float = 0.5, *, weighted: bool = False) -> float:
    """Share of the pairs (a click, a row without one) in the right order.

    Args:
        rows: the scored rows, with and without a click.
        equal: how much a pair with equal scores counts.
        weighted: whether the weight of a pair is the product of its rows' weights; otherwise all pairs weigh the same.
    """
    ups, downs = np.flatnonzero(rows.clicks == 1), np.flatnonzero(rows.clicks == 0)
    weights = rows.weights[ups][:, None] * rows.weights[downs] if weighted else np.ones((len(ups), len(downs)))
    of_ups, of_downs = rows.scores[ups][:, None], rows.scores[downs]
    return float((weights * ((of_ups > of_downs) + equal * (of_ups == of_downs))).sum() / weights.sum())


def weighted_area(rows: Rows, equal: float = 0.5) -> float:
    """The same by weights of the rows."""
    return area(rows, equal, weighted=True)


def area_at_thresholds(rows: Rows, equal: float = 0.5) -> float:
    """The area under the line through the points of the ROC curve at 200 thresholds; equal scores always count half."""
    above = rows.scores[:, None] >= np.linspace(0, 1, THRESHOLDS)[None, :]
    hits, alarms = (above[rows.clicks == label].mean(axis=0)[::-1] for label in (1, 0))
    return float((np.diff(alarms) * (hits[1:] + hits[:-1]) / 2).sum())


def by_impressions(rows: Rows, equal: float = 0.5) -> float:
    """Mean AUC of the users with both labels, each weighing as its rows."""
    return float(
        np.average([area(own, equal) for own in rows.judged()], weights=[len(own.clicks) for own in rows.judged()])
    )


def by_positives(rows: Rows, equal: float = 0.5) -> float:
    """Mean AUC of the users with both labels, each weighing as its clicks."""
    return float(
        np.average([area(own, equal) for own in rows.judged()], weights=[own.clicks.sum() for own in rows.judged()])
    )


def plain(rows: Rows, equal: float = 0.5) -> float:
    """Plain mean of the AUC of the users with both labels."""
    return float(np.mean([area(own, equal) for own in rows.judged()]))


def plain_of_several_scores(rows: Rows, equal: float = 0.5) -> float:
    """Plain mean of the AUC of the users with both labels and at least two scores."""
    return float(np.mean([area(own, equal) for own in rows.judged() if len(np.unique(own.scores)) > 1]))


def by_impressions_of_all(rows: Rows, equal: float = 0.5) -> float:
    """By impressions over all users: NaN if one of them has only one label."""
    return by_impressions(rows, equal) if len(rows.judged()) == len(np.unique(rows.users)) else float("nan")


def loss(nearest: float, *, weighted: bool = False, base: float = np.e) -> Callable[[Rows], float]:
    """LogLoss to a base, scores nearer than `nearest` to 0 or 1 moved to there."""

    def formula(rows: Rows) -> float:
        scores = np.clip(rows.scores, nearest, 1 - nearest)
        with np.errstate(divide="ignore"):
            losses = -np.log(np.where(rows.clicks == 1, scores, 1 - scores)) / np.log(base)
        return float(np.average(losses, weights=rows.weights if weighted else None))

    return formula


SMALLEST = float(np.finfo(np.float64).eps)
# The definition of each library's figure, by library and the figure's name in it.
FORMULAS: Mapping[tuple[str, str], Callable[..., float]] = {
    ("tributary", "auc"): area,
    ("tributary", "gauc"): by_impressions,
    ("tributary", "gauc_plain"): plain,
    ("tributary", "logloss"): loss(1e-7),
    ("fuxictr", "AUC"): area,
    ("fuxictr", "gAUC"): by_impressions,
    ("fuxictr", "avgAUC"): plain,
    ("fuxictr", "logloss"): loss(SMALLEST),
    ("recbole", "AUC"): area,
    ("recbole", "GAUC"): by_positives,
    ("recbole", "LogLoss"): loss(1e-15),
    ("tzrec", "auc"): area_at_thresholds,
    ("tzrec", "grouped_auc"): plain,
    ("rechub", "auc_score"): area,
    ("rechub", "gauc_score"): by_impressions_of_all,
    ("rechub", "log_loss"): loss(0.0),
    ("torchrec", "auc"): area,
    ("torchrec", "auc, weights"): weighted_area,
    ("torchrec", "gauc"): plain_of_several_scores,
    ("torchrec", "logloss, weights"): loss(1e-12, weighted=True, base=2.0),
}
# Figures in which the place of the rows decides over equal scores: anything between all pairs lost and all won.
BY_PLACE = {("torchrec", "auc"), ("torchrec", "auc, weights"), ("torchrec", "gauc")}
ROUNDING = 3e-6  # several libraries add up in float32


def agrees(library: str, name: str, figures: Mapping[str, list[float | str]], case: str, rows: Rows) -> bool:
    """Whether a library's figure in a case is its formula's."""
    formula, found = FORMULAS[library, name], figures[case][0]
    if isinstance(found, str):
        return False
    if (library, name) in BY_PLACE:
        return formula(rows, 0.0) - ROUNDING <= found <= formula(rows, 1.0) + ROUNDING
    return bool(np.isclose(found, formula(rows), rtol=0, atol=ROUNDING, equal_nan=True))
