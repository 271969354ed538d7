"""The paired comparison of scored days."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from training.compare import Scored, difference


def scored(rng: np.random.Generator, *, ours: float, base: float, users: int = 300, rows: int = 12) -> Scored:
    """Clicks drawn from a logit; each variant sees it with its own strength, in noise."""
    logit = rng.normal(size=users * rows)
    clicks = (rng.random(users * rows) < 1 / (1 + np.exp(-2 * logit))).astype(np.int64)
    noisy = {
        name: strength * logit + rng.normal(size=users * rows) for name, strength in (("tpm+cpm", ours), ("none", base))
    }
    days = np.full(users * rows, np.datetime64("2026-01-01"))
    return Scored(
        days=days,
        event_ids=np.arange(users * rows),
        user_ids=np.repeat(np.arange(users), rows),
        clicks=clicks,
        scores=noisy,
    )


def test_a_better_variant_is_above_zero() -> None:
    found = difference(scored(np.random.default_rng(1), ours=2.0, base=0.5), "tpm+cpm")
    assert found is not None
    assert found.low is not None and found.high is not None
    assert 0 < found.low < found.value < found.high
    assert "above zero" in str(found)


def test_equal_variants_are_not_distinguished() -> None:
    """Over thirty worlds without a difference, a 95 % interval excludes zero in a few of them, not in many."""
    excluded = 0
    for seed in range(30):
        found = difference(scored(np.random.default_rng(seed), ours=1.0, base=1.0, users=80), "tpm+cpm")
        assert found is not None and found.low is not None and found.high is not None
        excluded += not found.low <= 0 <= found.high
    assert excluded <= 5


def test_the_difference_is_that_of_the_gaucs() -> None:
    rows = scored(np.random.default_rng(3), ours=1.5, base=1.0)
    found = difference(rows, "tpm+cpm")
    ours, base = rows.gauc("tpm+cpm"), rows.gauc("none")
    assert found is not None and ours is not None and base is not None
    assert found.value == pytest.approx(ours - base)


def test_no_user_with_both_labels_is_no_figure() -> None:
    rows = scored(np.random.default_rng(4), ours=1.0, base=1.0)
    only_clicks = replace(rows, clicks=np.ones_like(rows.clicks))
    assert difference(only_clicks, "tpm+cpm") is None
    assert only_clicks.gauc("none") is None
    assert only_clicks.num_judged == 0


def test_scores_that_are_not_numbers_are_no_difference_and_are_counted() -> None:
    rows = scored(np.random.default_rng(5), ours=2.0, base=0.5)
    rows.scores["tpm+cpm"][[7, 400]] = [np.nan, np.inf]
    found = difference(rows, "tpm+cpm")
    assert found is not None and np.isnan(found.value) and found.low is found.high is None
    assert found.verdict == "not a number" and str(found) == "tpm+cpm - none: not a number, since scores are not"
    assert (
        np.isnan(np.array([rows.auc("tpm+cpm"), rows.gauc("tpm+cpm")], float)).all()
        and np.isfinite(np.array([rows.auc("none"), rows.gauc("none")], float)).all()
    )
    assert rows.num_judged == replace(rows, scores={}).num_judged > 100
    assert list(rows.not_numbers.values()) == [
        "2 of 3600 scores of tpm+cpm are not numbers: its figures on these rows are NaN"
    ]
