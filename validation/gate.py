"""The model gate: judges a candidate model on rows that no training has seen, and compares it with the champion.

The noise of few rows must not refuse a good model, so a model is refused only if the 99 % bound of a metric, by a
bootstrap over users, lies beyond the tolerance. What is refused, and what happens then: docs/adr/0010.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lake.metrics import Ranks, predicted_over_observed, row_losses

Values = NDArray[np.float64]
Severity = Literal["fail", "warn"]
_LEAST_LOSS = 1e-7  # what a loss is divided by at least


@dataclass(frozen=True, kw_only=True)
class GateSettings:
    """When a model is refused.

    Attributes:
        fewest_rows: if there are fewer held-out rows than this, figures only warn.
        auc_tolerance: how much lower AUC may be than the predecessor's.
        logloss_tolerance: by what share LogLoss may be higher than the predecessor's.
        calibration_tolerance: the ratio of expected to actual clicks may lie between 1 / (1 + this) and 1 + this.
        confidence: confidence level of the one-sided bounds.
        draws: number of draws of the bootstrap over users.
        seed: random seed of the draws.
    """

    fewest_rows: int = 2_000
    auc_tolerance: float = 0.01
    logloss_tolerance: float = 0.02
    calibration_tolerance: float = 0.25
    confidence: float = 0.99
    draws: int = 500
    seed: int = 7


@dataclass(frozen=True, kw_only=True)
class GateCheck:
    """One verdict of the gate, in words; a failed one of severity `fail` refuses the model."""

    name: str
    severity: Severity
    passed: bool
    expected: str
    found: str


@dataclass(frozen=True, kw_only=True)
class HeldOutRows:
    """Held-out rows and their scores.

    Attributes:
        user_ids: N.
        clicks: N, 0 or 1.
        scores: N, by the model that is judged.
        before: N, by the champion; None if there is none, or models of this kind are not compared.
    """

    user_ids: NDArray[np.int64]
    clicks: NDArray[np.int64]
    scores: Values
    before: Values | None


def judge(rows: HeldOutRows, *, refuse_figures: bool, settings: GateSettings | None = None) -> list[GateCheck]:
    """All checks of one model.

    Args:
        rows: the held-out rows, with their scores.
        refuse_figures: whether a bad metric refuses the model; False where no fallback exists. Scores that are not
            numbers always refuse it.
        settings: the tolerances.
    """
    settings = settings or GateSettings()
    enough = len(rows.scores) >= settings.fewest_rows
    severity: Severity = "fail" if refuse_figures and enough else "warn"
    finite = check_finite(rows.scores)
    checks = [
        finite,
        GateCheck(
            name="rows",
            severity="warn",
            passed=enough,
            expected=f"at least {settings.fewest_rows} held-out rows",
            found=f"{len(rows.scores)}{'' if enough else ': figures only warn'}",
        ),
    ]
    if not finite.passed or not len(rows.scores):
        return checks
    if rows.before is not None:
        before = check_before(rows.before)
        checks += (
            [check_auc(rows, severity, settings), check_logloss(rows, severity, settings)]
            if before.passed
            else [before]
        )
    checks.append(check_calibration(rows, severity, settings))
    return checks


def check_finite(scores: Values) -> GateCheck:
    """The scores of the candidate model are numbers from 0 to 1."""
    bad = _num_no_probability(scores)
    return GateCheck(
        name="finite",
        severity="fail",
        passed=bad == 0,
        expected="each score a number from 0 to 1",
        found=f"{bad} of {len(scores)} are not",
    )


def check_before(scores: Values) -> GateCheck:
    """The scores of the model before are numbers from 0 to 1 too; otherwise nothing is compared with it."""
    bad = _num_no_probability(scores)
    return GateCheck(
        name="before",
        severity="warn",
        passed=bad == 0,
        expected="each score of the model before a number from 0 to 1",
        found=f"{bad} of {len(scores)} are not: not compared with it",
    )


def check_figures(figures: Mapping[str, float], *, of_the_model_before: str) -> list[GateCheck]:
    """A model with a figure that is NaN or infinite is refused, whatever its held-out scores are.

    Args:
        figures: the release's metrics by name, without those that are not defined.
        of_the_model_before: prefix of the names of metrics of the scores that the model before gave to the day's rows.
            Such a metric only warns, because a fallback would carry the model that is at fault. The audit publishes
            none of them.
    """
    bad = sorted(name for name, value in figures.items() if not np.isfinite(value))
    own, before = (
        [name for name in bad if name.startswith(of_the_model_before) is of_before] for of_before in (False, True)
    )
    expected = "each figure a finite number"
    checks = [
        GateCheck(
            name="figures",
            severity="fail",
            passed=not own,
            expected=expected,
            found=f"not a number: {', '.join(own)}" if own else f"{len(figures) - len(bad)} of them",
        )
    ]
    if before:
        checks.append(
            GateCheck(
                name="figures_before",
                severity="warn",
                passed=False,
                expected=f"{expected}, of the model before too",
                found=f"not a number: {', '.join(before)}",
            )
        )
    return checks


def check_auc(rows: HeldOutRows, severity: Severity, settings: GateSettings) -> GateCheck:
    """The AUC is not lower than that of the model before by more than the tolerance.

    AUC over all rows, not within users: among 2,000 rows few users have both labels, so that GAUC would be too noisy.
    """
    assert rows.before is not None
    new, old = Ranks(rows.scores, rows.clicks), Ranks(rows.before, rows.clicks)
    expected = f"AUC not below that of the model before by more than {settings.auc_tolerance}"
    value = new.auc(np.ones(len(rows.clicks))) - old.auc(np.ones(len(rows.clicks)))
    if np.isnan(value):
        return GateCheck(
            name="auc", severity=severity, passed=True, expected=expected, found="only clicks, or none: no AUC"
        )
    drawn = _drawn(rows.user_ids, lambda weight: new.auc(weight) - old.auc(weight), settings)
    highest = float(np.nanquantile(drawn, settings.confidence))
    return GateCheck(
        name="auc",
        severity=severity,
        passed=highest >= -settings.auc_tolerance,
        expected=expected,
        found=f"{value:+.4f}, at most {highest:+.4f}",
    )


def check_logloss(rows: HeldOutRows, severity: Severity, settings: GateSettings) -> GateCheck:
    """The LogLoss is not higher than that of the model before by more than the tolerance."""
    assert rows.before is not None
    new, old = row_losses(rows.scores, rows.clicks), row_losses(rows.before, rows.clicks)
    drawn = _drawn(
        rows.user_ids, lambda weight: float(weight @ (new - old)) / max(float(weight @ old), _LEAST_LOSS), settings
    )
    value, lowest = (
        float((new - old).sum() / max(old.sum(), _LEAST_LOSS)),
        float(np.quantile(drawn, 1 - settings.confidence)),
    )
    return GateCheck(
        name="logloss",
        severity=severity,
        passed=lowest <= settings.logloss_tolerance,
        expected=f"LogLoss not above that of the model before by more than {settings.logloss_tolerance:.0%}",
        found=f"{value:+.2%}, at least {lowest:+.2%}",
    )


def check_calibration(rows: HeldOutRows, severity: Severity, settings: GateSettings) -> GateCheck:
    """Expected clicks over clicks is near 1; only a warning if the model before is not better, since a fallback would not help."""
    low, high = 1 / (1 + settings.calibration_tolerance), 1 + settings.calibration_tolerance
    expected = f"expected clicks over clicks from {low:.2f} to {high:.2f}"
    if rows.clicks.sum() == 0:
        return GateCheck(name="calibration", severity="warn", passed=True, expected=expected, found="no click")
    passed, found = _calibrated(rows, rows.scores, low, high, settings)
    if not passed and rows.before is not None and check_before(rows.before).passed:
        before_passed, before_found = _calibrated(rows, rows.before, low, high, settings)
        if not before_passed:
            severity, found = "warn", f"{found}; the model before, {before_found}, is not better"
    return GateCheck(name="calibration", severity=severity, passed=passed, expected=expected, found=found)


def _calibrated(rows: HeldOutRows, scores: Values, low: float, high: float, settings: GateSettings) -> tuple[bool, str]:
    """Whether the true ratio may lie between the bounds, and the ratio with its interval."""
    drawn = _drawn(
        rows.user_ids, lambda weight: float(weight @ scores) / max(float(weight @ rows.clicks), 1.0), settings
    )
    lowest, highest = np.quantile(drawn, [1 - settings.confidence, settings.confidence])
    return bool(
        lowest <= high and highest >= low
    ), f"{predicted_over_observed(scores, rows.clicks):.2f} ({lowest:.2f} to {highest:.2f})"


def _num_no_probability(scores: Values) -> int:
    return int((~((scores >= 0) & (scores <= 1))).sum())  # NaN is neither


def _drawn(user_ids: NDArray[np.int64], figure: Callable[[Values], float], settings: GateSettings) -> Values:
    """The value of `figure`, a function of the rows' weights, in each draw of users with replacement."""
    users, of_row = np.unique(user_ids, return_inverse=True)
    rng = np.random.default_rng(settings.seed)
    draws = (
        np.bincount(rng.integers(0, len(users), len(users)), minlength=len(users))[of_row]
        for _ in range(settings.draws)
    )
    return np.array([figure(weight.astype(np.float64)) for weight in draws])
