"""DIN's target attention over jagged histories.

DIN (arXiv 1706.06978) scores a behaviour k for a candidate q by an MLP of [q, k, q - k, q * k]. Its first layer is linear
in each part, so W[q, k, q - k, q * k] = (Wq + Wd) q + (Wk - Wd) k + Wp (q * k): q's part is computed once per sample instead
of once per behaviour, and nothing of width 4E is built.

Shapes: B samples, P behaviours of all of them end to end, E width of an item's token, H hidden width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class _Spread(torch.autograd.Function):
    """B x E -> P x E: each sample's vector beside each of its behaviours. Its gradient is a sum per segment."""

    @staticmethod
    def forward(ctx: Any, values_BE: Tensor, row_P: Tensor, offsets: Tensor) -> Tensor:
        ctx.save_for_backward(offsets)
        return values_BE.index_select(0, row_P)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (offsets,) = ctx.saved_tensors
        return _segment_sum(gradients[0].contiguous(), offsets), None, None


class _Pool(torch.autograd.Function):
    """P x E -> B x E: sum over each sample's behaviours. Its gradient is a spread."""

    @staticmethod
    def forward(ctx: Any, values_PE: Tensor, row_P: Tensor, offsets: Tensor) -> Tensor:
        ctx.save_for_backward(row_P)
        return _segment_sum(values_PE, offsets)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (row_P,) = ctx.saved_tensors
        return gradients[0].index_select(0, row_P), None, None


def _segment_sum(values_PE: Tensor, offsets: Tensor) -> Tensor:
    # Segments are summed each by one worker and in order, so the result is the same in every run, unlike a scatter's.
    return torch.segment_reduce(values_PE, "sum", offsets=offsets, axis=0, initial=0.0, unsafe=True)


def spread(values_BE: Tensor, row_P: Tensor, offsets: Tensor) -> Tensor:
    """B x E -> P x E by `row_P`, which ascends."""
    return _Spread.apply(values_BE, row_P, offsets)


def pool(values_PE: Tensor, row_P: Tensor, offsets: Tensor) -> Tensor:
    """P x E -> B x E: sums per sample; zeros for a sample without behaviours."""
    return _Pool.apply(values_PE, row_P, offsets)


class TargetAttention(nn.Module):
    """Interest of a user in a candidate: the weighted sum of the behaviours' tokens, weights not normalised (as in DIN).

    Args:
        width: E.
        hidden: H.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, hidden)
        self.key = nn.Linear(width, hidden, bias=False)
        self.product = nn.Linear(width, hidden, bias=False)
        self.score = nn.Linear(hidden, 1)

    def forward(self, query_BE: Tensor, keys_PE: Tensor, row_P: Tensor, offsets: Tensor) -> Tensor:
        """B x E, P x E -> B x E."""
        width = query_BE.shape[1]
        both = spread(torch.cat([query_BE, self.query(query_BE)], dim=1), row_P, offsets)
        query_PE, from_query_PH = both[:, :width], both[:, width:]
        hidden_PH = functional.relu(from_query_PH + self.key(keys_PE) + self.product(query_PE * keys_PE))
        return pool(self.score(hidden_PH) * keys_PE, row_P, offsets)
