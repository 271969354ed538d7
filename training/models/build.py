"""Builders of models: networks with fresh weights, their embedding tables as large as an id mapping says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from contracts.features import FEATURES
from training.data.mapping import IdMapping
from training.data.vectors import ID_COLUMN, VECTOR_ENTITIES, Entity
from training.models.adapted import AdaptedCtrModel, Source
from training.models.ctr import CtrModel
from training.models.fg_bert import FgBert
from training.models.srp4ctr import Bridge
from training.models.tpm import TpmModel
from training.modules.embedding import IdEmbeddings
from training.modules.transfer import TextVectors, TransferSource
from training.recipes import Body, FgBertRecipe, TpmRecipe

EMBEDDING_DIMS = {feature.name: feature.embedding_dim for feature in FEATURES}
TRANSFER_DIMS: dict[Entity, int] = {entity: EMBEDDING_DIMS[ID_COLUMN[entity]] for entity in VECTOR_ENTITIES}


@dataclass(frozen=True, kw_only=True)
class CtrParts:
    """What a CPM or A-CTR is built from.

    Attributes:
        body: widths and lengths of its network.
        mapping: ids of its embedding tables, by feature.
        num_dense: how many dense inputs it has.
        transfer: where its transferred vectors come from.
        frozen: features whose tables do not learn.
        source: a finished CPM whose hidden layers join its own through adapters.
        bridge: to a pre-trained sequence encoder.
        texts: vectors of behaviour texts.
    """

    body: Body
    mapping: IdMapping
    num_dense: int
    transfer: TransferSource
    frozen: frozenset[str] = frozenset()
    source: Source | None = None
    bridge: Bridge | None = None
    texts: TextVectors | None = None


def build_ctr(parts: CtrParts, *, seed: int, device: torch.device) -> CtrModel:
    """A CPM or A-CTR with fresh weights of this seed, on a device."""
    torch.manual_seed(seed)
    embeddings = IdEmbeddings(parts.mapping.row_cnts(), EMBEDDING_DIMS, seed=seed, device=device)
    if parts.source is not None:
        return AdaptedCtrModel(parts.body, embeddings, parts.num_dense, parts.transfer, parts.source).to(device)
    return CtrModel(parts.body, embeddings, parts.num_dense, parts.transfer, parts.frozen, parts.bridge, parts.texts).to(device)


def build_fg_bert(recipe: FgBertRecipe, mapping: IdMapping, frequency: Mapping[str, Tensor]) -> FgBert:
    """An FG-BERT with fresh weights of the recipe's seed; `frequency` says how often each row of a table was seen, by feature."""
    torch.manual_seed(recipe.seed)
    return FgBert(recipe, mapping.row_cnts(), frequency)


def build_tpm(recipe: TpmRecipe, mapping: IdMapping, device: torch.device) -> TpmModel:
    """A TPM with fresh weights of the recipe's seed, on a device."""
    torch.manual_seed(recipe.seed)
    return TpmModel(IdEmbeddings(mapping.row_cnts(), EMBEDDING_DIMS, seed=recipe.seed, device=device), recipe.hidden).to(device)
