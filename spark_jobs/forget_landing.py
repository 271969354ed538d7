"""Landing files without a user's rows: of text every other record stays as it is, byte by byte; of Parquet every other row.

All that lies below the landing folder is looked at, whether ingestion reads it or not: a file with another ending, or
in a folder of its own, may hold a user too.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import sys
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from contracts.errors import BadInput
from contracts.features import LOGS, Log
from contracts.locations import Locations
from lake.forgotten import User
from lake.landing_files import SUFFIXES, Format, digest_of_files, is_delivered

USER = "user_id"
# Endings that ingestion does not read, of files whose lines are nevertheless what they are in those that it reads.
OTHER_SUFFIXES: dict[str, Format] = {
    suffix + packed: "jsonl" for suffix in (".ndjson", ".json") for packed in ("", ".gz")
}
_CHECKSUM = b"crc\0"  # how Hadoop's checksum files begin
_BATCH_ROWS = 100_000


def content_of_landing(locations: Locations) -> tuple[list[Path], list[Path]]:
    """All files with content below the landing folder: those in which users can be looked for, and the others."""
    searched: list[Path] = []
    others: list[Path] = []
    for path in sorted(locations.landing.rglob("*")):
        if not path.is_file() or not path.stat().st_size or _is_checksum(path):
            continue
        if path.is_symlink() and locations.landing.resolve() in path.resolve().parents:
            continue  # the target of a link is visited at its own place
        kind = kind_of(path)
        (others if kind is None or (kind == "parquet" and USER not in _schema(path).names) else searched).append(path)
    return searched, others


def kind_of(path: Path) -> Format | None:
    """A file's format by its name, in any letter case; None for a format in which users cannot be looked for."""
    return next(
        (kind for suffix, kind in (SUFFIXES | OTHER_SUFFIXES).items() if path.name.lower().endswith(suffix)), None
    )


def day_of(locations: Locations, path: Path) -> tuple[Log, date] | None:
    """The landing day in whose folder a file lies; None for a file that lies elsewhere."""
    folders = path.relative_to(locations.landing).parts[:-1]
    log = next((log for log in LOGS if len(folders) == 2 and folders[0] == log), None)
    try:
        return None if log is None else (log, date.fromisoformat(folders[1]))
    except ValueError:
        return None


def digest_of_day(folder: Path) -> str:
    """The digest that ingestion records of a landing day as it is now."""
    return digest_of_files(sorted(filter(is_delivered, folder.iterdir())) if folder.is_dir() else [])


def count_rows(path: Path, user: User) -> int:
    """Rows of a user in a landing file."""
    if kind_of(path) == "parquet":
        return sum(len(batch) - int(_others(batch, user).true_count) for batch in _batches(path))
    is_users, records = _records(path, user)
    try:
        return sum(map(is_users, records))
    except (EOFError, OSError, zlib.error) as error:
        raise _unreadable(path, error) from None


def remove_rows(path: Path, user: User) -> None:
    """Rewrites a landing file without a user's rows, completely or not at all."""
    temporary = path.with_name(f".{path.name}.forgetting")  # one that a killed command has left is written again
    if kind_of(path) == "parquet":
        _write_others(path, temporary, user)
    else:
        is_users, records = _records(path, user)
        with ExitStack() as stack:
            file = stack.enter_context(temporary.open("wb"))
            packed = (
                cast(IO[bytes], stack.enter_context(gzip.GzipFile(fileobj=file, mode="wb", mtime=0)))
                if _is_packed(path)
                else file
            )
            packed.writelines(record for record in records if not is_users(record))
    os.chmod(temporary, path.stat().st_mode)
    temporary.replace(path)
    path.with_name(f".{path.name}.crc").unlink(
        missing_ok=True
    )  # Spark would find the file damaged by Hadoop's checksum of the old one


def _records(path: Path, user: User) -> tuple[Callable[[bytes], bool], Iterator[bytes]]:
    """A text file's records, as bytes, and whether one is a row of this user."""
    if kind_of(path) == "csv":
        names = _header(path)
        parse, records = _csv_parser(names, user), _csv_records(_lines(path), len(names))
    else:
        parse, records = _json_parser(user), _lines(path)
    needle, is_plain = user.text.encode(), user.text.isascii() and user.text.isalnum()

    def is_users(record: bytes) -> bool:  # most do not even hold the id's characters, and are not parsed
        might_be = not is_plain or needle in record or b"\\" in record
        return might_be and parse(_text(record))

    return is_users, records


