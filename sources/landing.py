"""Writes landing files: one CSV file with a header per log and day of arrival, `landing/<log>/<day>/part-00000.csv`.

The columns are `LANDING_COLUMNS` of the log, in order; times are ISO-8601 UTC with milliseconds and Z; a null is an empty
field. A file appears whole or not at all, and the same rows give the same bytes.

A day on which a source has no rows of a log still gets its file, holding the header alone: an empty day is then something
that one can see. Ingestion refuses it unless it is told that the day is empty indeed, so that a delivery that failed is
never taken for a day without traffic.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from contracts.errors import BadInput
from contracts.features import Log
from contracts.locations import Locations
from contracts.tables import LANDING_COLUMNS
from lake import locks

PART = "part-00000.csv"
_TIMES = ("event_ts", "arrival_ts")


def iso_times(times: np.ndarray) -> np.ndarray:
    """UTC instants (datetime64) as text, e.g. `2026-01-01T10:00:00.123Z`."""
    return np.datetime_as_string(times.astype("datetime64[ms]"), unit="ms", timezone="UTC")


def to_rows(log: Log, columns: Mapping[str, np.ndarray]) -> pa.Table:
    """Columns of one log as the text that its landing file holds.

    Args:
        log: natural or ad.
        columns: landing column -> N values; times as datetime64, UTC.

    Returns:
        N rows of string columns, in the order of `LANDING_COLUMNS`.
    """
    def text(name: str) -> pa.Array:
        values = columns[name]
        return pa.array(iso_times(values) if name in _TIMES else values).cast(pa.string())

    return pa.table({name: text(name) for name in LANDING_COLUMNS[log]})


def write_day(locations: Locations, log: Log, day: date, rows: pa.Table) -> Path:
    """Writes one log's landing file of one day, replacing an earlier one.

    Args:
        locations: the deployment's paths.
        log: natural or ad.
        day: day of arrival, in the deployment's `day_timezone`.
        rows: string columns as `to_rows` makes them; none may hold a comma, quote or line break.

    Raises:
        BadInput: the day's folder holds files that this function did not write.
    """
    assert tuple(rows.column_names) == LANDING_COLUMNS[log], rows.column_names
    folder = locations.landing_day(log, day)
    if folder.exists():
        _refuse_foreign_files(folder)
    temporary = folder.with_name(f".{day}.tmp")  # a leading dot hides it from Spark; the fixed name lets the next run clear it
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    pa_csv.write_csv(rows, temporary / PART, pa_csv.WriteOptions(quoting_style="none", quoting_header="none"))
    if folder.exists():
        os.replace(temporary / PART, folder / PART)
        temporary.rmdir()
    else:
        temporary.rename(folder)
    return folder / PART


@contextmanager
def exclusive(locations: Locations) -> Iterator[None]:
    """Keeps a second source from writing into the same landing folder meanwhile.

    Raises:
        lake.locks.Locked: another process is writing landing files there.
    """
    with locks.hold([locations.locks / "landing.lock"], timeout_seconds=0):
        yield


def _refuse_foreign_files(folder: Path) -> None:
    foreign = sorted(path.name for path in folder.iterdir() if path.name != PART)
    if foreign:
        raise BadInput(folder, "files", expected=f"{PART} alone, as a source writes it", found=", ".join(foreign[:5]),
                       hint="They would be read beside the file to be written. Move them away, or use another --home.")
