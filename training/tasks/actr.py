"""Scores a day with the A-CTR of the day before, and only then trains on it; all variants in one run, on the same rows.

A variant that is bound to a CPM (`contracts/transfer.py` says which, and what it takes from it) starts again with the last ad
days whenever its predecessor is bound to another CPM than the one that the day computes; otherwise it continues from the
predecessor with the newest day alone. One that is bound to none starts on the deployment's first day and continues every day.

Held-out rows of the last days are scored by both, the new model and the one of the day before: what the gate judges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from contracts.errors import BadInput
from contracts.features import ACTR, FEATURES, STATISTICS, Log, features_of
from contracts.kinds import BOUND_KINDS
from contracts.periods import ONE_DAY, Parent
from contracts.releases import (
    DEFAULT_VARIANT,
    HELD_OUT_FILE,
    MAPPING_FILE,
    MODEL_FILE,
    PREDICTIONS_FILE,
    VECTORS_FILE,
    Release,
    Served,
    of_role,
    parent_key,
)
from contracts.transfer import TEXT_VECTOR_DAYS, TRANSFER_SETTINGS, TransferSetting, reads_encoder, variant_of
from training.data.batches import EncodedSamples, Encoding
from training.data.mapping import SHARED_ROW, IdMapping
from training.data.samples import Columns, Samples, held_out_cnt, read_day
from training.data.sequences import SequenceEncoding
from training.data.vectors import VECTOR_ENTITIES, DatedVectors, read_vectors, write_vectors
from training.engine.checkpoint import read_weights, save_weights
from training.engine.loop import fill_batch_norm, score, train
from training.engine.runs import Run, finished, write_predictions, write_run
from training.metrics import base_rate_shift
from training.models.adapted import Source
from training.models.ctr import CtrModel, load_embeddings, load_transferred, load_weights
from training.models.srp4ctr import Bridge
from training.modules.transfer import MergedTable, TextVectors, TransferSource
from training.recipes import Body, as_json
from training.tasks.bahe import BAHE, chain
from training.tasks.cpm import STATISTIC_COLUMNS, TRANSFER_DIMS, build_model, rate_prior
from training.tasks.fg_bert import open_fg_bert
from training.tasks.session import HeldOut, Session, figures, say_finished, train_metrics
from training.tasks.tpm import own_vectors

CATEGORICAL = tuple(feature.name for feature in features_of(ACTR))
FEATURE_SET = CATEGORICAL + STATISTIC_COLUMNS
AD_ONLY = frozenset(feature.name for feature in FEATURES if feature.side == "ad")
JUDGED_DAYS = 90  # at most, to give the gate its rows


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one variant of a day is made from.

    Attributes:
        release: its draft.
        setting: what it transfers.
        predecessor: the A-CTR of the day before; None on the deployment's first day.
        cpm: the CPM that this release is bound to.
        encoder: the FG-BERT that it is bound to.
        texts: the BAHE of the day before, whose vectors, and those that it goes on from, are read.
        restart: whether it starts again (from the CPM, or fresh) and replays.
        days: ad days that it trains on.
        natural_days: the same of the natural log.
        judged_days: ad days whose held-out rows the gate judges.
    """

    release: Release
    setting: TransferSetting
    predecessor: Run | None
    cpm: Run | None
    encoder: Run | None
    texts: Run | None
    restart: bool
    days: tuple[date, ...]
    natural_days: tuple[date, ...]
    judged_days: tuple[date, ...]


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """A model with all that it needs to read samples: its mapping, its feature set, its transferred vectors.

    Attributes:
        lengths: most behaviours of the long and the short history.
    """

    model: CtrModel
    encoding: Encoding
    lengths: tuple[int, int]

    def encode(self, session: Session, samples: Samples) -> EncodedSamples:
        return self.encoding.encode(samples, session.device)


def run_actr(session: Session, day: date) -> list[Run]:
    """Trains and stages the A-CTR of a day in all variants of the deployment.

    Raises:
        ParentMissing: the day before, or the week's CPM, was not published, or a day's samples or histories were not built.
    """
    period = session.period(ACTR, day)
    with session.training(ACTR, period):
        judged = judged_days(session, day)
        plans = [plan_variant(session, day, variant, judged) for variant in session.deployment.variants]
        days, held_out = _Days(session), _Days(session, held_out_only=True)
        runs = []
        for plan in plans:
            run = finished(session.locations, plan.release)
            if run:
                say_finished(run)
            runs.append(run or _train(session, plan, days, held_out))
        session.stage(ACTR, period, runs)
        return runs


