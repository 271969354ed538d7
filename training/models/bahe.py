"""BAHE (arXiv 2403.19347): sequences of atomic behaviour vectors through a language model's high layers, a candidate at the head alone.

*Behaviour aggregation*: a user's M behaviours are M vectors of the offline table, not M texts. *Feature parallel*: N sequences of a user
go through the same high layers, each by itself, and their results stand side by side. The candidate's vector goes through them too and
meets the user at the head: `y = F([Q_u, Q_i])`, an MLP (ours). LLM-CTR, the rival, reads the behaviours' whole text through all layers.

Shapes: B rows, N sequences of a user, M behaviours of the longest, T tokens of the longest text, E width of the language model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.models.language import HighLayers, LanguageModel, even, pool
from training.modules.interaction import relu_mlp
from training.recipes import Pooling


@dataclass(frozen=True, kw_only=True)
class VectorBatch:
    """What BAHE reads.

    Attributes:
        behaviours_BNME: vectors of the table, oldest first.
        mask_BNM: which places are behaviours.
        candidate_BE: of the candidates' texts.
        label_B: click, as a float.
    """

    behaviours_BNME: Tensor
    mask_BNM: Tensor
    candidate_BE: Tensor
    label_B: Tensor


@dataclass(frozen=True, kw_only=True)
class TextBatch:
    """What LLM-CTR reads.

    Attributes:
        token_ids_BT, mask_BT: all behaviours' texts of a user, end to end, oldest first.
        candidate_ids_BT, candidate_mask_BT: the candidate's text.
        label_B: click, as a float.
    """

    token_ids_BT: Tensor
    mask_BT: Tensor
    candidate_ids_BT: Tensor
    candidate_mask_BT: Tensor
    label_B: Tensor


class Head(nn.Module):
    """`F([Q_u, Q_i])`: an MLP on normalised inputs; a language model's hidden states have a scale of their own."""

    def __init__(self, user: int, item: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in (user, item))
        self.mlp = relu_mlp(user + item, hidden)

    def forward(self, user_BD: Tensor, item_BE: Tensor) -> Tensor:
        """Logits, B."""
        logits_B1: Tensor = self.mlp(torch.cat([self.norms[0](user_BD), self.norms[1](item_BE)], dim=1))
        return logits_B1.squeeze(1)


class Bahe(nn.Module):
    """High layers over behaviours, and the head.

    Args:
        high: the trainable half; its adapters train where it has some (`language.with_lora`).
        width: E.
        sequences: N.
        pooling: of the high layers' output.
        hidden: widths of the head.
    """

    def __init__(self, high: HighLayers | nn.Module, width: int, *, sequences: int = 1, pooling: Pooling = "mean",
                 hidden: Sequence[int] = (128, 64)) -> None:
        super().__init__()
        self.high, self.pooling = high, pooling
        self.head = Head(sequences * width, width, hidden)

    def user(self, behaviours_BNME: Tensor, mask_BNM: Tensor) -> Tensor:
        """Q_u, B x (N x E); zeros where a user has no behaviour."""
        found_BE = pool(self.high(behaviours_BNME.flatten(0, 1), mask_BNM.flatten(0, 1)), mask_BNM.flatten(0, 1), self.pooling)
        return found_BE.view(len(behaviours_BNME), -1)

    def item(self, candidate_BE: Tensor) -> Tensor:
        """Q_i, B x E."""
        found_BTE: Tensor = self.high(candidate_BE[:, None], torch.ones(len(candidate_BE), 1, dtype=torch.bool, device=candidate_BE.device))
        return found_BTE[:, 0]

    def forward(self, batch: VectorBatch) -> Tensor:
        """Logits, B."""
        logits_B: Tensor = self.head(self.user(batch.behaviours_BNME, batch.mask_BNM), self.item(batch.candidate_BE))
        return logits_B

    def loss(self, logits_B: Tensor, batch: VectorBatch) -> dict[str, Tensor]:
        return {"logloss": functional.binary_cross_entropy_with_logits(logits_B, batch.label_B)}


class FullTextCtr(nn.Module):
    """LLM-CTR: the same layers, adapters and head, on the tokens of all behaviours. The low half is as frozen as BAHE's."""

    def __init__(self, model: LanguageModel, *, pooling: Pooling = "mean", hidden: Sequence[int] = (128, 64)) -> None:
        super().__init__()
        self.high, self.pooling = model.high, pooling
        self._apart = (model.low.eval().requires_grad_(False), model.family)
        self.head = Head(model.width, model.width, hidden)

    def encode(self, token_ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """B x E."""
        low, family = self._apart
        with torch.no_grad():
            hidden_BTE = low(token_ids_BT, mask_BT)
        hidden_BTE = self.high(hidden_BTE, mask_BT, place=False)
        return pool(even(hidden_BTE) if family == "decoder" else hidden_BTE, mask_BT, self.pooling)

    def forward(self, batch: TextBatch) -> Tensor:
        """Logits, B."""
        logits_B: Tensor = self.head(self.encode(batch.token_ids_BT, batch.mask_BT),
                                     self.encode(batch.candidate_ids_BT, batch.candidate_mask_BT))
        return logits_B

    def loss(self, logits_B: Tensor, batch: TextBatch) -> dict[str, Tensor]:
        return {"logloss": functional.binary_cross_entropy_with_logits(logits_B, batch.label_B)}
