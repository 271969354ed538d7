"""Attention inside segments of packed tokens: sequences are concatenated, and nothing is padded outside of the products.

On a CPU this is one native operation that pads nothing (`training/native/segment_attention.cpp`); on a GPU in half
precision flash attention over segments of different lengths (`torch.nn.attention.varlen`). Elsewhere, and where the one
cannot be compiled, segments of similar lengths are padded to one batch for torch's fused attention.

Shapes: Q query tokens, K key tokens, S segments, H heads, D width of a head, L tokens of the longest segment of a
chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from training import native
from training.data.ranges import ranges
from training.native import choice

_STEPS_PER_OCTAVE = 4  # lengths are rounded up to this many steps between powers of two: at most a quarter of padding
_SHORTEST = 4
_BLOCKS = 16  # into how many blocks the native operation cuts the segments


@dataclass(frozen=True, kw_only=True)
class _Side:
    """Where the query or the key tokens lie among the padded ones, in which chunk stands after chunk.

    Attributes:
        at: places of the tokens that are used, in the packed array, ascending; None where all are.
        to: their places among the padded ones.
        packed, padded: tokens of the packed and of the padded array.
        sizes: padded tokens of each chunk.
    """

    at: Tensor | None
    to: Tensor
    packed: int
    padded: int
    sizes: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class _Chunk:
    """Segments of about the same lengths.

    Attributes:
        shape: segments, padded queries of each, padded keys of each.
        allowed: segments x 1 x (1 or queries) x keys; None where nothing is padded and all may be seen.
    """

    shape: tuple[int, int, int]
    allowed: Tensor | None


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """How the segments that have queries and keys are padded to batches."""

    queries: _Side
    keys: _Side
    chunks: Sequence[_Chunk]


@dataclass(frozen=True)
class Segments:
    """Which keys the queries of each segment may see.

    Args:
        query_offsets: S + 1; the queries of segment s are `[query_offsets[s], query_offsets[s + 1])`.
        key_offsets: S + 1.
        causal: whether a query only sees the keys up to its own position; queries are then the keys' own tokens.
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
    def layout(self) -> _Layout:
        """Segments by the rounded number of their keys; within a chunk in their own order."""
        used_U = torch.nonzero((self.query_offsets.diff() > 0) & (self.key_offsets.diff() > 0)).squeeze(1)
        keys_U = self.key_offsets.diff()[used_U]
        chunk_U = torch.unique(_rounded(keys_U), return_inverse=True)[1]
        order_U = torch.argsort(chunk_U, stable=True)
        counts = torch.bincount(chunk_U).tolist()
        queries, widest_query = _side(self.query_offsets, used_U, chunk_U, order_U, counts)
        keys, widest_key = (
            (queries, widest_query)
            if self.key_offsets is self.query_offsets
            else _side(self.key_offsets, used_U, chunk_U, order_U, counts)
        )
        shapes = list(zip(counts, widest_query, widest_key, strict=True))
        chunks = (
            [
                _Chunk(shape=shape, allowed=self._allowed(shape, of_chunk))
                for shape, of_chunk in zip(shapes, keys_U[order_U].split(counts), strict=True)
            ]
            if counts
            else []
        )
        return _Layout(queries=queries, keys=keys, chunks=chunks)

    def _allowed(self, shape: tuple[int, int, int], lengths: Tensor) -> Tensor | None:
        """Which of the padded keys the queries of a chunk may see, given the keys of each segment."""
        _, queries, keys = shape
        allowed = None
        if bool((lengths < keys).any()):
            allowed = (torch.arange(keys, device=lengths.device) < lengths[:, None])[:, None, None, :]
        if self.causal:
            below = torch.ones(queries, keys, dtype=torch.bool, device=lengths.device).tril()[None, None]
            allowed = below if allowed is None else allowed & below
        return allowed


@dataclass(frozen=True)
class Whole:
    """The keys that a single segment's queries may see: all, however many there are, so that a program of it holds for any number.

    Args:
        has_key: whether there is any, as a tensor; None: the queries are the keys' own tokens.
        causal: as of `Segments`.
    """

    has_key: Tensor | None = None
    causal: bool = False


def whole_or_segments(offsets: Tensor | None, *, causal: bool = False) -> Segments | Whole:
    """Self-attention inside the sequences that offsets cut, or inside the only one."""
    return Whole(causal=causal) if offsets is None else Segments.within(offsets, causal=causal)


