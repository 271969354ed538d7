"""Dropout that draws quickly on a CPU, where torch draws one number after another, for each element.

On a CPU this is one native operation (`training/native/dropout.cpp`). Where that cannot be compiled, 64 random bits
serve four elements, 16 bits each, so that the share is exact to one in 65,536; other elements are dropped then.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from training import native
from training.native import choice

_BITS, _OF_A_DRAW = 16, 4
_HASHES, _BLOCKS = 1 << 32, 16  # values of a native draw; into how many blocks the elements are cut
_OF_A_THREAD = 1 << 15  # elements that are worth a thread of their own


class _Native(torch.autograd.Function):
    """Whether an element is dropped is a function of the seed and its place: backward drops the same."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, share: float, seed: int) -> Tensor:
        ctx.drawn = share, seed
        return _dropped(values, share, seed)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _dropped(gradients[0], *ctx.drawn), None, None


def _dropped(values: Tensor, share: float, seed: int) -> Tensor:
    values = values.contiguous()
    target = torch.empty_like(values)
    threads = min(torch.get_num_threads(), 1 + values.numel() // _OF_A_THREAD)
    sizes = native.integers(values.numel(), min(round(share * _HASHES), _HASHES - 1), seed, threads, _BLOCKS)
    native_library: Any = native.library("dropout")
    native_library.drop(sizes, native.address(values), native.address(target))
    return target


def _library() -> Any:
    """Returns the compiled library; None if torch is to compute dropout."""
    return choice.serving("dropout", problem)


def _draws(count: int) -> Tensor:
    return torch.empty(count, dtype=torch.int64).random_(torch.iinfo(torch.int64).min, None)


class Dropout(nn.Module):
    """Zeroes a share of the elements while training, and scales the others up.

    Args:
        share: the share of the elements that are dropped.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, values: Tensor) -> Tensor:
        """Drops elements of values of any shape, in training only."""
        if not self.training or self.share == 0.0:
            return values
        if values.device.type != "cpu":
            return functional.dropout(values, self.share)
        if values.dtype == torch.float32 and _library() is not None:
            return self._native(values)
        return self.in_torch(values)

    def _native(self, values: Tensor) -> Tensor:
        dropped: Tensor = _Native.apply(values, self.share, int(_draws(1)))
        return dropped

    def in_torch(self, values: Tensor) -> Tensor:
        """Drops the same share on a CPU without native code; other elements are dropped."""
        bits = _draws(-(-values.numel() // _OF_A_DRAW)).view(torch.int16)[: values.numel()].view(values.shape)
        limit = round(self.share * (1 << _BITS))
        kept = bits >= limit - (1 << (_BITS - 1))  # of -32,768 .. 32,767 the lowest `limit` are dropped
        return values * (kept.to(values.dtype) * (1.0 / (1.0 - limit / (1 << _BITS))))


def problem() -> choice.Ways:
    """The hidden values of 2,500 tokens."""
    layer, values = Dropout(0.1), torch.ones(2500, 128, requires_grad=True)

    def result_of(dropped: Tensor) -> list[Tensor]:
        return [dropped, *torch.autograd.grad(dropped.sum(), [values])]

    return choice.Ways(native=lambda: result_of(layer._native(values)), torch=lambda: result_of(layer.in_torch(values)))
