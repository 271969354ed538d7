"""The figures of the transfer benchmark: each draw of users against a recomputation on the drawn rows."""

import numpy as np
import pytest

from benchmarks.transfer import Draws, Scores, _gains, bootstrap
from lake.metrics import auc, gauc, logloss

RNG = np.random.default_rng(3)


def _rows(count=300, users=20):
    users_of = RNG.integers(0, users, count)
    scores = np.round(RNG.random(count), 1)  # many ties
    return users_of, scores, (RNG.random(count) < scores).astype(np.int64)


def test_a_draw_of_users_gives_the_metrics_of_the_drawn_rows():
    users, scores, clicks = _rows()
    draws = RNG.multinomial(20, np.full(20, 1 / 20), size=7)
    found = bootstrap(scores, clicks, users, draws)
    for number, counts in enumerate(draws):
        at = np.concatenate([np.flatnonzero(users == user) for user in range(20) for _ in range(counts[user])])
        # A user who is drawn twice is two users.
        copies = np.concatenate(
            [np.full((users == user).sum(), 100 * user + copy) for user in range(20) for copy in range(counts[user])]
        )
        assert found["auc"][number] == pytest.approx(auc(scores[at], clicks[at]))
        assert found["gauc"][number] == pytest.approx(gauc(scores[at], clicks[at], copies))
        assert found["logloss"][number] == pytest.approx(logloss(scores[at], clicks[at]))


def test_equal_settings_gain_nothing_and_a_better_one_gains_with_every_draw():
    users, scores, clicks = _rows()
    worse = np.stack([RNG.random(len(scores)) for _ in range(3)])
    rows = Scores(
        users=users, clicks=clicks, of={"none": worse, "same": worse, "tpm+cpm": np.stack([scores] * 3)}, truth=None
    )
    draws = Draws(
        users=RNG.multinomial(20, np.full(20, 1 / 20), size=50), seeds=RNG.multinomial(3, np.full(3, 1 / 3), size=50)
    )
    assert set(_gains(rows, "same", draws, "none").values()) == {(0.0, 0.0, 0.0)}
    mean, low, high = _gains(rows, "tpm+cpm", draws, "none")["auc_gain"]
    assert 0 < low < mean < high
    whole = auc(scores, clicks)
    assert whole is not None
    expected = whole - float(np.mean([auc(seed, clicks) for seed in worse]))
    assert mean == pytest.approx(expected)
