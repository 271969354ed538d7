"""Embedding tables of raw ids: row 0 is the unknown and stays zero.

Tables grow between runs: a model is made with the grown mapping's row counts, and the predecessor's rows are loaded over
the first ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

_INITIAL_STD = 0.02


def seeded(*parts: object) -> torch.Generator:
    """A CPU generator whose seed is a hash of the parts: independent of the order in which modules are made."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


class IdEmbeddings(nn.Module):
    """One table per categorical feature.

    Args:
        row_cnts: rows of each table by feature, the unknown included, in the model's order.
        dims: width of each.
        seed: of fresh rows.
        sparse_above: tables with more rows give sparse gradients.
    """

    def __init__(self, row_cnts: Mapping[str, int], dims: Mapping[str, int], *, seed: int, sparse_above: int = 200_000) -> None:
        super().__init__()
        self.seed = seed
        self.sparse_above = sparse_above
        self.tables = nn.ModuleDict()
        for name, rows in row_cnts.items():
            self.tables[name] = self._table(name, dims[name], rows)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.tables)

    @property
    def width(self) -> int:
        """Sum of the widths."""
        return sum(self.table(name).embedding_dim for name in self.names)

    def table(self, name: str) -> nn.Embedding:
        table = self.tables[name]
        assert isinstance(table, nn.Embedding)
        return table

    def forward(self, rows_BF: Tensor) -> Tensor:
        """Rows B x F -> B x (sum of widths), in the order of the features."""
        return torch.cat([self.table(name)(rows_BF[:, number]) for number, name in enumerate(self.names)], dim=1)

    def _table(self, name: str, dim: int, rows: int) -> nn.Embedding:
        weight = torch.randn(rows, dim, generator=seeded(self.seed, name)) * _INITIAL_STD
        weight[0] = 0.0
        return nn.Embedding.from_pretrained(weight, freeze=False, padding_idx=0, sparse=rows > self.sparse_above)
