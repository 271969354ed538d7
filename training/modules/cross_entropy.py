"""Cross-entropy of logits that are products with a table's rows, without ever holding all of them.

The logits of some rows are made, turned into their gradient and used while they lie in the processor's cache; the way back has then
nothing left to do but to scale. Two thousand rows over 3,500 items take 28 MB of logits otherwise, read and written five times.

Shapes: P rows, D width, V classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_CACHED, _ON_GPU = 1 << 19, 1 << 26  # logits at a time: two megabytes on a CPU, a quarter gigabyte on a GPU


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query_PD: Tensor, weight_VD: Tensor, bias_V: Tensor, target_P: Tensor) -> Tensor:
        count = len(query_PD)
        of_query = torch.empty_like(query_PD)
        of_weight, of_bias = torch.zeros_like(weight_VD), torch.zeros_like(bias_V)
        total = query_PD.new_zeros((), dtype=torch.float64)
        rows = max(1, (_ON_GPU if query_PD.is_cuda else _CACHED) // len(weight_VD))
        for at in range(0, count, rows):
            part, target = slice(at, at + rows), target_P[at:at + rows, None]
            logits = torch.addmm(bias_V, query_PD[part], weight_VD.T)
            logits -= logits.amax(dim=1, keepdim=True)
            chosen = logits.gather(1, target)
            sums = logits.exp_().sum(dim=1, keepdim=True)
            total += (sums.log() - chosen).sum(dtype=torch.float64)
            logits /= sums
            logits.scatter_(1, target, logits.gather(1, target) - 1.0)
            of_query[part] = logits @ weight_VD
            of_weight.addmm_(logits.T, query_PD[part])
            of_bias += logits.sum(dim=0)
        ctx.save_for_backward(of_query, of_weight, of_bias)
        ctx.count = count
        return (total / count).to(query_PD.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        scale = gradients[0] / ctx.count
        of_query, of_weight, of_bias = ctx.saved_tensors
        return of_query * scale, of_weight * scale, of_bias * scale, None


def linear_cross_entropy(query_PD: Tensor, weight_VD: Tensor, bias_V: Tensor, target_P: Tensor) -> Tensor:
    """Mean over P of the cross-entropy of `query @ weight.T + bias`: a scalar. At least one row; gradients are of the first order."""
    found: Tensor = _Fused.apply(query_PD, weight_VD, bias_V, target_P)
    return found
