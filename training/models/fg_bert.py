"""FG-BERT: a bidirectional transformer that reads all side information of behaviours and reconstructs what is masked.

SRP4CTR (arXiv 2407.19658) states the Cloze objective with item-related and behaviour-related masks, and two layers over
200 behaviours; fields, rates, sizes and heads are our choice (`training/recipes.py`). BERT4Rec (arXiv 1904.06690) and a
next-item model in the manner of SASRec (arXiv 1808.09781) are the same network with another objective.

Shapes: P behaviours, Q those that the loss asks for, S sequences, E width, B candidates, D width of a field, V rows of
a field, N negatives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional

from contracts.features import BEHAVIOUR_FIELDS
from training.data.codes import CODES
from training.data.mapping import SHARED_ROW
from training.data.sequences import FIELDS_OF_SIDE, ID_FIELDS, SIDES, Masks, SequenceBatch
from training.modules.cross_entropy import linear_cross_entropy
from training.modules.dropout import Dropout
from training.modules.segments import Segments, Whole, take, whole_or_segments
from training.modules.trainable import Trainable
from training.modules.transformer import EncoderLayer, Width
from training.recipes import FgBertRecipe

_STD = 0.02


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Sequences that went through the encoder.

    Attributes:
        keys_and_values: the keys and values of each layer's own tokens, P x heads x (E / heads) each.
        output_PE: the output of the last layer.
        offsets: S + 1; None means that there is one sequence.
    """

    keys_and_values: Sequence[tuple[Tensor, Tensor]]
    output_PE: Tensor
    offsets: Tensor | None

    @cached_property
    def whole(self) -> Whole:
        """The mask by which queries see the only sequence."""
        return Whole(has_key=self.output_PE.new_ones(self.output_PE.shape[0], dtype=torch.bool).any())


