"""Landing files without a user's rows: of text every other line stays as it is, byte by byte; of Parquet every other row."""

from __future__ import annotations

import csv
import gzip
import json
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import IO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from contracts.errors import BadInput
from contracts.features import LOGS, Log
from contracts.locations import Locations
from lake.forgotten import User
from lake.landing_files import columns_of, format_of, open_binary

USER = "user_id"
_BATCH_ROWS = 100_000


def landing_days(locations: Locations) -> Iterator[tuple[Log, date, list[Path]]]:
    """Every landing day and its files, those that are still on their way too."""
    for log in LOGS:
        for folder in sorted((locations.landing / log).glob("*-*-*")):
            files = [path for path in sorted(folder.iterdir()) if format_of(path) is not None and path.stat().st_size]
            if files:
                yield log, date.fromisoformat(folder.name), files


def count_rows(path: Path, user: User) -> int:
    """Rows of a user in a landing file."""
    if format_of(path) == "parquet":
        return sum(len(batch) - int(_others(batch, user).true_count) for batch in _batches(path))
    is_users = _line_test(path, user)
    try:
        return sum(map(is_users, _lines(path)))
    except (EOFError, OSError, zlib.error) as error:
        raise BadInput(path, "file", expected="a whole file", found=f"one that cannot be read: {error}",
                       hint="Deliver it again, or take it away.") from None


def remove_rows(path: Path, user: User) -> None:
    """Rewrites a landing file without a user's rows, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    if format_of(path) == "parquet":
        with pq.ParquetWriter(temporary, pq.read_schema(path), compression=_compression(path)) as writer:
            for batch in _batches(path):
                writer.write_batch(batch.filter(_others(batch, user)))
    else:
        is_users = _line_test(path, user)
        with ExitStack() as stack:
            file = stack.enter_context(temporary.open("wb"))
            packed = cast(IO[bytes], stack.enter_context(gzip.GzipFile(fileobj=file, mode="wb", mtime=0))) if path.suffix == ".gz" else file
            packed.writelines(line for line in _lines(path) if not is_users(line))
    os.chmod(temporary, path.stat().st_mode)
    temporary.replace(path)


def _line_test(path: Path, user: User) -> Callable[[bytes], bool]:
    """Whether a line is a row of this user; most lines do not even hold the id's characters, and are not parsed."""
    names = columns_of(path)
    parse = _csv_parser(names, user) if format_of(path) == "csv" else _json_parser(user)
    needle, is_plain = user.text.encode(), user.text.isascii() and user.text.isalnum()

    def test(line: bytes) -> bool:
        might_be = not is_plain or needle in line or b"\\" in line
        return might_be and parse(line.decode("utf-8-sig", errors="replace").rstrip("\r\n"))

    return test


def _csv_parser(names: tuple[str, ...], user: User) -> Callable[[str], bool]:
    place = names.index(USER) if USER in names else None
    csv.field_size_limit(sys.maxsize)  # texts may be long

    def parse(line: str) -> bool:
        fields = next(csv.reader([line]), [])
        if tuple(field.strip() for field in fields) == names:  # the header
            return False
        return user.is_value(fields[place]) if len(fields) == len(names) and place is not None else user.is_in_line(line)

    return parse


def _json_parser(user: User) -> Callable[[str], bool]:
    def parse(line: str) -> bool:
        try:
            row = json.loads(line)
        except ValueError:
            return user.is_in_line(line)
        return user.is_value(row.get(USER)) if isinstance(row, dict) else user.is_in_line(line)

    return parse


def _lines(path: Path) -> Iterator[bytes]:
    """Lines with their ends, as Spark tells them apart: by a line feed, a carriage return or both."""
    with open_binary(path) as file:
        for block in file:
            yield from block.splitlines(keepends=True)


def _batches(path: Path) -> Iterable[pa.RecordBatch]:
    return cast(Iterable[pa.RecordBatch], pq.ParquetFile(path).iter_batches(batch_size=_BATCH_ROWS))


def _others(batch: pa.RecordBatch, user: User) -> pa.BooleanArray:
    """Rows that are not this user's; the test is made once a distinct value."""
    if USER not in batch.schema.names:
        return pa.array([True] * len(batch), pa.bool_())
    encoded = batch.column(USER).dictionary_encode() if not pa.types.is_dictionary(batch.column(USER).type) else batch.column(USER)
    of_value = pa.array([not user.is_value(value) for value in encoded.dictionary.to_pylist()], pa.bool_())
    return of_value.take(encoded.indices).fill_null(True)


def _compression(path: Path) -> str:
    metadata = pq.ParquetFile(path).metadata
    name = metadata.row_group(0).column(0).compression if metadata.num_row_groups else "SNAPPY"
    return "NONE" if name == "UNCOMPRESSED" else str(name)
