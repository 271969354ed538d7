"""BAHE (arXiv 2403.19347): a language model's high layers read sequences of behaviour vectors, and the candidate joins only at the head.

*Behaviour aggregation*: a user's M behaviours are M vectors of the offline table, not M texts. *Feature parallel*: N
sequences of a user go through the same high layers separately, and their results are concatenated. The candidate's
vector goes through these layers too and meets the user at the head, `y = F([Q_u, Q_i])`: a linear map of each to D
numbers, which are published, and an MLP on both and on their product (our choice). The alternative, LLM-CTR, reads the
whole text of all behaviours through all layers.

Shapes: B rows of G requests, N sequences of a user, M behaviours of the longest, T tokens of the longest text, E width
of the language model, D width of the published vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from contracts.features import LOGS
from training.models.language import HighLayers, LanguageModel, even, pool
from training.modules.interaction import relu_mlp
from training.modules.trainable import Trainable
from training.recipes import BaheRecipe, Pooling

DIMS, HIDDEN = 64, (64,)
_LEAST_DEVIATION = 1e-3  # Relative to the mean deviation; a dimension that varies less is not scaled.


@dataclass(frozen=True, kw_only=True)
class VectorBatch:
    """The inputs of BAHE.

    Attributes:
        behaviours: vectors of the table, oldest first, G x M x E for each of the N sequences, where M is the sequence's
            own longest.
        masks: which places are behaviours, G x M each.
        candidate_BE: the vectors of the candidates' texts; zeros where there is no text.
        of_B: the request of each row.
        log_B: the log of each row, as a position in `LOGS`.
        label_B: click, as a float.
    """

    behaviours: Sequence[Tensor]
    masks: Sequence[Tensor]
    candidate_BE: Tensor
    of_B: Tensor
    log_B: Tensor
    label_B: Tensor


@dataclass(frozen=True, kw_only=True)
class TextBatch:
    """The inputs of LLM-CTR.

    Attributes:
        token_ids_GT: the concatenated texts of all behaviours of a user, oldest first.
        mask_GT: which places are tokens.
        candidate_ids_BT: the candidate's text.
        candidate_mask_BT: which places are tokens.
        of_B: see `VectorBatch`.
        log_B: see `VectorBatch`.
        label_B: see `VectorBatch`.
    """

    token_ids_GT: Tensor
    mask_GT: Tensor
    candidate_ids_BT: Tensor
    candidate_mask_BT: Tensor
    of_B: Tensor
    log_B: Tensor
    label_B: Tensor


class Head(nn.Module):
    """The head `F([Q_u, Q_i])`; it normalises its inputs, since the hidden states of language models differ in scale.

    Args:
        user: the width of the high layers' output for a user.
        item: the width of the high layers' output for a candidate.
        dims: D.
        hidden: widths of the MLP.
    """

    def __init__(self, user: int, item: int, dims: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.dims = dims
        self.of_user, self.of_item = (
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, dims)) for width in (user, item)
        )
        self.mlp = relu_mlp(3 * dims, hidden)
        self.of_log = nn.Parameter(torch.zeros(len(LOGS)))  # the logs are clicked at different rates

    def forward(self, user_BD: Tensor, item_BD: Tensor, log_B: Tensor) -> Tensor:
        """Returns logits, B, from the outputs of `of_user` and `of_item`."""
        logits_B1: Tensor = self.mlp(torch.cat([user_BD, item_BD, user_BD * item_BD], dim=1))
        return logits_B1.squeeze(1) + self.of_log[log_B]


class _WithoutDropout(Trainable):
    """Keeps the high layers' dropout off in training (our choice): decoders have none, and several processes then train as one."""

    high: nn.Module

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.high.eval()
        return self


