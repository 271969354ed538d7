"""Weights on disk, and trainings that were interrupted: safetensors, never pickle."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from training import processes
from training.engine.optimizer import Adam
from training.modules.embedding import write_back


def save_weights(state: Mapping[str, Tensor], path: Path) -> None:
    """Writes all persistent tensors of a model: its `state_dict`, which several processes must ask for together."""
    save_file({name: _apart(tensor) for name, tensor in state.items()}, path)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name."""
    return load_file(path)


@dataclass(kw_only=True)
class Position:
    """How far a training has come.

    Attributes:
        epoch: that is under way.
        step: steps of it that are done.
        losses: sums over its rows so far, by name.
    """

    epoch: int = 0
    step: int = 0
    losses: dict[str, float] = field(default_factory=dict)


class Checkpoint:
    """A training's state in the middle: one file, replaced whole, so that a kill leaves the one before.

    Args:
        path: of the file; it names the training, so that no other one takes it up.
        every_seconds: how often it is written; 0 after every step.
    """

    def __init__(self, path: Path, every_seconds: float) -> None:
        self._path = path
        self._every_seconds = every_seconds
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether it is time to write; of several processes the first one's clock counts."""
        return processes.agreed(time.monotonic() - self._last >= self._every_seconds)

    def save(self, model: nn.Module, optimizer: Adam, position: Position) -> None:
        """Writes the state."""
        self._last = time.monotonic()
        state = _state(model, optimizer)
        if not processes.is_first():
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_suffix(f".{os.getpid()}")
        tensors = {name: _apart(tensor) for name, tensor in state.items()}
        where = {"epoch": position.epoch, "step": position.step, "losses": {n: v.hex() for n, v in position.losses.items()}}
        save_file(tensors, temporary, metadata={"position": json.dumps(where)})
        temporary.replace(self._path)

    @torch.no_grad()
    def load(self, model: nn.Module, optimizer: Adam) -> Position:
        """Takes up the state, if there is one; else the beginning, and nothing is changed."""
        if not processes.agreed(self._path.is_file()):
            return Position()
        state = _state(model, optimizer)
        with safe_open(self._path, framework="pt") as file:
            where = json.loads(file.metadata()["position"])
            for name, tensor in state.items():
                tensor.copy_(file.get_tensor(name))
        write_back(model, {name.removeprefix("model."): tensor for name, tensor in state.items() if name.startswith("model.")})
        return Position(epoch=where["epoch"], step=where["step"], losses={n: float.fromhex(v) for n, v in where["losses"].items()})

    def clear(self) -> None:
        """The training is over."""
        if processes.is_first():
            self._path.unlink(missing_ok=True)


def _state(model: nn.Module, optimizer: Adam) -> Mapping[str, Tensor]:
    return {f"model.{name}": tensor for name, tensor in model.state_dict().items()} | {
        f"optimizer.{name}": tensor for name, tensor in optimizer.state().items()}


def _apart(tensor: Tensor) -> Tensor:
    """In memory of its own: a file refuses tensors that share some, as the features of one table do."""
    return tensor.detach().cpu().clone()
