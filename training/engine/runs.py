"""Writes what every training leaves in its run folder: metrics, predictions, held-out rows (`lake/run_folders.py` makes the folder)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from contracts.locations import Locations
from contracts.releases import METRICS_FILE, Release
from lake.run_folders import Run, folder_of, make_run, open_run
from training import processes

PREDICTIONS_SCHEMA = pa.schema(
    [
        ("event_id", pa.int64()),
        ("user_id", pa.int64()),
        ("score", pa.float64()),
        ("click", pa.int32()),
        ("scored_by", pa.string()),
        ("ds", pa.date32()),
    ]
)
METRICS_SCHEMA = pa.schema(
    [
        ("metric", pa.string()),
        ("split", pa.string()),
        ("value", pa.float64()),
        ("row_cnt", pa.int64()),
        ("ds", pa.date32()),
    ]
)
HELD_OUT_SCHEMA = pa.schema(
    [
        ("event_id", pa.int64()),
        ("user_id", pa.int64()),
        ("ds", pa.date32()),
        ("click", pa.int32()),
        ("score", pa.float64()),
        ("score_before", pa.float64()),
    ]
)

SLICE = "/"  # In a split's name, it separates the rows from a slice of them.


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric; `value` is None where it is not defined on its rows. A split is `rows` or `rows/slice`."""

    metric: str
    split: str
    value: float | None
    row_cnt: int


def metrics_of(split: str, values: Mapping[str, float | None], row_cnt: int) -> list[Metric]:
    """Returns metrics of one split, from values by name, all over the same number of rows."""
    return [Metric(metric=name, split=split, value=value, row_cnt=row_cnt) for name, value in values.items()]


def headline(metrics: Sequence[Metric]) -> dict[str, float]:
    """Returns what manifest and `releases` show: the defined metrics without slices, by `<split>_<metric>`; `train_loss` by its name."""
    return {
        m.metric if m.metric == "train_loss" else f"{m.split}_{m.metric}": m.value
        for m in metrics
        if m.value is not None and SLICE not in m.split
    }


def write_metrics(path: Path, metrics: Sequence[Metric], day: date) -> None:
    """Writes the metrics of a period, which begins on `day`, as Parquet."""
    rows = [{"metric": m.metric, "split": m.split, "value": m.value, "row_cnt": m.row_cnt, "ds": day} for m in metrics]
    pq.write_table(pa.Table.from_pylist(rows, METRICS_SCHEMA), path)


def write_predictions(path: Path, columns: Mapping[str, Any]) -> None:
    """Writes columns of `PREDICTIONS_SCHEMA`, each an array; a file without rows where nothing was scored."""
    _write_columns(path, columns, PREDICTIONS_SCHEMA)


def write_held_out(path: Path, columns: Mapping[str, Any]) -> None:
    """Writes columns of `HELD_OUT_SCHEMA`, each an array; NaN scores are kept, so that the gate finds them."""
    _write_columns(path, columns, HELD_OUT_SCHEMA)


def _write_columns(path: Path, columns: Mapping[str, Any], schema: pa.Schema) -> None:
    arrays = [pa.array(columns.get(field.name, []), field.type) for field in schema]
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), path)


def write_run(
    locations: Locations, release: Release, metrics: Sequence[Metric], fill: Callable[[Path], dict[str, int]]
) -> Run:
    """Writes a run folder; among several processes the first writes it, and the others wait.

    Args:
        locations: the deployment's folders.
        release: the manifest, without metrics, files and dims.
        metrics: the metrics of the training.
        fill: writes the model's files into a folder, and returns the widths of the vectors by entity.
    """

    def complete(folder: Path) -> Release:
        dims = fill(folder)
        write_metrics(folder / METRICS_FILE, metrics, release.period)
        return replace(release, metrics=headline(metrics), dims=dims)

    run = make_run(locations, release, complete) if processes.is_first() else None
    processes.wait()
    return run or open_run(folder_of(locations, release))
