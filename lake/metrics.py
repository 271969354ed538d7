"""AUC, GAUC, LogLoss and calibration of scores, as training reports them and the gate uses them; in numpy, without a loop over users.

GAUC is the AUC within each user, over users that have both labels: `gauc` weighs users by their impressions,
`gauc_plain` is the plain mean. Calibration: `ece` is the expected calibration error (Naeini et al., AAAI 2015) over
bins of equal count, `predicted_over_observed` the sum of the scores over the clicks.

A figure that cannot be computed from the rows, whatever their scores are, is None. Any other is NaN where a score is
NaN or infinite: such a score has no rank, and a model that gives it must not pass on the strength of the other rows.
docs/metrics.md compares these definitions with those of other libraries.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
Labels = NDArray[np.int64]
METRICS = ("auc", "gauc", "gauc_plain", "logloss", "ece", "predicted_over_observed")
CALIBRATION_BINS = 10
_EPSILON = 1e-7  # scores are float32 sigmoids: nearer to 0 or 1 than this they carry no information


def num_not_finite(scores: Scores) -> int:
    """How many scores (N) are NaN or infinite."""
    return int((~np.isfinite(scores)).sum())


def figure_text(value: float | None, form: str = ".4f") -> str:
    """A figure as text: `-` if it is not defined on the rows, `NaN` if a score was not a finite number."""
    return "-" if value is None else "NaN" if np.isnan(value) else f"{value:{form}}"


def has_both_labels(clicks: Labels, groups: Labels) -> NDArray[np.bool_]:
    """For each group, in ascending order, whether it has both a row with a click and a row without one.

    Args:
        clicks: N, 0 or 1.
        groups: N, any integers.
    """
    _, of_row = np.unique(groups, return_inverse=True)
    row_cnt, positives = np.bincount(of_row), np.bincount(of_row, clicks)
    return (positives > 0) & (positives < row_cnt)


def grouped_auc(scores: Scores, clicks: Labels, groups: Labels) -> tuple[NDArray[np.float64], Labels]:
    """AUC within each group, ties counting half.

    Args:
        scores: N.
        clicks: N, 0 or 1.
        groups: N, any integers.

    Returns:
        AUC and number of rows of each group, in ascending order of group. The AUC is NaN where the group lacks one of
            the labels
        (`has_both_labels`); if any score is not finite, it is NaN for all groups, so that no mean over groups ignores
            it.
    """
    if len(scores) == 0:
        return np.zeros(0), np.zeros(0, np.int64)
    order = np.lexsort((scores, groups))
    scores, clicks, groups = scores[order], clicks[order], groups[order]
    new_group = np.r_[True, groups[1:] != groups[:-1]]
    new_run = new_group | np.r_[True, scores[1:] != scores[:-1]]  # a run: equal scores within a group
    starts = np.flatnonzero(new_group)
    run_starts = np.flatnonzero(new_run)
    run_ends = np.r_[run_starts[1:], len(scores)]
    rank = ((run_starts + run_ends - 1) / 2.0)[np.cumsum(new_run) - 1] - starts[np.cumsum(new_group) - 1] + 1
    row_cnt = np.diff(np.r_[starts, len(scores)])
    positives = np.add.reduceat(clicks, starts)
    negatives = row_cnt - positives
    wins = np.add.reduceat(np.where(clicks == 1, rank, 0.0), starts) - positives * (positives + 1) / 2.0
    pairs = (positives * negatives).astype(np.float64)
    if num_not_finite(scores):
        return np.full(len(starts), np.nan), row_cnt
    return np.divide(wins, pairs, out=np.full(len(starts), np.nan), where=pairs > 0), row_cnt


def auc(scores: Scores, clicks: Labels) -> float | None:
    """Area under the ROC curve, ties counting half; None where one of the labels is absent, NaN where a score is not finite."""
    return gauc(scores, clicks, np.zeros(len(scores), np.int64), weighted=False)  # all rows are one user's


class Ranks:
    """AUC of scores under any weights of the rows, ties counting half: they are sorted only once for the many draws of a bootstrap.

    Args:
        scores: N.
        clicks: N, 0 or 1.
    """

    def __init__(self, scores: Scores, clicks: Labels) -> None:
        self._order = np.argsort(scores, kind="stable")
        in_order = scores[self._order]
        self._clicks = clicks[self._order]
        self._starts = np.flatnonzero(np.r_[True, in_order[1:] != in_order[:-1]])  # of runs of equal scores

    def auc(self, weight: Scores) -> float:
        """AUC under weights (N, >= 0); NaN where the weighted rows lack one of the labels."""
        weight = weight[self._order]
        positive = np.add.reduceat(weight * self._clicks, self._starts)
        negative = np.add.reduceat(weight * (1 - self._clicks), self._starts)
        pairs = positive.sum() * negative.sum()
        below = np.cumsum(negative) - negative
        return float((positive * (below + negative / 2)).sum() / pairs) if pairs > 0 else float("nan")


def gauc(scores: Scores, clicks: Labels, user_ids: Labels, *, weighted: bool = True) -> float | None:
    """Mean of the users' AUC, weighted by their impressions or plain.

    None where no user has both labels; otherwise NaN where any score is not finite.
    """
    values, row_cnt = grouped_auc(scores, clicks, user_ids)
    known = has_both_labels(clicks, user_ids)
    if not known.any():
        return None
    return float(np.average(values[known], weights=row_cnt[known] if weighted else None))


def logloss(scores: Scores, clicks: Labels) -> float | None:
    """Mean negative log-likelihood; None without rows, NaN where a score is not finite."""
    return float(np.mean(row_losses(scores, clicks))) if len(scores) else None


def row_losses(scores: Scores, clicks: Labels) -> Scores:
    """Negative log-likelihood of each row, N; NaN where the row's score is not finite."""
    clipped = np.clip(scores, _EPSILON, 1 - _EPSILON)
    return np.where(np.isfinite(scores), -np.where(clicks == 1, np.log(clipped), np.log1p(-clipped)), np.nan)


