"""Dropout whose draw does not cost more than what it drops: on a CPU torch draws one number after the other, for each element.

Here 64 random bits serve four elements, 16 each, so that a share is met to one in 65,536.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_BITS, _OF_A_DRAW = 16, 4


class Dropout(nn.Module):
    """Zeroes a share of the elements while training, and scales the others up.

    Args:
        share: of elements dropped.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, values: Tensor) -> Tensor:
        """Of any shape."""
        if not self.training or self.share == 0.0:
            return values
        if values.device.type != "cpu":
            return functional.dropout(values, self.share)
        draws = torch.empty(-(-values.numel() // _OF_A_DRAW), dtype=torch.int64).random_(torch.iinfo(torch.int64).min, None)
        bits = draws.view(torch.int16)[:values.numel()].view(values.shape)
        limit = round(self.share * (1 << _BITS))
        kept = bits >= limit - (1 << (_BITS - 1))  # of -32,768 .. 32,767 the lowest `limit` are dropped
        return values * (kept.to(values.dtype) * (1.0 / (1.0 - limit / (1 << _BITS))))
