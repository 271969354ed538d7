"""What the engine needs of a model: that it can be called with a batch, and that it returns its losses."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor, nn


class Trainable(nn.Module):
    """A model that the engine can train: `model(batch)` gives outputs, and `loss` what they cost."""

    @abstractmethod
    def loss(self, outputs: Tensor, batch: Any) -> dict[str, Tensor]:
        """Losses by name, each a mean over the batch's rows; their sum is what a step lowers."""
