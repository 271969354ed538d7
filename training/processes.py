"""Several processes that train one model, as `torchrun` starts them: what they exchange, and which of them does what.

All of them take the same steps: of each batch every process takes its share of the rows, and gradients are averaged. Only
the first process shows progress, prints and writes. In a single process every function here does nothing.

Shapes: N rows of a batch.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from contracts.errors import BadInput
from contracts.settings import launched_process
from lake.progress import hide_progress

T = TypeVar("T")


@contextmanager
def joined(device: torch.device) -> Iterator[torch.device]:
    """Joins the processes that `torchrun` started, by gloo on a CPU and by NCCL between GPUs.

    Nothing without `torchrun`, or where they are joined already: gloo does not join the same processes a second time.

    Args:
        device: the kind of device to train on.

    Yields:
        The device of this process.

    Raises:
        BadInput: fewer GPUs than processes on this machine.
    """
    launched = launched_process()
    if launched is None or launched.count == 1 or dist.is_initialized():
        yield device
        return
    if device.type == "cuda":
        if launched.local_rank >= torch.cuda.device_count():
            raise BadInput(
                "torchrun",
                "--nproc-per-node",
                expected=f"at most one process for each GPU, {torch.cuda.device_count()}",
                found=f"process {launched.local_rank + 1}",
            )
        device = torch.device("cuda", launched.local_rank)
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        if is_first():
            yield device
        else:
            hide_progress()
            with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
                yield device
    finally:
        dist.destroy_process_group()


def count() -> int:
    """How many processes train."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def count_here() -> int:
    """How many of them run on this machine."""
    launched = launched_process()
    return launched.local_count if launched else 1


def is_first() -> bool:
    """Whether this is the process that prints and writes."""
    return rank() == 0


def wait() -> None:
    """Waits until every process has called it."""
    if count() > 1:
        dist.barrier()


def agreed(value: T) -> T:
    """Returns the first process's value, in all processes."""
    if count() == 1:
        return value
    values: list[Any] = [value]
    dist.broadcast_object_list(values, src=0)
    agreed_value: T = values[0]
    return agreed_value


def summed(tensor: Tensor) -> Tensor:
    """The sum over the processes; a single process gets its tensor back."""
    if count() == 1:
        return tensor
    total = tensor.clone()
    dist.all_reduce(total)
    return total


@dataclass(frozen=True, kw_only=True)
class Part:
    """A process's share of a batch.

    Attributes:
        index: the rows of the batch that the process computes.
        rows: the number of the batch's rows that they stand for; over the processes these add up to the batch.
        weight: the weight of the mean over the rows, so that the mean over the processes is the mean over the batch.
    """

    index: Tensor
    rows: float
    weight: float

    @property
    def share(self) -> float:
        """How many rows of the batch one row of `index` stands for."""
        return self.rows / len(self.index)


def part_of(index_N: Tensor) -> Part:
    """Every `count`-th row of a batch; a batch of fewer rows than processes is computed by each of them, whole."""
    size, processes = len(index_N), count()
    if processes == 1:
        return Part(index=index_N, rows=size, weight=1.0)
    if size < processes:
        return Part(index=index_N, rows=size / processes, weight=1.0)
    own = index_N[rank() :: processes]
    return Part(index=own, rows=len(own), weight=len(own) * processes / size)


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replaces each gradient by its mean over the processes; a parameter without one in all of them stays without."""
    if count() == 1:
        return
    trained = list(parameters)
    has = torch.tensor([float(parameter.grad is not None) for parameter in trained], device=trained[0].device)
    flat = torch.cat([has, *((torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in trained)])
    dist.all_reduce(flat)
    flat /= count()
    used, *means = flat.split([len(trained), *(parameter.numel() for parameter in trained)])
    for parameter, mean, is_used in zip(trained, means, used.tolist(), strict=True):
        parameter.grad = mean.view_as(parameter) if is_used else None


class _Sum(torch.autograd.Function):
    """The sum over the processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return summed(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return summed(gradients[0].contiguous())


def differentiable_sum(tensor: Tensor) -> Tensor:
    """The sum over the processes, for use inside a model."""
    total: Tensor = _Sum.apply(tensor)
    return total
