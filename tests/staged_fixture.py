"""Run folders as training leaves them, of a few hundred vectors, without training anything."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lake_fixture import NOW, publish, write_table

from contracts.kinds import KINDS
from contracts.locations import Locations
from contracts.releases import (
    GATE,
    MANIFEST,
    MAPPING_FILE,
    METRICS_FILE,
    PREDICTIONS_FILE,
    VECTORS_FILE,
    Release,
    parent_key,
)
from contracts.settings import SETTINGS_FILE, Deployment
from lake.run_folders import folder_of, read_release, sha256_of

DEPLOYMENT = Deployment(history_start=date(2026, 1, 1), actr_start=date(2026, 1, 12))
MONTH, WEEK = date(2026, 1, 1), date(2026, 1, 5)  # the first month has no parents; the first full week no closed month
DAYS = [date(2026, 1, 12), date(2026, 1, 13), date(2026, 1, 14)]
DIM = 8
ITEMS, USERS = 300, 40
Rows = dict[str, list[Any]]


def clustered(rng: np.random.Generator, count: int = ITEMS) -> np.ndarray:
    """Item vectors in ten clusters, N x D: item i lies in cluster i % 10."""
    centres = rng.normal(size=(10, DIM))
    return (centres[np.arange(count) % 10] + 0.1 * rng.normal(size=(count, DIM))).astype(np.float32)


def unchanged(rows: Rows) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Staged:
    """A run as a training could have left it.

    Attributes:
        kind, variant, period, parents, recipe, inputs: of the release.
        change: what is wrong with the vectors.
        loss: the training loss.
        dims: the width that the manifest claims.
        known_items: items that the model's mapping knows.
        seed: the seed of its vectors, which differ from those of a run with another seed.
        scored: columns of predictions; none are written by default.
    """

    kind: str = "tpm"
    variant: str = "default"
    period: date = MONTH
    parents: Mapping[str, str] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    change: Callable[[Rows], None] = unchanged
    loss: float | None = 0.4
    dims: int = DIM
    known_items: int = ITEMS
    seed: int = 0
    scored: Rows | None = None

    @property
    def release(self) -> Release:
        return Release(
            kind=self.kind,
            variant=self.variant,
            period=self.period,
            recipe=self.recipe,
            parents=self.parents,
            inputs=self.inputs,
            feature_set=("item_id",),
        )

    def vectors(self) -> pa.Table:
        """Rows of its vectors, changed by `change`."""
        values = clustered(np.random.default_rng(5), ITEMS + USERS)
        values = (values + 0.02 * np.random.default_rng(self.seed).normal(size=values.shape)).tolist()
        rows: Rows = {
            "entity": ["item"] * ITEMS + ["user"] * USERS,
            "id": [*range(1000, 1000 + ITEMS), *range(1, 1 + USERS)],
            "vector": values,
            "dim": [DIM] * (ITEMS + USERS),
        }
        self.change(rows)
        return pa.table(
            {
                "entity": pa.array(rows["entity"], pa.string()),
                "id": pa.array(rows["id"], pa.int64()),
                "vector": pa.array(rows["vector"], pa.list_(pa.float32())),
                "dim": pa.array(rows["dim"], pa.int32()),
            }
        )

    def mapping(self) -> pa.Table:
        known = [*range(1000, 1000 + self.known_items), *range(1, 1 + USERS)]
        fields = ["item_id"] * self.known_items + ["user_id"] * USERS
        return pa.table({"field": fields, "id": known, "row": list(range(1, 1 + len(known)))})

    def metrics(self) -> pa.Table:
        return pa.table(
            {
                "metric": ["train_loss"],
                "split": ["train"],
                "value": pa.array([self.loss], pa.float64()),
                "row_cnt": pa.array([10], pa.int64()),
                "ds": [self.period],
            }
        )


def stage_run(locations: Locations, **arguments: Any) -> Path:
    """Writes a run folder and names it in `staged.json`; the arguments are those of `Staged`."""
    staged = Staged(**arguments)
    release = staged.release
    folder = folder_of(locations, release)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(staged.vectors(), folder / VECTORS_FILE)
    pq.write_table(staged.mapping(), folder / MAPPING_FILE)
    pq.write_table(staged.metrics(), folder / METRICS_FILE)
    if (scored := staged.scored) is not None:
        pq.write_table(
            pa.table(
                {
                    "event_id": pa.array(scored["event_id"], pa.int64()),
                    "user_id": pa.array(scored["user_id"], pa.int64()),
                    "score": pa.array(scored["score"], pa.float64()),
                    "click": pa.array(scored["click"], pa.int32()),
                    "scored_by": scored["scored_by"],
                    "ds": scored["ds"],
                }
            ),
            folder / PREDICTIONS_FILE,
        )
    write_manifest(folder, release, staged.dims)
    name_staged(locations, [folder])
    return folder


def write_manifest(folder: Path, release: Release, dims: int = DIM) -> None:
    """Writes a run's manifest, and the verdict of a gate that lets it through."""
    files = {path.name: sha256_of(path) for path in folder.glob("*.parquet")}
    complete = Release(**{**vars(release), "files": files, "dims": {"item": dims, "user": dims}})
    (folder / MANIFEST).write_text(complete.to_json())
    verdict = {"manifest_sha256": sha256_of(folder / MANIFEST), "passed": True, "fallback": None, "checks": []}
    (folder / GATE).write_text(json.dumps(verdict))


def name_staged(locations: Locations, folders: Sequence[Path]) -> None:
    release = read_release(folders[0])
    path = locations.staged(release.kind, release.period)
    path.write_text(json.dumps({"runs": [str(folder.relative_to(locations.home)) for folder in folders]}))


def stage_day(locations: Locations, number: int, predecessor: Path | None, cpm: Path, **arguments: Any) -> Path:
    """A run of an A-CTR day, made from these; a day after the first has scored two impressions with its predecessor."""
    parents = {parent_key("pretrained", "cpm", WEEK): cpm.name}
    scored = None
    if predecessor is not None:
        parents[parent_key("predecessor", "actr", DAYS[number - 1])] = predecessor.name
        scored = {
            "event_id": [1, 2],
            "user_id": [1, 2],
            "score": [0.2, 0.7],
            "click": [0, 1],
            "scored_by": [predecessor.name] * 2,
            "ds": [DAYS[number]] * 2,
        }
    return stage_run(
        locations,
        **{
            "kind": "actr",
            "variant": "tpm+cpm",
            "period": DAYS[number],
            "parents": parents,
            "scored": scored,
            **arguments,
        },
    )


def stage_cpm(locations: Locations, **arguments: Any) -> Path:
    """A run of the first full week's CPM, which has no closed month in the history, and so no vectors."""

    def drop_all(rows: Rows) -> None:
        for values in rows.values():
            values.clear()

    return stage_run(locations, **{"kind": "cpm", "period": WEEK, "change": drop_all, **arguments})


def released(locations: Locations, folder: Path, now: datetime = NOW) -> Path:
    """The run, as if it had been published: its vectors, its release row, its activation; no Spark."""
    release = read_release(folder)
    rows = pq.read_table(folder / VECTORS_FILE)
    if rows.num_rows:
        names = pa.array([release.release_id] * rows.num_rows)
        write_table(locations, KINDS[release.kind].vectors, rows.append_column("release_id", names))
    publish(locations.home, [folder], now)
    return folder


def write_settings(home: Path) -> Locations:
    home.mkdir(parents=True, exist_ok=True)
    (home / SETTINGS_FILE).write_text(DEPLOYMENT.to_toml())
    return Locations(home)
