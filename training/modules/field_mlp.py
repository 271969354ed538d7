"""The network of TPM: the embeddings of a sample's features, linear layers with ReLU between them, and one logit.

TPM trains on more samples than any other model, so on a CPU everything after the look-ups is one native operation
(`training/native/field_mlp.cpp`). A field whose table has few rows (hour, position, a segment) is multiplied by its
columns of the first layer once for each row of the table, not once for each sample. On other devices, and where the
native code cannot be compiled, torch computes the same, layer by layer.

Shapes: B rows of a batch, F features, V rows of a field's table, D width of the first layer's input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from training import native
from training.modules.embedding import IdEmbeddings
from training.native import choice

FEW_ROWS = 256  # a field has few rows if its table has at most so many
_BLOCKS = 8  # into how many blocks the native operation divides a batch


@dataclass(frozen=True, kw_only=True)
class _Places:
    """Where the native operation finds each field.

    Attributes:
        num_layers: the number of hidden layers.
        few: for each field of few rows, its column in `rows_BF` and its columns of the first layer.
        many: for each other field, its columns of the first layer; their vectors stand side by side in `x_BD`.
    """

    num_layers: int
    few: Sequence[tuple[int, slice]]
    many: Sequence[slice]

    def groups(self, tensors: list[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Splits the operation's tensors: weights and biases of all layers, and the tables (V x width) of the fields of few rows."""
        size = self.num_layers + 1
        return tensors[:size], tensors[size : 2 * size], tensors[2 * size :]


class _Native(torch.autograd.Function):
    """Everything after the look-ups as one native operation: `training/native/field_mlp.cpp`."""

    @staticmethod
    def forward(ctx: Any, rows_BF: Tensor, places: _Places, keeps: bool, x_BD: Tensor, *tensors: Tensor) -> Tensor:
        inputs = [tensor.contiguous() for tensor in (rows_BF, x_BD, *tensors)]
        logits_B, hidden = x_BD.new_empty(len(x_BD)), None
        if keeps:
            _, biases, _ = places.groups(inputs[2:])
            hidden = x_BD.new_empty(len(x_BD) * sum(native.padded(len(bias)) for bias in biases[:-1]))
        ctx.save_for_backward(*inputs, hidden)
        ctx.places = places
        if _compiled().score(*_arguments(places, inputs), native.address(hidden), native.address(logits_B)):
            raise IndexError(
                f"expected rows of the fields' tables, found {rows_BF.min(dim=0).values.tolist()} .. "
                f"{rows_BF.max(dim=0).values.tolist()} by field"
            )
        return logits_B

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, hidden = ctx.saved_tensors
        upstream_B = gradients[0].contiguous()  # a variable keeps it in memory during the call; its address would not
        of_x = torch.empty_like(inputs[1])
        of_others = [torch.zeros_like(tensor) for tensor in inputs[2:]]
        weights, biases, fields = ctx.places.groups(of_others)
        _compiled().score_back(
            *_arguments(ctx.places, inputs),
            native.address(hidden),
            native.address(upstream_B),
            native.address(of_x),
            native.addresses(weights),
            native.addresses(biases),
            native.addresses(fields),
        )
        return None, None, None, of_x, *of_others


def _arguments(places: _Places, inputs: list[Tensor]) -> list[Any]:
    rows_BF, x_BD, *others = inputs
    weights, biases, fields = places.groups(others)
    sizes = native.integers(
        *x_BD.shape,
        places.num_layers,
        len(fields),
        rows_BF.shape[1],
        torch.get_num_threads(),
        _BLOCKS,
        weights[0].shape[1],
        len(places.many),
        *(len(bias) for bias in biases[:-1]),
        *(
            number
            for field, (place, columns) in zip(fields, places.few, strict=True)
            for number in (*field.shape, place, columns.start)
        ),
        *(number for columns in places.many for number in (columns.start, columns.stop - columns.start)),
    )
    return [
        sizes,
        native.address(x_BD),
        native.addresses(weights),
        native.addresses(biases),
        native.addresses(fields),
        native.address(rows_BF),
    ]


