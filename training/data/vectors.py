"""Vectors that other models have written (monthly snapshots of TPM, a CPM's merged table), and indexes from ids to positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from torch import Tensor

from contracts import tables
from contracts.errors import BadInput
from training.data.mapping import IdMapping, Ids

Floats = NDArray[np.float32]
Entity = tables.VectorEntity
VECTOR_ENTITIES = tables.VECTOR_ENTITIES
ID_COLUMN: dict[Entity, str] = {"user": "user_id", "item": "item_id"}


@dataclass(frozen=True)
class EntityIndex:
    """An index of an entity's ascending ids: `ids[i]` has position i + 1, and an id that is absent has position 0."""

    ids: Ids

    def positions(self, ids: Ids) -> Ids:
        """Returns the position of each id, 0 for those that are absent."""
        if len(self.ids) == 0:
            return np.zeros(len(ids), np.int64)
        at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[at] == ids, at + 1, 0)


@dataclass(frozen=True, kw_only=True)
class EntityVectors:
    """The vectors of one entity: ids (N, ascending) and vectors (N x D)."""

    ids: Ids
    vectors: Floats

    def __post_init__(self) -> None:
        assert len(self.ids) == len(self.vectors)
        assert (np.diff(self.ids) > 0).all(), "ids ascend, each once"

    @classmethod
    def none(cls, dim: int) -> EntityVectors:
        """Returns no vectors, of this width."""
        return cls(ids=np.zeros(0, np.int64), vectors=np.zeros((0, dim), np.float32))


@dataclass(frozen=True, kw_only=True)
class DatedVectors:
    """One entity's vectors of several days, in which a row of a day finds the newest vector from the days before.

    Attributes:
        ids: V, ascending.
        days: V, ordinal numbers, ascending within an id.
        vectors: V x D.
    """

    ids: Ids
    days: Ids
    vectors: Floats

    @classmethod
    def stack(cls, of_days: Mapping[int, EntityVectors], dim: int) -> DatedVectors:
        """Combines the vectors of several days, given by the days' ordinal numbers."""
        parts = [EntityVectors.none(dim), *of_days.values()]
        ids = np.concatenate([part.ids for part in parts])
        days = np.repeat(np.array([0, *of_days], np.int64), [len(part.ids) for part in parts])
        order = np.lexsort((days, ids))
        return cls(ids=ids[order], days=days[order], vectors=np.concatenate([part.vectors for part in parts])[order])

    def newest(self) -> EntityVectors:
        """Returns the last vector of each id."""
        last = np.diff(self.ids, append=-1) != 0
        return EntityVectors(ids=self.ids[last], vectors=self.vectors[last])

    def positions(self, ids: Ids, days: Ids, *, oldest: int) -> Ids:
        """Finds the newest vector of each row's id from the days before the row's day.

        Args:
            ids: the rows' ids, N.
            days: the rows' ordinal days, N.
            oldest: how many days before a row's day are searched.

        Returns:
            The place of each vector plus one, N; 0 where there is none.
        """
        if not len(self.ids):
            return np.zeros(len(ids), np.int64)
        distinct, of_vector = np.unique(self.ids, return_inverse=True)
        at = EntityIndex(distinct).positions(ids) - 1
        # An id's number and a day are combined in one ascending number, so that one search serves all rows.
        span = int(max(self.days.max(), days.max(initial=0))) + 2
        place = np.searchsorted(of_vector * span + self.days, at * span + days, side="left") - 1
        place = np.maximum(place, 0)
        found = (at >= 0) & (of_vector[place] == at) & (self.days[place] < days) & (self.days[place] >= days - oldest)
        return np.where(found, place + 1, 0)


@dataclass(frozen=True, kw_only=True)
class Snapshots:
    """One entity's vectors of several months, with one index.

    Attributes:
        index: all ids that occur in any of the months.
        vectors: M x (N + 1) x D; zeros where the entity is missing; position 0 is the missing entity.
        present: M x (N + 1).
    """

    index: EntityIndex
    vectors: Floats
    present: NDArray[np.bool_]

    @classmethod
    def stack(cls, months: Sequence[EntityVectors], dim: int) -> Snapshots:
        """Combines the months' vectors, in the order given."""
        ids = np.unique(np.concatenate([np.zeros(0, np.int64), *(month.ids for month in months)]))
        index = EntityIndex(ids)
        vectors = np.zeros((len(months), len(ids) + 1, dim), np.float32)
        present = np.zeros((len(months), len(ids) + 1), bool)
        for number, month in enumerate(months):
            at = index.positions(month.ids)
            vectors[number, at], present[number, at] = month.vectors, True
        return cls(index=index, vectors=vectors, present=present)


def write_vectors(path: Path, vectors: Mapping[Entity, EntityVectors]) -> dict[str, int]:
    """Writes rows (entity, id, vector, dim), ordered by entity and id; returns the width of each entity's vectors."""
    parts: list[pa.Table] = []
    dims: dict[str, int] = {}
    for entity, of_entity in vectors.items():
        count, dim = of_entity.vectors.shape
        dims[entity] = dim
        flat = pa.array(np.ascontiguousarray(of_entity.vectors, np.float32).reshape(-1), pa.float32())
        offsets = pa.array(np.arange(0, (count + 1) * dim, dim, dtype=np.int32), pa.int32())
        parts.append(
            pa.table(
                {
                    "entity": pa.array([entity] * count, pa.string()),
                    "id": pa.array(of_entity.ids, pa.int64()),
                    "vector": pa.ListArray.from_arrays(offsets, flat),
                    "dim": pa.array(np.full(count, dim, np.int32), pa.int32()),
                }
            )
        )
    pq.write_table(pa.concat_tables(parts), path)
    return dims


def read_vectors(path: Path, dims: Mapping[str, int]) -> dict[Entity, EntityVectors]:
    """Reads what `write_vectors` wrote.

    Raises:
        BadInput: the width of a vector is not the one that its release declares.
    """
    table = pq.read_table(path)
    entity = table["entity"].to_numpy(zero_copy_only=False)
    ids = table["id"].to_numpy()
    lengths = pc.list_value_length(table["vector"]).to_numpy().astype(np.int64)
    flat = np.concatenate([np.zeros(0, np.float32), *(chunk.flatten().to_numpy() for chunk in table["vector"].chunks)])
    ends = np.cumsum(lengths)
    result: dict[Entity, EntityVectors] = {}
    for name in VECTOR_ENTITIES:
        rows, dim = np.flatnonzero(entity == name), dims[name]
        if (lengths[rows] != dim).any():
            raise BadInput(
                path, "vector", expected=f"{dim} numbers for each {name}", found=f"{set(lengths[rows].tolist())}"
            )
        vectors = flat[(ends[rows] - dim)[:, None] + np.arange(dim)].reshape(len(rows), dim)
        order = np.argsort(ids[rows], kind="stable")
        result[name] = EntityVectors(ids=ids[rows][order], vectors=vectors[order])
    return result


def own_vectors(mapping: IdMapping, state: Mapping[str, Tensor]) -> dict[Entity, EntityVectors]:
    """Returns a model's own user and item embeddings, by raw id."""
    vectors: dict[Entity, EntityVectors] = {}
    for entity in VECTOR_ENTITIES:
        ids = mapping.fields[ID_COLUMN[entity]].ids
        order = np.argsort(ids, kind="stable")
        weight = state[f"embeddings.{ID_COLUMN[entity]}.weight"].cpu().numpy()
        vectors[entity] = EntityVectors(ids=ids[order], vectors=weight[1:][order])
    return vectors