class FgBert(Trainable):
    """The encoder and its heads.

    Args:
        recipe: objective, fields and sizes.
        row_cnts: V of each id field, the shared row included.
        frequency: V of each id field: how often each row occurs, for the draw of negatives; needed where a softmax is
            sampled.
    """

    def __init__(
        self, recipe: FgBertRecipe, row_cnts: Mapping[str, int], frequency: Mapping[str, Tensor] | None = None
    ) -> None:
        super().__init__()
        self.recipe = recipe
        fields = [field for field in BEHAVIOUR_FIELDS if field.name in recipe.fields]
        self._dims = {field.name: field.embedding_dim for field in fields}
        self._sides = {side: tuple(name for name in FIELDS_OF_SIDE[side] if name in self._dims) for side in SIDES}
        sizes = {name: row_cnts[name] if name in ID_FIELDS else CODES[name] for name in self._dims}
        self.embeddings = nn.ModuleDict({name: nn.Embedding(sizes[name], dim) for name, dim in self._dims.items()})
        self.masked = nn.ParameterDict({name: nn.Parameter(torch.zeros(dim)) for name, dim in self._dims.items()})
        self.positions = nn.Embedding(recipe.length, recipe.width)
        self.project = nn.ModuleDict(
            {
                side: nn.Linear(sum(self._dims[name] for name in names), recipe.width, bias=side == "item")
                for side, names in self._sides.items()
                if names
            }
        )
        self.norm, self.dropout = nn.LayerNorm(recipe.width), Dropout(recipe.dropout)
        size = Width(width=recipe.width, heads=recipe.heads, inner=recipe.inner, dropout=recipe.dropout)
        self.layers = nn.ModuleList(EncoderLayer(size) for _ in range(recipe.layers))
        self.heads = nn.ModuleDict({name: _Head(recipe.width, self._dims[name]) for name in self.predicted})
        self.biases = nn.ParameterDict({name: nn.Parameter(torch.zeros(sizes[name])) for name in self.predicted})
        for name, counts in (frequency or {}).items():
            self.register_buffer(f"_frequency_{name}", counts.double().clamp(min=1e-3).cumsum(0), persistent=False)
        self._begin()

    def _begin(self) -> None:
        """Draws weights on the scale of their input width: BERT's .02 suits a width of 768, and a narrow encoder would not use its context.

        The fields of a behaviour begin on the same scale as its position.
        """
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.trunc_normal_(module.weight, std=_STD, a=-2 * _STD, b=2 * _STD)
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for side in self.project.values():
            assert isinstance(side, nn.Linear)
            nn.init.normal_(side.weight, std=side.in_features**-0.5)

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of a behaviour that the encoder reads."""
        return tuple(self._dims)

    @property
    def predicted(self) -> tuple[str, ...]:
        """The fields that have a head."""
        return tuple(self._dims) if self.recipe.objective == "fg_bert" else ("item_id",)

    def tokens(self, batch: SequenceBatch) -> Tensor:
        """Returns the input of the first layer, `LN(W [E_f]_f + p)`, P x E; the mask's vectors replace the fields of a hidden side."""
        total_PE = self.positions(batch.position_P)
        for side, names in self._sides.items():
            if names:
                total_PE = total_PE + self.project[side](self._side(names, batch.rows, batch.masks.get(side)))
        tokens_PE: Tensor = self.dropout(self.norm(total_PE))
        return tokens_PE

    def candidates(self, rows: Mapping[str, Tensor]) -> Tensor:
        """Embeds the item side of B candidates, which have no behaviour side and no position: B x E."""
        tokens_BE: Tensor = self.dropout(self.norm(self.project["item"](self._side(self._sides["item"], rows, None))))
        return tokens_BE

    def _side(self, names: Sequence[str], rows: Mapping[str, Tensor], mask_P: Tensor | None) -> Tensor:
        vectors = [self.embeddings[name](rows[name]) for name in names]
        if mask_P is not None:
            vectors = [
                torch.where(mask_P[:, None], self.masked[name].to(found.dtype), found)
                for name, found in zip(names, vectors, strict=True)
            ]
        return torch.cat(vectors, dim=1)

    def encode(self, batch: SequenceBatch, asked_Q: Tensor | None = None) -> Encoded:
        """Runs all layers over the sequences.

        Args:
            batch: the sequences.
            asked_Q: ascending places of the behaviours whose output is wanted; all by default. The last layer computes
                no other.
        """
        segments = whole_or_segments(batch.offsets, causal=self.recipe.objective == "sasrec")
        hidden_PE, found = self.tokens(batch), []
        for layer in self.layers:
            assert isinstance(layer, EncoderLayer)
            found.append(layer.keys_and_values(hidden_PE))
            if asked_Q is not None and len(found) == len(self.layers) and not segments.causal:
                assert batch.offsets is not None, "pre-training has many sequences"
                hidden_PE, segments = (
                    take(hidden_PE, asked_Q),
                    Segments(torch.searchsorted(asked_Q, batch.offsets), batch.offsets),
                )
            hidden_PE = layer(hidden_PE, found[-1], segments)
        if asked_Q is not None and segments.causal:
            hidden_PE = take(hidden_PE, asked_Q)
        return Encoded(keys_and_values=found, output_PE=hidden_PE, offsets=batch.offsets)

    def forward(self, batch: SequenceBatch) -> Tensor:
        """Returns the last layer's output for the masked behaviours, Q x E; for all, P x E, where there are no masks."""
        hidden = self._hidden(batch)
        return self.encode(batch, None if hidden is None else torch.nonzero(hidden).squeeze(1)).output_PE

    def loss(self, hidden_QE: Tensor, batch: SequenceBatch) -> dict[str, Tensor]:
        """Returns the mean cross-entropy of each field over the positions that its side's mask hides; for `sasrec`, of the next item."""
        losses = {}
        for name in self.predicted:
            from_Q, to_P = self._asked(name, batch)
            target = batch.rows[name][to_P]
            known = (
                target != SHARED_ROW if name in ID_FIELDS else torch.ones_like(target, dtype=torch.bool)
            )  # The shared row is no item.
            losses[name] = self._cross_entropy(name, take(hidden_QE, from_Q[known]), target[known])
        return losses

    @staticmethod
    def _hidden(batch: SequenceBatch) -> Tensor | None:
        """Which of P behaviours have a side that is hidden."""
        return torch.stack(list(batch.masks.values())).any(dim=0) if batch.masks else None

    def _asked(self, name: str, batch: SequenceBatch) -> tuple[Tensor, Tensor]:
        """Places of a field's predictions in what `forward` gives, and of the behaviours that they predict."""
        hidden_P = self._hidden(batch)
        if hidden_P is None:  # `sasrec`
            has_next = torch.nonzero(batch.position_P > 0).squeeze(1)
            return has_next, has_next + 1
        side = "item" if name in self._sides["item"] else "behaviour"
        at = torch.nonzero(batch.masks[side]).squeeze(1)
        return (hidden_P.cumsum(0) - 1)[at], at

    def _cross_entropy(self, name: str, hidden_PE: Tensor, target_P: Tensor) -> Tensor:
        if not len(target_P):
            return hidden_PE.sum() * 0.0
        weight_VD, bias_V = self.embeddings[name].get_parameter("weight"), self.biases[name]
        if name not in ID_FIELDS or len(weight_VD) <= self.recipe.sampled_above:
            return linear_cross_entropy(self.heads[name](hidden_PE), weight_VD, bias_V, target_P)
        query_PD = self.heads[name](hidden_PE)
        drawn_N, log_q = self._negatives(name)
        positive_P = (query_PD * weight_VD[target_P]).sum(dim=1) + bias_V[target_P]
        negative_PN = query_PD @ weight_VD[drawn_N].T + bias_V[drawn_N] - log_q[drawn_N]
        negative_PN = negative_PN.masked_fill(target_P[:, None] == drawn_N[None, :], float("-inf"))
        return functional.cross_entropy(
            torch.cat([positive_P[:, None], negative_PN], dim=1), torch.zeros_like(target_P)
        )

    def logits(self, name: str, hidden_PE: Tensor) -> Tensor:
        """Returns the logits of all rows of a field, P x V."""
        logits_PV: Tensor = (
            self.heads[name](hidden_PE) @ self.embeddings[name].get_parameter("weight").T + self.biases[name]
        )
        return logits_PV

    def _negatives(self, name: str) -> tuple[Tensor, Tensor]:
        """Draws rows by frequency (N), and returns with them the log of how often each row (V) is expected among them.

        A drawn row is weighted by `1 / expected`, so that the sum over the negatives estimates the sum over all rows
        (Bengio and Senecal, IEEE TNN 2008). The positive row always counts once, whatever was drawn.
        """
        total_V = self.get_buffer(f"_frequency_{name}")
        drawn = torch.searchsorted(
            total_V, torch.rand(self.recipe.negatives, dtype=torch.float64, device=total_V.device) * total_V[-1]
        )
        share_V = torch.diff(total_V, prepend=total_V.new_zeros(1)) / total_V[-1]
        return drawn.clamp(max=len(total_V) - 1), (share_V * self.recipe.negatives).log().float()


class _Head(nn.Module):
    """Maps the encoder's output to a vector whose products with a field's embeddings, plus the rows' biases, are the logits."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.inner, self.norm, self.outer = nn.Linear(width, width), nn.LayerNorm(width), nn.Linear(width, dim)

    def forward(self, hidden_PE: Tensor) -> Tensor:
        """P x E -> P x D."""
        query_PD: Tensor = self.outer(self.norm(functional.gelu(self.inner(hidden_PE))))
        return query_PD


def masks_of(recipe: FgBertRecipe) -> Masks | None:
    """Returns how an objective hides positions; None where it predicts the next item."""
    shares = {
        "fg_bert": {"item": recipe.item_mask, "behaviour": recipe.behaviour_mask},
        "bert4rec": {"item": recipe.item_mask},
    }
    return Masks(shares=shares[recipe.objective], seed=recipe.seed) if recipe.objective in shares else None
