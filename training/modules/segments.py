"""Attention inside segments of packed tokens: sequences of different lengths are concatenated instead of padded.

On a CPU this is one native operation that pads nothing (`training/native/segment_attention.cpp`). On a GPU in half
precision it is flash attention over segments of different lengths (`torch.nn.attention.varlen`). In all other cases, and
where the native code cannot be compiled, segments of similar lengths are padded to a batch for torch's fused attention;
such a batch is called a chunk.

Shapes: Q query tokens, K key tokens, S segments, U segments that have both queries and keys, H heads, D width of a head.
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

_STEPS_PER_OCTAVE = (
    4  # lengths are rounded up to one of so many steps between two powers of two: at most a quarter is padding
)
_SHORTEST = 4  # the smallest step of that rounding, in tokens
_BLOCKS = 16  # into how many blocks the native operation divides the segments


@dataclass(frozen=True, kw_only=True)
class _Side:
    """How the query tokens, or the key tokens, are copied from the packed array to the padded one and back.

    The padded array holds one chunk after the other.

    Attributes:
        at: the places in the packed array of the tokens that are used, ascending; None if all are.
        to: the places of the same tokens in the padded array.
        packed: the number of tokens in the packed array.
        padded: the number of tokens in the padded array, padding included.
        sizes: the number of padded tokens of each chunk.
    """

    at: Tensor | None
    to: Tensor
    packed: int
    padded: int
    sizes: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class _Chunk:
    """Segments of about the same number of keys, which are padded to one batch.

    Attributes:
        shape: the number of segments, of padded queries of each, and of padded keys of each.
        allowed: which keys a query may see, segments x 1 x (1 or queries) x keys; None if every query may see every key and
            no key is padding.
    """

    shape: tuple[int, int, int]
    allowed: Tensor | None


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """How all segments that have both queries and keys are padded to chunks."""

    queries: _Side
    keys: _Side
    chunks: Sequence[_Chunk]


@dataclass(frozen=True)
class Segments:
    """Where segments lie in packed tokens. A query may see the keys of its own segment.

    Args:
        query_offsets: S + 1 offsets; the queries of segment s are `[query_offsets[s], query_offsets[s + 1])`.
        key_offsets: S + 1 offsets of the keys, in the same way.
        causal: whether a query sees only the keys up to its own position; then queries and keys are of the same tokens.
    """

    query_offsets: Tensor
    key_offsets: Tensor
    causal: bool = False

    @classmethod
    def within(cls, offsets: Tensor, *, causal: bool = False) -> Segments:
        """Returns the segments of self-attention, in which queries and keys are of the same tokens."""
        return cls(offsets, offsets, causal)

    @cached_property
    def longest(self) -> tuple[int, int]:
        """The largest number of queries, and of keys, that a segment has."""
        return _longest(self.query_offsets), _longest(self.key_offsets)

    @cached_property
    def layout(self) -> _Layout:
        """The chunks: segments whose number of keys rounds to the same value are one chunk, in their own order."""
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
        """Returns which of the padded keys the queries of a chunk may see.

        Args:
            shape: the chunk's `shape`.
            lengths: the number of keys of each of its segments.
        """
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
    """A single segment without offsets. A query may see all keys.

    An exported program that attends over it works for any number of tokens, since no length is fixed in it.

    Args:
        has_key: whether there is any key, as a tensor; None if queries and keys are of the same tokens.
        causal: whether a query sees only the keys up to its own position, as of `Segments`.
    """

    has_key: Tensor | None = None
    causal: bool = False


def whole_or_segments(offsets: Tensor | None, *, causal: bool = False) -> Segments | Whole:
    """Returns the segments of self-attention.

    Args:
        offsets: S + 1 offsets of the packed sequences; None if all tokens are one sequence.
        causal: whether a token sees only the tokens up to its own position.
    """
    return Whole(causal=causal) if offsets is None else Segments.within(offsets, causal=causal)


def has_key(queries_QE: Tensor, segments: Segments | Whole) -> Tensor:
    """Returns whether the segment of each query has a key, Q x 1; one value for all queries of a `Whole`."""
    if isinstance(segments, Whole):
        assert segments.has_key is not None, "`has_key` has to be given where keys are of other tokens than queries"
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
    """Returns how queries, or keys, are copied, and to how many of them each segment of a chunk is padded.

    Args:
        offsets: the S + 1 offsets of the queries, or of the keys.
        used_U: the segments that have both queries and keys, ascending.
        chunk_U: the chunk of each of them.
        order_U: positions in `used_U`, sorted by chunk.
        counts: the number of segments of each chunk.
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
    """Copies packed tokens to the padded array, with zeros between them; the backward pass copies, and sums nothing."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, side: _Side) -> Tensor:
        ctx.side = side
        return _padded(tokens, side)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return _packed(gradients[0], ctx.side), None


class _Pack(torch.autograd.Function):
    """Copies padded tokens back to the packed array, with zeros for segments that are not used."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, side: _Side) -> Tensor:
        ctx.side = side
        return _packed(tokens, side)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return _padded(gradients[0], ctx.side), None


