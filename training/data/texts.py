"""Requests as sequences of behaviour texts, which BAHE reads.

A user has one sequence for each log: the newest behaviours that have a text. Histories are jagged: the behaviours of
all users are concatenated, and a request sees a range of them.

Shapes: N impressions, G requests (or users), L sequences of each, P behaviours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor

from contracts.features import LOGS, Log
from lake.reader import LakeReader
from training.data.codes import Ints, whole
from training.data.histories import unpacked
from training.data.ranges import ranges
from training.data.text_store import UNKNOWN, TextStore
from training.data.vectors import EntityIndex

NO_TEXT = -1  # The hash of a behaviour or item without a text.


@dataclass(frozen=True, kw_only=True)
class TextHistories:
    """The behaviours of users that have a text, by log.

    Attributes:
        user_ids: U, ascending.
        hashes: by log, the hashes of the behaviours' texts, P each, oldest first within a user.
        before: by log, how many of `hashes` come before each place of the packed behaviours, and before the place after
            the last.
        offsets: U + 1; user u's packed behaviours are `[offsets[u], offsets[u + 1])`.
    """

    user_ids: Ints
    hashes: Mapping[Log, Ints]
    before: Mapping[Log, Ints]
    offsets: Ints

    @classmethod
    def read(cls, reader: LakeReader, day: date) -> TextHistories:
        """Reads the histories of a day's users."""
        table = reader.read("user_histories", columns=["user_id", "behaviours"], where={"ds": day})
        nothing = np.zeros(0, np.int64)
        if not table.num_rows:
            return cls(
                user_ids=nothing,
                hashes=dict.fromkeys(LOGS, nothing),
                before=dict.fromkeys(LOGS, np.zeros(1, np.int64)),
                offsets=np.zeros(1, np.int64),
            )
        user_ids, offsets, _, flat = unpacked(table)
        hashes = pc.fill_null(pc.struct_field(flat, "text_hash"), NO_TEXT).to_numpy()
        logs = pc.struct_field(flat, "log")
        used = {log: (hashes != NO_TEXT) & pc.equal(logs, log).to_numpy() for log in LOGS}
        return cls(
            user_ids=user_ids,
            offsets=offsets,
            hashes={log: hashes[of_log] for log, of_log in used.items()},
            before={log: np.concatenate([np.zeros(1, np.int64), np.cumsum(of_log)]) for log, of_log in used.items()},
        )

    def slices(self, user_ids: Ints, history_end: Ints | None, length: int) -> TextSlices:
        """Finds the behaviours that G requests see, by log.

        Args:
            user_ids: the requests' users, G.
            history_end: how many of the user's behaviours each request may see, G; None for all.
            length: the most behaviours of a log; the newest are taken.
        """
        place = EntityIndex(self.user_ids).positions(user_ids)
        known, at = place > 0, np.maximum(place - 1, 0)
        begin = np.where(known, self.offsets[at], 0)
        stop = self.offsets[np.minimum(at + 1, len(self.offsets) - 1)] if history_end is None else begin + history_end
        stop = np.where(known, stop, 0)
        end = {log: before[stop] for log, before in self.before.items()}
        start = {log: np.maximum(self.before[log][begin], of_log - length) for log, of_log in end.items()}
        return TextSlices(hashes=self.hashes, start=start, end=end)