def calibration(scores: Scores, clicks: Labels, bins: int = CALIBRATION_BINS) -> NDArray[np.float64]:
    """Rows in order of score, cut into bins of equal count: (mean score, click rate, rows) of each, at most `bins` x 3."""
    return np.array(
        [(scores[part].mean(), clicks[part].mean(), len(part)) for part in equal_bins(scores, bins)]
    ).reshape(-1, 3)


def equal_bins(scores: Scores, bins: int = CALIBRATION_BINS) -> list[NDArray[np.intp]]:
    """Rows in order of score, cut into at most `bins` bins of equal count."""
    order = np.argsort(scores, kind="stable")
    return [part for part in np.array_split(order, bins) if len(part)]


def ece(scores: Scores, clicks: Labels) -> float | None:
    """Mean distance between score and click rate over the bins of `calibration`, weighted by rows; None without rows.

    NaN where a score is not finite.
    """
    if num_not_finite(scores):
        return np.nan
    of_bins = calibration(scores, clicks)
    return float(np.average(np.abs(of_bins[:, 0] - of_bins[:, 1]), weights=of_bins[:, 2])) if len(of_bins) else None


def predicted_over_observed(scores: Scores, clicks: Labels) -> float | None:
    """Expected clicks over clicks; None without a click, NaN where a score is not finite."""
    if not clicks.sum():
        return None
    return np.nan if num_not_finite(scores) else float(scores.sum() / clicks.sum())


def evaluate(scores: Scores, clicks: Labels, user_ids: Labels) -> dict[str, float | None]:
    """All of `METRICS`; a figure that is not defined on these rows is None, and the others are NaN where a score is not finite."""
    return {
        "auc": auc(scores, clicks),
        "gauc": gauc(scores, clicks, user_ids),
        "gauc_plain": gauc(scores, clicks, user_ids, weighted=False),
        "logloss": logloss(scores, clicks),
        "ece": ece(scores, clicks),
        "predicted_over_observed": predicted_over_observed(scores, clicks),
    }


def base_rate_shift(scores: NDArray[np.float64], base_rate: float) -> float:
    """What to add to the log-odds of scores (N) so that their mean is `base_rate`.

    0 where the base rate is 0 or 1, or there is no score; NaN where a score is not finite.
    """
    if len(scores) == 0 or not 0 < base_rate < 1:
        return 0.0
    if num_not_finite(scores):
        return np.nan
    clipped = np.clip(scores, _EPSILON, 1 - _EPSILON)
    odds, low, high = np.log(clipped / (1 - clipped)), -40.0, 40.0
    for _ in range(60):  # the mean grows with the shift
        middle = (low + high) / 2
        low, high = (middle, high) if (1 / (1 + np.exp(-(odds + middle)))).mean() < base_rate else (low, middle)
    return (low + high) / 2
