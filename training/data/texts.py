"""Requests as sequences of behaviour texts: what BAHE reads of samples and histories.

A user has one sequence for each log, its newest behaviours that have a text. Histories are jagged: behaviours of all users lie end to
end, and a request sees a range of them.

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

NO_TEXT = -1  # as a hash


@dataclass(frozen=True, kw_only=True)
class TextHistories:
    """Behaviours of users, told apart by log, those without a text left out.

    Attributes:
        user_ids: U, ascending.
        hashes: by log, of the behaviours' texts, P each, oldest first within a user.
        before: by log, for each place of the packed behaviours (and the place behind the last) how many of `hashes` come before it.
        offsets: U + 1, into the packed behaviours.
    """

    user_ids: Ints
    hashes: Mapping[Log, Ints]
    before: Mapping[Log, Ints]
    offsets: Ints

    @classmethod
    def read(cls, reader: LakeReader, day: date) -> TextHistories:
        """Of a day's users."""
        table = reader.read("user_histories", columns=["user_id", "behaviours"], where={"ds": day})
        nothing = np.zeros(0, np.int64)
        if not table.num_rows:
            return cls(user_ids=nothing, hashes=dict.fromkeys(LOGS, nothing), before=dict.fromkeys(LOGS, np.zeros(1, np.int64)),
                       offsets=np.zeros(1, np.int64))
        user_ids, offsets, _, flat = unpacked(table)
        hashes = pc.fill_null(pc.struct_field(flat, "text_hash"), NO_TEXT).to_numpy()
        logs = pc.struct_field(flat, "log")
        used = {log: (hashes != NO_TEXT) & pc.equal(logs, log).to_numpy() for log in LOGS}
        return cls(user_ids=user_ids, offsets=offsets, hashes={log: hashes[of_log] for log, of_log in used.items()},
                   before={log: np.concatenate([np.zeros(1, np.int64), np.cumsum(of_log)]) for log, of_log in used.items()})

    def slices(self, user_ids: Ints, history_end: Ints | None, length: int) -> TextSlices:
        """What G requests see: the newest `length` of each log among the first `history_end` behaviours of their user, or of all."""
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
    """Ranges of behaviours' texts.

    Attributes:
        hashes: by log, P each.
        start, end: by log, G each.
    """

    hashes: Mapping[Log, Ints]
    start: Mapping[Log, Ints]
    end: Mapping[Log, Ints]

    def select(self, index: NDArray[np.generic]) -> TextSlices:
        return replace(self, start={log: of_log[index] for log, of_log in self.start.items()},
                       end={log: of_log[index] for log, of_log in self.end.items()})

    @classmethod
    def concat(cls, parts: Sequence[TextSlices]) -> TextSlices:
        shifts = {log: np.cumsum([0, *(len(part.hashes[log]) for part in parts)])[:-1] for log in LOGS}

        def of_all(name: str) -> dict[Log, Ints]:
            return {log: np.concatenate([getattr(part, name)[log] + (0 if name == "hashes" else shift)
                                         for part, shift in zip(parts, shifts[log], strict=True)]) for log in LOGS}

        return cls(hashes=of_all("hashes"), start=of_all("start"), end=of_all("end"))


