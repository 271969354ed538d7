"""DIN's target attention over jagged histories.

DIN (arXiv 1706.06978) scores a behaviour k for a candidate q by an MLP of [q, k, q - k, q * k]. Its first layer is
linear in each part, so W[q, k, q - k, q * k] = (Wq + Wd) q + (Wk - Wd) k + Wp (q * k): q's part is computed once per
sample instead of once per behaviour, and nothing of width 4E is built.

On a CPU, one native operation does all of it (`training/native/target_attention.cpp`); elsewhere, and where that cannot
be compiled, torch does the same. Where all candidates share one history, as those of a request do, its keys are
computed once.

Shapes: B samples, P behaviours of all samples, concatenated, E width of an item's token, H hidden width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from training import native
from training.native import choice

_WIDEST, _BLOCKS = 64, 16  # widths of the native operation; into how many blocks it cuts the samples


class _Spread(torch.autograd.Function):
    """B x E -> P x E: repeats each sample's vector for each of its behaviours. Its gradient is a sum per segment."""

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
    # One worker sums each segment in order, so the result is the same in every run, unlike that of a scatter.
    return torch.segment_reduce(values_PE, "sum", offsets=offsets, axis=0, initial=0.0, unsafe=True)


def spread(values_BE: Tensor, row_P: Tensor, offsets: Tensor) -> Tensor:
    """Repeats each sample's vector for each of its behaviours, B x E -> P x E, by `row_P`, which ascends."""
    values_PE: Tensor = _Spread.apply(values_BE, row_P, offsets)
    return values_PE


def pool(values_PE: Tensor, row_P: Tensor, offsets: Tensor) -> Tensor:
    """Sums vectors per sample, P x E -> B x E; zeros for a sample without behaviours."""
    values_BE: Tensor = _Pool.apply(values_PE, row_P, offsets)
    return values_BE


class _Native(torch.autograd.Function):
    """All of the attention in one operation: see `training/native/target_attention.cpp`."""

    @staticmethod
    # Autograd follows tensors that are arguments of their own, not those in a dataclass.
    def forward(  # noqa: PLR0913
        ctx: Any,
        offsets: Tensor,
        query_BE: Tensor,
        from_query_BH: Tensor,
        key: Tensor,
        product: Tensor,
        deeper: Tensor | None,
        deeper_bias: Tensor | None,
        score: Tensor,
        score_bias: Tensor,
        *parts: Tensor,
    ) -> Tensor:
        inputs = [
            value if value is None else value.contiguous()
            for value in (query_BE, from_query_BH, key, product, deeper, deeper_bias, score, score_bias, *parts)
        ]
        ctx.save_for_backward(offsets, *inputs)
        out_BE = torch.empty_like(query_BE, memory_format=torch.contiguous_format)
        _compiled().attend(*_arguments(offsets, inputs), native.address(out_BE))
        return out_BE

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        offsets, *inputs = ctx.saved_tensors
        upstream_BE = gradients[0].contiguous()  # held by its name until the call is over: an address holds nothing
        of_query = [torch.empty_like(value) for value in inputs[:2]]
        of_weights: list[Tensor | None] = [None if value is None else torch.zeros_like(value) for value in inputs[2:8]]
        of_parts = [torch.empty_like(part) for part in inputs[8:]]
        _compiled().attend_back(
            *_arguments(offsets, inputs),
            native.address(upstream_BE),
            native.addresses(of_parts),
            *map(native.address, [*of_query, *of_weights]),
        )
        return None, *of_query, *of_weights, *of_parts


def _compiled() -> Any:
    return native.library("target_attention")


def _library() -> Any:
    """Returns the compiled library; None if torch is to compute the attention."""
    return choice.serving("target_attention", problem)


def _arguments(offsets: Tensor, inputs: Sequence[Any]) -> list[Any]:
    query_BE, from_query_BH, *weights = inputs[:8]
    deeper, parts = weights[2], list(inputs[8:])
    sizes = native.integers(
        len(query_BE),
        query_BE.shape[1],
        from_query_BH.shape[1],
        0 if deeper is None else len(deeper),
        len(parts),
        torch.get_num_threads(),
        _BLOCKS,
    )
    return [
        sizes,
        native.addresses(parts),
        native.integers(*(part.shape[1] for part in parts)),
        native.address(offsets),
        native.address(query_BE),
        native.address(from_query_BH),
        *map(native.address, weights),
    ]


