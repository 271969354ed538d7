"""Landing files of many days written at once, as rows come: `landing/<log>/<day>/part-00000.parquet`.

For sources that are too large for memory and not sorted by day. A day's rows are buffered until they fill a row group,
so memory is bounded by days x row group, and the files are the same however the rows were cut into batches. Until all
days are written they have temporary names that ingestion ignores.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import date
from itertools import pairwise
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet

from contracts.features import Log
from contracts.locations import Locations
from sources.landing import fresh_temporary, put_in_place, refuse_foreign_files, temporary_of

PART = "part-00000.parquet"
ROW_GROUP = 1 << 17  # rows; about 10 MB of a day


class DayFiles:
    """One Parquet file a day; a context manager that at its end renames them into place, or removes them after an error.

    Attributes:
        rows: rows written, by day.
    """

    def __init__(
        self, locations: Locations, log: Log, days: Sequence[date], schema: pa.Schema, *, row_group: int = ROW_GROUP
    ) -> None:
        """Raises BadInput if a day's folder holds files that were not written here."""
        self._folders = [locations.landing_day(log, day) for day in days]
        self._schema, self._row_group = schema, row_group
        self._held: list[list[pa.Table]] = [[] for _ in days]
        self._held_rows = [0] * len(days)
        self.rows = [0] * len(days)
        for folder in self._folders:
            refuse_foreign_files(folder, PART)
        self._writers = [self._open(folder) for folder in self._folders]

    def write(self, rows: pa.Table, day_number_N: np.ndarray) -> None:
        """Adds rows (N), each to the day of its number; the order within a day is kept."""
        order_N = np.argsort(day_number_N, kind="stable")
        edges = np.searchsorted(day_number_N[order_N], np.arange(len(self._folders) + 1))
        for number, (begin, end) in enumerate(pairwise(edges)):
            if end > begin:
                self._held[number].append(
                    rows.take(pa.array(order_N[begin:end]))
                )  # a copy, so that the batch itself can be freed
                self._held_rows[number] += int(end - begin)
                self.rows[number] += int(end - begin)
                self._flush(number, last=False)

    def __enter__(self) -> DayFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                for number in range(len(self._folders)):
                    self._flush(number, last=True)
            for writer in self._writers:
                writer.close()
            if kind is None:
                for folder in self._folders:
                    put_in_place(folder, PART)
        finally:
            for folder in self._folders:
                shutil.rmtree(temporary_of(folder), ignore_errors=True)

    def _open(self, folder: Path) -> pa_parquet.ParquetWriter:
        return pa_parquet.ParquetWriter(fresh_temporary(folder) / PART, self._schema, compression="zstd")

    def _flush(self, number: int, *, last: bool) -> None:
        """Writes the day's full row groups, and what is left if it is the last call."""
        if self._held_rows[number] < self._row_group and not (last and self._held_rows[number]):
            return
        table = pa.concat_tables(self._held[number]).combine_chunks()
        full = table.num_rows if last else table.num_rows - table.num_rows % self._row_group
        for begin in range(0, full, self._row_group):
            self._writers[number].write_table(
                table.slice(begin, min(self._row_group, full - begin)), row_group_size=self._row_group
            )
        rest = table.slice(full)
        self._held[number] = [rest.take(pa.array(np.arange(rest.num_rows)))] if rest.num_rows else []
        self._held_rows[number] = rest.num_rows
