"""The one body of CPM and A-CTR: embedding -> feature interaction -> MLP.

E-CDCTR (arXiv 2408.16238) states the scheme and that both networks are identical; the inside (DIN attention over the long
and the short history, a DCN-V2 cross layer, an MLP with batch-norm and PReLU) is our choice.

Shapes: B rows, E width of an item's token (item and category), P behaviours, D width of the interaction layer.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.data.batches import Batch, Jagged
from training.modules.attention import TargetAttention
from training.modules.embedding import IdEmbeddings
from training.modules.interaction import Cross, batch_norm_mlp
from training.modules.transfer import TransferSource
from training.recipes import Body

_TOKEN = ("item_id", "category_id")  # what a behaviour and a candidate have in common


class CtrModel(nn.Module):
    """Click probability from fine-grained features, histories, statistics and transferred vectors.

    Args:
        body: widths and lengths.
        embeddings: tables of the categorical features.
        num_dense: S, dense inputs.
        transfer: where transferred vectors come from.
    """

    def __init__(self, body: Body, embeddings: IdEmbeddings, num_dense: int, transfer: TransferSource) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.transfer = transfer
        token = sum(embeddings.table(name).embedding_dim for name in _TOKEN)
        self.long_attention = TargetAttention(token, body.attention_hidden)
        self.short_attention = TargetAttention(token, body.attention_hidden)
        width = embeddings.width + num_dense + 2 * token + transfer.width
        self.cross = Cross(width, body.cross_layers)
        self.mlp = batch_norm_mlp(width, body.hidden)

    def forward(self, batch: Batch) -> Tensor:
        """Logits, B."""
        assert batch.long is not None and batch.short is not None
        own, interests = self._embed(batch, batch.long, batch.short)
        x_BD = torch.cat([own, batch.dense_BS, *interests, self.transfer(batch)], dim=1)
        logits_B1: Tensor = self.mlp(self.cross(x_BD))
        return logits_B1.squeeze(1)

    def loss(self, logits_B: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {"logloss": functional.binary_cross_entropy_with_logits(logits_B, batch.label_B)}

    def _embed(self, batch: Batch, long: Jagged, short: Jagged) -> tuple[Tensor, list[Tensor]]:
        """B x (sum of widths): own embeddings; and the long and the short interest, B x E each."""
        sizes = [len(batch.label_B), len(long.row_P), len(short.row_P)]
        own, tokens = [], []
        for number, name in enumerate(self.embeddings.names):
            table, rows_B = self.embeddings.table(name), batch.rows_BF[:, number]
            if name not in _TOKEN:
                own.append(table(rows_B))
                continue
            # Candidates and behaviours in one look-up: one pass over the table's gradient instead of three.
            behaviours = [h.item_rows_P if name == "item_id" else h.category_rows_P for h in (long, short)]
            parts = table(torch.cat([rows_B, *behaviours])).split(sizes)
            own.append(parts[0])
            tokens.append(parts)
        query_BE, long_PE, short_PE = (torch.cat(parts, dim=1) for parts in zip(*tokens, strict=True))
        return torch.cat(own, dim=1), [
            self.long_attention(query_BE, long_PE, long.row_P, long.offsets),
            self.short_attention(query_BE, short_PE, short.row_P, short.offsets),
        ]


def reset_batch_norm(model: nn.Module) -> None:
    """Gives every batch-norm its initial state (gamma 1, beta 0, mean 0, variance 1, counter 0): traffic differs."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.reset_parameters()


def batch_norm_names(model: nn.Module) -> frozenset[str]:
    """Names of all batch-norm tensors of the model's state."""
    return frozenset(f"{path}.{name}" for path, module in model.named_modules() if isinstance(module, nn.BatchNorm1d)
                     for name in module.state_dict())


def load_transferred(model: CtrModel, source: Mapping[str, Tensor], *, fresh_tables: frozenset[str]) -> None:
    """Loads a CPM's weights into an A-CTR: all but batch-norm (re-initialised) and the tables of ad-only features.

    Tables may have grown since; their first rows are loaded. The source's aggregator stays behind: A-CTR reads its result.

    Args:
        model: the A-CTR; changed in place.
        source: the CPM's weights by name.
        fresh_tables: features whose tables start fresh.
    """
    reset_batch_norm(model)
    skipped = batch_norm_names(model) | {f"embeddings.tables.{name}.weight" for name in fresh_tables}
    load_weights(model, {name: tensor for name, tensor in source.items() if not name.startswith("transfer.")}, skipped=skipped)


def load_weights(model: nn.Module, source: Mapping[str, Tensor], *, skipped: frozenset[str] | set[str] = frozenset()) -> None:
    """Loads weights by name; an embedding table may have more rows than the source's, which keep their fresh values.

    Raises:
        ValueError: a name or a shape differs: another body made the source.
    """
    with torch.no_grad():
        own = model.state_dict()
        if set(own) - skipped != set(source) - skipped:
            raise ValueError(f"weights differ in {sorted((set(own) ^ set(source)) - skipped)}")
        for name in sorted(set(own) - skipped):
            target = own[name][:len(source[name])] if name.startswith("embeddings.tables.") else own[name]
            if target.shape != source[name].shape:
                raise ValueError(f"{name}: expected shape {tuple(target.shape)}, found {tuple(source[name].shape)}")
            target.copy_(source[name])