def plan_variant(session: Session, day: date, variant: str, judged: tuple[date, ...] | None = None) -> Plan:
    """Resolves the parents of a variant and decides whether it starts again; `judged` are the day's `judged_days`, if known."""
    lineage, setting = session.deployment.lineage, TRANSFER_SETTINGS[variant]
    child = Served(kind=ACTR, variant=variant, period=day)
    parents = {parent.role: (parent, read) for parent in lineage.parents(ACTR, day) if (read := variant_of(parent, child))}
    sources = {role: session.parent(str(child), parent, read) for role, (parent, read) in parents.items()}
    cpm, encoder, predecessor = sources.get("pretrained"), sources.get("encoder"), sources.get("predecessor")
    restart = predecessor is None or [_bound(predecessor, role) for role in BOUND_KINDS] != [
        source.release.release_id if source else None for source in (cpm, encoder)]
    days = lineage.actr_training_days(day, replay_days=session.deployment.replay_days) if restart else [day]
    natural_days = [] if not setting.natural_rows else lineage.natural_training_days(day + ONE_DAY) if restart else [day]
    judged = judged if judged is not None else judged_days(session, day)
    ad_inputs = session.inputs(["ad_samples", "user_histories"], sorted({*days, *judged}))
    release = Release(
        kind=ACTR, variant=variant, period=day, recipe=as_json(session.recipe.actr),
        parents={_key(parents[role][0]): run.release.release_id for role, run in sources.items()},
        absent_parents=tuple(_key(parent) for parent in _bound_parents(session, day) if parent.role not in sources
                             and variant_of(parent, child)),
        inputs=ad_inputs | session.inputs(["natural_samples", "user_histories"], natural_days),
        feature_set=_feature_set(cpm, None if restart else predecessor),
    )
    return Plan(release=release, setting=setting, predecessor=predecessor, cpm=cpm, encoder=encoder,
                texts=sources.get("texts"), restart=restart, days=tuple(days), natural_days=tuple(natural_days),
                judged_days=judged)


def judged_days(session: Session, day: date) -> tuple[date, ...]:
    """The trailing ad days, `day` the last, that give the gate its rows: as few as give enough, of those that there are.

    None precedes the ads, or the days that the deployment's first A-CTR replayed: further back samples need not be built.
    """
    deployment = session.deployment
    first = max(deployment.ad_start or deployment.history_start, deployment.actr_start + ONE_DAY - timedelta(days=deployment.replay_days),
                deployment.history_start, day + ONE_DAY - timedelta(days=JUDGED_DAYS))
    days, row_cnt = [day], held_out_cnt(session.reader, "ad", day)
    while row_cnt < session.judged_rows and days[0] > first:
        days.insert(0, days[0] - ONE_DAY)
        row_cnt += held_out_cnt(session.reader, "ad", days[0])
    return tuple(days)


def columns_of(session: Session, log: Log, lengths: tuple[int, int], *, encoded: bool) -> Columns:
    """What an ad model reads of samples: histories of these lengths, with all that a sequence encoder reads of them if there is one."""
    return Columns(log=log, names=FEATURE_SET, histories=lengths, zone=session.deployment.day_timezone if encoded else None)


def _key(parent: Parent) -> str:
    return parent_key(parent.role, parent.kind, parent.period)


def _bound_parents(session: Session, day: date) -> list[Parent]:
    """What an A-CTR of a day is bound to, were there logs before the week that closed before it."""
    week = session.deployment.periods.closed_before("week", day)
    return [Parent(role=role, kind=kind, period=week.start) for role, kind in BOUND_KINDS.items()]


def _bound(run: Run, role: str) -> str | None:
    """Id of the release that an A-CTR is bound to: its own row says so, whatever serves now."""
    bound = list(of_role(run.release.parents, role).values())
    assert len(bound) <= 1, "one of each per A-CTR"
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
    """Samples by log and day, each read once for all variants; or their held-out rows alone."""

    def __init__(self, session: Session, *, held_out_only: bool = False) -> None:
        self._held_out_only = held_out_only
        self._session = session
        self._read: dict[tuple[Log, date], Samples] = {}

    def __call__(self, days: Sequence[date], natural_days: Sequence[date] = ()) -> Samples:
        """Ad samples of days and natural ones of others, the features that the natural log lacks without a value."""
        of_ads = [self._day("ad", day) for day in days]
        of_natural = [self._day("natural", day).with_features(list(of_ads[0].features)) for day in natural_days]
        return Samples.concat([*of_natural, *of_ads])

    def _day(self, log: Log, day: date) -> Samples:
        if (log, day) not in self._read:
            body, deployment = self._session.recipe.actr.body, self._session.deployment
            columns = columns_of(self._session, log, (body.long_length, body.short_length), encoded=reads_encoder(deployment.variants))
            self._read[log, day] = read_day(self._session.reader, day, columns, held_out_only=self._held_out_only)
        return self._read[log, day]