def _csv_parser(names: tuple[str, ...], user: User) -> Callable[[str], bool]:
    place = names.index(USER) if USER in names else None

    def parse(record: str) -> bool:
        fields = _fields(record)
        if tuple(field.strip() for field in fields) == names:  # the header
            return False
        return (
            user.is_value(fields[place]) if len(fields) == len(names) and place is not None else user.is_in_line(record)
        )

    return parse


def _csv_records(lines: Iterable[bytes], width: int) -> Iterator[bytes]:
    """Lines, and together those between which a quoted field goes on, if that makes a row with the header's number of fields."""
    rest, waiting = iter(lines), deque[bytes]()

    def take() -> bytes | None:
        return waiting.popleft() if waiting else next(rest, None)

    while (line := take()) is not None:
        record, is_open = [line], line.count(b'"') % 2 == 1
        while is_open and (more := take()) is not None:
            record.append(more)
            is_open = more.count(b'"') % 2 == 0
        if len(record) > 1 and len(_fields(_text(b"".join(record)))) != width:
            waiting.extendleft(reversed(record[1:]))
            record = record[:1]
        yield b"".join(record)


def _fields(record: str) -> list[str]:
    csv.field_size_limit(sys.maxsize)  # texts may be long
    try:
        rows = list(csv.reader([record]))
    except csv.Error:  # a line break outside of quotes
        return []
    return rows[0] if len(rows) == 1 else []


def _json_parser(user: User) -> Callable[[str], bool]:
    def parse(line: str) -> bool:
        try:
            row: Any = json.loads(line, parse_int=str, parse_float=str)  # as they are written, not as numbers
        except (ValueError, RecursionError):
            return user.is_in_line(line)
        return user.is_value(row.get(USER)) if isinstance(row, dict) else user.is_in_line(line)

    return parse


def _header(path: Path) -> tuple[str, ...]:
    try:
        first = next((line for line in _lines(path) if line.strip()), b"")
    except (EOFError, OSError, zlib.error) as error:
        raise _unreadable(path, error) from None
    return tuple(name.strip() for name in _fields(_text(first)))


def _text(record: bytes) -> str:
    return record.decode("utf-8-sig", errors="replace").rstrip("\r\n")


def _lines(path: Path) -> Iterator[bytes]:
    """Yields lines with their ends, divided as Spark does it: by a line feed, a carriage return or both."""
    with cast(IO[bytes], gzip.open(path, "rb") if _is_packed(path) else path.open("rb")) as file:
        for block in file:
            yield from block.splitlines(keepends=True)


def _is_packed(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _is_checksum(path: Path) -> bool:
    with path.open("rb") as file:
        return path.name.endswith(".crc") and file.read(len(_CHECKSUM)) == _CHECKSUM


def _unreadable(path: Path, error: object) -> BadInput:
    return BadInput(
        path,
        "file",
        expected="a whole file",
        found=f"one that cannot be read: {error}",
        hint="Deliver it again, or take it away.",
    )


def _schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    try:
        yield from cast(Iterable[pa.RecordBatch], pq.ParquetFile(path).iter_batches(batch_size=_BATCH_ROWS))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def _others(batch: pa.RecordBatch, user: User) -> pa.BooleanArray:
    """Rows that are not this user's; the test is made once a distinct value."""
    column = batch.column(USER)
    column = column.storage if isinstance(column, pa.ExtensionArray) else column  # a UUID's bytes
    if pa.types.is_nested(column.type):
        return pa.array([not user.is_in_line(str(value)) for value in column.to_pylist()], pa.bool_())
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    of_value = pa.array([not user.is_value(value) for value in encoded.dictionary.to_pylist()], pa.bool_())
    return of_value.take(encoded.indices).fill_null(True)


def _write_others(path: Path, temporary: Path, user: User) -> None:
    columns = pq.ParquetFile(path).schema
    has_int96 = any(columns.column(place).physical_type == "INT96" for place in range(len(columns.names)))
    with pq.ParquetWriter(
        temporary, pq.read_schema(path), compression=_compression(path), use_deprecated_int96_timestamps=has_int96
    ) as writer:
        for batch in _batches(path):
            writer.write_batch(batch.filter(_others(batch, user)))


def _compression(path: Path) -> str:
    metadata = pq.ParquetFile(path).metadata
    name = metadata.row_group(0).column(0).compression if metadata.num_row_groups else "SNAPPY"
    return "NONE" if name == "UNCOMPRESSED" else str(name)
