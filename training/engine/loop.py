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
from training import processes
from training.data.batches import EncodedSamples, Ordered, in_order, shuffled
from training.engine.board import Observer
from training.engine.checkpoint import Checkpoint, Position
from training.engine.optimizer import Adam
from training.engine.prefetch import prefetched
from training.modules.embedding import FbgemmTable, IdEmbeddings, Table
from training.modules.sharded import ShardedTable
from training.modules.trainable import Trainable
from training.recipes import Phase

SCORING_BATCH = 8192
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's mallopt


class Rows(Ordered, Protocol):
    """What the engine needs of the rows that a model trains on: impressions, or sequences."""

    def batch(self, index: Tensor) -> Any:
        """Selects the rows of an index (B, int64), as the model reads them."""
        ...

    def at_epoch(self, epoch: int) -> Rows:
        """Returns the rows as they are in an epoch."""
        ...


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """The result of a phase of training, apart from the weights.

    Attributes:
        row_cnt: the number of distinct rows that were trained on.
        losses: by name, the mean over the rows of the last epoch, each taken just before its step; empty where there
            was no row.
    """

    row_cnt: int
    losses: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Compute:
    """How a GPU computes the network of a step. Weights, tables, losses and scoring stay in float32.

    Attributes:
        bf16: whether products are computed in bfloat16, by torch's autocast.
        compiled: whether all parts of the model but the embedding tables are compiled by `torch.compile`.
    """

    bf16: bool = False
    compiled: bool = False


_AS_WRITTEN = Compute()


@dataclass(frozen=True, kw_only=True)
class Supervision:
    """What accompanies a training. It does not change the result, except for the rounding that `compute` changes.

    Attributes:
        checkpoint: keeps the state of an unfinished training; the training resumes from it, with the same result to the
            bit.
        observe: called after each step, with its number over all epochs, its losses and its rows; it must change
            nothing.
        after_epoch: called after each epoch; it may score, but must not change the model.
        compute: precision and compilation.
    """

    checkpoint: Checkpoint | None = None
    observe: Observer | None = None
    after_epoch: Callable[[], None] = lambda: None
    compute: Compute = _AS_WRITTEN


_UNATTENDED = Supervision()


def choose_device(name: str) -> torch.device:
    """Returns the device of a name; `auto` is `cuda` where there is a GPU, else `cpu`.

    Raises:
        BadInput: the name is `cuda`, and there is no GPU.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise BadInput("--device", "device", expected="a machine with CUDA", found="none", hint="Use --device cpu.")
    return torch.device(name)


def prepare_process(threads: int = 1) -> None:
    """Makes torch deterministic, and keeps freed memory in the process: batches reuse it instead of faulting it in again.

    Args:
        threads: threads of torch on a CPU. With one, the default, sums do not depend on the machine's cores. Several
            threads wait for each other where Spark and Airflow share two cores with them (12 thousand samples a second
            were measured instead of 130).
    """
    torch.set_num_threads(threads)
    # Some CUDA sums have no deterministic algorithm. (`use_deterministic_algorithms` would import torch's compiler:
    # seconds.)
    torch.set_deterministic_debug_mode("warn" if torch.cuda.is_available() else "error")
    # A debugging aid that costs a twentieth of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 1 << 30)


def generator_of(*parts: object) -> np.random.Generator:
    """Returns a random generator seeded by a hash of the parts."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8], "big"))


def train(
    model: Trainable,
    samples: Rows,
    phase: Phase,
    *,
    seed: object,
    description: str,
    supervision: Supervision = _UNATTENDED,
) -> Fitted:
    """Trains a model in place; several processes share each batch and take the same steps as one process.

    Args:
        model: the model to train; its weights change.
        samples: the rows to train on.
        phase: epochs, batch size, rates, order.
        seed: the seed of the order of rows.
        description: the title of the progress bar.
        supervision: what goes on around it: checkpoints, observers, precision.

    Raises:
        TributaryError: the weights are no longer finite.
    """
    optimizer = _optimizer(model, phase)
    if supervision.compute.compiled:
        _compile(model)
    checkpoint = supervision.checkpoint
    position = checkpoint.load(model, optimizer) if checkpoint else Position()
    done = _done(samples, phase, position)
    with progress(total=len(samples) * phase.epochs, description=description, unit="sample", initial=done) as bar:
        epochs = _Epochs(model=model, optimizer=optimizer, phase=phase, seed=seed, supervision=supervision, bar=bar)
        for epoch in range(position.epoch, phase.epochs):
            order = shuffled(samples, phase.batch_size, generator_of(seed, epoch), in_time_order=phase.in_time_order)
            if epoch > position.epoch:
                position = Position(epoch=epoch)
            model.train()
            epochs.train(samples.at_epoch(epoch), order, position)
            supervision.after_epoch()
    if not processes.agreed(_is_finite(model)):
        raise TributaryError(
            f"{description}: expected finite weights, found NaN or infinity. Lower the recipe's learning rates."
        )
    if checkpoint:
        checkpoint.clear()
    rows = sum(map(len, order))
    return Fitted(row_cnt=rows, losses={name: value / rows for name, value in position.losses.items()})


