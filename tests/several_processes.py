"""Trains and publishes periods one after the other: `several_processes.py HOME [KIND PERIOD]...`, also under `torchrun`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import torch
import torch.distributed as dist
from lake_fixture import publish_staged

import training.engine.loop as loop
from contracts.kinds import KINDS
from training import processes, recipes
from training.cli import main


def odd_batches() -> recipes.Recipe:
    """Several steps an epoch, whose rows two processes cannot share evenly.

    Adagrad's first step of a row is as long as its rate, however small the gradient: at high rates the order of sums
    decides about steps, and on some thousand rows losses part by more than is held here. So the rates are low.
    """
    base = recipes.quick()
    return replace(
        base,
        tpm=replace(base.tpm, train=replace(base.tpm.train, batch_size=127, embedding_learning_rate=0.05)),
        cpm=replace(base.cpm, train=replace(base.cpm.train, batch_size=127, embedding_learning_rate=0.05)),
        # What one process drops two do not.
        fg_bert=replace(base.fg_bert, dropout=0.0, train=replace(base.fg_bert.train, batch_size=7)),
        actr=replace(
            base.actr, restart=replace(base.actr.restart, batch_size=31), daily=replace(base.actr.daily, batch_size=31)
        ),
    )


def go(home: Path, work: Sequence[tuple[str, date]], *more: str) -> None:
    """Trains and publishes; the next training waits for all processes before it looks for its parents."""
    for kind, period in work:
        main(
            [
                kind,
                KINDS[kind].period_option,
                str(period),
                "--home",
                str(home),
                "--recipe",
                "quick",
                "--device",
                "cpu",
                *more,
            ]
        )
        if processes.is_first():
            publish_staged(home, kind, period)


def die_in_a_step(steps: int) -> None:
    """The last process is killed after so many steps."""
    step, left = loop._train_step, [steps]

    def killed(*arguments):
        left[0] -= 1
        if left[0] < 0 and dist.get_rank() == dist.get_world_size() - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(*arguments)

    loop._train_step = killed


if __name__ == "__main__":
    recipes.RECIPES["quick"] = odd_batches
    home, steps, *names = sys.argv[1:]
    if int(steps):
        die_in_a_step(int(steps))
    with processes.joined(torch.device("cpu")):
        go(
            Path(home),
            [(kind, date.fromisoformat(period)) for kind, period in zip(names[::2], names[1::2], strict=True)],
            "--checkpoint-seconds",
            "0",
        )
