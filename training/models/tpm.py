"""TPM, the tiny pre-training model: embeddings -> shallow MLP (E-CDCTR, arXiv 2408.16238; fields and widths are our choice)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torch.nn import functional

from training.data.batches import Batch
from training.modules.embedding import IdEmbeddings
from training.modules.interaction import shallow_mlp


class TpmModel(nn.Module):
    """Click probability from a few basic features; its user and item tables become the month's snapshot.

    Args:
        row_cnts: rows of each feature's table, in the model's order.
        dims: width of each.
        hidden: widths of the MLP.
        seed: of fresh embedding rows.
        sparse_above: tables with more rows give sparse gradients.
    """

    def __init__(self, row_cnts: Mapping[str, int], dims: Mapping[str, int], *, hidden: Sequence[int], seed: int,
                 sparse_above: int = 200_000) -> None:
        super().__init__()
        self.embeddings = IdEmbeddings(row_cnts, dims, seed=seed, sparse_above=sparse_above)
        self.mlp = shallow_mlp(self.embeddings.width, hidden)

    def forward(self, batch: Batch) -> Tensor:
        """Logits, B."""
        logits_B1: Tensor = self.mlp(self.embeddings(batch.rows_BF))
        return logits_B1.squeeze(1)

    def loss(self, logits_B: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {"logloss": functional.binary_cross_entropy_with_logits(logits_B, batch.label_B)}
