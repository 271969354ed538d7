"""Feature interaction: DCN-V2's cross layer, and the MLP after it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

LAYERS_OF_A_BLOCK = 3  # linear, batch-norm, PReLU


class Cross(nn.Module):
    """DCN-V2 (arXiv 2008.13535): x_{l+1} = x_0 * (W_l x_l + b_l) + x_l, full rank.

    Args:
        width: D of the input.
        layers: how many.
    """

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))

    def forward(self, x_BD: Tensor) -> Tensor:
        """B x D -> B x D."""
        crossed_BD = x_BD
        for layer in self.layers:
            crossed_BD = x_BD * layer(crossed_BD) + crossed_BD
        return crossed_BD


def batch_norm_mlp(width: int, hidden: Sequence[int]) -> nn.Sequential:
    """B x D -> B x 1: linear, batch-norm, PReLU for each width, then one logit."""
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(width, size), nn.BatchNorm1d(size), nn.PReLU(size)]
        width = size
    return nn.Sequential(*layers, nn.Linear(width, 1))
