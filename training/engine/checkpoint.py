"""Weights on disk: safetensors, never pickle."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor, nn


def save_weights(model: nn.Module, path: Path) -> None:
    """Writes all persistent tensors of a model."""
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}, path)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name."""
    return load_file(path)
