"""Samples as tensors of embedding-table rows, and batches of them.

All samples stay in memory, and a batch is selected by an index. Histories are jagged: the behaviours of all rows of a
batch are concatenated, and nothing is padded.

Shapes: B rows of a batch, N samples, F features, S dense inputs, P behaviours of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from contracts.features import STATISTICS
from contracts.transfer import TEXT_VECTOR_DAYS
from training.data.histories import HISTORY_FEATURES
from training.data.mapping import SHARED_ROW, IdMapping
from training.data.ranges import ranges
from training.data.samples import Samples
from training.data.sequences import EncodedCandidates, SequenceEncoding, SequenceInput
from training.data.vectors import ID_COLUMN, VECTOR_ENTITIES, DatedVectors, Entity, EntityIndex

LOG_COUNT_SCALE = 8.0  # The log1p of 3,000 impressions: it keeps the input near 0 .. 1, where the rates are.


@dataclass(frozen=True, kw_only=True)
class Jagged:
    """The concatenated histories of B rows.

    Attributes:
        rows: table rows of the behaviours (P) by feature.
        offsets: B + 1; row b's behaviours are `[offsets[b], offsets[b + 1])`. None: all rows share one history, that of
            a request's user.
    """

    rows: Mapping[str, Tensor]
    offsets: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The inputs of a model for B samples.

    Attributes:
        rows_BF: table rows of the categorical features, in the order of the model's features.
        dense_BS: statistics.
        long: the long history; None for a model that does not read it.
        short: the short history; None for a model that does not read it.
        user_at_B: positions in the index of transferred user vectors, 0 where there is none.
        item_at_B: positions in the index of transferred item vectors, 0 where there is none.
        day_B: the number of the day, counted from the encoding's first day.
        label_B: click, as a float.
        sequence: the inputs of a sequence encoder; None without one.
        texts: by entity, positions among the vectors of behaviour texts, 0 where there is none; empty without them.
    """

    rows_BF: Tensor
    dense_BS: Tensor
    long: Jagged | None
    short: Jagged | None
    user_at_B: Tensor
    item_at_B: Tensor
    day_B: Tensor
    label_B: Tensor
    sequence: SequenceInput | None = None
    texts: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How a model turns samples into tensors: part of the model's state.

    Attributes:
        mapping: from ids to rows, for the model's features in their order.
        statistics: the columns of statistics that the model reads, impressions and clicks in pairs.
        rate_prior: clicks and impressions that are added before a rate is computed.
        transfer: the index of the transferred vectors, by entity; empty without transfer.
        first_day: the day that has number 0.
        histories: the histories that the model reads, `long` and `short`.
        sequence: how the model's sequence encoder reads histories; None without one.
        texts: by entity, the vectors of behaviour texts; empty without them.
    """

    mapping: IdMapping
    statistics: tuple[str, ...] = ()
    rate_prior: tuple[float, float] = (1.0, 10.0)
    transfer: Mapping[Entity, EntityIndex]
    first_day: date = date.min
    histories: tuple[str, ...] = ("long", "short")
    sequence: SequenceEncoding | None = None
    texts: Mapping[Entity, DatedVectors] = field(default_factory=dict)

    def encode(self, samples: Samples, device: torch.device | str = "cpu") -> EncodedSamples:
        """Encodes samples as tensors; ids without a row of their own get the shared row, as do columns that the log lacks."""
        nothing = np.zeros(len(samples), np.int64)
        rows = [
            mapping.rows_of(samples.coded[name]) if name in samples.features else nothing + SHARED_ROW
            for name, mapping in self.mapping.fields.items()
        ]
        at = {
            entity: self.transfer[entity].positions(samples.features[ID_COLUMN[entity]])
            if entity in self.transfer
            else nothing
            for entity in VECTOR_ENTITIES
        }
        histories = samples.histories
        packed = (
            {}
            if histories is None
            else {
                **{name: self.mapping.fields[name].rows_of(histories.coded[name]) for name in HISTORY_FEATURES},
                **{name: getattr(histories, f"{name}_start") for name in self.histories},
                "end": histories.end,
            }
        )
        return EncodedSamples(
            rows_NF=torch.from_numpy(np.stack(rows, axis=1)).to(device),
            dense_NS=torch.from_numpy(self._dense(samples)).to(device),
            user_at_N=torch.from_numpy(at["user"]).to(device),
            item_at_N=torch.from_numpy(at["item"]).to(device),
            day_N=torch.from_numpy(samples.day - self.first_day.toordinal()).to(device),
            label_N=torch.from_numpy(samples.click.astype(np.float32)).to(device),
            packed={name: torch.from_numpy(values).to(device) for name, values in packed.items()},
            sequence=self.sequence.encode(samples, device) if self.sequence else None,
            texts={
                entity: torch.from_numpy(
                    vectors.positions(samples.features[ID_COLUMN[entity]], samples.day, oldest=TEXT_VECTOR_DAYS)
                ).to(device)
                for entity, vectors in self.texts.items()
            },
        )

    def _dense(self, samples: Samples) -> NDArray[np.float32]:
        """Returns, for each pair of counts, the scaled log1p of the impressions and the smoothed click rate: N x S."""
        clicks_prior, impressions_prior = self.rate_prior
        nothing = np.zeros(len(samples), np.int64)
        columns = []
        for statistic in STATISTICS:
            if statistic.impressions in self.statistics:
                impressions = samples.statistics.get(statistic.impressions, nothing)
                clicks = samples.statistics.get(statistic.clicks, nothing)
                columns += [
                    np.log1p(impressions) / LOG_COUNT_SCALE,
                    (clicks + clicks_prior) / (impressions + impressions_prior),
                ]
        return np.stack(columns, axis=1).astype(np.float32) if columns else np.zeros((len(samples), 0), np.float32)


@dataclass(frozen=True, kw_only=True)
class EncodedSamples:
    """N samples as tensors in memory; `Batch` describes the fields that it shares.

    Attributes:
        packed: rows of the packed behaviours and the ranges of the samples; empty for a model that reads no histories.
        sequence: the samples as the model's sequence encoder reads them.
        texts: by entity, N positions among the vectors of behaviour texts.
    """

    rows_NF: Tensor
    dense_NS: Tensor
    user_at_N: Tensor
    item_at_N: Tensor
    day_N: Tensor
    label_N: Tensor
    packed: Mapping[str, Tensor]
    sequence: EncodedCandidates | None = None
    texts: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.label_N)

    @property
    def device(self) -> torch.device:
        """The device of the tensors."""
        return self.label_N.device

    def at_epoch(self, epoch: int) -> EncodedSamples:
        """Returns the samples unchanged: impressions are the same in every epoch."""
        return self

    def batch(self, index: Tensor) -> Batch:
        """Selects the samples of an index (B, int64)."""
        end = self.packed["end"][index] if self.packed else None
        return Batch(
            rows_BF=self.rows_NF[index],
            dense_BS=self.dense_NS[index],
            long=self._jagged("long", index, end),
            short=self._jagged("short", index, end),
            user_at_B=self.user_at_N[index],
            item_at_B=self.item_at_N[index],
            day_B=self.day_N[index],
            label_B=self.label_N[index],
            sequence=self.sequence.batch(index) if self.sequence else None,
            texts={entity: at_N[index] for entity, at_N in self.texts.items()},
        )

    def _jagged(self, which: str, index: Tensor, end_B: Tensor | None) -> Jagged | None:
        if end_B is None or which not in self.packed:
            return None
        at_P, offsets = ranges(self.packed[which][index], end_B)
        return Jagged(rows={name: self.packed[name][at_P] for name in HISTORY_FEATURES}, offsets=offsets)


def in_order(count: int, batch_size: int, device: torch.device | str = "cpu") -> Iterator[Tensor]:
    """Yields the indices of all samples in order, in batches, for scoring."""
    return iter(torch.arange(count, device=device).split(batch_size)) if count else iter(())


class Ordered(Protocol):
    """Rows that have days, and so an order in time."""

    def __len__(self) -> int: ...

    @property
    def device(self) -> torch.device:
        """The device of the tensors."""
        ...

    @property
    def day_N(self) -> Tensor:
        """The number of each row's day; only the order counts."""
        ...


def shuffled(samples: Ordered, batch_size: int, generator: np.random.Generator, *, in_time_order: bool) -> list[Tensor]:
    """Returns the indices of all samples in a seeded order, in batches.

    A last batch of one row is joined to the batch before it, since batch norm needs two rows; a single sample makes no
    batch.

    Args:
        samples: the rows to shuffle.
        batch_size: rows of a batch.
        generator: the seeded source of the order.
        in_time_order: whether days keep their order, so that rows are only shuffled within a day.
    """
    order = generator.permutation(len(samples))
    if in_time_order:
        order = order[np.argsort(samples.day_N.cpu().numpy()[order], kind="stable")]
    batches = list(torch.from_numpy(order).to(samples.device).split(batch_size)) if len(order) > 1 else []
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches
