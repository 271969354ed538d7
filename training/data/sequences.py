"""Behaviour sequences with all their side information, as tensors of rows, and the masks of pre-training.

Shapes: S sequences, P behaviours of all sequences, concatenated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from contracts.features import BEHAVIOUR_FIELDS
from training.data.codes import CODES, Ints
from training.data.mapping import Coded, IdMapping
from training.data.ranges import ranges
from training.data.samples import Samples

SIDES = ("item", "behaviour")
FIELDS_OF_SIDE = {side: tuple(field.name for field in BEHAVIOUR_FIELDS if field.side == side) for side in SIDES}
ID_FIELDS = tuple(field.name for field in BEHAVIOUR_FIELDS if field.codes is None)


@dataclass(frozen=True, kw_only=True)
class Masks:
    """Draws the positions to hide: all fields of a side together, and the two sides independently.

    Attributes:
        shares: by side, the share of positions to hide; a side that is absent is never hidden.
        seed: the seed of the draws.
    """

    shares: Mapping[str, float]
    seed: int

    def draw(self, epoch: int, place_P: Tensor) -> dict[str, Tensor]:
        """Returns by side whether each position is hidden, P; a place and an epoch decide it, whatever the batch.

        Args:
            epoch: the epoch; each epoch hides other positions.
            place_P: the number of each behaviour among all behaviours of the run.
        """
        masks = {}
        for number, side in enumerate(SIDES):
            if side in self.shares:
                key = (self.seed * len(SIDES) + number) * 1_000_003 + epoch
                masks[side] = _uniform(place_P, key) < self.shares[side]
        return masks


def _uniform(place_P: Tensor, key: int) -> Tensor:
    """Returns a number in [0, 1) that place and key decide: splitmix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    x = place_P * _signed(0x9E3779B97F4A7C15) + _signed(key * 0xD1342543DE82EF95)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ ((x >> shift) & ((1 << (64 - shift)) - 1))) * _signed(factor)
    x = x ^ ((x >> 31) & ((1 << 33) - 1))
    return ((x >> 11) & ((1 << 53) - 1)).double() / (1 << 53)


