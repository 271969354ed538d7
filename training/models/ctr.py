"""The body that CPM and A-CTR share: embedding -> feature interaction -> MLP.

E-CDCTR (arXiv 2408.16238) states the scheme and that both networks are identical; the inside (DIN attention over the
long and the short history, a DCN-V2 cross layer, an MLP with batch-norm and PReLU) is our choice.

Shapes: B rows, E width of an item's token (item and category), P behaviours, D width of the interaction layer.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from training.data.batches import Batch
from training.data.histories import HISTORY_FEATURES
from training.models.srp4ctr import Bridge
from training.modules.attention import TargetAttention
from training.modules.embedding import IdEmbeddings, table_tensors, write_back
from training.modules.interaction import Cross, batch_norm_mlp
from training.modules.trainable import Trainable
from training.modules.transfer import TextVectors, TransferSource
from training.recipes import Body


class CtrModel(Trainable):
    """Predicts the click probability from fine-grained features, histories, statistics and transferred vectors.

    Args:
        body: widths and lengths of the network.
        embeddings: the tables of the categorical features.
        num_dense: S, the number of dense inputs.
        transfer: the source of transferred vectors.
        frozen: features whose tables get no gradient.
        bridge: the part that reads a pre-trained sequence encoder; its outputs are inputs of the MLP.
        texts: the vectors of behaviour texts, which are inputs of the MLP too.
    """

    def __init__(
        self,
        body: Body,
        embeddings: IdEmbeddings,
        num_dense: int,
        transfer: TransferSource,
        frozen: frozenset[str] = frozenset(),
        bridge: Bridge | None = None,
        texts: TextVectors | None = None,
    ) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.num_dense = num_dense
        self.transfer = transfer
        self._frozen = frozen
        learns_D = torch.ones(embeddings.width, dtype=torch.bool)
        for name in frozen:
            learns_D[embeddings.columns(name)] = False
        self.register_buffer("_learns", learns_D, persistent=False)
        self._token = [embeddings.columns(name) for name in HISTORY_FEATURES]
        token = sum(columns.stop - columns.start for columns in self._token)
        self.long_attention = TargetAttention(token, body.attention_hidden)
        self.short_attention = TargetAttention(token, body.attention_hidden)
        width = embeddings.width + num_dense + 2 * token + transfer.width
        self.cross = Cross(width, body.cross_layers)
        self.mlp = batch_norm_mlp(width, body.hidden)
        self.bridge = bridge
        # Further inputs of the MLP's first layer: those that depend on the candidate, and those that only depend on the
        # user and are computed once per user. The weights begin at zero: a normalised output would outweigh fresh
        # embeddings (docs/experiments.md).
        self.bridge_in = (
            nn.ModuleList(nn.Linear(size, body.hidden[0], bias=False) for size in (bridge.of_candidate, bridge.of_user))
            if bridge
            else None
        )
        self.texts = texts
        self.texts_in = nn.Linear(texts.width, body.hidden[0], bias=False) if texts else None
        for layer in (*(self.bridge_in or ()), *([self.texts_in] if self.texts_in else ())):
            nn.init.zeros_(layer.get_parameter("weight"))

    def forward(self, batch: Batch) -> Tensor:
        """Returns logits, B."""
        first_BH = self.mlp[0](self.interactions(batch))
        if self.bridge is not None and self.bridge_in is not None:
            assert batch.sequence is not None
            encoded, of_user = self.bridge.encode(batch.sequence.sequences)
            of_candidate = self.bridge.candidates(batch.sequence.candidate, encoded, batch.sequence.of_B)
            first_BH = first_BH + self.bridge_in[0](of_candidate) + batch.sequence.spread(self.bridge_in[1](of_user))
        if self.texts is not None and self.texts_in is not None:
            first_BH = first_BH + self.texts_in(self.texts(batch))
        logits_B1: Tensor = self.mlp[1:](first_BH)
        return logits_B1.squeeze(1)

    def interactions(self, batch: Batch) -> Tensor:
        """Returns the output of the interaction layer, which the MLP reads, B x D."""
        assert batch.long is not None and batch.short is not None
        histories = [(name, history.rows[name]) for history in (batch.long, batch.short) for name in HISTORY_FEATURES]
        own_BD, parts = self.embeddings(batch.rows_BF, histories)
        if self._frozen:  # Without a gradient, Adagrad changes neither such rows nor their sums.
            own_BD = torch.where(self.get_buffer("_learns"), own_BD, own_BD.detach())
            parts = [
                part.detach() if name in self._frozen else part
                for (name, _), part in zip(histories, parts, strict=True)
            ]
        query_BE = torch.cat([own_BD[:, columns] for columns in self._token], dim=1)
        size = len(HISTORY_FEATURES)
        interests = [
            self.long_attention(query_BE, parts[:size], batch.long.offsets),
            self.short_attention(query_BE, parts[size:], batch.short.offsets),
        ]
        crossed_BD: Tensor = self.cross(torch.cat([own_BD, batch.dense_BS, *interests, self.transfer(batch)], dim=1))
        return crossed_BD

    @torch.no_grad()
    def shift_logits(self, by: float) -> None:
        """Adds `by` to every logit, through the bias of the last layer."""
        output = self.mlp[-1]
        assert isinstance(output, nn.Linear) and output.bias is not None
        output.bias.add_(by)

    def loss(self, logits_B: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Returns the mean log loss of the clicks."""
        return {"logloss": functional.binary_cross_entropy_with_logits(logits_B, batch.label_B)}


