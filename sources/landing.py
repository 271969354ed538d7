"""Writes landing files: one CSV file with a header per log and day of arrival, `landing/<log>/<day>/part-00000.csv`.

The columns are `LANDING_COLUMNS` of the log, in order; times are ISO-8601 UTC with milliseconds and Z; a null is an
empty field. A value with a comma or a quote is quoted as RFC 4180 has it, a line break becomes a space. A file appears
whole or not at all, and the same rows give the same bytes.

A day on which a source has no rows of a log still gets its file, holding only the header: an empty day is then
something that one can see. Ingestion refuses it unless a person confirms that the day is empty, so that a delivery that
failed is never taken for a day without traffic.
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
import pyarrow.compute as pc

from contracts.errors import BadInput
from contracts.features import Log
from contracts.locations import Locations
from contracts.tables import LANDING_COLUMNS, OPTIONAL_LANDING_COLUMNS
from lake import locks

PART = "part-00000.csv"
LINE = "_line"  # column of bytes that stand in a row's place: how a line gets into a file that no row could give
_TIMES = ("event_ts", "arrival_ts")
_BATCH_ROWS = 200_000  # rows whose text is in memory at once
_BREAKS = "\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029"  # all that some reader takes for the end of a line
_SPECIAL = tuple(character.encode() for character in f',"{_BREAKS}')


def iso_times(times: np.ndarray) -> np.ndarray:
    """UTC instants (datetime64) as text, e.g. `2026-01-01T10:00:00.123Z`."""
    return np.datetime_as_string(times.astype("datetime64[ms]"), unit="ms", timezone="UTC")


def to_rows(log: Log, columns: Mapping[str, np.ndarray]) -> pa.Table:
    """Columns of one log as the text that its landing file holds.

    Args:
        log: natural or ad.
        columns: landing column -> N values; times as datetime64, UTC. An optional one that is not given is null.

    Returns:
        N rows of string columns, in the order of `LANDING_COLUMNS`.
    """

    def text(name: str) -> pa.Array:
        if name in OPTIONAL_LANDING_COLUMNS and name not in columns:
            return pa.nulls(len(columns["event_id"]), pa.string())
        values = columns[name]
        return pa.array(iso_times(values) if name in _TIMES else values).cast(pa.string())

    return pa.table({name: text(name) for name in LANDING_COLUMNS[log]})


def write_day(locations: Locations, log: Log, day: date, rows: pa.Table) -> Path:
    """Writes one log's landing file of one day, replacing an earlier one.

    Args:
        locations: the deployment's paths.
        log: natural or ad.
        day: day of arrival, in the deployment's `day_timezone`.
        rows: string columns as `to_rows` makes them; an additional column `LINE` holds bytes to write in a row's place,
            or null.

    Raises:
        BadInput: the day's folder holds files that this function did not write.
    """
    assert tuple(name for name in rows.column_names if name != LINE) == LANDING_COLUMNS[log], rows.column_names
    folder = locations.landing_day(log, day)
    refuse_foreign_files(folder, PART)
    _write(rows, fresh_temporary(folder) / PART)
    put_in_place(folder, PART)
    return folder / PART


def csv_lines(rows: pa.Table) -> pa.ChunkedArray:
    """Rows of string columns as lines of CSV (binary, without the line's end); a column `LINE` is left out."""
    fields = [_quoted(rows[name]) for name in rows.column_names if name != LINE]
    lines: pa.ChunkedArray = pc.binary_join_element_wise(
        *fields, ",", null_handling="replace", null_replacement=""
    ).cast(pa.binary())
    return lines


def _write(rows: pa.Table, path: Path) -> None:
    with path.open("wb") as file:
        file.write((",".join(name for name in rows.column_names if name != LINE) + "\n").encode())
        for start in range(0, rows.num_rows, _BATCH_ROWS):
            batch = rows.slice(start, _BATCH_ROWS)
            lines = csv_lines(batch)
            if LINE in batch.column_names:
                lines = pc.coalesce(batch[LINE], lines)
            for chunk in pc.binary_join_element_wise(lines, b"", b"\n").chunks:
                file.write(_content(chunk))


def _quoted(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Values without line breaks, in quotes where they hold a comma or a quote."""
    if not any(
        special in content for chunk in values.chunks for content in [bytes(_content(chunk))] for special in _SPECIAL
    ):
        return values
    # Texts repeat: each is looked at once.
    encoded = values.combine_chunks().dictionary_encode()
    flat = pc.replace_substring_regex(encoded.dictionary, f"[{_BREAKS}]+", " ")
    inside_quotes = pc.binary_join_element_wise('"', pc.replace_substring(flat, '"', '""'), '"', "")
    distinct = pc.if_else(pc.match_substring_regex(flat, '[",]'), inside_quotes, flat)
    return pa.chunked_array([distinct.take(encoded.indices)])


def _content(values: pa.Array) -> memoryview:
    """The bytes of all values, one after the other, as they lie in memory: no loop over rows, no copy."""
    _, offsets, data = values.buffers()
    if data is None or len(values) == 0:
        return memoryview(b"")
    ends = np.frombuffer(offsets, np.int32)[values.offset : values.offset + len(values) + 1]
    return memoryview(data)[ends[0] : ends[-1]]


@contextmanager
def exclusive(locations: Locations) -> Iterator[None]:
    """Keeps a second source from writing into the same landing folder meanwhile.

    Raises:
        lake.locks.Locked: another process is writing landing files there.
    """
    with locks.hold([locations.locks / "landing.lock"], timeout_seconds=0):
        yield


def temporary_of(folder: Path) -> Path:
    """Where a landing day is written before it appears: a leading dot hides it from Spark."""
    return folder.with_name(f".{folder.name}.tmp")


def fresh_temporary(folder: Path) -> Path:
    """Makes that folder, empty: its name is fixed, so that a run clears what a killed one left."""
    temporary = temporary_of(folder)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    return temporary


def put_in_place(folder: Path, part: str) -> None:
    """Renames a finished landing day into place, or replaces its older file."""
    temporary = temporary_of(folder)
    if folder.exists():
        os.replace(temporary / part, folder / part)
        temporary.rmdir()
    else:
        temporary.rename(folder)


def refuse_foreign_files(folder: Path, part: str) -> None:
    """Raises BadInput if a landing day holds another file than the one that is about to be written."""
    foreign = sorted(path.name for path in folder.iterdir() if path.name != part) if folder.exists() else []
    if foreign:
        raise BadInput(
            folder,
            "files",
            expected=f"only {part}, as a source writes it",
            found=", ".join(foreign[:5]),
            hint="They would be read together with the file to be written. Move them away, or use another --home.",
        )