class _Take(torch.autograd.Function):
    """Selects rows at distinct places; the backward pass copies gradients to these places, and sums nothing."""

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
    """Selects rows like `tokens[at]`, faster in the backward pass, which only copies.

    Args:
        tokens: the rows to select from.
        at: the places of the rows, each at most once.
    """
    found: Tensor = _Take.apply(tokens, at)
    return found


class _Native(torch.autograd.Function):
    """The whole attention as one native operation: `training/native/segment_attention.cpp`."""

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
        upstream_QHD = gradients[0].contiguous()  # a variable keeps it in memory during the call; its address would not
        of_tokens = [torch.empty_like(tokens) for tokens in given[2:]]
        _compiled().attend_segments_back(
            *_arguments(given, ctx.causal), *map(native.address, (out_QHD, log_sums_QH, upstream_QHD, *of_tokens))
        )
        return *of_tokens, None


def _compiled() -> Any:
    return native.library("segment_attention")


def _library() -> Any:
    """Returns the compiled library; None if torch is to compute the attention."""
    return choice.serving("segment_attention", problem)


def _arguments(given: Sequence[Tensor], causal: bool) -> list[Any]:
    _, heads, width = given[2].shape
    sizes = native.integers(len(given[0]) - 1, heads, width, int(causal), torch.get_num_threads(), _BLOCKS)
    return [sizes, *map(native.address, given)]


def attend(query_QHD: Tensor, key_KHD: Tensor, value_KHD: Tensor, segments: Segments | Whole) -> Tensor:
    """Computes the scaled dot-product attention of each query over the keys of its segment.

    Args:
        query_QHD: the queries.
        key_KHD: the keys.
        value_KHD: the value of each key.
        segments: which keys each query may see.

    Returns:
        Q x H x D; zeros for the queries of a segment without keys.
    """
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
    """Computes what `attend` does with torch's attention, one chunk at a time."""
    layout = segments.layout
    if not layout.chunks:
        return torch.zeros_like(query_QHD)
    queries = _Pad.apply(query_QHD, layout.queries).split(layout.queries.sizes)
    keys, values = (_Pad.apply(tokens, layout.keys).split(layout.keys.sizes) for tokens in (key_KHD, value_KHD))
    found = [_attend_chunk(*parts) for parts in zip(queries, keys, values, layout.chunks, strict=True)]
    out_QHD: Tensor = _Pack.apply(torch.cat(found), layout.queries)
    return out_QHD


def _attend_chunk(query: Tensor, key: Tensor, value: Tensor, chunk: _Chunk) -> Tensor:
    """Computes the attention of one chunk's padded tokens."""
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
    """The problem of the trial: two heads over 64 sequences of 1 to 75 behaviours."""
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
