"""Builds models: networks with fresh weights, and embedding tables whose sizes an id mapping gives."""

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
    """The parts from which a CPM or an A-CTR is built.

    Attributes:
        body: widths and lengths of the network.
        mapping: the ids of the embedding tables, by feature.
        num_dense: the number of dense inputs.
        transfer: the source of transferred vectors.
        frozen: features whose tables are not trained.
        source: a finished CPM whose hidden layers join the model's through adapters; None without adapters.
        bridge: the part that reads a pre-trained sequence encoder; None without one.
        texts: the vectors of behaviour texts; None without them.
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
    """Builds a CPM or an A-CTR on a device, with fresh weights drawn from this seed."""
    torch.manual_seed(seed)
    embeddings = IdEmbeddings(parts.mapping.row_cnts(), EMBEDDING_DIMS, seed=seed, device=device)
    if parts.source is not None:
        return AdaptedCtrModel(parts.body, embeddings, parts.num_dense, parts.transfer, parts.source).to(device)
    return CtrModel(
        parts.body, embeddings, parts.num_dense, parts.transfer, parts.frozen, parts.bridge, parts.texts
    ).to(device)


def build_fg_bert(recipe: FgBertRecipe, mapping: IdMapping, frequency: Mapping[str, Tensor]) -> FgBert:
    """Builds an FG-BERT with fresh weights drawn from the recipe's seed.

    Args:
        recipe: the settings of the model.
        mapping: the ids of the embedding tables, by feature.
        frequency: by feature, how often each row of the table was seen.
    """
    torch.manual_seed(recipe.seed)
    return FgBert(recipe, mapping.row_cnts(), frequency)


def build_tpm(recipe: TpmRecipe, mapping: IdMapping, device: torch.device) -> TpmModel:
    """Builds a TPM on a device, with fresh weights drawn from the recipe's seed."""
    torch.manual_seed(recipe.seed)
    return TpmModel(
        IdEmbeddings(mapping.row_cnts(), EMBEDDING_DIMS, seed=recipe.seed, device=device), recipe.hidden
    ).to(device)
