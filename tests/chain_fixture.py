"""A tiny deployment with every transfer setting, over two weeks' models and three ad days."""

from __future__ import annotations

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

    cpms, actrs = {}, {}
    for month in MONTHS:
        run_tpm(session(), month)
        publish_staged(home, "tpm", month)
    for week in WEEKS:
        cpms[week] = {run.release.variant: run for run in run_cpm(session(), week)}
        publish_staged(home, "cpm", week)
    for week in WEEKS:
        run_fg_bert(session(), week)
        publish_staged(home, "fg_bert", week)
    for day in DAYS:
        actrs[day] = {run.release.variant: run for run in run_actr(session(), day)}
        publish_staged(home, "actr", day)
    return session(), cpms, actrs
