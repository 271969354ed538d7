"""Whether a native operation serves, or its twin in torch: each is timed once on a machine, on a small problem, and the faster one serves.

The choice lies next to the compiled library, so that every later process on the machine computes in the same way: twins
round differently. Every process logs the choices that it follows. `TRIBUTARY_NATIVE=1` (native code serves wherever it
can be had) and `TRIBUTARY_NATIVE=0` (torch serves) need no trial.
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
    """One small problem of realistic shape, forward and backward, in both ways.

    Attributes:
        native, torch: compute it once, whatever `TRIBUTARY_NATIVE` says; what they return is the result, and its
            gradients.
    """

    native: Callable[[], Any]
    torch: Callable[[], Any]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a trial has shown.

    Attributes:
        native_ms, torch_ms: of the processor's time, each by itself with one thread.
    """

    native_ms: float
    torch_ms: float

    @property
    def serves(self) -> str:
        """`native` or `torch`."""
        return "native" if self.native_ms <= self.torch_ms else "torch"


def serving(name: str, problem: Callable[[], Ways]) -> Any:
    """The library of a native operation; None where its twin in torch serves.

    Args:
        name: the name of the operation.
        problem: makes the problem of the trial; called where there has been none on this machine.
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
    """The choice that was made, or is made now: of several processes one tries, and the others wait for it."""
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
    """Reads a choice that was kept; None where there is none that can be read, so that it is made again."""
    try:
        kept = json.loads(path.read_text())
        return Choice(native_ms=float(kept["native_ms"]), torch_ms=float(kept["torch_ms"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def compare(problem: Callable[[], Ways]) -> Choice:
    """Times both by turns and takes the shortest of each: what else the machine does makes some turns longer."""
    threads = torch.get_num_threads()
    times: dict[str, list[float]] = {"native": [], "torch": []}
    torch.set_num_threads(1)
    try:
        # The training that asks must not notice: neither its random numbers nor what it does without gradients or in
        # half precision.
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
                    if turn:  # the first one warms up
                        times[name].append(1e3 * (time.thread_time() - began))
    finally:
        torch.set_num_threads(threads)
    return Choice(native_ms=min(times["native"]), torch_ms=min(times["torch"]))
