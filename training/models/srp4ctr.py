"""SRP4CTR's bridges, by which a CTR model reads a pre-trained sequence encoder (arXiv 2407.19658).

*Uni cross-attention*: at every layer the candidate queries the keys and values that the sequence's own tokens have at
that layer. Input embeddings, key and value projections are the encoder's; the rest of the candidate's path is new. No
token of the sequence sees a candidate, so that a sequence is encoded once for all candidates. *Querying transformer*: K
learned queries read the encoder's output. Norms' places, K and its block's inside are our choice.

Shapes: B candidates, S sequences, P behaviours, E width, K queries.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from training.data.sequences import SequenceBatch, SequenceInput
from training.models.fg_bert import Encoded, FgBert
from training.modules.segments import Segments, Whole, attend
from training.modules.transformer import CrossLayer, Width, split_heads

_BEGIN = 0.1  # The standard deviation of the queries before they read a sequence.


class UniCrossAttention(nn.Module):
    """Sends candidates through as many layers as the encoder has: `c_n = Layer_n(c_(n-1), K_n, V_n)`."""

    def __init__(self, size: Width, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(CrossLayer(size) for _ in range(layers))

    def forward(self, candidates_BE: Tensor, encoded: Encoded, of_B: Tensor | None) -> Tensor:
        """B x E."""
        if of_B is None or encoded.offsets is None:
            return self._through(candidates_BE, encoded, encoded.whole)
        order_B = torch.argsort(of_B, stable=True)
        counts_S = torch.bincount(of_B, minlength=len(encoded.offsets) - 1)
        segments = Segments(torch.cat([counts_S.new_zeros(1), counts_S.cumsum(0)]), encoded.offsets)
        return self._through(candidates_BE[order_B], encoded, segments)[torch.argsort(order_B)]

    def _through(self, hidden_BE: Tensor, encoded: Encoded, segments: Segments | Whole) -> Tensor:
        for layer, keys_and_values in zip(self.layers, encoded.keys_and_values, strict=True):
            hidden_BE = layer(hidden_BE, keys_and_values, segments)
        return hidden_BE


class QueryingTransformer(nn.Module):
    """K learned queries in one block: self-attention among them, cross-attention to the encoder's output, FFN.

    Our choice: the queries begin small compared with what they read from a sequence, and the output is divided by the
    square root of K, so that the norm of the flattened output does not depend on K.
    """

    _frozen: Tensor | None

    def __init__(self, size: Width, queries: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, size.width) * 0.02)
        self.project = nn.Linear(size.width, 3 * size.width)
        self.out, self.norm = nn.Linear(size.width, size.width), nn.LayerNorm(size.width)
        nn.init.constant_(self.norm.weight, _BEGIN)
        self.key, self.value = nn.Linear(size.width, size.width), nn.Linear(size.width, size.width)
        self.cross = CrossLayer(size)
        self.register_buffer("_frozen", None, persistent=False)

    @torch.no_grad()
    def freeze(self) -> None:
        """Computes the self-attention among the queries once, since the queries do not change from now on."""
        self.register_buffer("_frozen", self._mixed(), persistent=False)

    def _mixed(self) -> Tensor:
        """Returns the queries after self-attention, K x E, the same for all sequences."""
        own = Segments.within(torch.tensor([0, len(self.queries)], device=self.queries.device))
        query, key, value = (split_heads(part, self.cross.heads) for part in self.project(self.queries).chunk(3, dim=1))
        mixed_KE: Tensor = self.norm(self.queries + self.out(attend(query, key, value, own).flatten(1)))
        return mixed_KE

    def forward(self, encoded: Encoded) -> Tensor:
        """Returns what each query has read from each sequence, S x K x E."""
        heads, offsets = self.cross.heads, encoded.offsets
        queries_KE = self._mixed() if self._frozen is None else self._frozen
        if offsets is None:
            count, segments = 1, encoded.whole  # type: int, Segments | Whole
        else:
            count, segments = (
                len(offsets) - 1,
                Segments(torch.arange(len(offsets), device=offsets.device) * len(self.queries), offsets),
            )
            queries_KE = queries_KE.repeat(count, 1)
        keys_and_values = (
            split_heads(self.key(encoded.output_PE), heads),
            split_heads(self.value(encoded.output_PE), heads),
        )
        found_QE = self.cross(queries_KE, keys_and_values, segments)
        found_SKE: Tensor = found_QE.view(count, len(self.queries), -1) / len(self.queries) ** 0.5
        return found_SKE


def mean_by_sequence(encoded: Encoded) -> Tensor:
    """Returns the mean of the output over each sequence, S x E; zeros for a sequence without behaviours."""
    if encoded.offsets is None:
        total_E, count = encoded.output_PE.sum(dim=0), torch.ones_like(encoded.output_PE[:, 0]).sum()
        return (total_E / count.clamp(min=1.0))[None]
    lengths = encoded.offsets.diff()
    of_P = torch.repeat_interleave(
        torch.arange(len(lengths), device=lengths.device), lengths, output_size=len(encoded.output_PE)
    )
    total_SE = encoded.output_PE.new_zeros(len(lengths), encoded.output_PE.shape[1]).index_add(
        0, of_P, encoded.output_PE
    )
    return total_SE / lengths.clamp(min=1)[:, None]


class Bridge(nn.Module):
    """The part of a CTR model that reads a pre-trained encoder.

    Args:
        encoder: the encoder. Its weights are part of the model's own if `learned`, else they belong to the encoder's
            release.
        learned: whether training updates the encoder.
        cross: whether candidates read the encoder by uni cross-attention.
        queries: K of the querying transformer; 0 for the mean of the encoder's output instead.
    """

    def __init__(self, encoder: FgBert, *, learned: bool, cross: bool = True, queries: int = 8) -> None:
        super().__init__()
        recipe = encoder.recipe
        size = Width(width=recipe.width, heads=recipe.heads, inner=recipe.inner)
        self.learned = learned
        encoder.heads.requires_grad_(False)  # The heads, biases and mask vectors serve only pre-training.
        encoder.biases.requires_grad_(False)
        encoder.masked.requires_grad_(False)
        if learned:
            self.encoder = encoder
        else:
            self._apart = (encoder.eval().requires_grad_(False),)
        self.cross = UniCrossAttention(size, recipe.layers) if cross else None
        self.querying = QueryingTransformer(size, queries) if queries else None
        self.of_user = recipe.width * (queries or 1)
        self.of_candidate = recipe.width if cross else 0

    @property
    def network(self) -> FgBert:
        """The encoder, whether it is trained or frozen."""
        return self.encoder if self.learned else self._apart[0]

    def encode(self, sequences: SequenceBatch) -> tuple[Encoded, Tensor]:
        """Computes what depends only on the users: the encoded sequences, and the model's user inputs, S x `of_user`."""
        with torch.set_grad_enabled(self.learned and torch.is_grad_enabled()):
            encoded = self.network.encode(sequences)
        if self.querying is not None:
            return encoded, self.querying(encoded).flatten(1)
        return encoded, mean_by_sequence(encoded)

    def candidates(self, rows: Mapping[str, Tensor], encoded: Encoded, of_B: Tensor | None) -> Tensor:
        """Returns what candidates read from the encoded sequences, B x `of_candidate`."""
        if self.cross is None:
            any_B = next(iter(rows.values()))
            return torch.zeros(any_B.shape[0], 0, device=any_B.device)
        with torch.set_grad_enabled(self.learned and torch.is_grad_enabled()):
            first_BE = self.network.candidates(rows)
        found_BE: Tensor = self.cross(first_BE, encoded, of_B)
        return found_BE

    def forward(self, given: SequenceInput) -> Tensor:
        """Returns candidate and user inputs, B x (`of_candidate` + `of_user`)."""
        encoded, of_user = self.encode(given.sequences)
        of_candidate = self.candidates(given.candidate, encoded, given.of_B)
        return torch.cat([of_candidate, given.spread(of_user).expand(of_candidate.shape[0], -1)], dim=1)