@dataclass(frozen=True, kw_only=True)
class TextSlices:
    """The behaviours' texts that G requests see, each a range by log.

    Attributes:
        hashes: by log, P each.
        start: by log, where each request's range begins, G each.
        end: by log, where each request's range ends, exclusive, G each.
    """

    hashes: Mapping[Log, Ints]
    start: Mapping[Log, Ints]
    end: Mapping[Log, Ints]

    def select(self, index: NDArray[np.generic]) -> TextSlices:
        """Selects the ranges of some requests; the texts stay shared."""
        return replace(
            self,
            start={log: of_log[index] for log, of_log in self.start.items()},
            end={log: of_log[index] for log, of_log in self.end.items()},
        )

    @classmethod
    def concat(cls, parts: Sequence[TextSlices]) -> TextSlices:
        """Concatenates the ranges of several days, in order."""
        shifts = {log: np.cumsum([0, *(len(part.hashes[log]) for part in parts)])[:-1] for log in LOGS}

        def of_all(name: str) -> dict[Log, Ints]:
            return {
                log: np.concatenate(
                    [
                        getattr(part, name)[log] + (0 if name == "hashes" else shift)
                        for part, shift in zip(parts, shifts[log], strict=True)
                    ]
                )
                for log in LOGS
            }

        return cls(hashes=of_all("hashes"), start=of_all("start"), end=of_all("end"))


@dataclass(frozen=True, kw_only=True)
class TextSamples:
    """N impressions of G requests.

    Attributes:
        day: N, the day's ordinal number.
        event_id: N.
        user_id: N.
        item_id: N.
        click: N, 0 or 1.
        held_out: N; rows that are kept out of all training.
        is_ad: N; whether the impression is from the ad log.
        hashes: the hashes of the items' texts, N.
        of_request: the request of each impression, N, ascending.
        histories: the behaviours that the requests see.
    """

    day: Ints
    event_id: Ints
    user_id: Ints
    item_id: Ints
    click: Ints
    held_out: NDArray[np.bool_]
    is_ad: NDArray[np.bool_]
    hashes: Ints
    of_request: Ints
    histories: TextSlices

    def __len__(self) -> int:
        return len(self.day)

    @property
    def num_requests(self) -> int:
        """The number of requests, G."""
        return len(self.histories.end[LOGS[0]])

    @property
    def ad_requests(self) -> NDArray[np.bool_]:
        """Whether each request is from the ad log, G."""
        is_ad = np.zeros(self.num_requests, bool)
        is_ad[self.of_request[self.is_ad]] = True
        return is_ad

    def of_requests(self, chosen: NDArray[np.bool_]) -> TextSamples:
        """Selects the rows of some of the requests, by a mask (G)."""
        rows = chosen[self.of_request]
        place = np.cumsum(chosen) - 1
        picked = {name: getattr(self, name)[rows] for name in _ROWS}
        return TextSamples(**picked, of_request=place[self.of_request[rows]], histories=self.histories.select(chosen))

    def split(self) -> tuple[TextSamples, TextSamples]:
        """Returns the samples to train on and the held-out samples; a request with one held-out row is held out as a whole."""
        held_out = np.zeros(self.num_requests, bool)
        held_out[self.of_request[self.held_out]] = True
        return self.of_requests(~held_out), self.of_requests(held_out)

    @classmethod
    def concat(cls, parts: Sequence[TextSamples]) -> TextSamples:
        """Concatenates samples, in order."""
        shifts = np.cumsum([0, *(part.num_requests for part in parts)])[:-1]
        return cls(
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in _ROWS},
            of_request=np.concatenate([part.of_request + shift for part, shift in zip(parts, shifts, strict=True)]),
            histories=TextSlices.concat([part.histories for part in parts]),
        )


_ROWS = ("day", "event_id", "user_id", "item_id", "click", "held_out", "is_ad", "hashes")


