"""Cross-entropy of logits that are products with a table's rows, computed without holding all logits at once.

The logits of some rows are computed, turned into their gradient and used while they are in the processor's cache; the
backward pass then only scales. Otherwise two thousand rows over 3,500 items take 28 MB of logits, which are read and
written five times.

Shapes: P rows, D width, V classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_CACHED, _ON_GPU = 1 << 20, 1 << 26  # logits at a time: four megabytes on a CPU, a quarter gigabyte on a GPU
_SAFE = 40.0  # logits up to here, and down to its negative, may be exponentiated as they are


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query_PD: Tensor, weight_VD: Tensor, bias_V: Tensor, target_P: Tensor) -> Tensor:
        count = len(query_PD)
        with_one = torch.cat(
            [query_PD, query_PD.new_ones(count, 1)], dim=1
        )  # one product for weights and bias, and for their gradients
        table = torch.cat([weight_VD, bias_V[:, None]], dim=1)
        of_query, of_table = torch.empty_like(query_PD), torch.zeros_like(table)
        total = query_PD.new_zeros((), dtype=torch.float64)
        largest = query_PD.norm(dim=1).max() * weight_VD.norm(dim=1).max() + bias_V.abs().max()  # no logit is larger
        is_safe = bool(largest < _SAFE)
        rows = max(1, (_ON_GPU if query_PD.is_cuda else _CACHED) // len(weight_VD))
        for at in range(0, count, rows):
            part, target = slice(at, at + rows), target_P[at : at + rows, None]
            logits = with_one[part] @ table.T
            if not is_safe:
                logits -= logits.amax(dim=1, keepdim=True)
            chosen = logits.gather(1, target)
            sums = logits.exp_().sum(dim=1, keepdim=True)
            total += (sums.log() - chosen).sum(dtype=torch.float64)
            logits.scatter_add_(
                1, target, -sums
            )  # the gradient but for the division by the sums, which the narrower factors take
            of_query[part] = logits @ weight_VD / sums
            of_table.addmm_(logits.T, with_one[part] / sums)
        ctx.save_for_backward(of_query, of_table)
        ctx.count = count
        return (total / count).to(query_PD.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        of_query, of_table = ctx.saved_tensors
        scale = gradients[0] / ctx.count
        of_table = of_table * scale
        return of_query * scale, of_table[:, :-1], of_table[:, -1], None


def linear_cross_entropy(query_PD: Tensor, weight_VD: Tensor, bias_V: Tensor, target_P: Tensor) -> Tensor:
    """Returns the mean over P >= 1 of the cross-entropy of `query @ weight.T + bias`, a scalar; it can be differentiated once."""
    loss: Tensor = _Fused.apply(query_PD, weight_VD, bias_V, target_P)
    return loss
