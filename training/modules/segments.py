"""Attention inside segments of packed tokens: sequences lie end to end, and nothing is padded outside of the products.

On a GPU in half precision this is flash attention over segments of different lengths (`torch.nn.attention.varlen`); elsewhere
segments of about the same length are laid side by side for torch's fused attention.

Shapes: Q query tokens, K key tokens, S segments, H heads, D width of a head, L tokens of the longest segment of a chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from training.data.ranges import ranges

_STEPS_PER_OCTAVE = 4  # lengths are rounded up to this many steps between powers of two: at most a quarter of padding
_SHORTEST = 4


@dataclass(frozen=True, kw_only=True)
class _Chunk:
    """Segments of about the same lengths.

    Attributes:
        query_at, key_at: places of the query and key tokens in the packed arrays.
        query_to, key_to: their places among the padded ones, `segment * L + position`.
        shape: segments, padded queries of each, padded keys of each.
        allowed: segments x 1 x (1 or queries) x keys; None where nothing is padded and all may be seen.
    """

    query_at: Tensor
    key_at: Tensor
    query_to: Tensor
    key_to: Tensor
    shape: tuple[int, int, int]
    allowed: Tensor | None


@dataclass(frozen=True)
class Segments:
    """Which keys the queries of each segment may see.

    Args:
        query_offsets: S + 1; the queries of segment s are `[query_offsets[s], query_offsets[s + 1])`.
        key_offsets: S + 1.
        causal: a query sees the keys up to its own position alone; queries are then the keys' own tokens.
    """

    query_offsets: Tensor
    key_offsets: Tensor
    causal: bool = False

    @classmethod
    def within(cls, offsets: Tensor, *, causal: bool = False) -> Segments:
        """Self-attention: every token sees its own segment."""
        return cls(offsets, offsets, causal)

    @cached_property
    def longest(self) -> tuple[int, int]:
        """Most queries and most keys of a segment."""
        return _longest(self.query_offsets), _longest(self.key_offsets)

    @cached_property
    def chunks(self) -> Sequence[_Chunk]:
        """Segments that have queries and keys, by lengths."""
        queries, keys = self.query_offsets.diff(), self.key_offsets.diff()
        used = torch.nonzero((queries > 0) & (keys > 0)).squeeze(1)
        lengths = _rounded(keys[used])
        return [self._chunk(used[lengths == length]) for length in torch.unique(lengths).tolist()]

    @cached_property
    def query_at(self) -> Tensor:
        """Places of all chunks' query tokens, chunk by chunk."""
        return _joined([chunk.query_at for chunk in self.chunks], self.query_offsets)

    @cached_property
    def key_at(self) -> Tensor:
        """Places of all chunks' key tokens, chunk by chunk."""
        return _joined([chunk.key_at for chunk in self.chunks], self.key_offsets)

    def _chunk(self, segments: Tensor) -> _Chunk:
        query_at, query_to, widest_query = _places(self.query_offsets, segments)
        key_at, key_to, widest_key = (query_at, query_to, widest_query) if self.key_offsets is self.query_offsets else _places(
            self.key_offsets, segments)
        lengths = self.key_offsets.diff()[segments]
        allowed = None
        if bool((lengths < widest_key).any()):
            allowed = (torch.arange(widest_key, device=lengths.device) < lengths[:, None])[:, None, None, :]
        if self.causal:
            below = torch.ones(widest_query, widest_key, dtype=torch.bool, device=lengths.device).tril()[None, None]
            allowed = below if allowed is None else allowed & below
        return _Chunk(query_at=query_at, key_at=key_at, query_to=query_to, key_to=key_to, allowed=allowed,
                      shape=(len(segments), widest_query, widest_key))


def _longest(offsets: Tensor) -> int:
    lengths = offsets.diff()
    return int(lengths.max()) if len(lengths) else 0


def _joined(places: Sequence[Tensor], like: Tensor) -> Tensor:
    return torch.cat(list(places)) if places else like[:0]