@dataclass(frozen=True, kw_only=True)
class _Epochs:
    """What all epochs of one training share."""

    model: Trainable
    optimizer: Adam
    phase: Phase
    seed: object
    supervision: Supervision
    bar: Any

    def train(self, samples: Rows, order: list[Tensor], position: Position) -> None:
        """Takes the remaining steps of an epoch, and moves the position to its end."""
        sums = {
            name: torch.tensor(value if processes.is_first() else 0.0, dtype=torch.float64, device=samples.device)
            for name, value in position.losses.items()
        }
        parts = [processes.part_of(index) for index in order[position.step :]]
        checkpoint, observe = self.supervision.checkpoint, self.supervision.observe
        for part, batch in zip(parts, prefetched(samples.batch, [part.index for part in parts]), strict=True):
            self.optimizer.learning_rate = self.phase.rate_at(
                position.epoch * len(order) + position.step, self.phase.epochs * len(order)
            )
            # Each step has its own seed, so that dropout is the same in a training that resumes.
            torch.manual_seed(
                int(generator_of(self.seed, position.epoch, position.step, processes.rank()).integers(1 << 62))
            )
            losses = _train_step(self.model, batch, self.optimizer, part.weight, self.supervision.compute.bf16)
            for name, value in losses.items():
                sums[name] = (
                    sums.get(name, torch.zeros((), dtype=torch.float64, device=value.device))
                    + value.double() * part.rows
                )
            rows = len(order[position.step])
            self.bar.update(rows)
            position.step += 1
            if observe:
                observe(position.epoch * len(order) + position.step, losses, rows)
            if checkpoint and checkpoint.due():
                position.losses = _of_all(sums)
                checkpoint.save(self.model, self.optimizer, position)
        position.losses = _of_all(sums)


def _train_step(model: Trainable, batch: Any, optimizer: Adam, weight: float, bf16: bool) -> dict[str, Tensor]:
    losses = model.loss(forward_in_bf16(model, batch) if bf16 else model(batch), batch)
    optimizer.zero_grad()
    total = torch.stack(list(losses.values())).sum()
    (total if weight == 1.0 else total * weight).backward()
    optimizer.step()
    return {name: value.detach() for name, value in losses.items()}


def forward_in_bf16(model: nn.Module, batch: Any) -> Tensor:
    """Returns the outputs of a model for a batch as float32, with products computed in bfloat16."""
    with torch.autocast(next(model.parameters()).device.type, torch.bfloat16):
        outputs: Tensor = model(batch)
    return outputs.float()


def _compile(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, IdEmbeddings):  # Look-ups cannot be compiled, wherever they are called.
            module.forward = torch.compiler.disable(module.forward)  # type: ignore[method-assign]
    for part in model.children():
        if not isinstance(part, IdEmbeddings):
            part.compile(dynamic=True)


def _of_all(sums: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: float(processes.summed(value)) for name, value in sums.items()}


def _is_finite(model: nn.Module) -> bool:
    """Returns whether all weights are finite; among several processes only the first sees the tables' values."""
    return all(
        bool(torch.isfinite(tensor).all()) for tensor in model.state_dict().values() if tensor.device.type != "meta"
    )


def _optimizer(model: nn.Module, phase: Phase) -> Adam:
    for module in model.modules():
        if isinstance(module, Table | FbgemmTable | ShardedTable):
            module.learning_rate = phase.embedding_learning_rate
    return Adam((parameter for parameter in model.parameters() if parameter.requires_grad), phase.learning_rate)


def _done(samples: Rows, phase: Phase, position: Position) -> int:
    """Returns the number of rows before the position at which a training resumes, for its progress bar."""
    return min(position.epoch * len(samples) + position.step * phase.batch_size, len(samples) * phase.epochs)


@torch.no_grad()
def fill_batch_norm(model: nn.Module, samples: EncodedSamples) -> None:
    """Sets batch norm's running statistics to the mean over these rows, so that they fit the present weights."""
    if len(samples) < 2:
        return
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # The statistics become a plain mean over the batches.
    model.train()
    for index in shuffled(samples, SCORING_BATCH, generator_of("batch-norm"), in_time_order=False):
        model(samples.batch(processes.part_of(index).index))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@torch.no_grad()
def score(model: nn.Module, samples: EncodedSamples) -> NDArray[np.float64]:
    """Returns the click probability of each row, N; each of several processes scores its share, and all get the whole."""
    model.eval()
    scores_N = torch.zeros(len(samples), dtype=torch.float64, device=samples.device)
    for index in in_order(len(samples), SCORING_BATCH, samples.device):
        part = processes.part_of(index)
        scores_N[part.index] = torch.sigmoid(model(samples.batch(part.index))).double() * part.share
    return processes.summed(scores_N).cpu().numpy()