def _compiled() -> Any:
    return native.library("field_mlp")


def _library() -> Any:
    """Returns the compiled library; None if torch is to compute the network."""
    return choice.serving("field_mlp", problem)


class FieldMlp(nn.Module):
    """Computes one logit for each sample from the rows of its features.

    Args:
        embeddings: the features' tables. They stay with the model; here only their widths are read.
        hidden: the widths of the hidden layers.
    """

    def __init__(self, embeddings: IdEmbeddings, hidden: Sequence[int]) -> None:
        super().__init__()
        widths = [embeddings.width, *hidden, 1]
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))

    def forward(self, embeddings: IdEmbeddings, rows_BF: Tensor) -> Tensor:
        """Returns the logits, B.

        Args:
            embeddings: the features' tables.
            rows_BF: the row of each feature for each sample.
        """
        if rows_BF.device.type == "cpu" and len(self.layers) > 1 and _fits(embeddings) and _library() is not None:
            return self._native(embeddings, rows_BF)
        return self.in_torch(embeddings, rows_BF)

    def in_torch(self, embeddings: IdEmbeddings, rows_BF: Tensor) -> Tensor:
        """Computes what `forward` does by torch, layer by layer."""
        hidden, _ = embeddings(rows_BF)
        for layer in self.layers[:-1]:
            hidden = functional.relu(layer(hidden))
        logits_B1: Tensor = self.layers[-1](hidden)
        return logits_B1.squeeze(1)

    def _native(self, embeddings: IdEmbeddings, rows_BF: Tensor) -> Tensor:
        few = [name for name in embeddings.names if embeddings.row_cnt(name) <= FEW_ROWS]
        many = [name for name in embeddings.names if name not in few]
        place = {name: number for number, name in enumerate(embeddings.names)}
        found = embeddings.look_up(
            [
                *((name, rows_BF[:, place[name]]) for name in many),
                *((name, torch.arange(embeddings.row_cnt(name))) for name in few),
            ]
        )
        x_BD = torch.cat(found[: len(many)], dim=1) if many else torch.empty(len(rows_BF), 0)
        linear = [layer for layer in self.layers if isinstance(layer, nn.Linear)]
        places = _Places(
            num_layers=len(linear) - 1,
            few=[(place[name], embeddings.columns(name)) for name in few],
            many=[embeddings.columns(name) for name in many],
        )
        logits_B: Tensor = _Native.apply(
            rows_BF,
            places,
            torch.is_grad_enabled(),
            x_BD,
            *(layer.weight for layer in linear),
            *(layer.bias for layer in linear),
            *found[len(many) :],
        )
        return logits_B


def _fits(embeddings: IdEmbeddings) -> bool:
    return all(
        columns.start % native.WIDTH == columns.stop % native.WIDTH == 0
        for columns in map(embeddings.columns, embeddings.names)
    )


def problem() -> choice.Ways:
    """The problem of the trial: 1,024 samples with three fields of many rows and four of few, look-ups included."""
    torch.manual_seed(0)
    row_cnts = {"a": 6000, "b": 3000, "c": 3500, "d": 3, "e": 8, "f": 22, "g": 19}
    embeddings = IdEmbeddings(row_cnts, dict.fromkeys(row_cnts, 16), seed=0)
    mlp = FieldMlp(embeddings, (200, 80))
    rows_BF = torch.stack([torch.randint(count, (1024,)) for count in row_cnts.values()], dim=1)

    def result_of(logits_B: Tensor) -> list[Tensor | None]:
        for parameter in mlp.parameters():
            parameter.grad = None
        logits_B.square().sum().backward()
        return [logits_B, *(parameter.grad for parameter in mlp.parameters())]

    return choice.Ways(
        native=lambda: result_of(mlp._native(embeddings, rows_BF)),
        torch=lambda: result_of(mlp.in_torch(embeddings, rows_BF)),
    )
