"""Transformer layers over packed tokens, whose keys and values other queries may read.

Post-norm layers with GELU, as BERT has them: `z = LN(h + Attention(h)); h' = LN(z + FFN(z))`.

Shapes: P tokens, Q queries, E width, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.modules.dropout import Dropout
from training.modules.segments import Segments, Whole, attend, has_key


@dataclass(frozen=True, kw_only=True)
class Width:
    """Sizes of a layer: width, heads, inner width of its FFN, dropout while training."""

    width: int
    heads: int
    inner: int
    dropout: float = 0.0


def split_heads(tokens_PE: Tensor, heads: int) -> Tensor:
    """P x E -> P x H x (E / H)."""
    return tokens_PE.view(tokens_PE.shape[0], heads, tokens_PE.shape[1] // heads)


class FeedForward(nn.Module):
    """`LN(x + W_2 GELU(W_1 x))`."""

    def __init__(self, size: Width) -> None:
        super().__init__()
        self.inner = nn.Linear(size.width, size.inner)
        self.outer = nn.Linear(size.inner, size.width)
        self.norm = nn.LayerNorm(size.width)
        self.dropout = Dropout(size.dropout)

    def forward(self, tokens_PE: Tensor) -> Tensor:
        """P x E -> P x E."""
        normal_PE: Tensor = self.norm(tokens_PE + self.dropout(self.outer(functional.gelu(self.inner(tokens_PE)))))
        return normal_PE


class EncoderLayer(nn.Module):
    """Self-attention and FFN; hands out the keys and values that its tokens have."""

    def __init__(self, size: Width) -> None:
        super().__init__()
        self.heads = size.heads
        self.query = nn.Linear(size.width, size.width)
        self.key = nn.Linear(size.width, size.width)
        self.value = nn.Linear(size.width, size.width)
        self.out = nn.Linear(size.width, size.width)
        self.norm = nn.LayerNorm(size.width)
        self.dropout = Dropout(size.dropout)
        self.feed_forward = FeedForward(size)

    def keys_and_values(self, tokens_PE: Tensor) -> tuple[Tensor, Tensor]:
        """Returns keys and values, P x H x (E / H) each."""
        return split_heads(self.key(tokens_PE), self.heads), split_heads(self.value(tokens_PE), self.heads)

    def forward(self, tokens_PE: Tensor, keys_and_values: tuple[Tensor, Tensor], segments: Segments | Whole) -> Tensor:
        """P x E -> P x E."""
        attended_PE = attend(split_heads(self.query(tokens_PE), self.heads), *keys_and_values, segments).flatten(1)
        normal_PE = self.norm(tokens_PE + self.dropout(self.out(attended_PE)))
        deeper_PE: Tensor = self.feed_forward(normal_PE)
        return deeper_PE


class CrossLayer(nn.Module):
    """Queries that read keys and values made elsewhere: a query projection, an output projection and an FFN of its own."""

    def __init__(self, size: Width) -> None:
        super().__init__()
        self.heads = size.heads
        self.query = nn.Linear(size.width, size.width)
        self.out = nn.Linear(size.width, size.width)
        self.norm = nn.LayerNorm(size.width)
        self.dropout = Dropout(size.dropout)
        self.feed_forward = FeedForward(size)

    def forward(self, queries_QE: Tensor, keys_and_values: tuple[Tensor, Tensor], segments: Segments | Whole) -> Tensor:
        """Q x E -> Q x E; a query without any key only goes through the FFN."""
        attended_QE = attend(split_heads(self.query(queries_QE), self.heads), *keys_and_values, segments).flatten(1)
        attended_QE = torch.where(has_key(queries_QE, segments), self.out(attended_QE), 0.0)
        deeper_QE: Tensor = self.feed_forward(self.norm(queries_QE + self.dropout(attended_QE)))
        return deeper_QE
