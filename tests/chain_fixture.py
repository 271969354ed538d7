"""A tiny deployment with every transfer setting, over two weeks' models and three ad days."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from lake_fixture import World, make_lake, publish_staged

from contracts.settings import SETTINGS_FILE
from contracts.transfer import TRANSFER_SETTINGS
from training.recipes import quick
from training.tasks.actr import run_actr
from training.tasks.cpm import run_cpm
from training.tasks.fg_bert import run_fg_bert
from training.tasks.session import Session
from training.tasks.tpm import run_tpm

MONTHS = [date(2026, 1, day) for day in (1, 4, 7)]
WEEKS = [date(2026, 1, day) for day in (7, 9)]
DAYS = [date(2026, 1, day) for day in (9, 10, 11)]  # starts; continues; a new CPM
_QUICK = quick()
# Several steps a day, each far: what begins at zero has left it.
RECIPE = replace(_QUICK, actr=replace(_QUICK.actr, **{name: replace(getattr(_QUICK.actr, name), batch_size=64, learning_rate=5e-3)
                                                     for name in ("restart", "daily")}))


def make_chain(home: Path) -> tuple[Session, dict[date, dict[str, Any]], dict[date, dict[str, Any]]]:
    """A session, the CPMs of the weeks and the A-CTRs of the days, each by variant."""
    deployment = replace(make_lake(home, World()), variants=tuple(TRANSFER_SETTINGS))
    (home / SETTINGS_FILE).write_text(deployment.to_toml())

    def session() -> Session:
        return Session.open(home, RECIPE, torch.device("cpu"))  # a session reads the lake as it was when it began

    def made(kind: str, train: Callable[[Session, date], Any], periods: Sequence[date]) -> dict[date, Any]:
        found = {}
        for period in periods:
            found[period] = train(session(), period)
            publish_staged(home, kind, period)
        return found

    made("tpm", run_tpm, MONTHS)
    cpms = made("cpm", run_cpm, WEEKS)
    made("fg_bert", run_fg_bert, WEEKS)
    actrs = made("actr", run_actr, DAYS)
    by_variant = [{period: {run.release.variant: run for run in runs} for period, runs in of.items()} for of in (cpms, actrs)]
    return session(), by_variant[0], by_variant[1]