@dataclass(frozen=True, kw_only=True)
class TextSamples:
    """N impressions of G requests.

    Attributes:
        day, event_id, user_id, item_id, click: N.
        held_out: N; rows that are kept out of all training.
        is_ad: N; of the ad log.
        hashes: N, of the items' texts.
        of_request: N, ascending: which request each answers.
        histories: of the requests.
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
        return len(self.histories.end[LOGS[0]])

    @property
    def ad_requests(self) -> NDArray[np.bool_]:
        """G: requests of the ad log."""
        found = np.zeros(self.num_requests, bool)
        found[self.of_request[self.is_ad]] = True
        return found

    def of_requests(self, chosen: NDArray[np.bool_]) -> TextSamples:
        """The rows of some of the requests (G)."""
        rows = chosen[self.of_request]
        place = np.cumsum(chosen) - 1
        picked = {name: getattr(self, name)[rows] for name in _ROWS}
        return TextSamples(**picked, of_request=place[self.of_request[rows]], histories=self.histories.select(chosen))

    def split(self) -> tuple[TextSamples, TextSamples]:
        """What may reach a training batch, and what is held out: a request is one or the other as a whole."""
        held_out = np.zeros(self.num_requests, bool)
        held_out[self.of_request[self.held_out]] = True
        return self.of_requests(~held_out), self.of_requests(held_out)

    @classmethod
    def concat(cls, parts: Sequence[TextSamples]) -> TextSamples:
        shifts = np.cumsum([0, *(part.num_requests for part in parts)])[:-1]
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in _ROWS},
                   of_request=np.concatenate([part.of_request + shift for part, shift in zip(parts, shifts, strict=True)]),
                   histories=TextSlices.concat([part.histories for part in parts]))


_ROWS = ("day", "event_id", "user_id", "item_id", "click", "held_out", "is_ad", "hashes")


def read_text_samples(reader: LakeReader, log: Log, day: date, *, length: int, at_most: int | None = None) -> TextSamples:
    """A day's samples as requests, in order of (time, request).

    Args:
        reader: of the lake.
        log: whose samples.
        day: of them.
        length: most behaviours of a sequence.
        at_most: requests; of more, those whose ids a hash puts first: the same whenever it is asked.
    """
    columns = ["event_id", "request_id", "sample_ts", "user_id", "item_id", "click", "held_out", "history_end", "item_text_hash"]
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
        day=np.full(len(order), day.toordinal(), np.int64), event_id=event[order], user_id=user,
        item_id=whole(rows["item_id"])[order], click=whole(rows["click"])[order],
        held_out=pc.fill_null(pc.cast(rows["held_out"], pa.bool_()), False).to_numpy()[order].astype(bool),
        is_ad=np.full(len(order), log == "ad"),
        hashes=pc.fill_null(pc.cast(rows["item_text_hash"], pa.int64()), NO_TEXT).to_numpy()[order],
        of_request=np.cumsum(begins) - 1, histories=histories)


def _scattered(ids: Ints) -> NDArray[np.uint64]:
    """A hash of each id: multiplicative (Knuth, vol. 3, 6.4), the same on every machine."""
    mixed = ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return mixed ^ (mixed >> np.uint64(29))


@dataclass(frozen=True, kw_only=True)
class SequenceRows:
    """Behaviours of G requests as rows of a store, in L sequences each.

    Attributes:
        behaviours: by log, rows of the behaviours, P each; -1 of an unknown text.
        start, end: by log, G each.
    """

    behaviours: Mapping[Log, Tensor]
    start: Mapping[Log, Tensor]
    end: Mapping[Log, Tensor]

    @classmethod
    def of(cls, slices: TextSlices, store: TextStore) -> SequenceRows:
        return cls(behaviours={log: torch.from_numpy(store.rows_of(of_log)) for log, of_log in slices.hashes.items()},
                   start={log: torch.from_numpy(of_log) for log, of_log in slices.start.items()},
                   end={log: torch.from_numpy(of_log) for log, of_log in slices.end.items()})

    def __len__(self) -> int:
        return len(self.start[LOGS[0]])

    def by_length(self) -> Tensor:
        """All requests, those with the fewest behaviours first: batches of about one length are padded least."""
        return torch.argsort(torch.stack([self.end[log] - self.start[log] for log in LOGS]).sum(dim=0), stable=True)

    def padded(self, index: Tensor) -> list[Tensor]:
        """Rows of the behaviours of some requests, oldest first, G x M for each sequence; -1 where there is none, or an unknown text."""
        found = []
        for log in LOGS:
            at_P, offsets = ranges(self.start[log][index], self.end[log][index])
            lengths = offsets.diff()
            of_P = torch.repeat_interleave(torch.arange(len(index)), lengths, output_size=len(at_P))
            rows_GM = torch.full((len(index), max(1, int(lengths.max()) if len(index) else 0)), UNKNOWN)
            rows_GM[of_P, torch.arange(len(at_P)) - offsets[:-1][of_P]] = self.behaviours[log][at_P]
            found.append(rows_GM)
        return found
