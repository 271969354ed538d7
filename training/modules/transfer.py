"""Where CPM and A-CTR get transferred user and item vectors from.

CPM runs the aggregator over three frozen monthly snapshots and trains it; afterwards the tables are merged into one,
which A-CTR looks up, frozen. Both give the same vectors (E-CDCTR, arXiv 2408.16238: aggregation of the last three
snapshots by self-attention and mean pooling).

Shapes: B rows, M months, D width, V entities.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from training.data.batches import Batch
from training.data.vectors import VECTOR_ENTITIES, DatedVectors, Entity, EntityIndex, EntityVectors, Snapshots

_MERGE_ROWS = 65_536  # entities merged at a time
_TEXT_SCALE = 0.1  # from numbers of about 1, many times those of ids' vectors, sparse ads are learned by heart


class Aggregator(nn.Module):
    """Three snapshot vectors -> one: one layer and head of self-attention, no FFN, then the mean over those present.

    Args:
        dim: D.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)

    def forward(self, vectors_BMD: Tensor, present_BM: Tensor) -> Tensor:
        """B x M x D and B x M -> B x D; months in which the entity is missing are masked, zeros where all are."""
        scores_BMM = self.query(vectors_BMD) @ self.key(vectors_BMD).transpose(1, 2) / math.sqrt(vectors_BMD.shape[2])
        # A large negative number, not -inf: an entity without any month would give NaN instead of a masked-out value.
        weights_BMM = torch.softmax(scores_BMM.masked_fill(~present_BM[:, None, :], -1e9), dim=2)
        mixed_BMD: Tensor = weights_BMM @ self.value(vectors_BMD)
        mask_BM1 = present_BM[:, :, None].to(mixed_BMD.dtype)
        return (mixed_BMD * mask_BM1).sum(dim=1) / mask_BM1.sum(dim=1).clamp(min=1.0)


class TransferSource(nn.Module):
    """Gives each row's transferred vectors; this base gives none (the variant `none`): zeros, nothing flagged."""

    def __init__(self, dims: Mapping[Entity, int]) -> None:
        super().__init__()
        self.dims = dict(dims)

    @property
    def width(self) -> int:
        """Columns of `forward`: the user's and the item's vector, and a flag for each that is missing."""
        return sum(self.dims.values()) + len(self.dims)

    @property
    def index(self) -> dict[Entity, EntityIndex]:
        """Positions of ids, for the encoding."""
        return {}

    def forward(self, batch: Batch) -> Tensor:
        """Returns the transferred inputs, B x `width`; zeros without transfer."""
        return batch.dense_BS.new_zeros(batch.dense_BS.shape[0], self.width)


class MergedTable(TransferSource):
    """A CPM's merged table: one frozen vector per entity. It belongs to the CPM, so it is not part of the model's own weights."""

    def __init__(self, vectors: Mapping[Entity, EntityVectors]) -> None:
        super().__init__({entity: vectors[entity].vectors.shape[1] for entity in VECTOR_ENTITIES})
        self._index = {entity: EntityIndex(vectors[entity].ids) for entity in VECTOR_ENTITIES}
        for entity in VECTOR_ENTITIES:
            table = torch.from_numpy(vectors[entity].vectors)
            self.register_buffer(entity, torch.cat([torch.zeros(1, table.shape[1]), table]), persistent=False)

    @property
    def index(self) -> dict[Entity, EntityIndex]:
        """The index of the transferred vectors, by entity."""
        return self._index

    def forward(self, batch: Batch) -> Tensor:
        """Returns user vector, item vector and two flags for missing ones, B x width."""
        parts = [self.get_buffer("user")[batch.user_at_B], self.get_buffer("item")[batch.item_at_B]]
        flags = [(at == 0).to(parts[0].dtype)[:, None] for at in (batch.user_at_B, batch.item_at_B)]
        return torch.cat([*parts, *flags], dim=1)


