"""The training loop: epochs, steps, one step. It knows `forward(batch)` and `loss(outputs, batch)`, and no concrete model."""

from __future__ import annotations

import ctypes
import hashlib
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from contracts.errors import BadInput, TributaryError
from lake.progress import progress
from training.data.batches import Batch, EncodedSamples, in_order, shuffled
from training.engine.board import Observer
from training.engine.checkpoint import Checkpoint, Position
from training.engine.optimizer import Adam
from training.engine.prefetch import prefetched
from training.modules.embedding import FbgemmTable, Table
from training.recipes import Phase

SCORING_BATCH = 8192
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's mallopt


class Trainable(Protocol):
    """What the engine needs of a model, beside being a `torch.nn.Module`."""

    def __call__(self, batch: Batch) -> Tensor: ...

    def loss(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]: ...


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What a phase of training leaves beside the weights.

    Attributes:
        row_cnt: distinct rows trained on.
        losses: mean over the rows of the last epoch, each row's taken just before its step; empty where there was no row.
    """

    row_cnt: int
    losses: Mapping[str, float]


def choose_device(name: str) -> torch.device:
    """`auto` is `cuda` where there is one.

    Raises:
        BadInput: `cuda` was asked for and is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise BadInput("--device", "device", expected="a machine with CUDA", found="none", hint="Use --device cpu.")
    return torch.device(name)


def prepare_process(threads: int = 1) -> None:
    """Makes torch deterministic, and keeps freed memory in the process: batches reuse it instead of faulting it in again.

    Args:
        threads: of torch on a CPU. One by default: sums then do not depend on the machine's cores, and beside Spark and
            Airflow on two cores several threads wait for each other (12 thousand samples a second were seen instead of 130).
    """
    torch.set_num_threads(threads)
    # Some CUDA sums have no deterministic algorithm. (`use_deterministic_algorithms` would import torch's compiler: seconds.)
    torch.set_deterministic_debug_mode("warn" if torch.cuda.is_available() else "error")
    # A debugging aid that costs a twentieth of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 1 << 30)


def generator_of(*parts: object) -> np.random.Generator:
    """A generator seeded by a hash of the parts."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8], "big"))


def train(model: Any, samples: EncodedSamples, phase: Phase, *, seed: object, description: str,
          checkpoint: Checkpoint | None = None, after_epoch: Callable[[], None] = lambda: None,
          observe: Observer | None = None) -> Fitted:
    """Trains a model in place.

    Args:
        model: a `Trainable` module.
        samples: the rows to train on.
        phase: epochs, batch size, rates, order.
        seed: of the order of rows.
        description: of the progress bar.
        checkpoint: where the state is kept in the middle; one that is there is taken up, with the same result to the bit.
        after_epoch: called when an epoch is done; it may score, and must leave the model as it is.
        observe: called after each step, with its number over all epochs, its losses and its rows; it only looks.

    Raises:
        TributaryError: the weights are no longer finite.
    """
    optimizer = _optimizer(model, phase)
    position = checkpoint.load(model, optimizer) if checkpoint else Position()
    done = _done(samples, phase, position)
    with progress(total=len(samples) * phase.epochs, description=description, unit="sample", initial=done) as bar:
        for epoch in range(position.epoch, phase.epochs):
            order = shuffled(samples, phase.batch_size, generator_of(seed, epoch), in_time_order=phase.in_time_order)
            if epoch > position.epoch:
                position = Position(epoch=epoch)
            model.train()
            _train_epoch(model, samples, order, optimizer, position, checkpoint, bar, observe)
            after_epoch()
    if not all(bool(torch.isfinite(tensor).all()) for tensor in model.state_dict().values()):
        raise TributaryError(f"{description}: expected finite weights, found NaN or infinity. Lower the recipe's learning rates.")
    if checkpoint:
        checkpoint.clear()
    rows = sum(map(len, order))
    return Fitted(row_cnt=rows, losses={name: value / rows for name, value in position.losses.items()})


def _train_epoch(model: Any, samples: EncodedSamples, order: list[Tensor], optimizer: Adam, position: Position,
                 checkpoint: Checkpoint | None, bar: Any, observe: Observer | None) -> None:
    sums = {name: torch.tensor(value, dtype=torch.float64, device=samples.label_N.device) for name, value in position.losses.items()}
    for batch in prefetched(samples.batch, order[position.step:]):
        losses = _train_step(model, batch, optimizer)
        for name, value in losses.items():
            sums[name] = sums.get(name, torch.zeros((), dtype=torch.float64, device=value.device)) + value.double() * len(batch.label_B)
        position.step += 1
        bar.update(len(batch.label_B))
        if observe:
            observe(position.epoch * len(order) + position.step, losses, len(batch.label_B))
        if checkpoint and checkpoint.due():
            position.losses = {name: float(value) for name, value in sums.items()}
            checkpoint.save(model, optimizer, position)
    position.losses = {name: float(value) for name, value in sums.items()}


def _train_step(model: Any, batch: Batch, optimizer: Adam) -> dict[str, Tensor]:
    losses: dict[str, Tensor] = model.loss(model(batch), batch)
    optimizer.zero_grad()
    torch.stack(list(losses.values())).sum().backward()
    optimizer.step()
    return {name: value.detach() for name, value in losses.items()}


def _optimizer(model: nn.Module, phase: Phase) -> Adam:
    for module in model.modules():
        if isinstance(module, Table | FbgemmTable):
            module.learning_rate = phase.embedding_learning_rate
    return Adam(model.parameters(), phase.learning_rate)


def _done(samples: EncodedSamples, phase: Phase, position: Position) -> int:
    """Rows that a training which is taken up has behind it, for its progress bar."""
    return min(position.epoch * len(samples) + position.step * phase.batch_size, len(samples) * phase.epochs)


@torch.no_grad()
def fill_batch_norm(model: nn.Module, samples: EncodedSamples) -> None:
    """Sets batch-norm's running statistics to the mean over these rows, so that they fit the weights as they are now."""
    if len(samples) < 2:
        return
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
    model.train()
    for index in shuffled(samples, SCORING_BATCH, generator_of("batch-norm"), in_time_order=False):
        model(samples.batch(index))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@torch.no_grad()
def score(model: Any, samples: EncodedSamples) -> NDArray[np.float64]:
    """Click probability of each row, N."""
    model.eval()
    parts = [torch.sigmoid(model(samples.batch(index))) for index in in_order(len(samples), SCORING_BATCH, samples.label_N.device)]
    return torch.cat(parts).double().cpu().numpy() if parts else np.zeros(0)
