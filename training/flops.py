"""Counts the FLOPs of an ad model for a request, split into those for the user and those for each candidate.

torch counts them (`torch.utils.flop_counter`) while the module runs: products of matrices, two FLOPs for a
multiplication and its addition. Element-wise operations and look-ups are not counted. SRP4CTR (arXiv 2407.19658)
reports two figures per sample: with U for the user's part and I for the candidate's, U + I at batch 1 (*efficiency*)
and U / 100 + I at 100 candidates (*inference*).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from training import native
from training.data.batches import Batch, Jagged
from training.data.histories import HISTORY_FEATURES
from training.data.sequences import FIELDS_OF_SIDE, SequenceBatch, SequenceInput, sequence_batch
from training.data.vectors import VECTOR_ENTITIES
from training.models.ctr import CtrModel
from training.models.fg_bert import FgBert
from training.models.srp4ctr import Bridge


@dataclass(frozen=True, kw_only=True)
class Flops:
    """The FLOPs of one request.

    Attributes:
        user: U, spent once for all candidates.
        candidate: I, spent for each candidate.
    """

    user: int = 0
    candidate: int = 0

    def by_sample(self, candidates: int) -> float:
        """Returns the FLOPs per candidate of a request, `U / candidates + I`."""
        return self.user / candidates + self.candidate


def flops_of(model: CtrModel, *, long: int, short: int) -> Flops:
    """Counts the FLOPs of a model as it is trained: the body reads histories once for each candidate, the encoder once for all.

    Args:
        model: the model, in evaluation mode.
        long: behaviours in the long history; the sequence encoder reads at most as many as it was trained with.
        short: behaviours in the short history.
    """
    return _parts(lambda candidates: model(_batch(model, candidates, long, short)), model)


def flops_of_bridge(bridge: Bridge, length: int) -> Flops:
    """Counts the FLOPs of SRP4CTR's part for a sequence of `length`: encoder and queries per user, cross-attention per candidate."""
    return _parts(lambda candidates: bridge(_sequence(bridge.network, candidates, length)), bridge)


def flops_of_full_attention(bridge: Bridge, length: int) -> int:
    """Counts the FLOPs of a candidate that joins the sequence as one more behaviour that every token sees: nothing is shared."""
    return _counted(lambda: bridge.network.encode(_zeros(bridge.network, length + 1)), bridge)


def _parts(run: Callable[[int], object], module: torch.nn.Module) -> Flops:
    """Splits the FLOPs by running requests with one and with two candidates."""
    one, two = (_counted(partial(run, candidates), module) for candidates in (1, 2))
    return Flops(user=2 * one - two, candidate=two - one)


def _counted(run: Callable[[], object], module: torch.nn.Module) -> int:
    """Counts the FLOPs of a run with torch's operations: the counter sees neither native operations nor fused attention on a CPU."""
    assert not module.training, "a batch of one candidate has no statistics to normalise by"
    with torch.no_grad(), native.in_torch(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def _batch(model: CtrModel, candidates: int, long: int, short: int) -> Batch:
    """Makes a batch of one user's candidates; all ids have row 0, since look-ups cost no FLOPs."""
    device = next(model.parameters()).device

    def history(length: int) -> Jagged:
        rows = torch.zeros(candidates * length, dtype=torch.int64, device=device)
        return Jagged(
            rows=dict.fromkeys(HISTORY_FEATURES, rows), offsets=torch.arange(candidates + 1, device=device) * length
        )

    nothing = torch.zeros(candidates, dtype=torch.int64, device=device)
    return Batch(
        rows_BF=nothing[:, None].expand(-1, len(model.embeddings.names)),
        dense_BS=torch.zeros(candidates, model.num_dense, device=device),
        long=history(long),
        short=history(short),
        user_at_B=nothing,
        item_at_B=nothing,
        day_B=nothing,
        label_B=nothing.float(),
        sequence=_sequence(model.bridge.network, candidates, min(long, model.bridge.network.recipe.length))
        if model.bridge
        else None,
        texts=dict.fromkeys(VECTOR_ENTITIES, nothing),
    )


def _sequence(encoder: FgBert, candidates: int, length: int) -> SequenceInput:
    nothing = torch.zeros(candidates, dtype=torch.int64, device=encoder.positions.weight.device)
    return SequenceInput(
        sequences=_zeros(encoder, length), of_B=nothing, candidate=dict.fromkeys(FIELDS_OF_SIDE["item"], nothing)
    )


def _zeros(encoder: FgBert, length: int) -> SequenceBatch:
    at_P = torch.arange(length, device=encoder.positions.weight.device)
    return sequence_batch(
        dict.fromkeys(encoder.fields, torch.zeros_like(at_P)), at_P, torch.tensor([0, length], device=at_P.device)
    )
