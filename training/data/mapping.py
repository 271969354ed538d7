"""Raw ids -> rows of the embedding tables: state of the model, not of the lake.

Built before a run from its data, frozen during it, grown between runs: new ids are appended by count (most frequent
first), then by id, so that the mapping is the same for any number of processes, and a row never changes its id. Row 0 is
the unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

Ids = NDArray[np.int64]

UNKNOWN_ROW = 0


def count_ids(ids: Ids, weights: Ids | None = None) -> tuple[Ids, Ids]:
    """Distinct ids >= 0, ascending, and how often each occurs (each occurrence counting its weight; weight 0 is none)."""
    keep = ids >= 0 if weights is None else (ids >= 0) & (weights > 0)
    distinct, inverse = np.unique(ids[keep], return_inverse=True)
    if weights is None:
        return distinct, np.bincount(inverse, minlength=len(distinct)).astype(np.int64)
    return distinct, np.bincount(inverse, weights=weights[keep], minlength=len(distinct)).astype(np.int64)


@dataclass(frozen=True)
class FieldMapping:
    """One field's ids, in the order of their rows: `ids[i]` has row i + 1."""

    ids: Ids

    @cached_property
    def _sorted(self) -> tuple[Ids, Ids]:
        order = np.argsort(self.ids, kind="stable")
        return self.ids[order], order + 1

    @property
    def row_cnt(self) -> int:
        """Rows of the table, the unknown included."""
        return len(self.ids) + 1

    def rows(self, ids: Ids) -> Ids:
        """Rows of the ids; `UNKNOWN_ROW` for those it does not know. Shape as given."""
        if len(self.ids) == 0:
            return np.zeros(ids.shape, np.int64)
        known, rows = self._sorted
        at = np.minimum(np.searchsorted(known, ids), len(known) - 1)
        return np.where(known[at] == ids, rows[at], UNKNOWN_ROW)

    def grown(self, ids: Ids, counts: Ids) -> FieldMapping:
        """With the unknown ones among the distinct `ids` appended, by count and then by id."""
        new = self.rows(ids) == UNKNOWN_ROW
        ids, counts = ids[new], counts[new]
        return FieldMapping(np.concatenate([self.ids, ids[np.lexsort((ids, -counts))]]))


@dataclass(frozen=True)
class IdMapping:
    """The mapping of every categorical feature of a model, by the feature's name."""

    fields: Mapping[str, FieldMapping]

    @classmethod
    def empty(cls, names: tuple[str, ...]) -> IdMapping:
        return cls({name: FieldMapping(np.zeros(0, np.int64)) for name in names})

    def row_cnts(self) -> dict[str, int]:
        return {name: mapping.row_cnt for name, mapping in self.fields.items()}

    def grown(self, counts: Mapping[str, tuple[Ids, Ids]], names: tuple[str, ...]) -> IdMapping:
        """With the ids of `counts` (field -> distinct ids, counts) appended; fields not yet known begin empty.

        Args:
            counts: what the run's data holds.
            names: all fields of the model, in its order.
        """
        empty = FieldMapping(np.zeros(0, np.int64))
        grown = {}
        for name in names:
            before = self.fields.get(name, empty)
            grown[name] = before.grown(*counts[name]) if name in counts else before
        return IdMapping(grown)

    def save(self, path: Path) -> None:
        columns = [(np.full(len(mapping.ids), name, dtype=object), mapping.ids, np.arange(1, mapping.row_cnt))
                   for name, mapping in self.fields.items()]
        names, ids, rows = (np.concatenate([column[i] for column in columns]) for i in range(3))
        table = pa.table({"field": pa.array(names, pa.string()), "id": pa.array(ids, pa.int64()), "row": pa.array(rows, pa.int64())})
        pq.write_table(table, path)

    @classmethod
    def load(cls, path: Path, names: tuple[str, ...]) -> IdMapping:
        """Reads what `save` wrote; a field without ids is not in the file, so the model names its fields."""
        table = pq.read_table(path)
        field = table["field"].to_numpy(zero_copy_only=False)
        ids, rows = table["id"].to_numpy(), table["row"].to_numpy()
        fields = {}
        for name in names:
            of_field = field == name
            fields[name] = FieldMapping(ids[of_field][np.argsort(rows[of_field], kind="stable")])
        return cls(fields)
