"""The transferred user and item vectors that CPM and A-CTR read.

CPM trains an aggregator over three monthly snapshots, whose vectors stay as they are (E-CDCTR, arXiv 2408.16238: the last
three snapshots are aggregated by self-attention and mean pooling). Once it is trained, its result for each user and item
is stored in one merged table, which A-CTR only reads. Both give the same vectors.

Shapes: B rows of a batch, M months, D width, V entities.
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
_TEXT_SCALE = (
    0.1  # published values are about 1, many times those of ids' vectors; unscaled, sparse ads were overfitted
)


class Aggregator(nn.Module):
    """Aggregates an entity's snapshot vectors into one: one layer of self-attention with one head and no FFN, then a mean.

    The mean is over the months in which the entity is present.

    Args:
        dim: the width of the vectors, D.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)

    def forward(self, vectors_BMD: Tensor, present_BM: Tensor) -> Tensor:
        """Aggregates the vectors of a batch.

        Args:
            vectors_BMD: the vectors of each row's months.
            present_BM: whether the entity is present in each month; months without it are masked.

        Returns:
            B x D; zeros for an entity that is in no month.
        """
        scores_BMM = self.query(vectors_BMD) @ self.key(vectors_BMD).transpose(1, 2) / math.sqrt(vectors_BMD.shape[2])
        # A large negative number, not -inf, of which the softmax would be NaN for an entity that is in no month.
        weights_BMM = torch.softmax(scores_BMM.masked_fill(~present_BM[:, None, :], -1e9), dim=2)
        mixed_BMD: Tensor = weights_BMM @ self.value(vectors_BMD)
        mask_BM1 = present_BM[:, :, None].to(mixed_BMD.dtype)
        return (mixed_BMD * mask_BM1).sum(dim=1) / mask_BM1.sum(dim=1).clamp(min=1.0)


class TransferSource(nn.Module):
    """What gives each row its transferred vectors.

    This base class stands for no transfer (the variant `none`): it gives zeros, and flags nothing as missing.

    Args:
        dims: the width of each entity's vectors.
    """

    def __init__(self, dims: Mapping[Entity, int]) -> None:
        super().__init__()
        self.dims = dict(dims)

    @property
    def width(self) -> int:
        """The number of columns that `forward` returns: the user's and the item's vector, and for each a flag that it is missing."""
        return sum(self.dims.values()) + len(self.dims)

    @property
    def index(self) -> dict[Entity, EntityIndex]:
        """For each entity, the position of each id among the vectors; the encoding of batches needs it."""
        return {}

    def forward(self, batch: Batch) -> Tensor:
        """Returns the transferred inputs, B x `width`; zeros without transfer."""
        return batch.dense_BS.new_zeros(batch.dense_BS.shape[0], self.width)


class MergedTable(TransferSource):
    """A CPM's merged table: one vector per entity, which is not trained further.

    The table belongs to the CPM's release, so it is not among the weights that the model saves.

    Args:
        vectors: the merged table of each entity: ids and their vectors, V x D.
    """

    def __init__(self, vectors: Mapping[Entity, EntityVectors]) -> None:
        super().__init__({entity: vectors[entity].vectors.shape[1] for entity in VECTOR_ENTITIES})
        self._index = {entity: EntityIndex(vectors[entity].ids) for entity in VECTOR_ENTITIES}
        for entity in VECTOR_ENTITIES:
            table = torch.from_numpy(vectors[entity].vectors)
            self.register_buffer(entity, torch.cat([torch.zeros(1, table.shape[1]), table]), persistent=False)

    @property
    def index(self) -> dict[Entity, EntityIndex]:
        """For each entity, the position of each id among the vectors."""
        return self._index

    def forward(self, batch: Batch) -> Tensor:
        """Returns the user's vector, the item's vector and a flag for each that is missing, B x `width`."""
        parts = [self.get_buffer("user")[batch.user_at_B], self.get_buffer("item")[batch.item_at_B]]
        flags = [(at == 0).to(parts[0].dtype)[:, None] for at in (batch.user_at_B, batch.item_at_B)]
        return torch.cat([*parts, *flags], dim=1)


