"""Writes what TensorBoard shows: a training's loss and speed every few steps, and a release's metrics.

The board only observes: it draws no random numbers and changes no tensor, so a training with it ends with the same
weights. `tensorboard` is an extra, imported where it is used.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from contracts.errors import BadInput

EVERY_STEPS = 50

Observer = Callable[[int, Mapping[str, Tensor], int], None]
"""Called after each step with its number, its losses and its rows."""


class Board:
    """Writes the means over every `EVERY_STEPS` steps into a folder of event files, which this context manager closes."""

    def __init__(self, folder: Path) -> None:
        self._writer = _writer(folder)
        self._sums: dict[str, Tensor] = {}
        self._rows = self._step = 0
        self._since = time.monotonic()

    def __enter__(self) -> Board:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._rows:
            self._write()
        self._writer.close()

    def __call__(self, step: int, losses: Mapping[str, Tensor], row_cnt: int) -> None:
        """Takes note of a step: its number, its losses by name, and its rows."""
        for name, value in losses.items():
            weighted = value * row_cnt
            self._sums[name] = self._sums[name] + weighted if name in self._sums else weighted
        self._rows += row_cnt
        self._step = step
        if step % EVERY_STEPS == 0:
            self._write()

    def _write(self) -> None:
        for name, value in self._sums.items():  # Only here the host waits for the device.
            self._writer.add_scalar(f"train/{name}", float(value) / self._rows, self._step)
        now = time.monotonic()
        self._writer.add_scalar("train/samples_per_second", self._rows / max(now - self._since, 1e-9), self._step)
        self._sums, self._rows, self._since = {}, 0, now


def write_figures(folder: Path, figures: Mapping[str, float], period: date) -> None:
    """Writes a release's metrics at its period on the time axis, so that several releases show how a metric moves over the days."""
    writer = _writer(folder)
    moment = datetime(period.year, period.month, period.day, tzinfo=UTC).timestamp()
    for name, value in figures.items():
        writer.add_scalar(f"figures/{name}", value, 0, walltime=moment)
    writer.close()


def require_tensorboard() -> None:
    """Raises BadInput where `tensorboard` is not installed."""
    try:
        import tensorboard  # noqa: F401
    except ImportError as error:
        raise BadInput(
            "--tensorboard",
            "package",
            expected="tensorboard",
            found=str(error),
            hint="Install the extra `tensorboard` of this project.",
        ) from None


def _writer(folder: Path) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder))
