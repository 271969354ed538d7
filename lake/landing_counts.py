"""How many rows a landing file or a day of a Delta table has, counted without Spark and, where metadata tell, without reading them."""

from __future__ import annotations

import csv
import sys
import zlib
from collections.abc import Iterator
from datetime import date
from typing import IO, Any

from contracts.landing import HOME, LandingSource
from lake.delivered_tables import files_of
from lake.landing_bytes import not_whole, scan
from lake.landing_files import avro_file, format_of, open_text, orc_file
from lake.store_files import AnyFile, parquet_source


def rows_of(path: AnyFile, source: LandingSource = HOME) -> int:
    """Number of rows of a landing file: of Parquet, ORC and Avro as their metadata tell, of text its lines that are not blank.

    Args:
        path: the file.
        source: how its log is delivered.

    Raises:
        BadInput: the file is cut off, or cannot be read.
    """
    import pyarrow as pa

    kind = format_of(path, source)
    count = {"parquet": _parquet_rows, "orc": _orc_rows, "avro": _avro_rows}.get(kind or "")
    try:
        return count(path) if count is not None else _text_rows(path, kind, source)
    except (pa.ArrowException, EOFError, OSError, csv.Error, zlib.error) as error:
        raise not_whole(path, (str(error) or type(error).__name__).splitlines()[0]) from None


def _parquet_rows(path: AnyFile) -> int:
    import pyarrow.parquet as pa_parquet

    with pa_parquet.ParquetFile(parquet_source(path)) as file:
        return int(file.metadata.num_rows)


def _orc_rows(path: AnyFile) -> int:
    return int(orc_file(path).nrows)


def _avro_rows(path: AnyFile) -> int:
    from fastavro import block_reader

    with avro_file(path, block_reader) as blocks:
        return sum(block.num_records for block in blocks)


def _text_rows(path: AnyFile, kind: str | None, source: LandingSource) -> int:
    spans = kind == "csv" and scan(path, kind, source).quotes == "spanning"  # else Spark reads it line by line too
    with open_text(path) as text:
        rows = sum(1 for _ in _records(text, source)) if spans else sum(1 for line in text if line.strip())
    return max(rows - 1, 0) if kind == "csv" and source.header else rows


def _records(text: IO[str], source: LandingSource) -> Iterator[list[str]]:
    """Records of a CSV file, however long a field is; blank lines are left out."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield from filter(any, csv.reader(text, delimiter=source.delimiter, quotechar=source.quote))
    finally:
        csv.field_size_limit(before)


def table_rows(address: str, column: str, day: date) -> int:
    """Number of a Delta table's rows of a day: from its statistics, unless a file holds rows of other days too.

    Args:
        address: the table's folder.
        column: its column of the day: a date, or text or a number such as 2026-01-31 or 20260131.
        day: the day.
    """
    from deltalake import DeltaTable

    table = DeltaTable(address)
    counted = 0
    for file in files_of(table, column):
        if file.first is not None and file.last is not None and not file.first <= day <= file.last:
            continue
        if file.first != file.last or file.first is None or file.rows is None:
            return _read_rows(table, column, day)
        counted += file.rows
    return counted


def _read_rows(table: Any, column: str, day: date) -> int:
    """Rows of a day, from the values of its column."""
    import pyarrow as pa

    kind = str(next(field.type for field in table.schema().fields if field.name == column))
    if "date" in kind:
        where = f"{column} = DATE '{day}'"
    elif "string" in kind:
        where = f"{column} IN ('{day}', '{day:%Y%m%d}')"
    else:
        where = f"{column} = {day:%Y%m%d}"
    batches = pa.RecordBatchReader.from_stream(table.scan(columns=[column], predicate=where))
    return sum(batch.num_rows for batch in batches)
