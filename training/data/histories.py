"""The behaviours that each sample may see, as slices of packed arrays: without padding, and without a loop over rows.

A user's behaviours are stored once per day, oldest first. A sample's `history_end` is the number of them that it may
see, so its histories are ranges that end there. The long one begins `long_length` behaviours before, the short one
`short_length`, and neither begins before its time window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from contracts.errors import BadInput
from contracts.features import HISTORY_DAYS, SHORT_HISTORY_SECONDS
from training.data.codes import CODES, Ints, behaviour_codes, whole
from training.data.mapping import Coded

HISTORY_FEATURES = ("item_id", "category_id")  # The features that behaviours and candidates share.

_SECOND = 1_000_000  # Event times are in microseconds.
LONG_WINDOW = HISTORY_DAYS * 86_400 * _SECOND
SHORT_WINDOW = SHORT_HISTORY_SECONDS * _SECOND


@dataclass(frozen=True, kw_only=True)
class PackedHistories:
    """The concatenated histories of one day's users.

    Attributes:
        user_ids: U, ascending.
        offsets: U + 1; user u's behaviours are `[offsets[u], offsets[u + 1])`.
        event_us: the times of all behaviours, in microseconds.
        item_ids: the items of all behaviours.
        category_ids: the categories of all behaviours.
        codes: what the user did with the items, by field of `BEHAVIOUR_FIELDS`; empty where no model reads it.
    """

    user_ids: Ints
    offsets: Ints
    event_us: Ints
    item_ids: Ints
    category_ids: Ints
    codes: Mapping[str, Ints] = field(default_factory=dict)

    @classmethod
    def from_arrow(cls, table: pa.Table, zone: str | None = None) -> PackedHistories:
        """Takes rows (user_id, behaviours) of `user_histories`, in any order.

        Args:
            table: the rows.
            zone: the time zone of the hours in the codes that FG-BERT reads; None leaves the codes out.
        """
        if table.num_rows == 0:
            nothing = np.zeros(0, np.int64)
            return cls(
                user_ids=nothing,
                offsets=np.zeros(1, np.int64),
                event_us=nothing,
                item_ids=nothing,
                category_ids=nothing,
                codes={} if zone is None else dict.fromkeys(CODES, nothing),
            )
        user_ids, offsets, event_us, flat = unpacked(table)
        return cls(
            user_ids=user_ids,
            offsets=offsets,
            event_us=event_us,
            item_ids=whole(pc.struct_field(flat, "item_id")),
            category_ids=whole(pc.struct_field(flat, "category_id")),
            codes={} if zone is None else behaviour_codes(flat, event_us, offsets, zone),
        )


def unpacked(table: pa.Table) -> tuple[Ints, Ints, Ints, pa.ChunkedArray]:
    """Unpacks rows (user_id, behaviours) into users (U, ascending), offsets (U + 1), times in microseconds (P), and behaviours (P)."""
    table = table.sort_by("user_id")
    column = table["behaviours"]
    lengths = whole(pc.fill_null(pc.list_value_length(column), 0))
    flat = pa.chunked_array([chunk.flatten() for chunk in column.chunks], type=column.type.value_type)
    event_us = whole(pc.cast(pc.cast(pc.struct_field(flat, "event_ts"), pa.timestamp("us", "UTC")), pa.int64()))
    return whole(table["user_id"]), np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]), event_us, flat


@dataclass(frozen=True, kw_only=True)
class HistorySlices:
    """The behaviours that N samples may see, each a range of packed behaviours.

    Attributes:
        item_ids: the items of the packed behaviours.
        category_ids: the categories of the packed behaviours.
        long_start: N; a sample's long history is `[long_start, end)`.
        short_start: N; a sample's short history is `[short_start, end)`.
        end: N.
        codes: the codes of the packed behaviours, by field; see `PackedHistories`.
    """

    item_ids: Ints
    category_ids: Ints
    long_start: Ints
    short_start: Ints
    end: Ints
    codes: Mapping[str, Ints] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.end)

    @cached_property
    def coded(self) -> Mapping[str, Coded]:
        """The packed behaviours' features, where each id is encoded as its position among the distinct ids."""
        return {
            name: Coded.of(ids) for name, ids in zip(HISTORY_FEATURES, (self.item_ids, self.category_ids), strict=True)
        }

    def select(self, index: NDArray[np.generic]) -> HistorySlices:
        """Selects the slices of some samples; the packed behaviours stay shared."""
        return HistorySlices(
            item_ids=self.item_ids,
            category_ids=self.category_ids,
            long_start=self.long_start[index],
            short_start=self.short_start[index],
            end=self.end[index],
            codes=self.codes,
        )

    def seen_cnt(self) -> Ints:
        """Counts the samples that see each packed behaviour in the longer of their histories."""
        change = np.zeros(len(self.item_ids) + 1, np.int64)
        start = np.minimum(self.long_start, self.short_start)
        change += np.bincount(start, minlength=len(change)) - np.bincount(self.end, minlength=len(change))
        return np.cumsum(change)[:-1]

    def last_day(self, day: Ints) -> Ints:
        """Returns the last day on which a sample sees each packed behaviour; undefined for behaviours that no sample sees.

        Args:
            day: the samples' days, N. The behaviours of a later day's samples must be packed after those of an earlier
                day's.
        """
        begun = np.zeros(len(self.item_ids) + 1, np.int64)
        np.maximum.at(begun, np.minimum(self.long_start, self.short_start), day)
        return np.maximum.accumulate(begun)[:-1]

    def compacted(self) -> HistorySlices:
        """Removes the behaviours that no sample sees."""
        seen = self.seen_cnt() > 0
        before = np.concatenate([np.zeros(1, np.int64), np.cumsum(seen)])
        return HistorySlices(
            item_ids=self.item_ids[seen],
            category_ids=self.category_ids[seen],
            long_start=before[self.long_start],
            short_start=before[self.short_start],
            end=before[self.end],
            codes={name: values[seen] for name, values in self.codes.items()},
        )

    @classmethod
    def concat(cls, parts: list[HistorySlices]) -> HistorySlices:
        """Concatenates the slices of several days, in order."""
        shifts = np.cumsum([0, *(len(part.item_ids) for part in parts)])
        shifted = [(part, shift) for part, shift in zip(parts, shifts[:-1], strict=True)]
        return cls(
            item_ids=np.concatenate([part.item_ids for part in parts]),
            category_ids=np.concatenate([part.category_ids for part in parts]),
            long_start=np.concatenate([part.long_start + shift for part, shift in shifted]),
            short_start=np.concatenate([part.short_start + shift for part, shift in shifted]),
            end=np.concatenate([part.end + shift for part, shift in shifted]),
            codes={name: np.concatenate([part.codes[name] for part in parts]) for name in parts[0].codes},
        )


