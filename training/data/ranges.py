"""Concatenates ranges of packed rows. Shapes: S ranges, P rows."""

from __future__ import annotations

import torch
from torch import Tensor


def ranges(start_S: Tensor, end_S: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the places (P) of the rows of the concatenated ranges `[start, end)`, and the ranges' offsets (S + 1)."""
    lengths = end_S - start_S
    offsets = torch.zeros(len(lengths) + 1, dtype=torch.int64, device=lengths.device)
    torch.cumsum(lengths, 0, out=offsets[1:])
    total = int(offsets[-1])
    at_P = torch.repeat_interleave(start_S - offsets[:-1], lengths, output_size=total)
    at_P += torch.arange(total, device=lengths.device)
    return at_P, offsets
