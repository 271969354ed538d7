"""Scores a day with the A-CTR of the day before, and only then trains on it; all variants in one run, on the same rows.

A variant with transfer starts again from its CPM, replaying the last ad days, whenever its predecessor is bound to another
CPM than the one that the day computes; otherwise it continues from the predecessor with the newest day alone. The variant
`none` continues every day and starts from fresh parameters on the deployment's first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from contracts.errors import BadInput
from contracts.features import ACTR, CPM, FEATURES, STATISTICS, features_of
from contracts.periods import Parent, Period
from contracts.releases import (
    DEFAULT_VARIANT,
    MAPPING_FILE,
    MODEL_FILE,
    PREDICTIONS_FILE,
    VECTORS_FILE,
    Release,
    parent_key,
)
from training.data.batches import EncodedSamples, Encoding
from training.data.mapping import IdMapping
from training.data.samples import Columns, Samples, read_day
from training.data.vectors import read_vectors, write_vectors
from training.engine.checkpoint import read_weights, save_weights
from training.engine.loop import fill_batch_norm, score, train
from training.engine.runs import Run, finished, write_predictions, write_run
from training.models.ctr import CtrModel, load_transferred, load_weights
from training.modules.transfer import MergedTable, TransferSource
from training.recipes import Body, as_json
from training.tasks.cpm import STATISTIC_COLUMNS, TRANSFER_DIMS, build_model, rate_prior
from training.tasks.session import Session, evaluated, figures, say_finished, train_metrics
from training.tasks.tpm import own_vectors

NO_TRANSFER = "none"
CATEGORICAL = tuple(feature.name for feature in features_of(ACTR))
FEATURE_SET = CATEGORICAL + STATISTIC_COLUMNS
AD_ONLY = frozenset(feature.name for feature in FEATURES if feature.side == "ad")
_TABLES = ("ad_samples", "user_histories")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one variant of a day is made from.

    Attributes:
        release: its draft.
        predecessor: the A-CTR of the day before; None on the deployment's first day.
        predecessor_cpm: the CPM whose merged table the predecessor is bound to.
        cpm: the CPM that this release is bound to.
        restart: whether it starts again (from the CPM, or fresh) and replays.
        days: ad days that it trains on.
    """

    release: Release
    predecessor: Run | None
    predecessor_cpm: Run | None
    cpm: Run | None
    restart: bool
    days: tuple[date, ...]


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """A model with all that it needs to read samples: its mapping, its feature set, its transferred vectors."""

    model: CtrModel
    encoding: Encoding

    def encode(self, session: Session, samples: Samples) -> EncodedSamples:
        return self.encoding.encode(samples, session.device)


def run_actr(session: Session, day: date) -> list[Run]:
    """Trains and stages the A-CTR of a day in all variants of the deployment.

    Raises:
        ParentMissing: the day before, or the week's CPM, was not published, or a day's samples or histories were not built.
    """
    period = session.period(ACTR, day)
    with session.training(ACTR, period):
        plans = [plan_variant(session, day, variant) for variant in session.deployment.variants]
        days = _Days(session)
        runs = []
        for plan in plans:
            run = finished(session.locations, plan.release)
            if run:
                say_finished(run)
            runs.append(run or _train(session, plan, days))
        session.stage(ACTR, period, runs)
        return runs


def plan_variant(session: Session, day: date, variant: str) -> Plan:
    """Resolves the parents of a variant and decides whether it starts again."""
    lineage = session.deployment.lineage
    child = f"actr ({variant}) {day}"
    parents = {parent.role: parent for parent in lineage.parents(ACTR, day) if variant != NO_TRANSFER or parent.role != "pretrained"}
    sources = {role: session.parent(child, parent, DEFAULT_VARIANT if role == "pretrained" else variant)
               for role, parent in parents.items()}
    cpm, predecessor = sources.get("pretrained"), sources.get("predecessor")
    bound = _bound_cpm(predecessor)
    restart = predecessor is None or (variant != NO_TRANSFER and bound != (cpm.release.release_id if cpm else None))
    days = lineage.actr_training_days(day, replay_days=session.deployment.replay_days) if restart else [day]
    release = Release(
        kind=ACTR, variant=variant, period=day, recipe=as_json(session.recipe.actr),
        parents={_key(parents[role]): run.release.release_id for role, run in sources.items()},
        absent_parents=() if cpm or variant == NO_TRANSFER else (parent_key("pretrained", CPM, _week_of(session, day).start),),
        inputs=session.inputs(_TABLES, days), feature_set=_feature_set(cpm, None if restart else predecessor),
    )
    return Plan(release=release, predecessor=predecessor, predecessor_cpm=session.release(bound) if bound else None, cpm=cpm,
                restart=restart, days=tuple(days))


def _key(parent: Parent) -> str:
    return parent_key(parent.role, parent.kind, parent.period)


def _week_of(session: Session, day: date) -> Period:
    return session.deployment.periods.closed_before("week", day)


def _bound_cpm(run: Run | None) -> str | None:
    """Id of the CPM that a release is bound to: its own row says so, whatever serves now."""
    bound = [release_id for key, release_id in run.release.parents.items() if key.startswith(f"pretrained/{CPM}/")] if run else []
    assert len(bound) <= 1, "one CPM per A-CTR"
    return bound[0] if bound else None


def _feature_set(cpm: Run | None, continued: Run | None) -> tuple[str, ...]:
    """The predecessor's when it continues; else the CPM's with the ad-only features, or all of them without a CPM."""
    if continued:
        return continued.release.feature_set
    if cpm is None:
        return FEATURE_SET
    read = set(cpm.release.feature_set) | AD_ONLY
    return tuple(name for name in FEATURE_SET if name in read)