def slice_histories(
    packed: PackedHistories, *, user_ids: Ints, history_end: Ints, sample_us: Ints, long_length: int, short_length: int
) -> HistorySlices:
    """Finds the histories of N samples of one day; a user without a row has none.

    Args:
        packed: the day's histories.
        user_ids: the samples' users, N.
        history_end: how many of the user's behaviours each sample may see, N.
        sample_us: the samples' times in microseconds, N.
        long_length: the most behaviours of a long history.
        short_length: the most behaviours of a short history.

    Raises:
        BadInput: a sample may see more behaviours than its user has.
    """
    if len(packed.user_ids) == 0:
        nothing = np.zeros(len(user_ids), np.int64)
        return HistorySlices(
            item_ids=nothing[:0],
            category_ids=nothing[:0],
            long_start=nothing,
            short_start=nothing,
            end=nothing,
            codes=packed.codes,
        )
    at = np.minimum(np.searchsorted(packed.user_ids, user_ids), len(packed.user_ids) - 1)
    known = packed.user_ids[at] == user_ids
    begin = np.where(known, packed.offsets[at], 0)
    end = np.where(known, begin + history_end, 0)
    beyond = known & (end > packed.offsets[at + 1])
    if beyond.any():
        first = int(np.flatnonzero(beyond)[0])
        has = packed.offsets[at + 1][first] - begin[first]
        raise BadInput(
            "samples",
            "history_end",
            expected=f"at most the {has} behaviours of the user",
            found=int(history_end[first]),
            hint="The day's samples and user_histories are of different builds: build both again.",
        )
    starts = {
        name: np.maximum(_first_since(packed.event_us, begin, end, sample_us - window), end - length)
        for name, window, length in (
            ("long_start", LONG_WINDOW, long_length),
            ("short_start", SHORT_WINDOW, short_length),
        )
    }
    return HistorySlices(
        item_ids=packed.item_ids, category_ids=packed.category_ids, end=end, codes=packed.codes, **starts
    )


def _first_since(times: Ints, begin: Ints, end: Ints, since: Ints) -> Ints:
    """Returns the first position in each ascending range `[begin, end)` of `times` with `times >= since`, by parallel binary searches."""
    low, high = begin.copy(), end.copy()
    while (open_ := low < high).any():
        middle = (low + high) // 2
        earlier = np.zeros(len(low), bool)
        earlier[open_] = times[middle[open_]] < since[open_]
        low = np.where(earlier, middle + 1, low)
        high = np.where(open_ & ~earlier, middle, high)
    return low
