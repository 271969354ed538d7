"""Builds the A-CTR of a day before it trains, and any A-CTR as its release describes it, with what it needs to read samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from contracts.releases import MAPPING_FILE, MODEL_FILE, VECTORS_FILE, Release
from contracts.transfer import TRANSFER_SETTINGS, TransferSetting
from lake.metrics import base_rate_shift
from lake.run_folders import Run
from training.data.batches import EncodedSamples, Encoding
from training.data.mapping import SHARED_ROW, IdMapping
from training.data.samples import Samples
from training.data.sequences import SequenceEncoding
from training.data.vectors import read_vectors
from training.engine.checkpoint import read_weights
from training.engine.loop import fill_batch_norm, score
from training.models.adapted import Source
from training.models.build import TRANSFER_DIMS, CtrParts, build_ctr
from training.models.ctr import CtrModel, load_embeddings, load_transferred, load_weights
from training.models.srp4ctr import Bridge
from training.modules.transfer import MergedTable, TextVectors, TransferSource
from training.recipes import body_of
from training.tasks.actr_plan import AD_ONLY, Plan, categorical_of, statistics_of
from training.tasks.actr_texts import text_vectors
from training.tasks.fg_bert import open_fg_bert
from training.tasks.session import Session


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """A model with what it needs to score samples: its mapping, its feature set, its transferred vectors.

    Attributes:
        lengths: the most behaviours of the long and of the short history.
    """

    model: CtrModel
    encoding: Encoding
    lengths: tuple[int, int]

    def encode(self, session: Session, samples: Samples) -> EncodedSamples:
        """Encodes samples for the model, on the session's device."""
        return self.encoding.encode(samples, session.device)


def start_model(session: Session, plan: Plan, rows: Samples) -> Scorer:
    """Builds the model before it trains, from the predecessor, from the CPM, or fresh; its tables grow by the rows' ids."""
    names, setting = categorical_of(plan.release), plan.setting
    source = plan.cpm if plan.restart else plan.predecessor
    ids_from = None if plan.restart and setting.initial == "fresh" and not setting.adapters else source
    before = IdMapping.load(ids_from.folder / MAPPING_FILE, names) if ids_from else IdMapping.empty(names)
    growing = [name for name in names if name not in _frozen_names(setting, plan.cpm, names)]
    mapping, carried = before.grown(rows.seen(growing), names, session.recipe.actr.admission)
    texts = text_vectors(session, plan.release, plan.texts, min([*plan.days, *plan.natural_days, *plan.judged_days]))
    scorer = build_scorer(session, plan.release, mapping, plan.cpm, plan.encoder, texts)
    if source is None:
        return scorer
    weights = read_weights(source.folder / MODEL_FILE)
    if not plan.restart:
        load_weights(scorer.model, weights, carried=carried)
    elif setting.initial == "embeddings":
        load_embeddings(scorer.model, weights, fresh_tables=AD_ONLY, carried=carried)
    elif setting.initial == "all":
        load_transferred(
            scorer.model, weights, fresh_tables=AD_ONLY, carried=carried, keep_batch_norm=setting.keeps_batch_norm
        )
    return scorer


def build_scorer(
    session: Session,
    release: Release,
    mapping: IdMapping,
    cpm: Run | None,
    encoder: Run | None,
    texts: TextVectors | None = None,
) -> Scorer:
    """Builds a model with fresh weights, as a release's setting, recipe and feature set describe it."""
    body, setting = body_of(release), TRANSFER_SETTINGS[release.variant]
    statistics = statistics_of(release)
    transfer = TransferSource(TRANSFER_DIMS)
    if cpm and setting.merged_table:
        transfer = MergedTable(read_vectors(cpm.folder / VECTORS_FILE, cpm.release.dims))
    names = categorical_of(release)
    bridge = sequence = None
    if encoder:
        torch.manual_seed(session.recipe.actr.seed)
        network, ids = open_fg_bert(encoder)  # Where the encoder is trained further, these are its first weights.
        bridge = Bridge(network.to(session.device), learned=setting.fg_bert == "learned")
        sequence = SequenceEncoding(mapping=ids, fields=network.recipe.fields, length=network.recipe.length)
    parts = CtrParts(
        body=body,
        mapping=mapping,
        num_dense=len(statistics),
        transfer=transfer,
        bridge=bridge,
        texts=texts,
        frozen=_frozen_names(setting, cpm, names),
        source=source_of(session, cpm, mapping) if cpm and setting.adapters else None,
    )
    model = build_ctr(parts, seed=session.recipe.actr.seed, device=session.device)
    encoding = Encoding(
        mapping=mapping,
        statistics=statistics,
        rate_prior=body.rate_prior,
        transfer=transfer.index,
        sequence=sequence,
        texts=texts.vectors if texts else {},
    )
    return Scorer(model=model, encoding=encoding, lengths=(body.long_length, body.short_length))


def _frozen_names(setting: TransferSetting, cpm: Run | None, names: Sequence[str]) -> frozenset[str]:
    return frozenset(names) - AD_ONLY if setting.frozen_embeddings and cpm else frozenset()


def source_of(session: Session, cpm: Run, mapping: IdMapping) -> Source:
    """Opens a CPM next to a model with another mapping."""
    names = categorical_of(cpm.release)
    own = IdMapping.load(cpm.folder / MAPPING_FILE, names)
    parts = CtrParts(
        body=body_of(cpm.release),
        mapping=own,
        num_dense=len(statistics_of(cpm.release)),
        transfer=TransferSource(TRANSFER_DIMS),
    )
    model = build_ctr(parts, seed=0, device=session.device)
    load_weights(model, read_weights(cpm.folder / MODEL_FILE))
    rows = {name: np.append(SHARED_ROW, field.rows(mapping.fields[name].ids)) for name, field in own.fields.items()}
    return Source(
        model=model.eval(),
        at={name: list(mapping.fields).index(name) for name in names},
        rows={name: torch.from_numpy(of_name).to(session.device) for name, of_name in rows.items()},
    )


def correct_base_rate(model: CtrModel, rows: EncodedSamples) -> None:
    """Shifts the logits so that the mean score of the rows is their click rate; the natural log's may be several times as high."""
    fill_batch_norm(model, rows)
    model.shift_logits(base_rate_shift(score(model, rows), float(rows.label_N.double().mean()) if len(rows) else 0.0))