def has_key(queries_QE: Tensor, segments: Segments | Whole) -> Tensor:
    """Whether the segment of each query has a key, Q x 1; one for all queries of a single segment."""
    if isinstance(segments, Whole):
        assert segments.has_key is not None, "who reads keys made elsewhere says whether there are any"
        return segments.has_key
    return torch.repeat_interleave(
        segments.key_offsets.diff() > 0, segments.query_offsets.diff(), output_size=len(queries_QE)
    )[:, None]


def _longest(offsets: Tensor) -> int:
    lengths = offsets.diff()
    return int(lengths.max()) if len(lengths) else 0


def _rounded(lengths: Tensor) -> Tensor:
    step = torch.pow(2, torch.floor(torch.log2(lengths.double()))) / _STEPS_PER_OCTAVE
    step = step.clamp(min=_SHORTEST)
    return (torch.ceil(lengths / step) * step).long()


def _side(
    offsets: Tensor, used_U: Tensor, chunk_U: Tensor, order_U: Tensor, counts: Sequence[int]
) -> tuple[_Side, list[int]]:
    """One side's places, and the padded length in each chunk.

    Args:
        offsets: S + 1, of the packed tokens.
        used_U: the segments that are used, ascending.
        chunk_U: the chunk of each.
        order_U: those of the first chunk, of the second, ...
        counts: segments of each chunk.
    """
    starts, ends = offsets[:-1][used_U], offsets[1:][used_U]
    widest = torch.zeros(len(counts), dtype=offsets.dtype, device=offsets.device).scatter_reduce(
        0, chunk_U, ends - starts, "amax"
    )
    width_U = widest[chunk_U[order_U]]
    first_U = torch.empty_like(starts).scatter_(0, order_U, width_U.cumsum(0) - width_U)
    at, _ = ranges(starts, ends)
    to, _ = ranges(first_U, first_U + ends - starts)
    lengths, packed = widest.tolist(), int(offsets[-1])
    sizes = [count * length for count, length in zip(counts, lengths, strict=True)]
    return _Side(at=None if len(at) == packed else at, to=to, packed=packed, padded=sum(sizes), sizes=sizes), lengths


def _padded(tokens: Tensor, side: _Side) -> Tensor:
    rows = tokens if side.at is None else tokens.index_select(0, side.at)
    return tokens.new_zeros(side.padded, *tokens.shape[1:]).index_copy_(0, side.to, rows)


def _packed(tokens: Tensor, side: _Side) -> Tensor:
    rows = tokens.index_select(0, side.to)
    return rows if side.at is None else tokens.new_zeros(side.packed, *tokens.shape[1:]).index_copy_(0, side.at, rows)


class _Pad(torch.autograd.Function):
    """Packed tokens among zeros; the way back adds nothing up."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, side: _Side) -> Tensor:
        ctx.side = side
        return _padded(tokens, side)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return _packed(gradients[0], ctx.side), None


class _Pack(torch.autograd.Function):
    """Padded tokens packed again, zeros where a segment is not used."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, side: _Side) -> Tensor:
        ctx.side = side
        return _packed(tokens, side)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return _padded(gradients[0], ctx.side), None


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


class _Native(torch.autograd.Function):
    """All of the attention in one operation: see `training/native/segment_attention.cpp`."""

    @staticmethod
    def forward(ctx: Any, query_QHD: Tensor, key_KHD: Tensor, value_KHD: Tensor, segments: Segments) -> Tensor:
        given = [
            segments.query_offsets,
            segments.key_offsets,
            *(tokens.contiguous() for tokens in (query_QHD, key_KHD, value_KHD)),
        ]
        out_QHD, log_sums_QH = torch.empty_like(given[2]), query_QHD.new_empty(query_QHD.shape[:2])
        ctx.causal = segments.causal
        _compiled().attend_segments(*_arguments(given, segments.causal), *map(native.address, (out_QHD, log_sums_QH)))
        ctx.save_for_backward(*given, out_QHD, log_sums_QH)
        return out_QHD

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        *given, out_QHD, log_sums_QH = ctx.saved_tensors
        upstream_QHD = gradients[0].contiguous()  # held by its name until the call is over: an address holds nothing
        of_tokens = [torch.empty_like(tokens) for tokens in given[2:]]
        _compiled().attend_segments_back(
            *_arguments(given, ctx.causal), *map(native.address, (out_QHD, log_sums_QH, upstream_QHD, *of_tokens))
        )
        return *of_tokens, None