CARRIED = ("embeddings.", "biases.")  # Prefixes of the tensors that have a row for each id, by feature.


def reset_batch_norm(model: nn.Module) -> None:
    """Resets every batch norm to its initial state (gamma 1, beta 0, mean 0, variance 1, counter 0), since the traffic differs."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.reset_parameters()


def batch_norm_names(model: nn.Module) -> frozenset[str]:
    """Returns the names of all batch-norm tensors of the model's state."""
    return frozenset(
        f"{path}.{name}"
        for path, module in model.named_modules()
        if isinstance(module, nn.BatchNorm1d)
        for name in module.state_dict()
    )


def load_transferred(
    model: CtrModel,
    source: Mapping[str, Tensor],
    *,
    fresh_tables: frozenset[str],
    carried: Mapping[str, NDArray[np.int64]],
    keep_batch_norm: bool = False,
) -> None:
    """Loads a CPM's weights into an A-CTR: all but batch norm (re-initialised) and the tables of ad-only features.

    Adagrad's sums start at zero, since the source's belong to its training on the natural log. The source's aggregator
    is not loaded, since the A-CTR reads its result.

    Args:
        model: the A-CTR, which is changed in place.
        source: the CPM's weights by name.
        fresh_tables: features whose tables keep their fresh weights.
        carried: by feature, the rows of the source's tables that are the first rows of the model's.
        keep_batch_norm: whether to load batch norm too (an ablation).
    """
    reset_batch_norm(model)
    skipped = frozenset() if keep_batch_norm else batch_norm_names(model)
    skipped |= {name for feature in fresh_tables for name in table_tensors(feature)}
    skipped |= {f"embeddings.{name}.square" for name in model.embeddings.names}
    skipped |= {
        name for name in model.state_dict() if name.startswith(("bridge", "texts_in"))
    }  # These belong to other sources.
    load_weights(
        model,
        {name: tensor for name, tensor in source.items() if not name.startswith("transfer.")},
        skipped=skipped,
        carried=carried,
    )


def load_embeddings(
    model: CtrModel,
    source: Mapping[str, Tensor],
    *,
    fresh_tables: frozenset[str],
    carried: Mapping[str, NDArray[np.int64]],
) -> None:
    """Loads only a CPM's embedding tables; all other weights stay fresh.

    Args:
        model: see `load_transferred`.
        source: see `load_transferred`.
        fresh_tables: see `load_transferred`.
        carried: see `load_transferred`.
    """
    skipped = set(source) | set(model.state_dict())
    skipped -= {f"embeddings.{name}.weight" for name in model.embeddings.names if name not in fresh_tables}
    load_weights(model, source, skipped=skipped, carried=carried)


def load_weights(
    model: nn.Module,
    source: Mapping[str, Tensor],
    *,
    skipped: frozenset[str] | set[str] = frozenset(),
    carried: Mapping[str, NDArray[np.int64]] | None = None,
) -> None:
    """Loads weights by name.

    Args:
        model: the model, which is changed in place.
        source: weights by name.
        skipped: names that keep the model's own values.
        carried: by feature, the rows of the source's embedding tables that are the first rows of the model's; the
            model's other rows keep their fresh values. None means that the tables have the same rows.

    Raises:
        ValueError: a name or a shape differs, so the weights come from a model with another body.
    """
    with torch.no_grad():
        own = model.state_dict()
        if set(own) - skipped != set(source) - skipped:
            raise ValueError(f"weights differ in {sorted((set(own) ^ set(source)) - skipped)}")
        for name in sorted(set(own) - skipped):
            target, values = own[name], source[name]
            if carried is not None and name.startswith(CARRIED) and name.split(".")[1] in carried:
                rows = carried[name.split(".")[1]]
                target, values = target[: len(rows)], values[torch.from_numpy(rows)]
            if target.shape != values.shape:
                raise ValueError(f"{name}: expected shape {tuple(target.shape)}, found {tuple(values.shape)}")
            target.copy_(values)
        write_back(model, own)
