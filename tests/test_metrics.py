"""Metrics against brute force."""

import numpy as np
import pytest

from benchmarks.rivals.common import auc as auc_of_rivals
from lake.metrics import (
    METRICS,
    auc,
    base_rate_shift,
    calibration,
    ece,
    evaluate,
    figure_text,
    gauc,
    grouped_auc,
    has_both_labels,
    logloss,
    predicted_over_observed,
    row_losses,
)


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
    by_user = {
        user: (_brute_auc(scores[users == user], clicks[users == user]), int((users == user).sum()))
        for user in np.unique(users)
    }
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
        part, at = ordered[at : at + size], at + size
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


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", ["click", "none", "user of one label"])
def test_a_score_that_is_not_a_number_makes_every_figure_nan(bad, at):
    rng = np.random.default_rng(4)
    scores, clicks, users = rng.random(60), rng.integers(0, 2, 60), np.repeat(np.arange(6), 10)
    clicks[users == 5] = 0
    assert all(value is not None and np.isfinite(value) for value in evaluate(scores, clicks, users).values())
    place = {"click": np.flatnonzero(clicks == 1)[3], "none": np.flatnonzero(clicks == 0)[3], "user of one label": 55}[
        at
    ]
    scores[place] = bad
    found = evaluate(scores, clicks, users)
    assert set(found) == set(METRICS) and all(value is not None and np.isnan(value) for value in found.values())
    assert np.isnan(grouped_auc(scores, clicks, users)[0]).all() and np.isnan(auc_of_rivals(clicks, scores))
    assert np.flatnonzero(np.isnan(row_losses(scores, clicks))).tolist() == [place]
    assert has_both_labels(clicks, users).tolist() == [True] * 5 + [False]
    assert np.isnan(base_rate_shift(scores, 0.1))


def test_figures_that_no_score_could_define_stay_undefined():
    found = evaluate(np.full(3, np.nan), np.zeros(3, np.int64), np.arange(3))
    assert {name for name, value in found.items() if value is None} == {
        "auc",
        "gauc",
        "gauc_plain",
        "predicted_over_observed",
    }
    assert [figure_text(value) for value in (None, np.nan, 0.25)] == ["-", "NaN", "0.2500"]


def test_nothing_clicked_has_no_ratio_to_the_clicks():
    assert predicted_over_observed(np.array([0.1]), np.array([0])) is None


def test_a_shift_of_the_log_odds_gives_the_base_rate():
    scores = np.random.default_rng(0).uniform(0.3, 0.9, 1000)
    shift = base_rate_shift(scores, 0.1)
    assert (1 / (1 + np.exp(-(np.log(scores / (1 - scores)) + shift)))).mean() == pytest.approx(0.1)
    assert base_rate_shift(scores, scores.mean()) == pytest.approx(0.0, abs=1e-9)
    assert base_rate_shift(scores, 0.0) == base_rate_shift(scores[:0], 0.5) == 0.0
