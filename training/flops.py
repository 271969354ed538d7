"""FLOPs of an ad model by request: what depends on the user alone, and what on each candidate.

Counted are the products of matrices, two FLOPs for a multiplication and its addition, as `torch.utils.flop_counter` counts them;
element-wise operations and look-ups are left out, there and here. SRP4CTR (arXiv 2407.19658) gives two figures of a sample: with the
user's part U and the candidate's I, U + I at batch 1 (*efficiency*) and U / 100 + I at 100 candidates (*inference*).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from training.models.ctr import CtrModel
from training.models.fg_bert import FgBert
from training.models.srp4ctr import Bridge
from training.modules.attention import TargetAttention
from training.modules.transformer import CrossLayer, EncoderLayer


@dataclass(frozen=True, kw_only=True)
class Flops:
    """Of one request.

    Attributes:
        user: done once for all candidates, U.
        candidate: done for each, I.
    """

    user: float = 0.0
    candidate: float = 0.0

    def __add__(self, other: Flops) -> Flops:
        return Flops(user=self.user + other.user, candidate=self.candidate + other.candidate)

    def by_sample(self, candidates: int) -> float:
        """`U / candidates + I`."""
        return self.user / candidates + self.candidate


def flops_of(model: CtrModel, *, long: int, short: int) -> Flops:
    """Of a model for a user with so many behaviours in the long and the short history; the encoder reads the long one's."""
    attention = sum(_target_attention(module, length) for module, length in
                    ((model.long_attention, long), (model.short_attention, short)))
    body = attention + sum(_linear(layer) for layer in model.cross.modules()) + sum(_linear(layer) for layer in model.mlp)
    body += _linear(model.texts_in) if model.texts_in is not None else 0.0
    if model.bridge is None or model.bridge_in is None:
        return Flops(candidate=body)
    joined = Flops(user=_linear(model.bridge_in[1]), candidate=_linear(model.bridge_in[0]))
    return Flops(candidate=body) + flops_of_bridge(model.bridge, long) + joined


def flops_of_bridge(bridge: Bridge, length: int) -> Flops:
    """Of SRP4CTR's part: encoder and queries by the user, uni cross-attention by the candidate."""
    user, candidate = flops_of_encoder(bridge.network, length), 0.0
    if bridge.querying is not None:
        count = len(bridge.querying.queries)
        user += count * (_linear(bridge.querying.project) + _linear(bridge.querying.out))
        user += _scores(count, count, bridge.querying.queries.shape[1])
        user += length * (_linear(bridge.querying.key) + _linear(bridge.querying.value))
        user += _cross_layer(bridge.querying.cross, count, length)
    if bridge.cross is not None:
        candidate += _linear(bridge.network.project["item"])
        candidate += sum(_cross_layer(layer, 1, length) for layer in bridge.cross.layers if isinstance(layer, CrossLayer))
    return Flops(user=user, candidate=candidate)


def flops_of_encoder(encoder: FgBert, length: int) -> float:
    """Of one sequence of so many behaviours through all layers."""
    total = length * sum(_linear(part) for part in encoder.project.values())
    for layer in encoder.layers:
        assert isinstance(layer, EncoderLayer)
        own = sum(_linear(part) for part in (layer.query, layer.key, layer.value, layer.out, layer.feed_forward.inner,
                                             layer.feed_forward.outer))
        total += length * own + _scores(length, length, layer.query.out_features)
    return total


def flops_of_full_attention(bridge: Bridge, length: int) -> float:
    """Of a candidate that is one more behaviour of the sequence, whose every token sees it: nothing is shared between candidates."""
    return flops_of_encoder(bridge.network, length + 1)


def _linear(module: nn.Module) -> float:
    return 2.0 * module.in_features * module.out_features if isinstance(module, nn.Linear) else 0.0


def _scores(queries: int, keys: int, width: int) -> float:
    """Of attention's two products."""
    return 4.0 * queries * keys * width


def _cross_layer(layer: CrossLayer, queries: int, keys: int) -> float:
    own = sum(_linear(part) for part in (layer.query, layer.out, layer.feed_forward.inner, layer.feed_forward.outer))
    return queries * own + _scores(queries, keys, layer.query.out_features)


def _target_attention(attention: TargetAttention, length: int) -> float:
    of_key = [attention.key, attention.product, *attention.deeper, attention.score]
    return _linear(attention.query) + length * sum(_linear(part) for part in of_key)