class TextVectors(nn.Module):
    """BAHE's Q_u and Q_i, frozen and scaled down: the vectors of both, their product, and a flag for each that is missing.

    They belong to BAHE's releases, so they are not part of the model's own weights.
    """

    def __init__(self, vectors: Mapping[Entity, DatedVectors]) -> None:
        super().__init__()
        self.vectors = vectors
        self.dim: int = vectors["user"].vectors.shape[1]
        for entity in VECTOR_ENTITIES:
            self.register_buffer(entity, self.read(vectors[entity].vectors), persistent=False)

    @property
    def width(self) -> int:
        """Columns of `forward`."""
        return 3 * self.dim + len(VECTOR_ENTITIES)

    def newest(self) -> TextVectors:
        """Returns the same module with only the last vector of each id."""
        return TextVectors(
            {entity: DatedVectors.stack({0: dated.newest()}, self.dim) for entity, dated in self.vectors.items()}
        )

    @staticmethod
    def read(vectors: NDArray[np.float32]) -> Tensor:
        """Scales published vectors down, and puts a vector of zeros before them for ids that have none."""
        return functional.pad(torch.from_numpy(vectors) * _TEXT_SCALE, (0, 0, 1, 0))

    def forward(self, batch: Batch) -> Tensor:
        """Returns both vectors, their product and the flags, B x `width`."""
        user_BD, item_BD = (self.get_buffer(entity)[batch.texts[entity]] for entity in VECTOR_ENTITIES)
        flags = [(batch.texts[entity] == 0).to(user_BD.dtype)[:, None] for entity in VECTOR_ENTITIES]
        return torch.cat([user_BD, item_BD, user_BD * item_BD, *flags], dim=1)


class AggregatedSnapshots(TransferSource):
    """The aggregator over frozen snapshots, as CPM trains it.

    Args:
        snapshots: each entity's vectors of all months that any day needs.
        months_of_day: for each day from the encoding's first on, three positions among those months, -1 where a month
            precedes the history.
        dims: D of each entity.
    """

    def __init__(
        self, snapshots: Mapping[Entity, Snapshots], months_of_day: Sequence[Sequence[int]], dims: Mapping[Entity, int]
    ) -> None:
        super().__init__(dims)
        self.aggregators = nn.ModuleDict({entity: Aggregator(dims[entity]) for entity in VECTOR_ENTITIES})
        self._index = {entity: snapshots[entity].index for entity in VECTOR_ENTITIES}
        for entity in VECTOR_ENTITIES:
            # A position of -1 selects one more month, in which no entity is present.
            vectors, present = torch.from_numpy(snapshots[entity].vectors), torch.from_numpy(snapshots[entity].present)
            self.register_buffer(
                f"{entity}_vectors",
                torch.cat(
                    [vectors, torch.zeros_like(vectors[:1]) if len(vectors) else torch.zeros(1, *vectors.shape[1:])]
                ),
                persistent=False,
            )
            self.register_buffer(
                f"{entity}_present",
                torch.cat([present, torch.zeros(1, present.shape[1], dtype=torch.bool)]),
                persistent=False,
            )
        self.register_buffer("months_of_day", torch.tensor(months_of_day, dtype=torch.int64), persistent=False)

    @property
    def index(self) -> dict[Entity, EntityIndex]:
        """The index of the transferred vectors, by entity."""
        return self._index

    def aggregate(self, entity: Entity, at_B: Tensor, months_BM: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the aggregated vectors (B x D) of positions and months, and whether the entity has none (B)."""
        present_BM = self.get_buffer(f"{entity}_present")[months_BM, at_B[:, None]]
        vectors_BMD = self.get_buffer(f"{entity}_vectors")[months_BM, at_B[:, None]]
        return self.aggregators[entity](vectors_BMD, present_BM), ~present_BM.any(dim=1)

    def forward(self, batch: Batch) -> Tensor:
        """Returns the aggregated user and item vectors, and two flags for missing ones, B x width."""
        months_BM = self.get_buffer("months_of_day")[batch.day_B]
        user_BD, no_user_B = self.aggregate("user", batch.user_at_B, months_BM)
        item_BD, no_item_B = self.aggregate("item", batch.item_at_B, months_BM)
        return torch.cat(
            [user_BD, item_BD, no_user_B.to(user_BD.dtype)[:, None], no_item_B.to(user_BD.dtype)[:, None]], dim=1
        )

    @torch.no_grad()
    def merge(self, months: Sequence[int]) -> dict[Entity, EntityVectors]:
        """The merged table of three months: a vector for every entity that is present in any of them."""
        merged: dict[Entity, EntityVectors] = {}
        for entity in VECTOR_ENTITIES:
            index = self._index[entity]
            device = self.get_buffer("months_of_day").device
            months_M = torch.tensor(months, dtype=torch.int64, device=device)
            parts = [
                self.aggregate(entity, at, months_M.expand(len(at), -1))
                for at in torch.arange(1, len(index.ids) + 1, device=device).split(_MERGE_ROWS)
            ]
            vectors = torch.cat([vectors for vectors, _ in parts]) if parts else torch.zeros(0, self.dims[entity])
            known = ~torch.cat([missing for _, missing in parts]).cpu().numpy() if parts else index.ids >= 0
            merged[entity] = EntityVectors(ids=index.ids[known], vectors=vectors.cpu().numpy()[known])
        return merged
