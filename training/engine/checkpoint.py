"""Saves weights and the states of interrupted trainings as safetensors, never as pickle."""

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
    """Writes all persistent tensors of a model: its `state_dict`, which all processes must call together."""
    save_file({name: _apart(tensor) for name, tensor in state.items()}, path)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Reads tensors by name."""
    return load_file(path)


@dataclass(kw_only=True)
class Position:
    """How far a training has come.

    Attributes:
        epoch: the present epoch.
        step: the number of steps of this epoch that are done.
        losses: by name, the sums over the rows of this epoch so far.
    """

    epoch: int = 0
    step: int = 0
    losses: dict[str, float] = field(default_factory=dict)


class Checkpoint:
    """The state of an unfinished training: one file, replaced as a whole, so that a kill leaves the file before.

    Args:
        path: the file; its name identifies the training, so that no other training resumes from it.
        every_seconds: how often the file is written; 0 means after every step.
    """

    def __init__(self, path: Path, every_seconds: float) -> None:
        self._path = path
        self._every_seconds = every_seconds
        self._last = time.monotonic()

    def due(self) -> bool:
        """Returns whether it is time to write; among several processes the clock of the first decides."""
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
        where = {
            "epoch": position.epoch,
            "step": position.step,
            "losses": {n: v.hex() for n, v in position.losses.items()},
        }
        save_file(tensors, temporary, metadata={"position": json.dumps(where)})
        temporary.replace(self._path)

    @torch.no_grad()
    def load(self, model: nn.Module, optimizer: Adam) -> Position:
        """Restores the state and returns its position; without a file, changes nothing and returns the beginning."""
        if not processes.agreed(self._path.is_file()):
            return Position()
        state = _state(model, optimizer)
        with safe_open(self._path, framework="pt") as file:
            where = json.loads(file.metadata()["position"])
            for name, tensor in state.items():
                tensor.copy_(file.get_tensor(name))
        write_back(
            model, {name.removeprefix("model."): tensor for name, tensor in state.items() if name.startswith("model.")}
        )
        return Position(
            epoch=where["epoch"], step=where["step"], losses={n: float.fromhex(v) for n, v in where["losses"].items()}
        )

    def clear(self) -> None:
        """Deletes the file: the training is finished."""
        if processes.is_first():
            self._path.unlink(missing_ok=True)


def _state(model: nn.Module, optimizer: Adam) -> Mapping[str, Tensor]:
    return {f"model.{name}": tensor for name, tensor in model.state_dict().items()} | {
        f"optimizer.{name}": tensor for name, tensor in optimizer.state().items()
    }


def _apart(tensor: Tensor) -> Tensor:
    """Copies a tensor into memory of its own: safetensors refuses tensors that share memory, as the features of one table do."""
    return tensor.detach().cpu().clone()