def _train(session: Session, plan: Plan, days: _Days, held_out: _Days) -> Run:
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
    with session.observed(plan.release) as observe:
        fitted = train(scorer.model, encoded, phase, seed=f"{session.recipe.actr.seed}/{plan.release.period}",
                       description=f"actr {plan.release.period} {plan.release.variant}", checkpoint=session.checkpoint(plan.release),
                       observe=observe, compute=session.compute)
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
    """Scores of each of the samples by the predecessor, held-out rows too; None where there is no predecessor."""
    if plan.predecessor is None:
        return [None] * len(samples)
    rows_from = min(plan.judged_days)
    scorer = open_released(session, plan.predecessor, texts=plan.texts, rows_from=rows_from)
    return [score(scorer.model, scorer.encode(session, rows)) for rows in samples]


def start_model(session: Session, plan: Plan, rows: Samples) -> Scorer:
    """The model before it trains: from the predecessor, from the CPM, or fresh; its tables grown by the rows' ids."""
    names, setting = _categorical(plan.release), plan.setting
    source = plan.cpm if plan.restart else plan.predecessor
    ids_from = None if plan.restart and setting.initial == "fresh" and not setting.adapters else source
    before = IdMapping.load(ids_from.folder / MAPPING_FILE, names) if ids_from else IdMapping.empty(names)
    growing = [name for name in names if name not in _frozen(setting, plan.cpm, names)]
    mapping, carried = before.grown(rows.seen(growing), names, session.recipe.actr.admission)
    texts = text_vectors(session, plan.release, plan.texts, min([*plan.days, *plan.natural_days, *plan.judged_days]))
    scorer = _scorer(session, plan.release, mapping, plan.cpm, plan.encoder, texts)
    if source is None:
        return scorer
    weights = read_weights(source.folder / MODEL_FILE)
    if not plan.restart:
        load_weights(scorer.model, weights, carried=carried)
    elif setting.initial == "embeddings":
        load_embeddings(scorer.model, weights, fresh_tables=AD_ONLY, carried=carried)
    elif setting.initial == "all":
        load_transferred(scorer.model, weights, fresh_tables=AD_ONLY, carried=carried, keep_batch_norm=setting.keeps_batch_norm)
    return scorer


def correct_base_rate(model: CtrModel, rows: EncodedSamples) -> None:
    """Shifts the logits so that the mean score of the rows is their click rate: that of the log before may be several times as high."""
    fill_batch_norm(model, rows)
    model.shift_logits(base_rate_shift(score(model, rows), float(rows.label_N.double().mean()) if len(rows) else 0.0))


def open_released(session: Session, run: Run, *, rows_from: date | None = None, texts: Run | None = None) -> Scorer:
    """A finished A-CTR, with the models that its release names.

    Args:
        session: of the command.
        run: of the A-CTR.
        rows_from: the first day whose rows it is to score; by default the day after its own.
        texts: the BAHE whose vectors it reads; by default the one that it was trained with.
    """
    mapping = IdMapping.load(run.folder / MAPPING_FILE, _categorical(run.release))
    cpm, encoder, own = (session.release(name) if name else None for name in (_bound(run, role) for role in (*BOUND_KINDS, "texts")))
    vectors = text_vectors(session, run.release, texts or own, rows_from or run.release.period + ONE_DAY)
    scorer = _scorer(session, run.release, mapping, cpm, encoder, vectors)
    load_weights(scorer.model, read_weights(run.folder / MODEL_FILE))
    return scorer


def text_vectors(session: Session, release: Release, newest: Run | None, rows_from: date) -> TextVectors | None:
    """What a BAHE and those that it goes on from made of users and items, as far back as rows from a day on may look.

    None where the release's setting reads no texts; no vector at all where there is no BAHE yet.
    """
    if not TRANSFER_SETTINGS[release.variant].texts:
        return None
    runs = chain(session, newest, rows_from - timedelta(days=TEXT_VECTOR_DAYS)) if newest else []
    found = {run.release.period.toordinal(): read_vectors(run.folder / VECTORS_FILE, run.release.dims) for run in runs}
    dim = newest.release.dims["user"] if newest else session.recipe.bahe.dims
    return TextVectors({entity: DatedVectors.stack({day: vectors[entity] for day, vectors in found.items()}, dim)
                        for entity in VECTOR_ENTITIES})


