"""Metrics against brute force."""

import numpy as np
import pytest

from lake.metrics import auc, base_rate_shift, calibration, ece, evaluate, gauc, logloss, predicted_over_observed


def _brute_auc(scores, clicks):
    positives, negatives = scores[clicks == 1], scores[clicks == 0]
    if len(positives) == 0 or len(negatives) == 0:
        return None
    wins = [float(p > n) + 0.5 * float(p == n) for p in positives for n in negatives]
    return sum(wins) / len(wins)


@pytest.mark.parametrize("seed", range(5))
def test_auc_and_gauc_equal_brute_force(seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 8, 300) / 8.0  # many ties
    clicks, users = rng.integers(0, 2, 300), rng.integers(0, 100, 300) * 10**12
    by_user = {user: (_brute_auc(scores[users == user], clicks[users == user]), int((users == user).sum())) for user in np.unique(users)}
    known = [(value, count) for value, count in by_user.values() if value is not None]
    assert len(known) < len(by_user), "some user lacks a label, or this test would not cover it"
    assert auc(scores, clicks) == pytest.approx(_brute_auc(scores, clicks))
    assert gauc(scores, clicks, users) == pytest.approx(sum(v * c for v, c in known) / sum(c for _, c in known))
    assert gauc(scores, clicks, users, weighted=False) == pytest.approx(sum(v for v, _ in known) / len(known))


def test_logloss_equals_its_definition():
    scores, clicks = np.array([0.9, 0.2, 0.6]), np.array([1, 0, 0])
    assert logloss(scores, clicks) == pytest.approx(-(np.log(0.9) + np.log(0.8) + np.log(0.4)) / 3)


def test_certain_and_wrong_is_finite():
    value = logloss(np.array([1.0]), np.array([0]))
    assert value is not None and 15 < value < 17


def test_calibration_equals_a_loop_over_bins():
    rng = np.random.default_rng(2)
    scores = rng.random(97)
    clicks = (rng.random(97) < scores**2).astype(np.int64)
    ordered = sorted(zip(scores.tolist(), clicks.tolist(), strict=True))
    sizes, at, distance = [10] * 7 + [9] * 3, 0, 0.0
    for size, found in zip(sizes, calibration(scores, clicks), strict=True):
        part, at = ordered[at:at + size], at + size
        mean, rate = sum(s for s, _ in part) / size, sum(c for _, c in part) / size
        assert found.tolist() == pytest.approx([mean, rate, size])
        distance += abs(mean - rate) * size
    assert ece(scores, clicks) == pytest.approx(distance / 97) and distance > 1
    assert predicted_over_observed(scores, clicks) == pytest.approx(scores.sum() / clicks.sum())


@pytest.mark.parametrize("rows", [0, 3])
def test_undefined_figures_are_none(rows):
    values = evaluate(np.full(rows, 0.5), np.ones(rows, np.int64), np.arange(rows))
    assert values["auc"] is None and values["gauc"] is None and values["gauc_plain"] is None
    assert (values["logloss"] is None) == (rows == 0)
    assert (values["ece"] is None) == (values["predicted_over_observed"] is None) == (rows == 0)


def test_nothing_clicked_has_no_ratio_to_the_clicks():
    assert predicted_over_observed(np.array([0.1]), np.array([0])) is None


def test_a_shift_of_the_log_odds_gives_the_base_rate():
    scores = np.random.default_rng(0).uniform(0.3, 0.9, 1000)
    shift = base_rate_shift(scores, 0.1)
    assert (1 / (1 + np.exp(-(np.log(scores / (1 - scores)) + shift)))).mean() == pytest.approx(0.1)
    assert base_rate_shift(scores, scores.mean()) == pytest.approx(0.0, abs=1e-9)
    assert base_rate_shift(scores, 0.0) == base_rate_shift(scores[:0], 0.5) == 0.0
