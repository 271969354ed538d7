"""Feature interaction: DCN-V2's cross layer, and the MLP after it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from training import processes

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


class BatchNorm(nn.BatchNorm1d):
    """Batch-norm whose mean and variance are those of the whole batch, also where several processes share its rows.

    As torch's `SyncBatchNorm`, which refuses a CPU. The statistics are then equal in all processes.
    """

    def forward(self, x_BD: Tensor) -> Tensor:
        """B x D -> B x D."""
        if not self.training or processes.count() == 1:
            return super().forward(x_BD)
        values_BD = x_BD.float()
        sums = processes.differentiable_sum(torch.cat([values_BD.sum(dim=0), values_BD.new_tensor([len(values_BD)])]))
        rows, mean_D = sums[-1].detach(), sums[:-1] / sums[-1].detach()
        variance_D = processes.differentiable_sum((values_BD - mean_D).square().sum(dim=0)) / rows
        self._remember(mean_D.detach(), variance_D.detach() * (rows / (rows - 1)))
        normal_BD = (values_BD - mean_D) * torch.rsqrt(variance_D + self.eps)
        return (normal_BD * self.weight + self.bias).to(x_BD.dtype)

    @torch.no_grad()
    def _remember(self, mean_D: Tensor, variance_D: Tensor) -> None:
        counter = self.get_buffer("num_batches_tracked")
        counter += 1
        part = 1.0 / float(counter) if self.momentum is None else self.momentum
        self.get_buffer("running_mean").lerp_(mean_D, part)
        self.get_buffer("running_var").lerp_(variance_D, part)


def relu_mlp(width: int, hidden: Sequence[int]) -> nn.Sequential:
    """B x D -> B x 1: linear and ReLU for each width, then one logit."""
    layers: list[nn.Module] = []
    widths = [width, *hidden]
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], 1))


def batch_norm_mlp(width: int, hidden: Sequence[int]) -> nn.Sequential:
    """B x D -> B x 1: linear, batch-norm, PReLU for each width, then one logit."""
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(width, size), BatchNorm(size), nn.PReLU(size)]
        width = size
    return nn.Sequential(*layers, nn.Linear(width, 1))