def _rounded(lengths: Tensor) -> Tensor:
    step = torch.pow(2, torch.floor(torch.log2(lengths.double()))) / _STEPS_PER_OCTAVE
    step = step.clamp(min=_SHORTEST)
    return (torch.ceil(lengths / step) * step).long()


def _places(offsets: Tensor, segments: Tensor) -> tuple[Tensor, Tensor, int]:
    """Places of the segments' tokens, packed and padded, and the padded length."""
    starts, ends = offsets[segments], offsets[segments + 1]
    at, _ = ranges(starts, ends)
    widest = int((ends - starts).max())
    first = torch.arange(len(segments), device=offsets.device) * widest
    to, _ = ranges(first, first + ends - starts)
    return at, to, widest


class _Take(torch.autograd.Function):
    """Rows at distinct places: the way back puts them there, and adds nothing up."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, at: Tensor) -> Tensor:
        ctx.save_for_backward(at)
        ctx.rows = len(tokens)
        return tokens.index_select(0, at)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (at,) = ctx.saved_tensors
        return gradients[0].new_zeros(ctx.rows, *gradients[0].shape[1:]).index_copy_(0, at, gradients[0]), None


def take(tokens: Tensor, at: Tensor) -> Tensor:
    """Rows at distinct places: as `tokens[at]`, without adding anything up on the way back."""
    found: Tensor = _Take.apply(tokens, at)
    return found


class _Put(torch.autograd.Function):
    """Rows put at distinct places of `count`, zeros between."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, to: Tensor, count: int) -> Tensor:
        ctx.save_for_backward(to)
        return tokens.new_zeros(count, *tokens.shape[1:]).index_copy_(0, to, tokens)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (to,) = ctx.saved_tensors
        return gradients[0].index_select(0, to), None, None


def attend(query_QHD: Tensor, key_KHD: Tensor, value_KHD: Tensor, segments: Segments) -> Tensor:
    """Scaled dot-product attention of each query over its segment's keys: Q x H x D; zeros where a segment has no key."""
    if query_QHD.device.type == "cuda" and query_QHD.dtype in (torch.bfloat16, torch.float16):
        return _flash(query_QHD, key_KHD, value_KHD, segments)
    if not segments.chunks:
        return torch.zeros_like(query_QHD)
    queries = _Take.apply(query_QHD, segments.query_at).split([len(chunk.query_at) for chunk in segments.chunks])
    keys, values = (_Take.apply(tokens, segments.key_at).split([len(chunk.key_at) for chunk in segments.chunks])
                    for tokens in (key_KHD, value_KHD))
    found = [_attend_chunk(*parts) for parts in zip(queries, keys, values, segments.chunks, strict=True)]
    out_QHD: Tensor = _Put.apply(torch.cat(found), segments.query_at, len(query_QHD))
    return out_QHD


def _attend_chunk(query: Tensor, key: Tensor, value: Tensor, chunk: _Chunk) -> Tensor:
    """The same of a chunk's tokens, in the order of its places."""
    count, queries, keys = chunk.shape

    def padded(tokens: Tensor, to: Tensor, length: int) -> Tensor:
        return _Put.apply(tokens, to, count * length).view(count, length, *tokens.shape[1:]).transpose(1, 2)

    found = functional.scaled_dot_product_attention(padded(query, chunk.query_to, queries), padded(key, chunk.key_to, keys),
                                                    padded(value, chunk.key_to, keys), attn_mask=chunk.allowed)
    return _Take.apply(found.transpose(1, 2).reshape(count * queries, *query.shape[1:]), chunk.query_to)


def _flash(query_QHD: Tensor, key_KHD: Tensor, value_KHD: Tensor, segments: Segments) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    longest_query, longest_key = segments.longest
    found = varlen_attn(query_QHD, key_KHD, value_KHD, segments.query_offsets.int(), segments.key_offsets.int(), longest_query,
                        longest_key, window_size=(-1, 0) if segments.causal else (-1, -1))
    assert isinstance(found, Tensor)
    return found