class _Days:
    """Ad samples by day, each read once for all variants."""

    def __init__(self, session: Session) -> None:
        body = session.recipe.actr.body
        self._session = session
        self._columns = Columns(log="ad", names=FEATURE_SET, histories=(body.long_length, body.short_length))
        self._read: dict[date, Samples] = {}

    def __call__(self, days: Sequence[date]) -> Samples:
        for day in days:
            if day not in self._read:
                self._read[day] = read_day(self._session.reader, day, self._columns)
        return Samples.concat([self._read[day] for day in days])


def _train(session: Session, plan: Plan, days: _Days) -> Run:
    for source in (plan.predecessor, plan.cpm):
        _check_body(source, session.recipe.actr.body)
    newest = days([plan.release.period])
    scores = _score_newest(session, plan, newest)
    samples = days(plan.days)
    rows = samples.trainable()
    scorer = start_model(session, plan, rows)
    encoded = scorer.encode(session, rows)
    phase = session.recipe.actr.restart if plan.restart else session.recipe.actr.daily
    fitted = train(scorer.model, encoded, phase, seed=f"{session.recipe.actr.seed}/{plan.release.period}",
                   description=f"actr {plan.release.period} {plan.release.variant}", checkpoint=session.checkpoint(plan.release))
    if plan.restart:
        fill_batch_norm(scorer.model, encoded)
    held_out = samples.select(samples.held_out)
    metrics = train_metrics(fitted)
    metrics += evaluated("held_out", scorer.model, held_out, scorer.encode(session, held_out))
    metrics += [] if scores is None else figures("next_day", newest, scores)
    return write_run(session.locations, plan.release, metrics, lambda folder: _fill(folder, plan, scorer, newest, scores))


def _score_newest(session: Session, plan: Plan, newest: Samples) -> np.ndarray | None:
    """Scores of the newest day by the predecessor, held-out rows too; None where there is no predecessor."""
    if plan.predecessor is None:
        return None
    scorer = open_model(session, plan.predecessor, plan.predecessor_cpm)
    return score(scorer.model, scorer.encode(session, newest))


def start_model(session: Session, plan: Plan, rows: Samples) -> Scorer:
    """The model before it trains: from the predecessor, from the CPM, or fresh; its tables grown by the rows' ids."""
    names = _categorical(plan.release)
    source = plan.cpm if plan.restart else plan.predecessor
    before = IdMapping.load(source.folder / MAPPING_FILE, names) if source else IdMapping.empty(names)
    mapping, carried = before.grown(rows.seen(names), names, session.recipe.actr.admission)
    scorer = _scorer(session, plan.release, mapping, plan.cpm)
    if source is None:
        return scorer
    weights = read_weights(source.folder / MODEL_FILE)
    if not plan.restart:
        load_weights(scorer.model, weights, carried=carried)
        return scorer
    load_transferred(scorer.model, weights, fresh_tables=AD_ONLY, carried=carried)
    return scorer


def open_model(session: Session, run: Run, cpm: Run | None) -> Scorer:
    """A finished A-CTR, with the merged table of the CPM that it is bound to."""
    mapping = IdMapping.load(run.folder / MAPPING_FILE, _categorical(run.release))
    scorer = _scorer(session, run.release, mapping, cpm)
    load_weights(scorer.model, read_weights(run.folder / MODEL_FILE))
    return scorer


def _scorer(session: Session, release: Release, mapping: IdMapping, cpm: Run | None) -> Scorer:
    """A model with fresh weights, as a release's recipe and feature set describe it."""
    body = body_of(release)
    statistics = tuple(name for s in STATISTICS if s.impressions in release.feature_set for name in s.columns)
    transfer = MergedTable(read_vectors(cpm.folder / VECTORS_FILE, cpm.release.dims)) if cpm else TransferSource(TRANSFER_DIMS)
    model = build_model(body, mapping, len(statistics), transfer, seed=session.recipe.actr.seed, device=session.device)
    encoding = Encoding(mapping=mapping, statistics=statistics, rate_prior=rate_prior(body), transfer=transfer.index)
    return Scorer(model=model, encoding=encoding)


def _categorical(release: Release) -> tuple[str, ...]:
    return tuple(feature.name for feature in FEATURES if feature.name in release.feature_set)


def body_of(release: Release) -> Body:
    """The body that a CPM or A-CTR was made with."""
    values: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in release.recipe["body"].items()}
    return replace(Body(), **values)


def _check_body(source: Run | None, body: Body) -> None:
    if source and body_of(source.release) != body:
        raise BadInput(source.folder, "body", expected=f"that of the A-CTR's recipe, {body}", found=body_of(source.release),
                       hint="Train the chain of models with the same --recipe.")


def _fill(folder: Path, plan: Plan, scorer: Scorer, newest: Samples, scores: np.ndarray | None) -> dict[str, int]:
    save_weights(scorer.model, folder / MODEL_FILE)
    mapping = scorer.encoding.mapping
    mapping.save(folder / MAPPING_FILE)
    predictions: dict[str, Any] = {}
    if scores is not None and plan.predecessor is not None:
        predictions = {"event_id": newest.event_id, "user_id": newest.user_id, "score": scores, "click": newest.click.astype(np.int32),
                       "scored_by": [plan.predecessor.release.release_id] * len(newest), "ds": [plan.release.period] * len(newest)}
    write_predictions(folder / PREDICTIONS_FILE, predictions)
    return write_vectors(folder / VECTORS_FILE, own_vectors(mapping, scorer.model.embeddings))
