"""The ad model with a frozen source model next to it, whose hidden layers join its own through adapters.

After CTNet (arXiv 2208.05728), which keeps the source tower and adds light gated adapters between the layers of both;
that the target's other weights start fresh with a new source is our choice.

Shapes: B rows, H width of a hidden layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from training.data.batches import Batch, Jagged
from training.models.ctr import CtrModel
from training.modules.embedding import IdEmbeddings
from training.modules.interaction import LAYERS_OF_A_BLOCK
from training.modules.transfer import TransferSource
from training.recipes import Body


@dataclass(frozen=True, kw_only=True)
class Source:
    """A finished CPM, frozen.

    Attributes:
        model: the CPM, in evaluation mode.
        rows: for each of the CPM's features, the CPM's row for each row of the target's table.
        at: the position of each of the CPM's features among the target's.
    """

    model: CtrModel
    rows: Mapping[str, Tensor]
    at: Mapping[str, int]

    @torch.no_grad()
    def hidden(self, batch: Batch) -> list[Tensor]:
        """Returns the CPM's hidden layers, B x H each, for a batch of the target model."""
        own = replace(
            batch,
            rows_BF=torch.stack([rows[batch.rows_BF[:, self.at[name]]] for name, rows in self.rows.items()], dim=1),
            long=self._translated(batch.long),
            short=self._translated(batch.short),
        )
        x_BH, layers = self.model.interactions(own), []
        for block in blocks(self.model.mlp):
            x_BH = block(x_BH)
            layers.append(x_BH)
        return layers

    def _translated(self, history: Jagged | None) -> Jagged:
        assert history is not None
        return Jagged(
            rows={name: self.rows[name][rows] for name, rows in history.rows.items()}, offsets=history.offsets
        )


class Adapter(nn.Module):
    """A gated linear unit of a source layer: B x H -> B x H.

    Args:
        width: H.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.value = nn.Linear(width, width)
        self.gate = nn.Linear(width, width)

    def forward(self, x_BH: Tensor) -> Tensor:
        """Returns the gated values of a hidden layer, B x H."""
        value_BH: Tensor = self.value(x_BH)
        return value_BH * torch.sigmoid(self.gate(x_BH))


class AdaptedCtrModel(CtrModel):
    """The body of CPM and A-CTR, to each of whose hidden layers an adapter adds the source's.

    Args:
        body: see `CtrModel`.
        embeddings: see `CtrModel`.
        num_dense: see `CtrModel`.
        transfer: see `CtrModel`.
        source: the CPM that the release is bound to; it is not part of the model's own weights.
    """

    def __init__(
        self, body: Body, embeddings: IdEmbeddings, num_dense: int, transfer: TransferSource, source: Source
    ) -> None:
        super().__init__(body, embeddings, num_dense, transfer)
        self._source = (source,)  # In a tuple, so that torch does not register it as a submodule.
        self.adapters = nn.ModuleList(Adapter(size) for size in body.hidden)

    @property
    def source(self) -> Source:
        """The frozen CPM."""
        return self._source[0]

    def forward(self, batch: Batch) -> Tensor:
        """Returns logits, B."""
        source_layers = self.source.hidden(batch)
        x_BH = self.interactions(batch)
        for block, adapter, layer_BH in zip(blocks(self.mlp), self.adapters, source_layers, strict=True):
            x_BH = block(x_BH) + adapter(layer_BH)
        logits_B1: Tensor = self.mlp[-1](x_BH)
        return logits_B1.squeeze(1)


def blocks(mlp: nn.Sequential) -> list[nn.Sequential]:
    """Returns the hidden layers of `batch_norm_mlp`, each with its batch norm and activation."""
    return [mlp[start : start + LAYERS_OF_A_BLOCK] for start in range(0, len(mlp) - 1, LAYERS_OF_A_BLOCK)]