class Bahe(_WithoutDropout):
    """High layers over behaviours, and the head.

    Args:
        high: the upper half of the language model; its adapters train where it has some (`language.with_lora`).
        width: E.
        sequences: N.
        pooling: how the high layers' output is pooled.
        dims: D.
        hidden: widths of the head.
    """

    def __init__(
        self,
        high: HighLayers | nn.Module,
        width: int,
        *,
        sequences: int = 1,
        pooling: Pooling = "mean",
        dims: int = DIMS,
        hidden: Sequence[int] = HIDDEN,
    ) -> None:
        super().__init__()
        self.high, self.pooling = high, pooling
        self.head = Head(sequences * width, width, dims, hidden)
        self.register_buffer("mean_E", torch.zeros(width))
        self.register_buffer("deviation_E", torch.ones(width))

    def standardise(self, texts_NE: Tensor) -> None:
        """Standardises all inputs from now on by the mean and deviation of these vectors (N x E); fewer than two change nothing.

        Call it once, before the first training: weights that were trained on one scale do not fit another.
        """
        if len(texts_NE) < 2:
            return
        deviation_E = texts_NE.std(dim=0, correction=0)
        self.get_buffer("mean_E").copy_(texts_NE.mean(dim=0))
        self.get_buffer("deviation_E").copy_(
            torch.where(deviation_E > _LEAST_DEVIATION * deviation_E.mean(), deviation_E, 1.0)
        )

    def trained_weights(self) -> dict[str, Tensor]:
        """Returns all weights that are not the language model's own: adapters, head, and the scale of the vectors."""
        parameters = {
            name: parameter.detach() for name, parameter in self.named_parameters() if parameter.requires_grad
        }
        return parameters | {name: self.get_buffer(name) for name in ("mean_E", "deviation_E")}

    def _scores(self, vectors_xE: Tensor) -> Tensor:
        return (vectors_xE - self.get_buffer("mean_E")) / self.get_buffer("deviation_E")

    def aggregate(self, behaviours: Sequence[Tensor], masks: Sequence[Tensor]) -> Tensor:
        """Returns the concatenated outputs of the high layers for each sequence: G x (N x E); zeros where a user has no behaviour."""
        return torch.cat(
            [
                pool(self.high(self._scores(of_sequence), mask), mask, self.pooling)
                for of_sequence, mask in zip(behaviours, masks, strict=True)
            ],
            dim=1,
        )

    def user(self, behaviours: Sequence[Tensor], masks: Sequence[Tensor]) -> Tensor:
        """Returns Q_u, G x D."""
        user_GD: Tensor = self.head.of_user(self.aggregate(behaviours, masks))
        return user_GD

    def item(self, candidate_BE: Tensor) -> Tensor:
        """Returns Q_i, B x D. A vector of zeros means that there is no text, and is not standardised."""
        single = torch.ones(len(candidate_BE), 1, dtype=torch.bool, device=candidate_BE.device)
        scores_BE = torch.where((candidate_BE != 0).any(dim=1, keepdim=True), self._scores(candidate_BE), 0.0)
        item_BD: Tensor = self.head.of_item(self.high(scores_BE[:, None], single)[:, 0])
        return item_BD

    def forward(self, batch: VectorBatch) -> Tensor:
        """Logits, B."""
        user_GD = self.user(batch.behaviours, batch.masks)
        logits_B: Tensor = self.head(user_GD[batch.of_B], self.item(batch.candidate_BE), batch.log_B)
        return logits_B

    def loss(self, logits_B: Tensor, batch: VectorBatch) -> dict[str, Tensor]:
        """Returns the mean log loss of the clicks."""
        return {"logloss": functional.binary_cross_entropy_with_logits(logits_B, batch.label_B)}


def build_bahe(language: LanguageModel, recipe: BaheRecipe, pooling: Pooling) -> Bahe:
    """Builds BAHE over the high half of a language model; the recipe's seed draws the weights of the head."""
    torch.manual_seed(recipe.seed)
    return Bahe(
        language.high, language.width, sequences=len(LOGS), pooling=pooling, dims=recipe.dims, hidden=recipe.hidden
    )


class FullTextCtr(_WithoutDropout):
    """LLM-CTR: the same layers, adapters and head, on the tokens of all behaviours. The low half is frozen, as BAHE's is."""

    def __init__(
        self, model: LanguageModel, *, pooling: Pooling = "mean", dims: int = DIMS, hidden: Sequence[int] = HIDDEN
    ) -> None:
        super().__init__()
        self.high, self.pooling = model.high, pooling
        self._apart = (model.low.eval().requires_grad_(False), model.family)
        self.head = Head(model.width, model.width, dims, hidden)

    def encode(self, token_ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Returns the pooled output of all layers for each text, B x E."""
        low, family = self._apart
        with torch.no_grad():
            hidden_BTE = low(token_ids_BT, mask_BT)
        hidden_BTE = self.high(hidden_BTE, mask_BT, place=False)
        return pool(even(hidden_BTE) if family == "decoder" else hidden_BTE, mask_BT, self.pooling)

    def forward(self, batch: TextBatch) -> Tensor:
        """Logits, B."""
        user_GD = self.head.of_user(self.encode(batch.token_ids_GT, batch.mask_GT))
        item_BD = self.head.of_item(self.encode(batch.candidate_ids_BT, batch.candidate_mask_BT))
        logits_B: Tensor = self.head(user_GD[batch.of_B], item_BD, batch.log_B)
        return logits_B

    def loss(self, logits_B: Tensor, batch: TextBatch) -> dict[str, Tensor]:
        """Returns the mean log loss of the clicks."""
        return {"logloss": functional.binary_cross_entropy_with_logits(logits_B, batch.label_B)}
