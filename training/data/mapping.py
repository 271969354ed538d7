"""Maps raw ids to rows of the embedding tables. The mapping is state of the model, not of the lake.

The mapping grows before a run by the run's data, and is frozen during the run. An id gets a row of its own once it was
seen often enough; until then it shares row 0 with all others that have none. Ids that were not seen for long lose their
rows. New rows are ordered by count (most frequent first), then by id, so that the mapping is the same for any number of
processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from training.recipes import Admission

Ids = NDArray[np.int64]

SHARED_ROW = 0
_NOTHING: Ids = np.zeros(0, np.int64)


@dataclass(frozen=True, kw_only=True)
class Coded:
    """A column of ids, where each id is encoded as its position among the distinct ids.

    Attributes:
        ids: distinct, >= 0, ascending.
        codes: N; -1 where the log has no value.
    """

    ids: Ids
    codes: Ids

    @classmethod
    def of(cls, ids: Ids) -> Coded:
        """Encodes a column by a hash table, which is several times faster than the sort of `np.unique`."""
        encoded = pa.array(ids, mask=ids < 0 if len(ids) and ids.min() < 0 else None).dictionary_encode()
        codes, distinct = (
            encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False),
            encoded.dictionary.to_numpy(zero_copy_only=False),
        )
        order = np.argsort(distinct)
        rank = np.full(len(distinct) + 1, -1, np.int64)
        rank[order] = np.arange(len(distinct))
        return cls(ids=distinct[order].astype(np.int64), codes=rank[codes])


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The ids of one feature that occur in a run's data.

    Attributes:
        ids: distinct, >= 0, ascending.
        cnt: how often each occurs.
        last_day: ordinal number of the last day on which each occurs.
    """

    ids: Ids
    cnt: Ids
    last_day: Ids

    @classmethod
    def of(cls, coded: Coded, days: Ids, weights: Ids | None = None) -> Seen:
        """Counts occurrences of ids.

        Args:
            coded: the column of ids, N; code -1 is not counted.
            days: the ordinal day of each row, N.
            weights: how often each row counts, N; once each by default.
        """
        codes = coded.codes
        occurs = codes >= 0 if weights is None else (codes >= 0) & (weights > 0)
        if not occurs.all():
            codes, days, weights = codes[occurs], days[occurs], None if weights is None else weights[occurs]
        cnt = np.bincount(codes, weights=weights, minlength=len(coded.ids)).astype(np.int64)
        last_day = np.zeros(len(coded.ids), np.int64)
        np.maximum.at(last_day, codes, days)
        return _chosen(cls(ids=coded.ids, cnt=cnt, last_day=last_day), cnt > 0)

    def __add__(self, other: Seen) -> Seen:
        """Returns the sightings of both added up."""
        if len(self.ids) == 0 or len(other.ids) == 0:
            return self if len(other.ids) == 0 else other
        ids, at = np.unique(np.concatenate([self.ids, other.ids]), return_inverse=True)
        cnt, last_day = np.zeros(len(ids), np.int64), np.zeros(len(ids), np.int64)
        np.add.at(cnt, at, np.concatenate([self.cnt, other.cnt]))
        np.maximum.at(last_day, at, np.concatenate([self.last_day, other.last_day]))
        return Seen(ids=ids, cnt=cnt, last_day=last_day)


@dataclass(frozen=True, kw_only=True)
class FieldMapping:
    """The mapping of one feature.

    Attributes:
        ids: the ids with a row of their own, in the order of the rows: `ids[i]` has row i + 1.
        last_day: the ordinal day on which each of them was last seen.
        waiting: the ids that have no row of their own yet.
    """

    ids: Ids
    last_day: Ids
    waiting: Seen

    @classmethod
    def empty(cls) -> FieldMapping:
        """Returns the mapping of a feature that has not been seen."""
        return cls(ids=_NOTHING, last_day=_NOTHING, waiting=Seen(ids=_NOTHING, cnt=_NOTHING, last_day=_NOTHING))

    @cached_property
    def _sorted(self) -> tuple[Ids, Ids]:
        order = np.argsort(self.ids, kind="stable")
        return self.ids[order], order + 1

    @property
    def row_cnt(self) -> int:
        """Rows of the table, the shared one included."""
        return len(self.ids) + 1

    def rows(self, ids: Ids) -> Ids:
        """Returns the row of each id, `SHARED_ROW` for those without one, in the given shape; ascending ids are fastest."""
        if len(self.ids) == 0:
            return np.full(ids.shape, SHARED_ROW, np.int64)
        known, rows = self._sorted
        at = np.minimum(np.searchsorted(known, ids), len(known) - 1)
        return np.where(known[at] == ids, rows[at], SHARED_ROW)

    def rows_of(self, coded: Coded) -> Ids:
        """Returns the rows of a column, with one search for each distinct id."""
        return np.append(self.rows(coded.ids), SHARED_ROW)[coded.codes]

    def grown(self, seen: Seen, admission: Admission) -> Growth:
        """Returns the mapping after a run's data: new ids are appended by count and then by id, ids not seen for long are removed."""
        rows = self.rows(seen.ids)
        last_day = self.last_day.copy()
        known = rows != SHARED_ROW
        last_day[rows[known] - 1] = np.maximum(last_day[rows[known] - 1], seen.last_day[known])
        candidates = self.waiting + _chosen(seen, ~known)
        kept = np.arange(len(self.ids))
        if admission.forget_after_days is not None and len(seen.ids):
            oldest = int(seen.last_day.max()) - admission.forget_after_days
            kept = np.flatnonzero(last_day >= oldest)
            candidates = _chosen(candidates, candidates.last_day >= oldest)
        admitted = candidates.cnt >= admission.sightings
        new = _chosen(candidates, admitted)
        order = np.lexsort((new.ids, -new.cnt))
        mapping = FieldMapping(
            ids=np.concatenate([self.ids[kept], new.ids[order]]),
            waiting=_chosen(candidates, ~admitted),
            last_day=np.concatenate([last_day[kept], new.last_day[order]]),
        )
        return Growth(mapping=mapping, carried=np.concatenate([[SHARED_ROW], kept + 1]))


