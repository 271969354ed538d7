"""TPM, the tiny pre-training model: embeddings -> shallow MLP (E-CDCTR, arXiv 2408.16238; fields and widths are our choice)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

from training.data.batches import Batch
from training.modules.embedding import IdEmbeddings
from training.modules.field_mlp import FieldMlp
from training.modules.trainable import Trainable


class TpmModel(Trainable):
    """Predicts the click probability from a few basic features; its user and item tables become the month's snapshot.

    Args:
        embeddings: tables of the features.
        hidden: widths of the MLP.
    """

    def __init__(self, embeddings: IdEmbeddings, hidden: Sequence[int]) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.mlp = FieldMlp(embeddings, hidden)

    def forward(self, batch: Batch) -> Tensor:
        """Returns logits, B."""
        logits_B: Tensor = self.mlp(self.embeddings, batch.rows_BF)
        return logits_B

    def loss(self, logits_B: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Returns the mean log loss of the clicks."""
        return {"logloss": functional.binary_cross_entropy_with_logits(logits_B, batch.label_B)}
