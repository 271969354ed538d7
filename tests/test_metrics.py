"""Metrics against brute force."""

import numpy as np
import pytest

from training.metrics import auc, evaluate, gauc, logloss


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


@pytest.mark.parametrize("rows", [0, 3])
def test_undefined_figures_are_none(rows):
    values = evaluate(np.full(rows, 0.5), np.ones(rows, np.int64), np.arange(rows))
    assert values["auc"] is None and values["gauc"] is None and values["gauc_plain"] is None
    assert (values["logloss"] is None) == (rows == 0)
