"""Which definition of AUC, GAUC and LogLoss is ours, and which is another library's: plain formulas on one fixed set, and TorchRec itself.

FuxiCTR, RecBole, TorchEasyRec and torch-rechub are not installed here: `python -m benchmarks.metrics` shows that each
gives what its formula gives.
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.rivals.metrics_arm import NAMES, figures_of
from benchmarks.rivals.metrics_set import BY_PLACE, FORMULAS, agrees, cases, fixed_rows
from lake.metrics import Ranks, evaluate

ROWS = fixed_rows()
CASES = cases(ROWS)
SOUND = ("all", "no ties", "both labels", "certain and wrong")


def test_the_set_has_what_tells_the_definitions_apart() -> None:
    users = len(np.unique(ROWS.users))
    assert users // 2 < len(ROWS.judged()) < users, "some users have only one label"
    assert len(np.unique(ROWS.scores)) < 64 and len(np.unique(CASES["no ties"][0].scores)) == len(ROWS.scores)
    found = {key: formula(ROWS) for key, formula in FORMULAS.items()}
    gaucs = [found["tributary", "gauc"], found["tributary", "gauc_plain"], found["recbole", "GAUC"]]
    assert min(abs(a - b) for place, a in enumerate(gaucs) for b in gaucs[:place]) > 1e-3
    assert np.isnan(found["rechub", "gauc_score"])


@pytest.mark.parametrize("case", SOUND)
def test_ours_are_auc_with_ties_half_gauc_by_impressions_and_logloss_from_1e_7(case: str) -> None:
    rows = CASES[case][0]
    ours = evaluate(rows.scores, rows.clicks, rows.users)
    for name in NAMES["tributary"]:
        assert ours[name] == pytest.approx(FORMULAS["tributary", name](rows), abs=1e-12), name


def test_ours_are_those_of_the_others_that_the_docs_name() -> None:
    """At a certain and wrong score each LogLoss has a bound of its own."""
    ours = evaluate(ROWS.scores, ROWS.clicks, ROWS.users)
    for name, others in (
        ("auc", [("fuxictr", "AUC"), ("recbole", "AUC"), ("rechub", "auc_score")]),
        ("gauc", [("fuxictr", "gAUC")]),
        ("gauc_plain", [("fuxictr", "avgAUC"), ("tzrec", "grouped_auc")]),
        ("logloss", [("fuxictr", "logloss"), ("recbole", "LogLoss"), ("rechub", "log_loss")]),
    ):
        for other in others:
            assert ours[name] == pytest.approx(FORMULAS[other](ROWS), abs=1e-12), other
    wrong = CASES["certain and wrong"][0]
    keys = (("tributary", "logloss"), ("recbole", "LogLoss"), ("fuxictr", "logloss"), ("rechub", "log_loss"))
    losses = [FORMULAS[key](wrong) for key in keys]
    assert losses == sorted(losses) and len(set(losses)) == 4 and np.isinf(losses[-1])


def test_no_figure_of_ours_depends_on_the_order_of_the_rows_and_all_are_nan_with_a_nan() -> None:
    figures = figures_of("tributary")
    for name in NAMES["tributary"]:
        assert np.ptp(np.array(figures[name]["orders"], np.float64)) < 1e-12
        assert np.isnan(figures[name]["NaN"]).all() and np.isnan(figures[name]["infinite"]).all()


def test_the_auc_of_weighted_rows_by_which_the_gate_judges_is_this_one() -> None:
    """It weighs rows by how often their user was drawn."""
    found = Ranks(ROWS.scores, ROWS.clicks)
    assert found.auc(np.ones(len(ROWS.scores))) == pytest.approx(FORMULAS["tributary", "auc"](ROWS))
    assert found.auc(ROWS.weights) == pytest.approx(FORMULAS["torchrec", "auc, weights"](ROWS))


def test_torchrec_is_its_formula_and_decides_ties_by_the_place_of_the_rows() -> None:
    """TorchRec 1.9.2 (torchrec/metrics/auc.py, gauc.py, ne.py): LogLoss in bits; a NaN score counts as the highest, unnoticed."""
    figures = figures_of("torchrec")
    for name in NAMES["torchrec"]:
        for case in SOUND:
            assert agrees("torchrec", name, figures[name], case, CASES[case][0]), (name, case, figures[name][case])
        spread = np.ptp(np.array(figures[name]["orders"], np.float64))
        assert (spread > 1e-4) == (("torchrec", name) in BY_PLACE), (name, spread)
        assert np.isfinite(figures[name]["NaN"][0]) == (("torchrec", name) in BY_PLACE)
    ours = evaluate(CASES["no ties"][0].scores, ROWS.clicks, ROWS.users)
    assert figures["auc"]["no ties"][0] == pytest.approx(ours["auc"], abs=1e-6)
    assert figures["gauc"]["no ties"][0] == pytest.approx(ours["gauc_plain"], abs=1e-6)
