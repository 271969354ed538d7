"""The rows of a landing file as text, a batch at a time, without Spark: CSV, JSON lines or Parquet, plain or gzip."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from contracts.errors import BadInput
from lake.landing_files import columns_of, format_of

BATCH_BYTES = 8 << 20
BATCH_ROWS = 1 << 16
LONGEST_LINE = "a line of at most 8 MiB"


@dataclass(frozen=True, kw_only=True)
class TextRows:
    """N rows.

    Attributes:
        columns: landing column -> text (N), null or empty where nothing was delivered; a column that the file lacks is absent.
        invalid: columns -> which rows (N) held bytes that are no UTF-8, replaced in `columns`.
        line_N: where each row stands in its file: the line, or the row of a Parquet file from 1; empty lines do not count.
        corrupt: line and text of rows that could not be taken apart, met since the batch before.
    """

    columns: dict[str, pa.Array]
    line_N: np.ndarray
    invalid: dict[str, np.ndarray] = field(default_factory=dict)
    corrupt: list[tuple[int, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.line_N)


def read_rows(path: Path, wanted: Sequence[str], tell: Callable[[int], None], *, batch_bytes: int = BATCH_BYTES) -> Iterator[TextRows]:
    """A landing file's rows.

    Args:
        path: the file, of a form that `lake.landing_files` knows.
        wanted: columns to read, where the file has them.
        tell: called with the number of bytes read so far.
        batch_bytes: how much text is read at once.

    Raises:
        BadInput: the file cannot be read, or ends in the middle.
    """
    try:
        kind = format_of(path)
        if kind == "parquet":
            yield from _parquet(path, wanted, tell)
        elif kind == "jsonl":
            yield from _json(path, wanted, tell, batch_bytes)
        else:
            yield from _csv(path, wanted, tell, batch_bytes)
    except (pa.ArrowInvalid, OSError) as error:
        raise BadInput(path, "file", expected=f"a whole file, with {LONGEST_LINE}" if format_of(path) != "parquet" else "a whole file",
                       found=f"one that cannot be read: {str(error).splitlines()[0]}") from None


@contextmanager
def _opened(path: Path) -> Iterator[tuple[pa.NativeFile, pa.NativeFile]]:
    """The file as it lies there, and its decompressed content."""
    with pa.OSFile(str(path)) as raw:
        yield raw, pa.CompressedInputStream(raw, "gzip") if path.suffix == ".gz" else raw


class _Corrupt:
    """Lines of a CSV file that do not have the header's number of fields, as the parser meets them."""

    def __init__(self) -> None:
        self.met: list[tuple[int, str]] = []
        self._valid_before = array("q")  # of each corrupt line, how many valid ones precede it

    def __call__(self, row: pa_csv.InvalidRow) -> str:
        if row.text.strip():
            self.met.append((row.number, row.text))
        self._valid_before.append(row.number - 2 - len(self._valid_before))
        return "skip"

    def lines(self, first: int, count: int) -> np.ndarray:
        """Lines of the valid rows number `first` and on, counted from 0."""
        valid_N = np.arange(first, first + count)
        return valid_N + 2 + np.searchsorted(np.frombuffer(self._valid_before, dtype=np.int64), valid_N, side="right")

    def take(self) -> list[tuple[int, str]]:
        met, self.met = self.met, []
        return met


def _csv(path: Path, wanted: Sequence[str], tell: Callable[[int], None], batch_bytes: int) -> Iterator[TextRows]:
    header = columns_of(path)
    corrupt, first = _Corrupt(), 0
    with _opened(path) as (raw, file):
        reader = pa_csv.open_csv(
            file,
            read_options=pa_csv.ReadOptions(block_size=batch_bytes, use_threads=False, column_names=list(header), skip_rows=1),
            parse_options=pa_csv.ParseOptions(invalid_row_handler=corrupt),
            # Bytes, since one row that is no UTF-8 must not end the reading.
            convert_options=pa_csv.ConvertOptions(column_types=dict.fromkeys(header, pa.binary()), strings_can_be_null=False,
                                                  include_columns=[name for name in header if name in wanted]))
        for batch in reader:
            tell(raw.tell())
            columns, invalid = {}, {}
            for name in batch.schema.names:
                columns[name], invalid[name] = _as_text(batch[name])
            yield TextRows(columns=columns, line_N=corrupt.lines(first, batch.num_rows), invalid=invalid, corrupt=corrupt.take())
            first += batch.num_rows
        yield TextRows(columns={}, line_N=np.zeros(0, dtype=np.int64), corrupt=corrupt.take())


def _as_text(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """The bytes (N) as text, and which of them were no UTF-8."""
    try:
        return column.cast(pa.string()), np.zeros(len(column), dtype=bool)
    except pa.ArrowInvalid:
        texts, invalid = [], []
        for value in column.to_pylist():
            text = value.decode("utf-8", errors="replace") if value is not None else None
            texts.append(text)
            invalid.append(text is not None and text.encode() != value)
        return pa.array(texts, type=pa.string()), np.array(invalid, dtype=bool)


def _json(path: Path, wanted: Sequence[str], tell: Callable[[int], None], batch_bytes: int) -> Iterator[TextRows]:
    line, rest = 0, b""
    with _opened(path) as (raw, file):
        while True:
            block = file.read(batch_bytes)
            tell(raw.tell())
            lines = (rest + block).split(b"\n")
            rest = lines.pop() if block else b""
            rows, numbers, corrupt = [], [], []
            for text in lines:
                if not text.strip():
                    continue
                line += 1
                row = _json_row(text.removeprefix(b"\xef\xbb\xbf") if line == 1 else text)
                if row is None:
                    corrupt.append((line, text.decode("utf-8", errors="replace")))
                else:
                    rows.append(row)
                    numbers.append(line)
            columns = {name: pa.array([_json_text(row.get(name)) for row in rows], type=pa.string()) for name in wanted}
            yield TextRows(columns=columns, line_N=np.array(numbers, dtype=np.int64), corrupt=corrupt)
            if not block:
                return


def _json_row(text: bytes) -> dict[str, object] | None:
    try:
        row = json.loads(text.decode("utf-8", errors="replace"), parse_int=str, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _json_text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value)


def _parquet(path: Path, wanted: Sequence[str], tell: Callable[[int], None]) -> Iterator[TextRows]:
    with pa_parquet.ParquetFile(path) as file:
        names = [name for name in file.schema_arrow.names if name in wanted]
        first, total = 1, max(file.metadata.num_rows, 1)
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=names):
            columns, invalid = {}, {}
            for name in names:
                columns[name], invalid[name] = _parquet_text(batch[name])
            yield TextRows(columns=columns, line_N=np.arange(first, first + batch.num_rows), invalid=invalid)
            first += batch.num_rows
            tell(path.stat().st_size * (first - 1) // total)


def _parquet_text(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    none_N = np.zeros(len(column), dtype=bool)
    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    if pa.types.is_timestamp(column.type):
        column = pc.cast(column, pa.timestamp("us", tz="UTC" if column.type.tz else None), safe=False)
    elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or pa.types.is_binary(column.type):
        return _as_text(column.cast(pa.binary()))
    elif pa.types.is_nested(column.type):
        texts = (None if value is None else json.dumps(value, default=str) for value in column.to_pylist())
        return pa.array(texts, type=pa.string()), none_N
    return column.cast(pa.string()), none_N
