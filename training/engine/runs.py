"""Run folders: what the training of one release leaves, complete or not there at all.

A folder is written under a temporary name and renamed; last of all the period's `staged.json` names the folders of its
task. A killed run leaves a temporary folder, which the next one removes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from contracts.errors import BadInput
from contracts.locations import Locations
from contracts.releases import MANIFEST, METRICS_FILE, Release, changed_files, sha256_of
from training import processes

PREDICTIONS_SCHEMA = pa.schema([("event_id", pa.int64()), ("user_id", pa.int64()), ("score", pa.float64()), ("click", pa.int32()),
                                ("scored_by", pa.string()), ("ds", pa.date32())])
METRICS_SCHEMA = pa.schema([("metric", pa.string()), ("split", pa.string()), ("value", pa.float64()), ("row_cnt", pa.int64()),
                            ("ds", pa.date32())])
HELD_OUT_SCHEMA = pa.schema([("event_id", pa.int64()), ("user_id", pa.int64()), ("ds", pa.date32()), ("click", pa.int32()),
                             ("score", pa.float64()), ("score_before", pa.float64())])

SLICE = "/"  # in a split's name: between the rows and a slice of them


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One figure; `value` is None where it is not defined on the rows behind it. A split is `rows` or `rows/slice`."""

    metric: str
    split: str
    value: float | None
    row_cnt: int


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run: its manifest and its folder."""

    release: Release
    folder: Path


def metrics_of(split: str, values: Mapping[str, float | None], row_cnt: int) -> list[Metric]:
    return [Metric(metric=name, split=split, value=value, row_cnt=row_cnt) for name, value in values.items()]


def headline(metrics: Sequence[Metric]) -> dict[str, float]:
    """Figures by `<split>_<metric>` (`train_loss` by its name), those that are defined, of no slice: what manifest and `releases` show."""
    return {m.metric if m.metric == "train_loss" else f"{m.split}_{m.metric}": m.value for m in metrics
            if m.value is not None and SLICE not in m.split}


def write_metrics(path: Path, metrics: Sequence[Metric], day: date) -> None:
    rows = [{"metric": m.metric, "split": m.split, "value": m.value, "row_cnt": m.row_cnt, "ds": day} for m in metrics]
    pq.write_table(pa.Table.from_pylist(rows, METRICS_SCHEMA), path)


def write_predictions(path: Path, columns: Mapping[str, Any]) -> None:
    """Columns of `PREDICTIONS_SCHEMA`, each an array; empty where nothing was scored."""
    _write_columns(path, columns, PREDICTIONS_SCHEMA)


def write_held_out(path: Path, columns: Mapping[str, Any]) -> None:
    """Columns of `HELD_OUT_SCHEMA`, each an array; a score that is not a number stays one, for the gate to find."""
    _write_columns(path, columns, HELD_OUT_SCHEMA)


def _write_columns(path: Path, columns: Mapping[str, Any], schema: pa.Schema) -> None:
    arrays = [pa.array(columns.get(field.name, []), field.type) for field in schema]
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), path)


def open_run(folder: Path) -> Run:
    """A run folder, its files checked against the manifest.

    Raises:
        BadInput: no manifest, or a file is missing or was changed.
    """
    release = Release.read(folder)
    for name, found in changed_files(folder, release).items():
        raise BadInput(folder / name, "sha256", expected=release.files[name], found=found,
                       hint="The run folder was damaged: train this release again.")
    return Run(release=release, folder=folder)


def finished(locations: Locations, release: Release) -> Run | None:
    """The run of this very release, if it is there and whole."""
    folder = locations.run_of(release.kind, release.period, release.variant, release.release_id)
    try:
        return open_run(folder)
    except (BadInput, KeyError, TypeError, ValueError):  # half a manifest is no manifest
        return None


def write_run(locations: Locations, release: Release, metrics: Sequence[Metric], fill: Callable[[Path], dict[str, int]]) -> Run:
    """Writes a run folder; of several processes the first does, and the others wait for it.

    Args:
        locations: of the deployment.
        release: without metrics, files and dims.
        metrics: its figures.
        fill: writes the model's files into a folder and returns the widths of the vectors.
    """
    folder = locations.run_of(release.kind, release.period, release.variant, release.release_id)
    run = _write_run(folder, release, metrics, fill) if processes.is_first() else None
    processes.wait()
    return run or open_run(folder)


def _write_run(folder: Path, release: Release, metrics: Sequence[Metric], fill: Callable[[Path], dict[str, int]]) -> Run:
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left_behind in folder.parent.glob(f".{release.release_id}.*"):
        shutil.rmtree(left_behind)
    temporary = folder.with_name(f".{release.release_id}.{os.getpid()}")
    temporary.mkdir()
    dims = fill(temporary)
    write_metrics(temporary / METRICS_FILE, metrics, release.period)
    files = {path.name: sha256_of(path) for path in sorted(temporary.iterdir())}
    complete = replace(release, metrics=headline(metrics), files=files, dims=dims)
    (temporary / MANIFEST).write_text(complete.to_json())
    if folder.exists():  # `finished` found it damaged
        folder.rename(folder.with_name(f".{release.release_id}.damaged"))
    temporary.rename(folder)
    shutil.rmtree(folder.with_name(f".{release.release_id}.damaged"), ignore_errors=True)
    return Run(release=complete, folder=folder)


def stage(locations: Locations, kind: str, period: date, runs: Sequence[Run]) -> Path:
    """Names the runs that are ready to be audited and published."""
    path = locations.staged(kind, period)
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps({"runs": [str(run.folder.relative_to(locations.home)) for run in runs]}, indent=2) + "\n")
    temporary.replace(path)
    return path