def _signed(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


@dataclass(frozen=True, kw_only=True)
class SequenceBatch:
    """The inputs of a sequence encoder.

    Attributes:
        rows: P by field: table rows of ids, codes of the other fields.
        offsets: S + 1; None means that all P belong to one sequence.
        position_P: the position of each behaviour, counted from the end of its sequence; 0 for the newest.
        masks: by side, whether each position is hidden, P; empty outside of pre-training.
    """

    rows: Mapping[str, Tensor]
    offsets: Tensor | None
    position_P: Tensor
    masks: Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class EncodedSequences:
    """Sequences as tensors in memory; they are the rows that the engine trains on in pre-training.

    Attributes:
        rows: P by field.
        start_S: where each sequence begins among the P behaviours.
        end_S: where each sequence ends, exclusive.
        masks: how positions are hidden; None hides none.
        epoch: the epoch of the masks.
    """

    rows: Mapping[str, Tensor]
    start_S: Tensor
    end_S: Tensor
    masks: Masks | None = None
    epoch: int = 0

    @classmethod
    def of(
        cls,
        columns: Mapping[str, Ints],
        start: Ints,
        end: Ints,
        *,
        mapping: IdMapping,
        masks: Masks | None = None,
        device: torch.device | str = "cpu",
    ) -> EncodedSequences:
        """Encodes raw ids and codes of P behaviours.

        Args:
            columns: raw ids and codes by field, P each.
            start: where each of the S sequences begins.
            end: where each sequence ends, exclusive.
            mapping: from ids to table rows.
            masks: how positions are hidden; None hides none.
            device: the device of the tensors.
        """
        rows = {
            name: mapping.fields[name].rows_of(Coded.of(values)) if name in ID_FIELDS else values
            for name, values in columns.items()
        }
        return cls(
            rows={name: torch.tensor(values, device=device) for name, values in rows.items()},
            start_S=torch.from_numpy(start).to(device),
            end_S=torch.from_numpy(end).to(device),
            masks=masks,
        )

    def __len__(self) -> int:
        return len(self.start_S)

    @property
    def device(self) -> torch.device:
        """The device of the tensors."""
        return self.start_S.device

    @property
    def day_N(self) -> Tensor:
        """The order of the sequences, which have no day: that in which they are given."""
        return torch.arange(len(self), device=self.device)

    def at_epoch(self, epoch: int) -> EncodedSequences:
        """Returns the sequences with the masks of an epoch."""
        return replace(self, epoch=epoch)

    def batch(self, index: Tensor) -> SequenceBatch:
        """Selects the sequences of an index, B."""
        at_P, offsets = ranges(self.start_S[index], self.end_S[index])
        masks = {} if self.masks is None else self.masks.draw(self.epoch, at_P)
        return sequence_batch(self.rows, at_P, offsets, masks)


def sequence_batch(
    rows: Mapping[str, Tensor], at_P: Tensor, offsets: Tensor, masks: Mapping[str, Tensor] | None = None
) -> SequenceBatch:
    """Selects behaviours by their places (P), as sequences with these offsets (S + 1)."""
    ends_P = torch.repeat_interleave(offsets[1:], offsets.diff(), output_size=len(at_P))
    position_P = ends_P - 1 - torch.arange(len(at_P), device=at_P.device)
    return SequenceBatch(
        rows={name: values[at_P] for name, values in rows.items()},
        offsets=offsets,
        position_P=position_P,
        masks=masks or {},
    )


@dataclass(frozen=True, kw_only=True)
class SequenceInput:
    """Candidates and the sequences with which they are scored.

    Attributes:
        sequences: the distinct sequences, S.
        of_B: the sequence of each candidate; None where there is only one sequence.
        candidate: table rows of the candidates' item-side fields, B by field.
    """

    sequences: SequenceBatch
    of_B: Tensor | None
    candidate: Mapping[str, Tensor]

    def spread(self, values_S: Tensor) -> Tensor:
        """Repeats values of sequences, S x ..., for each candidate: B x ..., or 1 x ... where there is only one sequence."""
        return values_S if self.of_B is None else values_S[self.of_B]


@dataclass(frozen=True, kw_only=True)
class SequenceEncoding:
    """How a sequence encoder reads samples.

    Attributes:
        mapping: from the encoder's ids to its table rows.
        fields: the fields that the encoder reads.
        length: the most behaviours of a sequence.
    """

    mapping: IdMapping
    fields: tuple[str, ...]
    length: int

    def encode(self, samples: Samples, device: torch.device | str) -> EncodedCandidates:
        """Encodes samples as candidates and ranges of behaviours; the samples must have been read with codes."""
        histories = samples.histories
        assert histories is not None and set(CODES) <= set(histories.codes), "the columns to read name a time zone"
        packed = {
            name: histories.codes[name] if name in CODES else self.mapping.fields[name].rows_of(histories.coded[name])
            for name in self.fields
        }
        candidate = {
            name: self.mapping.fields[name].rows_of(samples.coded[name])
            for name in FIELDS_OF_SIDE["item"]
            if name in self.fields
        }
        start = np.maximum(histories.long_start, histories.end - self.length)
        return EncodedCandidates(
            rows={name: torch.tensor(values, device=device) for name, values in packed.items()},
            candidate={name: torch.tensor(values, device=device) for name, values in candidate.items()},
            start_N=torch.tensor(start, device=device),
            end_N=torch.tensor(histories.end, device=device),
        )


@dataclass(frozen=True, kw_only=True)
class EncodedCandidates:
    """N samples as a sequence encoder reads them.

    Attributes:
        rows: table rows and codes of the packed behaviours, by field.
        candidate: table rows of the candidates' item-side fields, N by field.
        start_N: where each sample's behaviours begin.
        end_N: where each sample's behaviours end, exclusive.
    """

    rows: Mapping[str, Tensor]
    candidate: Mapping[str, Tensor]
    start_N: Tensor
    end_N: Tensor

    def batch(self, index: Tensor) -> SequenceInput:
        """Selects the samples of an index, B; samples of one request share a sequence."""
        start_B, end_B = self.start_N[index], self.end_N[index]
        empty_B = start_B >= end_B
        row_cnt = len(next(iter(self.rows.values())))
        key_B = torch.where(empty_B, -1, end_B * (row_cnt + 1) + start_B)
        keys_S, of_B = torch.unique(key_B, return_inverse=True)
        first_S = torch.full((len(keys_S),), len(index), device=index.device).scatter_reduce(
            0, of_B, torch.arange(len(index), device=index.device), "amin"
        )
        start_S = torch.where(empty_B[first_S], end_B[first_S], start_B[first_S])
        at_P, offsets = ranges(start_S, end_B[first_S])
        return SequenceInput(
            sequences=sequence_batch(self.rows, at_P, offsets),
            of_B=of_B,
            candidate={name: values[index] for name, values in self.candidate.items()},
        )