@dataclass(frozen=True, kw_only=True)
class Growth:
    """The mapping of a feature for a run, and the rows that it keeps from the mapping before.

    Attributes:
        mapping: the run's mapping.
        carried: rows of the previous table, in the order in which they are the first rows of the new table.
    """

    mapping: FieldMapping
    carried: Ids


def _chosen(seen: Seen, mask: NDArray[np.bool_]) -> Seen:
    return Seen(**{f.name: getattr(seen, f.name)[mask] for f in fields(seen)})


@dataclass(frozen=True)
class IdMapping:
    """The mapping of every categorical feature of a model, by the feature's name."""

    fields: Mapping[str, FieldMapping]

    @classmethod
    def empty(cls, names: tuple[str, ...]) -> IdMapping:
        """Returns the mapping of features that have not been seen, in this order."""
        return cls({name: FieldMapping.empty() for name in names})

    @classmethod
    def of_ids(cls, ids: Mapping[str, Ids]) -> IdMapping:
        """Gives each of some distinct ids a row of its own, by feature; for models without embedding tables."""
        seen = {
            name: Seen(ids=of_name, cnt=np.ones(len(of_name), np.int64), last_day=np.zeros(len(of_name), np.int64))
            for name, of_name in ids.items()
        }
        return cls.empty(tuple(ids)).grown(seen, tuple(ids), Admission(sightings=1))[0]

    def row_cnts(self) -> dict[str, int]:
        """Returns the number of rows of each feature's table, the shared row included."""
        return {name: mapping.row_cnt for name, mapping in self.fields.items()}

    def grown(
        self, seen: Mapping[str, Seen], names: tuple[str, ...], admission: Admission
    ) -> tuple[IdMapping, dict[str, Ids]]:
        """Returns the mapping after a run's data; features that it does not have yet begin empty.

        Args:
            seen: the ids in the data, by feature; a feature that is absent keeps its mapping.
            names: all features of the model, in its order.
            admission: the rule by which ids get and lose rows.

        Returns:
            The mapping, and the rows that each feature's table carries over (see `Growth`).
        """
        nothing = FieldMapping.empty().waiting
        growths = {
            name: self.fields.get(name, FieldMapping.empty()).grown(seen.get(name, nothing), admission)
            for name in names
        }
        return (
            IdMapping({name: growth.mapping for name, growth in growths.items()}),
            {name: growth.carried for name, growth in growths.items()},
        )

    def save(self, path: Path) -> None:
        """Writes rows (field, id, row, cnt, last_day): a waiting id has row 0 and its count, any other id its row and count 0."""
        parts = []
        for name, mapping in self.fields.items():
            waiting = mapping.waiting
            parts.append(
                pa.table(
                    {
                        "field": pa.array([name] * (len(mapping.ids) + len(waiting.ids)), pa.string()),
                        "id": np.concatenate([mapping.ids, waiting.ids]),
                        "row": np.concatenate([np.arange(1, mapping.row_cnt), np.full(len(waiting.ids), SHARED_ROW)]),
                        "cnt": np.concatenate([np.zeros(len(mapping.ids), np.int64), waiting.cnt]),
                        "last_day": pa.array(
                            np.concatenate([mapping.last_day, waiting.last_day]) - _EPOCH, pa.int32()
                        ).cast(pa.date32()),
                    }
                )
            )
        pq.write_table(pa.concat_tables(parts), path)

    @classmethod
    def load(cls, path: Path, names: tuple[str, ...]) -> IdMapping:
        """Reads what `save` wrote; a feature without ids is not in the file, so the model names its features."""
        table = pq.read_table(path)
        field = table["field"].to_numpy(zero_copy_only=False)
        ids, rows, cnt = (table[name].to_numpy() for name in ("id", "row", "cnt"))
        last_day = table["last_day"].cast(pa.int32()).to_numpy().astype(np.int64) + _EPOCH
        mappings = {}
        for name in names:
            own = np.flatnonzero(field == name)
            admitted, waiting = own[rows[own] != SHARED_ROW], own[rows[own] == SHARED_ROW]
            admitted = admitted[np.argsort(rows[admitted], kind="stable")]
            mappings[name] = FieldMapping(
                ids=ids[admitted],
                last_day=last_day[admitted],
                waiting=Seen(ids=ids[waiting], cnt=cnt[waiting], last_day=last_day[waiting]),
            )
        return cls(mappings)


_EPOCH = date(1970, 1, 1).toordinal()
