"""A tiny deployment with every transfer setting, over two weeks' models and three ad days."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lake_fixture import World, make_lake, publish_staged
from numpy.typing import NDArray
from opened_tables import assert_as_declared, opened_tables

from contracts.periods import ONE_DAY
from contracts.releases import (
    DEFAULT_VARIANT,
    HELD_OUT_FILE,
    MAPPING_FILE,
    MODEL_FILE,
    VECTORS_FILE,
    Release,
    parent_key,
)
from contracts.settings import SETTINGS_FILE
from contracts.steps import step
from contracts.transfer import TRANSFER_SETTINGS
from lake.run_folders import Run
from training.data.mapping import IdMapping
from training.data.vectors import Entity, EntityVectors, write_vectors
from training.engine.checkpoint import save_weights
from training.engine.runs import Metric, write_held_out, write_run
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
RECIPE = replace(
    _QUICK,
    actr=replace(
        _QUICK.actr,
        **{
            name: replace(getattr(_QUICK.actr, name), batch_size=64, learning_rate=5e-3)
            for name in ("restart", "daily")
        },
    ),
)


def write_bahe(session: Session, day: date) -> Run:
    """Stands in for the training of a BAHE: random vectors of half of the users and items; those of a day differ from the day before's."""
    parents = session.deployment.lineage.parents("bahe", day)
    before = {
        parent_key("predecessor", "bahe", one.period): session.parent("bahe", one, DEFAULT_VARIANT).release.release_id
        for one in parents
    }
    release = Release(
        kind="bahe", variant=DEFAULT_VARIANT, period=day, recipe={}, parents=before, feature_set=(), inputs={}
    )
    rng = np.random.default_rng(day.toordinal())
    world = World()
    ids: dict[Entity, NDArray[np.int64]] = {
        "user": np.arange(0, world.users, 2) * 7 + 1,
        "item": np.arange(0, world.items, 2) * 11 + 3,
    }

    def fill(folder: Path) -> dict[str, int]:
        save_weights({}, folder / MODEL_FILE)
        IdMapping.empty(("user_id", "item_id")).save(folder / MAPPING_FILE)
        write_held_out(folder / HELD_OUT_FILE, {})
        return write_vectors(
            folder / VECTORS_FILE,
            {
                entity: EntityVectors(ids=of_entity, vectors=rng.normal(0, 1, (len(of_entity), 8)).astype(np.float32))
                for entity, of_entity in ids.items()
            },
        )

    run = write_run(
        session.locations, release, [Metric(metric="train_loss", split="train", value=0.5, row_cnt=10)], fill
    )
    session.stage("bahe", session.period("bahe", day), [run])
    return run


def make_chain(home: Path) -> tuple[Session, dict[date, dict[str, Any]], dict[date, dict[str, Any]]]:
    """A session, the CPMs of the weeks and the A-CTRs of the days, each by variant."""
    deployment = replace(make_lake(home, World()), variants=tuple(TRANSFER_SETTINGS))
    (home / SETTINGS_FILE).write_text(deployment.to_toml())

    def session() -> Session:
        return Session.open(home, RECIPE, torch.device("cpu"))  # a session reads the lake as it was when it began

    def made(kind: str, train: Callable[[Session, date], Any], periods: Sequence[date]) -> dict[date, Any]:
        found, read = {}, set[str]()
        for period in periods:
            with opened_tables() as opened:
                found[period] = train(session(), period)
            read |= opened
            publish_staged(home, kind, period)
        if train is not write_bahe:
            assert_as_declared(step("training", kind), read)
        return found

    made("tpm", run_tpm, MONTHS)
    cpms = made("cpm", run_cpm, WEEKS)
    made("fg_bert", run_fg_bert, WEEKS)
    made("bahe", write_bahe, [day - ONE_DAY for day in DAYS])
    actrs = made("actr", run_actr, DAYS)
    by_variant = [
        {period: {run.release.variant: run for run in runs} for period, runs in of.items()} for of in (cpms, actrs)
    ]
    return session(), by_variant[0], by_variant[1]