def read_text_samples(
    reader: LakeReader, log: Log, day: date, *, length: int, at_most: int | None = None
) -> TextSamples:
    """Reads a day's samples as requests, in order of (time, request).

    Args:
        reader: reads the tables of the deployment.
        log: the log whose samples are read.
        day: the day.
        length: the most behaviours of a sequence.
        at_most: the most requests to read. Where there are more, a hash of their ids chooses, so the choice is always
            the same.
    """
    columns = [
        "event_id",
        "request_id",
        "sample_ts",
        "user_id",
        "item_id",
        "click",
        "held_out",
        "history_end",
        "item_text_hash",
    ]
    rows = reader.read(f"{log}_samples", columns=columns, where={"ds": day})
    if at_most is not None:
        ids = np.unique(whole(rows["request_id"]))
        if len(ids) > at_most:
            kept = ids[np.argsort(_scattered(ids), kind="stable")[:at_most]]
            rows = rows.filter(pc.is_in(rows["request_id"], pa.array(kept)))
    sample_us = whole(pc.cast(pc.cast(rows["sample_ts"], pa.timestamp("us", "UTC")), pa.int64()))
    request, user, event = (whole(rows[name]) for name in ("request_id", "user_id", "event_id"))
    order = np.lexsort((event, user, request, sample_us))
    request, user = request[order], user[order]
    begins = (np.diff(request, prepend=-1) != 0) | (np.diff(user, prepend=-1) != 0)
    first = np.flatnonzero(begins)
    ends = whole(rows["history_end"])[order]
    histories = TextHistories.read(reader, day).slices(user[first], ends[first], length)
    return TextSamples(
        day=np.full(len(order), day.toordinal(), np.int64),
        event_id=event[order],
        user_id=user,
        item_id=whole(rows["item_id"])[order],
        click=whole(rows["click"])[order],
        held_out=pc.fill_null(pc.cast(rows["held_out"], pa.bool_()), False).to_numpy()[order].astype(bool),
        is_ad=np.full(len(order), log == "ad"),
        hashes=pc.fill_null(pc.cast(rows["item_text_hash"], pa.int64()), NO_TEXT).to_numpy()[order],
        of_request=np.cumsum(begins) - 1,
        histories=histories,
    )


def _scattered(ids: Ints) -> NDArray[np.uint64]:
    """Returns a multiplicative hash of each id (Knuth, vol. 3, 6.4), the same on every machine."""
    mixed = ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return mixed ^ (mixed >> np.uint64(29))


@dataclass(frozen=True, kw_only=True)
class SequenceRows:
    """The behaviours of G requests as rows of a text store, in L sequences each.

    Attributes:
        behaviours: by log, the rows of the behaviours' texts, P each; -1 for an unknown text.
        start: by log, where each request's behaviours begin, G each.
        end: by log, where each request's behaviours end, exclusive, G each.
    """

    behaviours: Mapping[Log, Tensor]
    start: Mapping[Log, Tensor]
    end: Mapping[Log, Tensor]

    @classmethod
    def of(cls, slices: TextSlices, store: TextStore) -> SequenceRows:
        """Looks up the texts that requests see in a store."""
        return cls(
            behaviours={log: torch.from_numpy(store.rows_of(of_log)) for log, of_log in slices.hashes.items()},
            start={log: torch.from_numpy(of_log) for log, of_log in slices.start.items()},
            end={log: torch.from_numpy(of_log) for log, of_log in slices.end.items()},
        )

    def __len__(self) -> int:
        return len(self.start[LOGS[0]])

    def by_length(self) -> Tensor:
        """Returns all requests, those with the fewest behaviours first: batches of similar lengths need the least padding."""
        return torch.argsort(torch.stack([self.end[log] - self.start[log] for log in LOGS]).sum(dim=0), stable=True)

    def padded(self, index: Tensor) -> list[Tensor]:
        """Returns the rows of some requests' behaviours, oldest first, G x M for each sequence; -1 for padding and unknown texts."""
        sequences = []
        for log in LOGS:
            at_P, offsets = ranges(self.start[log][index], self.end[log][index])
            lengths = offsets.diff()
            of_P = torch.repeat_interleave(torch.arange(len(index)), lengths, output_size=len(at_P))
            rows_GM = torch.full((len(index), max(1, int(lengths.max()) if len(index) else 0)), UNKNOWN)
            rows_GM[of_P, torch.arange(len(at_P)) - offsets[:-1][of_P]] = self.behaviours[log][at_P]
            sequences.append(rows_GM)
        return sequences