class TextVectors(nn.Module):
    """BAHE's vectors of users (Q_u) and items (Q_i), scaled down and not trained further.

    They belong to BAHE's releases, so they are not among the weights that the model saves.

    Args:
        vectors: for users and for items, the vector of each id on each day that has one.
    """

    def __init__(self, vectors: Mapping[Entity, DatedVectors]) -> None:
        super().__init__()
        self.vectors = vectors
        self.dim: int = vectors["user"].vectors.shape[1]
        for entity in VECTOR_ENTITIES:
            self.register_buffer(entity, self.read(vectors[entity].vectors), persistent=False)

    @property
    def width(self) -> int:
        """The number of columns that `forward` returns: both vectors, their product, and a flag for each that is missing."""
        return 3 * self.dim + len(VECTOR_ENTITIES)

    def newest(self) -> TextVectors:
        """Returns a module that holds only the newest vector of each id."""
        return TextVectors(
            {entity: DatedVectors.stack({0: dated.newest()}, self.dim) for entity, dated in self.vectors.items()}
        )

    @staticmethod
    def read(vectors: NDArray[np.float32]) -> Tensor:
        """Scales published vectors down, and puts a row of zeros before them, which ids without a vector read."""
        return functional.pad(torch.from_numpy(vectors) * _TEXT_SCALE, (0, 0, 1, 0))

    def forward(self, batch: Batch) -> Tensor:
        """Returns the user's vector, the item's vector, their element-wise product and the two flags, B x `width`."""
        user_BD, item_BD = (self.get_buffer(entity)[batch.texts[entity]] for entity in VECTOR_ENTITIES)
        flags = [(batch.texts[entity] == 0).to(user_BD.dtype)[:, None] for entity in VECTOR_ENTITIES]
        return torch.cat([user_BD, item_BD, user_BD * item_BD, *flags], dim=1)


class AggregatedSnapshots(TransferSource):
    """The aggregator over monthly snapshots, which CPM trains; the snapshots' vectors are not trained further.

    Args:
        snapshots: for each entity, its vectors in all months that any of the days needs.
        months_of_day: for each day, from the first day of the encoded rows on, the positions of its three months in the
            snapshots; -1 for a month before the deployment's history.
        dims: the width of each entity's vectors, D.
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
        """For each entity, the position of each id among the vectors."""
        return self._index

    def aggregate(self, entity: Entity, at_B: Tensor, months_BM: Tensor) -> tuple[Tensor, Tensor]:
        """Aggregates the vectors of users or of items.

        Args:
            entity: `user` or `item`.
            at_B: the position of each row's id among the vectors.
            months_BM: the positions of each row's months in the snapshots.

        Returns:
            The aggregated vectors (B x D), and whether the id is in none of its months (B).
        """
        present_BM = self.get_buffer(f"{entity}_present")[months_BM, at_B[:, None]]
        vectors_BMD = self.get_buffer(f"{entity}_vectors")[months_BM, at_B[:, None]]
        return self.aggregators[entity](vectors_BMD, present_BM), ~present_BM.any(dim=1)

    def forward(self, batch: Batch) -> Tensor:
        """Returns the aggregated user and item vectors and a flag for each that is missing, B x `width`."""
        months_BM = self.get_buffer("months_of_day")[batch.day_B]
        user_BD, no_user_B = self.aggregate("user", batch.user_at_B, months_BM)
        item_BD, no_item_B = self.aggregate("item", batch.item_at_B, months_BM)
        return torch.cat(
            [user_BD, item_BD, no_user_B.to(user_BD.dtype)[:, None], no_item_B.to(user_BD.dtype)[:, None]], dim=1
        )

    @torch.no_grad()
    def merge(self, months: Sequence[int]) -> dict[Entity, EntityVectors]:
        """Makes the merged table of three months: for each entity, the aggregated vector of every id that is in any of them.

        Args:
            months: the positions of the months in the snapshots.
        """
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
