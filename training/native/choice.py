"""The choice between a native operation and its twin in torch: a trial on each machine times both, and the faster one is used.

The two round differently, so the choice is kept in a file next to the compiled library, and every later process on the
machine follows it. Every process logs the choices that it follows. With `TRIBUTARY_NATIVE=1` native code is used wherever
it can be compiled, with `TRIBUTARY_NATIVE=0` torch is used; neither needs a trial.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from contracts.settings import native_mode
from training import native

_ROUNDS = 7
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Ways:
    """The two ways to compute a trial's problem: a small one of realistic shape, forward and backward.

    Each function computes the problem once, whatever the value of `TRIBUTARY_NATIVE`, and returns the result and its
    gradients.

    Attributes:
        native: computes it by native code.
        torch: computes it by the twin.
    """

    native: Callable[[], Any]
    torch: Callable[[], Any]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The result of a trial.

    Attributes:
        native_ms: milliseconds of processor time that native code takes for the problem, with one thread.
        torch_ms: the same for the twin.
    """

    native_ms: float
    torch_ms: float

    @property
    def serves(self) -> str:
        """Which of the two is used: `native` or `torch`."""
        return "native" if self.native_ms <= self.torch_ms else "torch"


def serving(name: str, problem: Callable[[], Ways]) -> Any:
    """Returns the library of a native operation; None if its twin in torch is to be used.

    Args:
        name: the name of the operation.
        problem: makes the trial's problem; it is called only if there has been no trial on this machine yet.
    """
    library = native.library(name)
    if library is None or native_mode() == "native":
        return library
    return (
        library
        if _followed(name, Path(library._name), native.vectors_of(library), problem).serves == "native"
        else None
    )


@cache
def _followed(name: str, library: Path, vectors: str, problem: Callable[[], Ways]) -> Choice:
    choice = _kept_or_made(name, library, problem)
    _log.info(
        "%s: native %.2f ms (%s), torch %.2f ms: %s serves",
        name,
        choice.native_ms,
        vectors,
        choice.torch_ms,
        choice.serves,
    )
    return choice


def _kept_or_made(name: str, library: Path, problem: Callable[[], Ways]) -> Choice:
    """Returns the kept choice, or makes it by a trial; of several processes one makes the trial, and the others wait for it."""
    path = library.with_name(f"{library.stem}-torch-{torch.__version__}.json")
    try:
        with library.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            kept = _read(path)
            if kept is not None:
                return kept
            choice = compare(problem)
            temporary = path.with_suffix(f".{os.getpid()}")
            temporary.write_text(json.dumps(asdict(choice) | {"serves": choice.serves}) + "\n")
            temporary.replace(path)
            return choice
    except OSError as error:
        _log.warning(
            "%s: the choice between native code and torch cannot be kept, so each process makes its own: %s",
            name,
            error,
        )
        return _read(path) or compare(problem)


def _read(path: Path) -> Choice | None:
    """Reads a kept choice; None if there is none that can be read, after which a new trial is made."""
    try:
        kept = json.loads(path.read_text())
        return Choice(native_ms=float(kept["native_ms"]), torch_ms=float(kept["torch_ms"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def compare(problem: Callable[[], Ways]) -> Choice:
    """Times both ways in turns, and takes the shortest time of each, since other work on the machine makes some turns longer."""
    threads = torch.get_num_threads()
    times: dict[str, list[float]] = {"native": [], "torch": []}
    torch.set_num_threads(1)
    try:
        # The trial runs in the middle of a training. It must not change the training's random numbers, and must not depend on
        # whether the training is in a block without gradients or in half precision.
        with (
            torch.random.fork_rng(devices=[]),
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast("cpu", enabled=False),
        ):
            ways = problem()
            for turn in range(_ROUNDS + 1):
                for name, way in (("native", ways.native), ("torch", ways.torch)):
                    began = time.thread_time()
                    way()
                    if turn:  # the first turn warms up and is not counted
                        times[name].append(1e3 * (time.thread_time() - began))
    finally:
        torch.set_num_threads(threads)
    return Choice(native_ms=min(times["native"]), torch_ms=min(times["torch"]))
