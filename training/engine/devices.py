"""Reserves one GPU for one training by lock files, one for each device, under the deployment's folder.

A pool of Airflow limits how many trainings run at a time, but does not choose their devices. The kernel releases a lock
when its holder dies, however it dies.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from contracts.settings import launched_process
from lake.locks import Locked, read_holder, try_lock, write_holder

WAIT_SECONDS = 600.0  # The wait for a device, after which the command fails and Airflow tries it again.
POLL_SECONDS = 1.0


@contextmanager
def held_device(
    kind: torch.device,
    locks: Path,
    *,
    names: Sequence[str] | None = None,
    wait_seconds: float = WAIT_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[torch.device]:
    """Holds the first GPU on which no other training of this deployment runs.

    Nothing is locked on a CPU, nor for processes that `torchrun` started, each of which has its own device.

    Args:
        kind: the kind of device to train on.
        locks: the deployment's folder of locks.
        names: names of the GPUs in torch's order; by default their unique ids, which do not depend on
            CUDA_VISIBLE_DEVICES.
        wait_seconds: how long to wait for a free GPU.
        sleep: waits between two looks.

    Raises:
        Locked: all GPUs were taken all the time; another try may find a free one.
    """
    launched = launched_process()
    if kind.type != "cuda" or (launched is not None and launched.count > 1):
        yield kind
        return
    is_real = names is None
    names = names or [str(torch.cuda.get_device_properties(index).uuid) for index in range(torch.cuda.device_count())]
    paths = [locks / "cuda" / f"{name}.lock" for name in names]
    deadline = time.monotonic() + wait_seconds
    while True:
        for index, path in enumerate(paths):
            file = try_lock(path)
            if file is not None:
                with file:
                    write_holder(file)
                    print(f"GPU {index}: {names[index]}", file=sys.stderr, flush=True)
                    device = torch.device("cuda", index)
                    if is_real:
                        torch.cuda.set_device(device)
                    yield device
                return
        if time.monotonic() >= deadline:
            holders = "; ".join(f"{path.stem} by {read_holder(path).get('command', 'somebody')}" for path in paths)
            raise Locked(
                f"{locks / 'cuda'}: expected a free GPU within {wait_seconds:.0f} s, found all {len(paths)} taken: {holders}"
            )
        sleep(POLL_SECONDS)
