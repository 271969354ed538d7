"""An ad model as a program that scores a request: all of its candidates with the one user's behaviours.

The program is the trained module itself, run by torch's export on a request: `CtrModel.forward` is the only place where
the mathematics stands (docs/adr/0018). The user's behaviours come once, so whatever depends on them only is computed
once for all candidates. FLOPs are counted on the same module and inputs (`training/flops.py`).

Shapes: C candidates, P behaviours, F features, S dense inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from training import native
from training.data.batches import Batch, Jagged
from training.data.histories import HISTORY_FEATURES
from training.data.sequences import FIELDS_OF_SIDE, SequenceBatch, SequenceInput
from training.data.vectors import VECTOR_ENTITIES
from training.models.adapted import AdaptedCtrModel
from training.models.ctr import CtrModel
from training.models.fg_bert import FgBert
from training.models.srp4ctr import QueryingTransformer
from training.modules.embedding import IdEmbeddings

HISTORIES = ("long", "short")
_HEAD = '''"""Scores of a request: made from the trained model by torch.export, so it is not to be edited."""

from math import inf, nan

import torch
from torch import device


'''
_MOST = 1 << 20  # candidates of a request, and behaviours: what the export asks to be bounded


class RequestModel(nn.Module):
    """An ad model whose input is one request; what it reads is named by `inputs`.

    Args:
        model: the model, on a CPU; it must not be trained further.
    """

    def __init__(self, model: CtrModel) -> None:
        super().__init__()
        self.model = model.eval()
        self.encoder = model.bridge.network if model.bridge else None  # a frozen one is no part of the model
        self.source = model.source.model if isinstance(model, AdaptedCtrModel) else None
        for module in self.modules():
            if isinstance(module, IdEmbeddings | QueryingTransformer):
                module.freeze()

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Returns click probabilities, C."""
        histories = {
            which: Jagged(rows=dict(zip(HISTORY_FEATURES, inputs[which].unbind(), strict=True)), offsets=None)
            for which in HISTORIES
        }
        at_C = dict(zip(VECTOR_ENTITIES, inputs["transferred"].unbind(), strict=True))
        nothing = torch.empty(0)
        batch = Batch(
            rows_BF=inputs["rows"],
            dense_BS=inputs["dense"],
            long=histories["long"],
            short=histories["short"],
            user_at_B=at_C["user"],
            item_at_B=at_C["item"],
            day_B=nothing,
            label_B=nothing,
            sequence=self._sequence(self.encoder, inputs) if self.encoder else None,
            texts=dict(zip(VECTOR_ENTITIES, inputs["texts"].unbind(), strict=True)) if self.model.texts else {},
        )
        return torch.sigmoid(self.model(batch))

    @staticmethod
    def _sequence(encoder: FgBert, inputs: Mapping[str, Tensor]) -> SequenceInput:
        rows = dict(zip(encoder.fields, inputs["sequence"].unbind(), strict=True))
        position_P = torch.arange(inputs["sequence"].shape[1]).flip(0)
        sequences = SequenceBatch(rows=rows, offsets=None, position_P=position_P, masks={})
        candidate = dict(zip(item_fields(encoder), inputs["sequence_candidates"].unbind(), strict=True))
        return SequenceInput(sequences=sequences, of_B=None, candidate=candidate)

    def inputs(self, candidates: int, long: int, short: int) -> dict[str, Tensor]:
        """Inputs of so many candidates and behaviours, all zeros: they show the shapes, and suffice to count by.

        `rows` (C x F) are the features' table rows, `dense` (C x S) the statistics; `long` and `short` (history
        features x P) the behaviours' table rows; `transferred` and `texts` (2 x C) places of user and item among the
        transferred vectors, 0 for none; `sequence` (fields x P) and `sequence_candidates` (item fields x C) what the
        sequence encoder reads.
        """
        model, encoder = self.model, self.encoder
        found = {
            "rows": _places(candidates, len(model.embeddings.names)),
            "dense": torch.zeros(candidates, model.num_dense),
            "long": _places(len(HISTORY_FEATURES), long),
            "short": _places(len(HISTORY_FEATURES), short),
            "transferred": _places(len(VECTOR_ENTITIES), candidates),
        }
        if encoder is not None:
            found["sequence"] = _places(len(encoder.fields), min(long, encoder.recipe.length))
            found["sequence_candidates"] = _places(len(item_fields(encoder)), candidates)
        if model.texts is not None:
            found["texts"] = _places(len(VECTOR_ENTITIES), candidates)
        return found


def item_fields(encoder: FgBert) -> tuple[str, ...]:
    """Returns the fields of a candidate that an encoder reads."""
    return tuple(name for name in FIELDS_OF_SIDE["item"] if name in encoder.fields)


@dataclass(frozen=True, kw_only=True)
class Program:
    """A model as a function of torch's operations.

    Attributes:
        source: the source of a Python module whose `forward` takes the weights, then the inputs in the order of
            `RequestModel.inputs`.
        weights: the weights by the names of the arguments, in their order.
    """

    source: str
    weights: dict[str, Tensor]


def exported(model: RequestModel) -> Program:
    """Exports the program for any number of candidates and of behaviours, which may be none."""
    count, lengths = (
        Dim("candidates", min=0, max=_MOST),
        {which: Dim(which, min=0, max=_MOST) for which in (*HISTORIES, "sequence")},
    )
    given = model.inputs(3, 5, 4)
    dynamic: dict[str, Any] = {}
    for name, value in given.items():
        dim = 0 if name in ("rows", "dense") else 1
        dynamic[name] = {dim: lengths.get(name, count)} if value.numel() or name == "dense" else None
    with torch.no_grad(), native.in_torch():
        program = torch.export.export(model, (given,), dynamic_shapes=(dynamic,), strict=False)
    return _written(program)


def _written(program: ExportedProgram) -> Program:
    """Returns the program as source; weights that it does not read (pre-training heads, a source's last layer) are left out."""
    graph = program.graph
    for node in graph.nodes:
        if node.target is torch.ops.aten._assert_tensor_metadata.default:  # a check of types at each call
            graph.erase_node(node)
    graph.eliminate_dead_code()
    held, weights = {**program.state_dict, **program.constants}, {}
    nodes = {node.name: node for node in graph.nodes if node.op == "placeholder"}
    for spec in program.graph_signature.input_specs:
        if spec.target is not None:
            if nodes[spec.arg.name].users:
                weights[spec.arg.name] = held[spec.target].detach().clone()
            else:
                graph.erase_node(nodes[spec.arg.name])
    return Program(
        source=_HEAD + graph.python_code("self").src.lstrip().replace("def forward(self, ", "def forward("),
        weights=weights,
    )


def _places(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.int64)
