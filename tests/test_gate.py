"""The gate's judgement on made scores: what noise does, what a broken model does, and what only warns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from validation.gate import GateCheck, GateSettings, HeldOutRows, check_figures, judge


def world(seed: int, *, users: int = 400, requests: int = 5, candidates: int = 4, noise: float = 0.25) -> HeldOutRows:
    """Held-out requests of users with tastes; two models see the same truth, each with an error of its own per user and per row."""
    rng = np.random.default_rng(seed)
    user = np.repeat(rng.integers(0, users, users * requests // candidates), candidates)
    logit = -2.2 + 1.2 * rng.normal(size=len(user)) + 0.5 * rng.normal(size=users)[user]
    clicks = (rng.random(len(user)) < 1 / (1 + np.exp(-logit))).astype(np.int64)

    def model() -> np.ndarray:
        return 1 / (1 + np.exp(-(logit + noise * rng.normal(size=len(user)) + noise * rng.normal(size=users)[user])))

    return HeldOutRows(user_ids=user, clicks=clicks, scores=model(), before=model())


def refused(checks: list[GateCheck]) -> set[str]:
    return {check.name for check in checks if not check.passed and check.severity == "fail"}


def warned(checks: list[GateCheck]) -> set[str]:
    return {check.name for check in checks if not check.passed and check.severity == "warn"}


FEWER_DRAWS = GateSettings(draws=100)


def test_noise_refuses_no_healthy_model() -> None:
    """Thirty draws of 2,000 rows, two equally good models each; without tolerance and bound half of them would be refused."""
    rows = [world(seed) for seed in range(30)]
    assert len(rows[0].scores) == 2000
    assert [refused(judge(one, refuse_figures=True, settings=FEWER_DRAWS)) for one in rows] == [set()] * 30
    strict = GateSettings(draws=100, auc_tolerance=0, logloss_tolerance=0, confidence=0.5)
    assert 10 <= sum("auc" in refused(judge(one, refuse_figures=True, settings=strict)) for one in rows) <= 20


BROKEN = {
    "shuffled": (lambda scores, rng: rng.permutation(scores), {"auc", "logloss"}),
    "constant": (lambda scores, rng: np.full_like(scores, scores.mean()), {"auc", "logloss"}),
    "inverted": (lambda scores, rng: 1 - scores, {"auc", "logloss", "calibration"}),
    "half": (lambda scores, rng: scores / 2, {"logloss", "calibration"}),
    "double": (lambda scores, rng: np.minimum(2 * scores, 0.99), {"logloss", "calibration"}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_model_is_refused(name: str) -> None:
    broken, expected = BROKEN[name]
    for seed in range(3):
        rows = world(seed)
        found = judge(
            replace(rows, scores=broken(rows.scores, np.random.default_rng(seed))),
            refuse_figures=True,
            settings=FEWER_DRAWS,
        )
        assert refused(found) == expected, (seed, found)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -0.1, 1.1])
def test_a_score_that_is_no_probability_is_refused_whatever_the_rows(bad: float) -> None:
    rows = world(1, users=20)
    rows.scores[3] = bad
    for figures in (True, False):
        checks = judge(rows, refuse_figures=figures)
        assert refused(checks) == {"finite"}
        assert [check.found for check in checks if check.name == "finite"] == [f"1 of {len(rows.scores)} are not"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -0.1])
def test_a_model_before_that_gives_no_numbers_is_named_and_not_compared_with(bad: float) -> None:
    rows = world(7)
    assert rows.before is not None
    rows.before[:2] = bad
    checks = judge(rows, refuse_figures=True, settings=FEWER_DRAWS)
    assert refused(checks) == set() and warned(checks) == {"before"}
    assert [check.found for check in checks if check.name == "before"] == [
        f"2 of {len(rows.scores)} are not: not compared with it"
    ]
    assert not {"auc", "logloss"} & {check.name for check in checks}
    assert "calibration" in refused(
        judge(replace(rows, scores=rows.scores / 3), refuse_figures=True, settings=FEWER_DRAWS)
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_figure_that_is_not_a_number_refuses_the_model(bad: float) -> None:
    figures = {"train_loss": 0.4, "held_out_auc": 0.7, "next_day_auc": 0.6}

    def judged(**changes: float) -> list[GateCheck]:
        return check_figures(figures | changes, of_the_model_before="next_day_")

    assert [(check.passed, check.found) for check in judged()] == [(True, "3 of them")]
    own = judged(held_out_auc=bad, train_loss=bad)
    assert refused(own) == {"figures"} and own[0].found == "not a number: held_out_auc, train_loss"
    assert refused(judged(next_day_auc=bad)) == set() and warned(judged(next_day_auc=bad)) == {"figures_before"}


def test_few_rows_only_warn() -> None:
    few = world(2, users=300)
    broken = replace(few, scores=1 - few.scores)
    assert len(few.scores) < 2000
    assert refused(judge(broken, refuse_figures=True)) == set()
    assert warned(judge(broken, refuse_figures=True)) == {"rows", "auc", "logloss", "calibration"}


def test_what_nothing_can_stand_in_for_only_warns() -> None:
    rows = replace(world(3), before=None)
    assert warned(judge(replace(rows, scores=rows.scores / 2), refuse_figures=False)) == {"calibration"}
    assert refused(judge(replace(rows, scores=rows.scores / 2), refuse_figures=True)) == {"calibration"}


def test_a_miscalibrated_day_is_not_refused_for_a_model_that_is_no_better() -> None:
    rows = world(4)
    assert rows.before is not None
    both = judge(replace(rows, scores=rows.scores / 2, before=rows.before / 2), refuse_figures=True)
    assert refused(both) == set() and warned(both) == {"calibration"}


def test_a_better_model_passes() -> None:
    rows = world(5)
    assert rows.before is not None
    worse = np.random.default_rng(5).permutation(rows.before)
    assert refused(judge(replace(rows, before=worse), refuse_figures=True)) == set()


@pytest.mark.parametrize("label", [0, 1])
def test_rows_of_one_label_or_none_are_no_error(label: int) -> None:
    rows = world(6)
    one = replace(rows, clicks=np.full_like(rows.clicks, label))
    assert "auc" not in refused(judge(one, refuse_figures=True))
    nothing = HeldOutRows(
        user_ids=rows.user_ids[:0], clicks=rows.clicks[:0], scores=rows.scores[:0], before=rows.scores[:0]
    )
    assert refused(judge(nothing, refuse_figures=True)) == set()