def _compiled() -> Any:
    return native.library("segment_attention")


def _library() -> Any:
    """None where torch serves."""
    return choice.serving("segment_attention", problem)


def _arguments(given: Sequence[Tensor], causal: bool) -> list[Any]:
    _, heads, width = given[2].shape
    sizes = native.integers(len(given[0]) - 1, heads, width, int(causal), torch.get_num_threads(), _BLOCKS)
    return [sizes, *map(native.address, given)]


def attend(query_QHD: Tensor, key_KHD: Tensor, value_KHD: Tensor, segments: Segments | Whole) -> Tensor:
    """Scaled dot-product attention of each query over its segment's keys: Q x H x D; zeros where a segment has no key."""
    if isinstance(segments, Whole):
        query, key, value = (tokens.transpose(0, 1)[None] for tokens in (query_QHD, key_KHD, value_KHD))
        return functional.scaled_dot_product_attention(query, key, value, is_causal=segments.causal)[0].transpose(0, 1)
    if query_QHD.device.type == "cuda" and query_QHD.dtype in (torch.bfloat16, torch.float16):
        return _flash(query_QHD, key_KHD, value_KHD, segments)
    if (
        query_QHD.device.type == "cpu"
        and query_QHD.dtype == torch.float32
        and query_QHD.shape[2] % native.WIDTH == 0
        and _library() is not None
    ):
        found: Tensor = _Native.apply(query_QHD, key_KHD, value_KHD, segments)
        return found
    return in_torch(query_QHD, key_KHD, value_KHD, segments)


def in_torch(query_QHD: Tensor, key_KHD: Tensor, value_KHD: Tensor, segments: Segments) -> Tensor:
    """The same by torch's attention, segments of about the same length at a time."""
    layout = segments.layout
    if not layout.chunks:
        return torch.zeros_like(query_QHD)
    queries = _Pad.apply(query_QHD, layout.queries).split(layout.queries.sizes)
    keys, values = (_Pad.apply(tokens, layout.keys).split(layout.keys.sizes) for tokens in (key_KHD, value_KHD))
    found = [_attend_chunk(*parts) for parts in zip(queries, keys, values, layout.chunks, strict=True)]
    out_QHD: Tensor = _Pack.apply(torch.cat(found), layout.queries)
    return out_QHD


def _attend_chunk(query: Tensor, key: Tensor, value: Tensor, chunk: _Chunk) -> Tensor:
    """The same of a chunk's padded tokens."""
    count, queries, keys = chunk.shape

    def by_segment(tokens: Tensor, length: int) -> Tensor:
        return tokens.view(count, length, *tokens.shape[1:]).transpose(1, 2)

    found = functional.scaled_dot_product_attention(
        by_segment(query, queries), by_segment(key, keys), by_segment(value, keys), attn_mask=chunk.allowed
    )
    return found.transpose(1, 2).reshape(query.shape)


def _flash(query_QHD: Tensor, key_KHD: Tensor, value_KHD: Tensor, segments: Segments) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    longest_query, longest_key = segments.longest
    found = varlen_attn(
        query_QHD,
        key_KHD,
        value_KHD,
        segments.query_offsets.int(),
        segments.key_offsets.int(),
        longest_query,
        longest_key,
        window_size=(-1, 0) if segments.causal else (-1, -1),
    )
    assert isinstance(found, Tensor)
    return found


def problem() -> choice.Ways:
    """Two heads of 64 sequences of 1 to 75 behaviours."""
    torch.manual_seed(0)
    segments = Segments.within(
        torch.cat([torch.zeros(1, dtype=torch.int64), (1 + torch.arange(64) * 31 % 75).cumsum(0)])
    )
    tokens = [torch.randn(int(segments.query_offsets[-1]), 2, 16, requires_grad=True) for _ in range(3)]

    def result_of(attended_QHD: Tensor) -> list[Tensor]:
        return [attended_QHD, *torch.autograd.grad(attended_QHD.square().sum(), tokens)]

    def by_native() -> list[Tensor]:
        return result_of(_Native.apply(*tokens, segments))

    return choice.Ways(native=by_native, torch=lambda: result_of(in_torch(tokens[0], tokens[1], tokens[2], segments)))