class TargetAttention(nn.Module):
    """A user's interest in a candidate: the weighted sum of the behaviours' tokens, with weights that are not normalised (as in DIN).

    Args:
        width: E.
        hidden: widths of the hidden layers.
    """

    def __init__(self, width: int, hidden: Sequence[int]) -> None:
        super().__init__()
        first, *others = hidden
        self.query = nn.Linear(width, first)
        self.key = nn.Linear(width, first, bias=False)
        self.product = nn.Linear(width, first, bias=False)
        self.deeper = nn.ModuleList(nn.Linear(before, after) for before, after in zip(hidden[:-1], others, strict=True))
        self.score = nn.Linear(hidden[-1], 1)
        self._fits = len(hidden) <= 2 and all(size % native.WIDTH == 0 and size <= _WIDEST for size in (width, *hidden))

    def forward(self, query_BE: Tensor, parts: Sequence[Tensor], offsets: Tensor | None) -> Tensor:
        """Returns the interest of each sample's user in its candidate, B x E.

        Args:
            query_BE: the candidates.
            parts: the embeddings of the behaviours' features; concatenated they are P x E.
            offsets: B + 1; sample b's behaviours are `[offsets[b], offsets[b + 1])`. None: all samples share all P
                behaviours.
        """
        if offsets is None:
            keys_PE = torch.cat(list(parts), dim=1)
            weights_BP1 = self._weights(query_BE[:, None], keys_PE, self.query(query_BE)[:, None])
            return weights_BP1.squeeze(2) @ keys_PE
        if self._fits and query_BE.device.type == "cpu" and query_BE.dtype == torch.float32 and _library() is not None:
            return self._native(query_BE, parts, offsets)
        return self.in_torch(query_BE, torch.cat(list(parts), dim=1), offsets)

    def _native(self, query_BE: Tensor, parts: Sequence[Tensor], offsets: Tensor) -> Tensor:
        deeper = [self.deeper[0].weight, self.deeper[0].bias] if len(self.deeper) else [None, None]
        attended: Tensor = _Native.apply(
            offsets,
            query_BE,
            self.query(query_BE),
            self.key.weight,
            self.product.weight,
            *deeper,
            self.score.weight,
            self.score.bias,
            *parts,
        )
        return attended

    def in_torch(self, query_BE: Tensor, keys_PE: Tensor, offsets: Tensor) -> Tensor:
        """Returns the same as the native operation, for tokens P x E."""
        row_P = torch.repeat_interleave(
            torch.arange(len(query_BE), device=offsets.device), offsets.diff(), output_size=len(keys_PE)
        )
        both = spread(torch.cat([query_BE, self.query(query_BE)], dim=1), row_P, offsets)
        query_PE, from_query_PH = both[:, : query_BE.shape[1]], both[:, query_BE.shape[1] :]
        return pool(self._weights(query_PE, keys_PE, from_query_PH) * keys_PE, row_P, offsets)

    def _weights(self, query: Tensor, keys_PE: Tensor, from_query: Tensor) -> Tensor:
        """Weights of behaviours: P x 1 for queries P x E, B x P x 1 for queries B x 1 x E; `from_query`: their part of the first layer."""
        hidden = functional.relu(from_query + self.key(keys_PE) + self.product(query * keys_PE))
        for layer in self.deeper:
            hidden = functional.relu(layer(hidden))
        weights: Tensor = self.score(hidden)
        return weights


def problem() -> choice.Ways:
    """256 candidates with 0 to 75 behaviours each."""
    torch.manual_seed(0)
    attention = TargetAttention(32, (64, 32))
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), (torch.arange(256) * 31 % 76).cumsum(0)])
    query_BE = torch.randn(256, 32, requires_grad=True)
    parts = [torch.randn(int(offsets[-1]), 16, requires_grad=True) for _ in range(2)]

    def result_of(attended_BE: Tensor) -> list[Tensor]:
        return [
            attended_BE,
            *torch.autograd.grad(attended_BE.square().sum(), [query_BE, *parts, *attention.parameters()]),
        ]

    return choice.Ways(
        native=lambda: result_of(attention._native(query_BE, parts, offsets)),
        torch=lambda: result_of(attention.in_torch(query_BE, torch.cat(parts, dim=1), offsets)),
    )
