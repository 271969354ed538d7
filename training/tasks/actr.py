"""Scores a day with the A-CTR of the day before, and only then trains on it; all variants in one run, on the same rows.

What each variant is made from: `actr_plan.py`. The model that it begins with: `actr_build.py`, with `actr_texts.py` for
vectors of texts. A finished one: `actr_open.py`. Held-out rows of the last days are scored by both, the new model and
the one of the day before: what the gate judges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from contracts.errors import BadInput
from contracts.features import ACTR, Log
from contracts.releases import HELD_OUT_FILE, MAPPING_FILE, MODEL_FILE, PREDICTIONS_FILE, VECTORS_FILE
from contracts.transfer import reads_encoder
from lake.run_folders import Run, finished
from training.data.mapping import IdMapping
from training.data.samples import Samples, read_day
from training.data.vectors import own_vectors, write_vectors
from training.engine.checkpoint import save_weights
from training.engine.loop import fill_batch_norm, score, train
from training.engine.runs import write_predictions, write_run
from training.recipes import Body, body_of
from training.tasks.actr_build import correct_base_rate, start_model
from training.tasks.actr_open import columns_of, open_released
from training.tasks.actr_plan import Plan, judged_days, plan_variant
from training.tasks.session import HeldOut, Session, figures, say_finished, train_metrics


def run_actr(session: Session, day: date) -> list[Run]:
    """Trains and stages the A-CTR of a day, in all variants of the deployment.

    Raises:
        ParentMissing: the day before, or the week's CPM, was not published, or a day's samples or histories were not
            built.
    """
    period = session.period(ACTR, day)
    with session.training(ACTR, period):
        judged = judged_days(session, day)
        plans = [plan_variant(session, day, variant, judged) for variant in session.deployment.variants]
        days, held_out = Days(session), Days(session, held_out_only=True)
        runs = []
        for plan in plans:
            run = finished(session.locations, plan.release)
            if run:
                say_finished(run)
            runs.append(run or _train(session, plan, days, held_out))
        session.stage(ACTR, period, runs)
        return runs


class Days:
    """Samples by log and day, each read once for all variants; or only their held-out rows."""

    def __init__(self, session: Session, *, held_out_only: bool = False) -> None:
        self._held_out_only = held_out_only
        self._session = session
        self._read: dict[tuple[Log, date], Samples] = {}

    def __call__(self, days: Sequence[date], natural_days: Sequence[date] = ()) -> Samples:
        """Reads ad samples of some days and natural samples of others; features that the natural log lacks have no value."""
        of_ads = [self._day("ad", day) for day in days]
        of_natural = [self._day("natural", day).with_features(list(of_ads[0].features)) for day in natural_days]
        return Samples.concat([*of_natural, *of_ads])

    def _day(self, log: Log, day: date) -> Samples:
        if (log, day) not in self._read:
            body, deployment = self._session.recipe.actr.body, self._session.deployment
            columns = columns_of(
                self._session, log, (body.long_length, body.short_length), encoded=reads_encoder(deployment.variants)
            )
            self._read[log, day] = read_day(self._session.reader, day, columns, held_out_only=self._held_out_only)
        return self._read[log, day]


def _train(session: Session, plan: Plan, days: Days, held_out: Days) -> Run:
    for source in (plan.predecessor, plan.cpm):
        _check_body(source, session.recipe.actr.body)
    newest = days([plan.release.period])
    judged = held_out(plan.judged_days)
    scores, before = _scores_before(session, plan, newest, judged)
    rows = days(plan.days, plan.natural_days).trainable()
    scorer = start_model(session, plan, rows)
    encoded = scorer.encode(session, rows)
    phase = session.recipe.actr.restart if plan.restart else session.recipe.actr.daily
    if plan.restart and session.recipe.actr.corrects_base_rate:
        correct_base_rate(scorer.model, encoded)
    with session.supervised(plan.release) as supervision:
        fitted = train(
            scorer.model,
            encoded,
            phase,
            seed=f"{session.recipe.actr.seed}/{plan.release.period}",
            description=f"actr {plan.release.period} {plan.release.variant}",
            supervision=supervision,
        )
    if plan.restart:
        fill_batch_norm(scorer.model, encoded)
    held = HeldOut(samples=judged, scores=score(scorer.model, scorer.encode(session, judged)), before=before)
    metrics = train_metrics(fitted) + held.metrics
    metrics += [] if scores is None else figures("next_day", newest, scores)
    state = scorer.model.state_dict()

    def fill(folder: Path) -> dict[str, int]:
        held.write(folder / HELD_OUT_FILE)
        return _fill(folder, plan, state, scorer.encoding.mapping, newest, scores)

    return write_run(session.locations, plan.release, metrics, fill)


def _scores_before(session: Session, plan: Plan, *samples: Samples) -> list[np.ndarray | None]:
    """Scores all samples by the predecessor, held-out rows too; None where there is no predecessor."""
    if plan.predecessor is None:
        return [None] * len(samples)
    rows_from = min(plan.judged_days)
    scorer = open_released(session, plan.predecessor, texts=plan.texts, rows_from=rows_from)
    return [score(scorer.model, scorer.encode(session, rows)) for rows in samples]


def _check_body(source: Run | None, body: Body) -> None:
    if source and body_of(source.release) != body:
        raise BadInput(
            source.folder,
            "body",
            expected=f"that of the A-CTR's recipe, {body}",
            found=body_of(source.release),
            hint="Train the chain of models with the same --recipe.",
        )


def _fill(
    folder: Path,
    plan: Plan,
    state: Mapping[str, Tensor],
    mapping: IdMapping,
    newest: Samples,
    scores: np.ndarray | None,
) -> dict[str, int]:
    save_weights(state, folder / MODEL_FILE)
    mapping.save(folder / MAPPING_FILE)
    predictions: dict[str, Any] = {}
    if scores is not None and plan.predecessor is not None:
        predictions = predictions_of(
            newest, scores, scored_by=plan.predecessor.release.release_id, day=plan.release.period
        )
    write_predictions(folder / PREDICTIONS_FILE, predictions)
    return write_vectors(folder / VECTORS_FILE, own_vectors(mapping, state))


def predictions_of(samples: Samples, scores: np.ndarray, *, scored_by: str, day: date) -> dict[str, Any]:
    """Returns the columns of `predictions.parquet`: a day's samples with the scores of a release."""
    return {
        "event_id": samples.event_id,
        "user_id": samples.user_id,
        "score": scores,
        "click": samples.click.astype(np.int32),
        "scored_by": [scored_by] * len(samples),
        "ds": [day] * len(samples),
    }
