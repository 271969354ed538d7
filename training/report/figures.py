"""Figures of scored rows with their intervals: over all rows, by day, by slice, by bin of the score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from contracts.features import STATISTIC_COLUMNS
from lake.metrics import equal_bins, grouped_auc, has_both_labels, num_not_finite, row_losses
from lake.progress import each
from lake.reader import LakeReader
from training.compare import Scored
from training.data.samples import Columns, read_day
from training.intervals import Estimate, ratios
from training.slices import slices

Mask = NDArray[np.bool_]
_SLICED_BY = ("item_id", *STATISTIC_COLUMNS)


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Rows of about one score: their mean score, and their click rate with its interval."""

    mean_score: float
    click_rate: Estimate
    row_cnt: int


def gauc_of(scored: Scored, *, minus: str | None = None, weighted: bool = True) -> dict[str, Estimate]:
    """GAUC by setting, over users with both labels; of `minus`, the difference to that setting. Empty where there is no such user.

    NaN of a setting with a score that is not finite.
    """
    if not len(scored.clicks):
        return {}
    of_users = {name: grouped_auc(scores, scored.clicks, scored.user_ids) for name, scores in scored.scores.items()}
    counts = next(iter(of_users.values()))[1].astype(np.float64)
    known = has_both_labels(scored.clicks, scored.user_ids)
    weight = np.where(known, counts if weighted else 1.0, 0.0)
    base = of_users[minus][0] if minus else 0.0
    return ratios(
        {name: np.where(known, aucs - base, 0.0) * weight for name, (aucs, _) in of_users.items() if name != minus},
        weight,
    )


def logloss_of(scored: Scored, *, minus: str | None = None) -> dict[str, Estimate]:
    """LogLoss by setting, over all users; of `minus`, the difference to that setting. Empty of no rows.

    NaN of a setting with a score that is not finite.
    """
    if not len(scored.clicks):
        return {}
    _, user = np.unique(scored.user_ids, return_inverse=True)
    losses = {name: np.bincount(user, row_losses(scores, scored.clicks)) for name, scores in scored.scores.items()}
    base = losses[minus] if minus else 0.0
    return ratios(
        {name: loss - base for name, loss in losses.items() if name != minus}, np.bincount(user).astype(np.float64)
    )


def by_day(scored: Scored, days: Sequence[date]) -> dict[date, tuple[dict[str, Estimate], dict[str, Estimate]]]:
    """GAUC and LogLoss of each day that has scored rows."""
    parts = {day: scored.on(day) for day in each(days, description="figures by day", unit="day")}
    return {day: (gauc_of(part), logloss_of(part)) for day, part in parts.items() if len(part.clicks)}


def calibration_of(scored: Scored) -> dict[str, list[Bin]]:
    """Bins of equal count by setting, in order of score; none of a setting with a score that is not finite, which has no order."""
    _, user = np.unique(scored.user_ids, return_inverse=True)
    return {
        name: []
        if num_not_finite(scores)
        else [_bin(scores[part], scored.clicks[part], user[part]) for part in equal_bins(scores)]
        for name, scores in scored.scores.items()
    }


def _bin(scores: NDArray[np.float64], clicks: NDArray[np.int64], user: NDArray[np.int64]) -> Bin:
    rate = ratios({"clicks": np.bincount(user, clicks)}, np.bincount(user).astype(np.float64))["clicks"]
    return Bin(mean_score=float(scores.mean()), click_rate=rate, row_cnt=len(scores))


def slice_masks(reader: LakeReader, scored: Scored, days: Sequence[date]) -> Mapping[str, Mask]:
    """Which scored rows are in each slice, by what was known before their day; rows whose sample is gone are in none."""
    found: dict[str, Mask] = {}
    for day in each(days, description="read ad samples", unit="day"):
        at = np.flatnonzero(scored.days == np.datetime64(day))
        if not len(at):
            continue
        samples = read_day(reader, day, Columns(log="ad", names=_SLICED_BY))
        order = np.argsort(samples.event_id)
        place = np.searchsorted(samples.event_id[order], scored.event_ids[at])
        there = np.append(samples.event_id[order], -1)[place] == scored.event_ids[at]
        for name, mask in slices(samples).items():
            of_slice = found.setdefault(name, np.zeros(len(scored.clicks), bool))
            of_slice[at[there]] = mask[order][place[there]]
    return found