def texts_of(session: Session, run: Run, day: date) -> Run | None:
    """The BAHE whose vectors an A-CTR reads when it scores a day: the one that serves the day before; None where that is not there."""
    if not TRANSFER_SETTINGS[run.release.variant].texts:
        return None
    row = session.reader.active(BAHE, DEFAULT_VARIANT, day - ONE_DAY)
    return session.open_release(row) if row else None


def _scorer(session: Session, release: Release, mapping: IdMapping, cpm: Run | None, encoder: Run | None,
            texts: TextVectors | None = None) -> Scorer:
    """A model with fresh weights, as a release's setting, recipe and feature set describe it."""
    body, setting = body_of(release), TRANSFER_SETTINGS[release.variant]
    statistics = tuple(name for s in STATISTICS if s.impressions in release.feature_set for name in s.columns)
    transfer = TransferSource(TRANSFER_DIMS)
    if cpm and setting.merged_table:
        transfer = MergedTable(read_vectors(cpm.folder / VECTORS_FILE, cpm.release.dims))
    names = _categorical(release)
    bridge = sequence = None
    if encoder:
        torch.manual_seed(session.recipe.actr.seed)
        network, ids = open_fg_bert(encoder)  # of one that goes on learning these are the weights that it begins with
        bridge = Bridge(network.to(session.device), learned=setting.fg_bert == "learned")
        sequence = SequenceEncoding(mapping=ids, fields=network.recipe.fields, length=network.recipe.length)
    model = build_model(body, mapping, len(statistics), transfer, seed=session.recipe.actr.seed, device=session.device,
                        frozen=_frozen(setting, cpm, names), source=_source(session, cpm, mapping) if cpm and setting.adapters else None,
                        bridge=bridge, texts=texts)
    encoding = Encoding(mapping=mapping, statistics=statistics, rate_prior=rate_prior(body), transfer=transfer.index,
                        sequence=sequence, texts=texts.vectors if texts else {})
    return Scorer(model=model, encoding=encoding, lengths=(body.long_length, body.short_length))


def _frozen(setting: TransferSetting, cpm: Run | None, names: Sequence[str]) -> frozenset[str]:
    return frozenset(names) - AD_ONLY if setting.frozen_embeddings and cpm else frozenset()


def _source(session: Session, cpm: Run, mapping: IdMapping) -> Source:
    """A CPM beside a model with another mapping."""
    names = _categorical(cpm.release)
    own = IdMapping.load(cpm.folder / MAPPING_FILE, names)
    statistics = [name for s in STATISTICS if s.impressions in cpm.release.feature_set for name in s.columns]
    model = build_model(body_of(cpm.release), own, len(statistics), TransferSource(TRANSFER_DIMS), seed=0, device=session.device)
    load_weights(model, read_weights(cpm.folder / MODEL_FILE))
    rows = {name: np.append(SHARED_ROW, field.rows(mapping.fields[name].ids)) for name, field in own.fields.items()}
    return Source(model=model.eval(), at={name: list(mapping.fields).index(name) for name in names},
                  rows={name: torch.from_numpy(of_name).to(session.device) for name, of_name in rows.items()})


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


def _fill(folder: Path, plan: Plan, state: Mapping[str, Tensor], mapping: IdMapping, newest: Samples,
          scores: np.ndarray | None) -> dict[str, int]:
    save_weights(state, folder / MODEL_FILE)
    mapping.save(folder / MAPPING_FILE)
    predictions: dict[str, Any] = {}
    if scores is not None and plan.predecessor is not None:
        predictions = predictions_of(newest, scores, scored_by=plan.predecessor.release.release_id, day=plan.release.period)
    write_predictions(folder / PREDICTIONS_FILE, predictions)
    return write_vectors(folder / VECTORS_FILE, own_vectors(mapping, state))


def predictions_of(samples: Samples, scores: np.ndarray, *, scored_by: str, day: date) -> dict[str, Any]:
    """Columns of `predictions.parquet`: a day's samples as a release scored them."""
    return {"event_id": samples.event_id, "user_id": samples.user_id, "score": scores, "click": samples.click.astype(np.int32),
            "scored_by": [scored_by] * len(samples), "ds": [day] * len(samples)}
