"""Reads the samples of the lake, day by day, with the histories that each may see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from contracts.features import FEATURES, STATISTICS, Log
from contracts.tables import table
from lake.progress import each
from lake.reader import LakeReader
from training.data.codes import Ints
from training.data.histories import HISTORY_FEATURES, HistorySlices, PackedHistories, slice_histories
from training.data.mapping import Coded, Seen


@dataclass(frozen=True, kw_only=True)
class Samples:
    """N impressions with raw ids, in order of (ds, sample_ts, event_id).

    Attributes:
        day: N, the day's ordinal number.
        event_id: N.
        user_id: N.
        click: N, 0 or 1.
        held_out: N; rows that are kept out of all training.
        features: raw ids by feature, N each; -1 where the log has no value.
        statistics: counts by column, N each.
        histories: the behaviours that each sample may see; None where the model reads no histories.
    """

    day: Ints
    event_id: Ints
    user_id: Ints
    click: Ints
    held_out: NDArray[np.bool_]
    features: Mapping[str, Ints]
    statistics: Mapping[str, Ints]
    histories: HistorySlices | None

    def __len__(self) -> int:
        return len(self.day)

    def select(self, index: NDArray[np.generic]) -> Samples:
        """Selects the rows of a mask or index, in its order."""
        return Samples(
            **{name: getattr(self, name)[index] for name in _ROW_FIELDS},
            features={name: values[index] for name, values in self.features.items()},
            statistics={name: values[index] for name, values in self.statistics.items()},
            histories=None if self.histories is None else self.histories.select(index),
        )

    @cached_property
    def coded(self) -> Mapping[str, Coded]:
        """The features' columns, where each id is encoded as its position among the distinct ids."""
        return {name: Coded.of(ids) for name, ids in self.features.items()}

    def trainable(self) -> Samples:
        """Removes the held-out rows: only the others may reach a training batch."""
        return self.select(~self.held_out)

    def seen(self, names: Sequence[str]) -> dict[str, Seen]:
        """Counts the ids of each feature, as candidates and in the histories that samples see."""
        seen = {}
        for name in names:
            if name not in self.features:
                continue
            seen[name] = Seen.of(self.coded[name], self.day)
            if self.histories is not None and name in HISTORY_FEATURES:
                seen[name] += Seen.of(
                    self.histories.coded[name], self.histories.last_day(self.day), self.histories.seen_cnt()
                )
        return seen

    def with_features(self, names: Sequence[str]) -> Samples:
        """Returns the samples with exactly these features; a feature that the log lacks has no value in any row."""
        return replace(self, features={name: self.features.get(name, np.full(len(self), -1)) for name in names})

    @classmethod
    def concat(cls, parts: Sequence[Samples]) -> Samples:
        """Concatenates samples with the same features and statistics, in order."""
        first = parts[0]
        histories = [part.histories for part in parts if part.histories is not None]
        return cls(
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in _ROW_FIELDS},
            features={name: np.concatenate([part.features[name] for part in parts]) for name in first.features},
            statistics={name: np.concatenate([part.statistics[name] for part in parts]) for name in first.statistics},
            histories=HistorySlices.concat(histories) if histories else None,
        )


_ROW_FIELDS = tuple(f.name for f in fields(Samples) if f.name not in ("features", "statistics", "histories"))


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns of a sample that a kind of model reads.

    Attributes:
        log: the log whose samples are read.
        names: features and statistics; those that the log does not have are left out.
        histories: lengths of the long and the short history; None reads no histories.
        zone: the time zone of the behaviours' hours; None leaves out the codes that only FG-BERT reads.
    """

    log: Log
    names: tuple[str, ...]
    histories: tuple[int, int] | None = None
    zone: str | None = None

    @property
    def features(self) -> tuple[str, ...]:
        """The features that the log has, in the order of the contracts."""
        return tuple(f.name for f in FEATURES if f.name in self._present)

    @property
    def statistics(self) -> tuple[str, ...]:
        """The columns of statistics that the log has, in the order of the contracts."""
        return tuple(name for s in STATISTICS for name in s.columns if name in self._present)

    @property
    def _present(self) -> set[str]:
        return set(self.names) & set(table(f"{self.log}_samples").column_names)


def read_days(reader: LakeReader, days: Sequence[date], columns: Columns) -> dict[date, Samples]:
    """Reads each day's samples, in order of (sample_ts, event_id)."""
    return {
        day: read_day(reader, day, columns) for day in each(days, description=f"read {columns.log} samples", unit="day")
    }


def held_out_cnt(reader: LakeReader, log: Log, day: date) -> int:
    """Counts the rows of a day that are kept out of all training."""
    rows = reader.read(f"{log}_samples", columns=["held_out"], where={"ds": day})
    return int(_numbers(rows["held_out"]).sum())


def read_day(reader: LakeReader, day: date, columns: Columns, *, held_out_only: bool = False) -> Samples:
    """Reads one day's samples, in order of (sample_ts, event_id).

    Args:
        reader: reads the tables of the deployment.
        day: the day.
        columns: the columns to read.
        held_out_only: whether to read only the held-out rows.
    """
    wanted = dict.fromkeys(
        ["event_id", "sample_ts", "user_id", "click", "held_out", "history_end", *columns.features, *columns.statistics]
    )
    rows = reader.read(f"{columns.log}_samples", columns=list(wanted), where={"ds": day})
    if held_out_only:
        rows = rows.filter(pc.cast(rows["held_out"], pa.bool_()))
    sample_us = _numbers(pc.cast(rows["sample_ts"], pa.timestamp("us", "UTC")))
    event_id = _numbers(rows["event_id"])
    order = np.lexsort((event_id, sample_us))
    user_id = _numbers(rows["user_id"])[order]
    histories = None
    if columns.histories is not None:
        packed = PackedHistories.from_arrow(
            reader.read("user_histories", columns=["user_id", "behaviours"], where={"ds": day}), columns.zone
        )
        histories = slice_histories(
            packed,
            user_ids=user_id,
            history_end=_numbers(rows["history_end"])[order],
            sample_us=sample_us[order],
            long_length=columns.histories[0],
            short_length=columns.histories[1],
        ).compacted()
    return Samples(
        day=np.full(len(order), day.toordinal(), np.int64),
        event_id=event_id[order],
        user_id=user_id,
        click=_numbers(rows["click"])[order],
        held_out=_numbers(rows["held_out"])[order].astype(bool),
        features={name: _numbers(rows[name], missing=-1)[order] for name in columns.features},
        statistics={name: _numbers(rows[name])[order] for name in columns.statistics},
        histories=histories,
    )


def _numbers(column: pa.ChunkedArray, missing: int = 0) -> Any:
    """Returns a column as int64; a column that the day's files do not have yet reads as null."""
    return pc.fill_null(pc.cast(column, pa.int64()), missing).to_numpy()
