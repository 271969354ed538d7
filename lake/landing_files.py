"""Landing files: which there are, what columns they have, and whether they are whole; read before anything runs, without Spark."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Sequence
from datetime import date
from itertools import islice
from pathlib import Path
from typing import IO, Literal, cast

from contracts.errors import BadInput
from contracts.features import Log
from contracts.locations import Locations
from contracts.tables import LANDING_COLUMNS, OPTIONAL_LANDING_COLUMNS

Format = Literal["csv", "jsonl", "parquet"]

SUFFIXES: dict[str, Format] = {".csv": "csv", ".csv.gz": "csv", ".jsonl": "jsonl", ".jsonl.gz": "jsonl", ".parquet": "parquet"}
LINES_PROBED = 1000  # of JSON lines, for the names that they use
OTHER_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars"}
_CHUNK = 1 << 20


def format_of(path: Path) -> Format | None:
    """By the file's name; None for a file that is no landing file."""
    return next((kind for suffix, kind in SUFFIXES.items() if path.name.endswith(suffix)), None)


def is_delivered(path: Path) -> bool:
    """Whether a file is a landing file that is whole: names that begin with a dot or underscore are still on their way."""
    return format_of(path) is not None and not path.name.startswith((".", "_"))


def is_bare(folder: Path) -> bool:
    """Whether a landing day has no folder, or none of its files has been delivered."""
    return not folder.is_dir() or not any(map(is_delivered, folder.iterdir()))


def landing_files(locations: Locations, log: Log, day: date, *, allow_empty: bool = False) -> list[Path]:
    """A landing day's files that were delivered, by name.

    Args:
        locations: the deployment's paths.
        log: natural or ad.
        day: day of arrival.
        allow_empty: a person says that files without a row are right.

    Raises:
        BadInput: no folder, no file, or only files without a row.
    """
    folder = locations.landing_day(log, day)
    wanted = f"a file that ends in {', '.join(SUFFIXES)}"
    if not folder.is_dir():
        raise BadInput(folder, "landing day", expected=f"a folder with {wanted}", found="no such folder",
                       hint="An absent day is never taken for an empty one: deliver its files, then run this again.")
    files = sorted(filter(is_delivered, folder.iterdir()))
    if not files:
        others = sorted(path.name for path in folder.iterdir())
        raise BadInput(folder, "landing day", expected=f"at least one {wanted.removeprefix('a ')}", found=", ".join(others[:5]) or "none")
    if not allow_empty and not any(has_rows(path) for path in files):
        raise BadInput(files[0], "rows", expected="at least one row on this landing day", found="none",
                       hint="If the day was empty indeed, say so: tributary spark_jobs ingest_logs --allow-empty.")
    return files


def columns_of(path: Path) -> tuple[str, ...]:
    """The columns that a file names, in its order: of the header, of the first lines' keys, of the Parquet schema.

    Raises:
        BadInput: the file is empty, or cannot be read.
    """
    kind = format_of(path)
    if kind == "parquet":
        return tuple(_parquet_schema(path))
    if path.stat().st_size == 0:
        raise BadInput(path, "file", expected="a header" if kind == "csv" else "lines of JSON", found="an empty file (0 bytes)")
    try:
        with open_text(path) as file:
            return _csv_header(file) if kind == "csv" else _json_keys(path, file)
    except (EOFError, OSError, zlib.error) as error:
        raise _not_whole(path, error) from None


def check_columns(path: Path, log: Log) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns of a landing file, in its order, and those among them that no contract knows.

    Raises:
        BadInput: a column is missing, or named twice; or as `columns_of`.
    """
    columns = columns_of(path)
    needed = [name for name in LANDING_COLUMNS[log] if name not in OPTIONAL_LANDING_COLUMNS]
    where = {"csv": "in the header", "jsonl": "in its first lines", "parquet": "in its schema"}[format_of(path) or "csv"]
    for name in needed:
        if name not in columns:
            raise BadInput(path, name, expected=f"a column of this name {where} (needed: {', '.join(needed)})",
                           found=f"columns {', '.join(columns) or 'none'}", hint=_delimiter_hint(columns))
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise BadInput(path, twice[0], expected="a column named once", found="named twice")
    return columns, tuple(name for name in columns if name not in LANDING_COLUMNS[log])


def digest_of_files(files: Sequence[Path]) -> str:
    """sha256 over the content of a landing day's files, in the order of their names.

    Raises:
        BadInput: a compressed file ends before its end: Spark would fail on it in the middle of the job.
    """
    digest = hashlib.sha256()
    for path in files:
        inflate = zlib.decompressobj(wbits=31) if path.suffix == ".gz" else None
        of_file = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                of_file.update(chunk)
                while inflate is not None and chunk:
                    try:
                        inflate.decompress(chunk)
                    except zlib.error as error:
                        raise _not_whole(path, error) from None
                    chunk = inflate.unused_data
                    if inflate.eof and chunk:  # a file of several members, as parallel compressors write
                        inflate = zlib.decompressobj(wbits=31)
        if inflate is not None and not inflate.eof:
            raise _not_whole(path, "it ends in the middle")
        digest.update(of_file.digest())
    return digest.hexdigest()


def has_rows(path: Path) -> bool:
    """Whether a file has anything after its header.

    Raises:
        BadInput: the file cannot be read.
    """
    kind = format_of(path)
    if kind == "parquet":
        import pyarrow.parquet as pa_parquet

        _parquet_schema(path)
        return bool(pa_parquet.ParquetFile(path).metadata.num_rows)
    try:
        with open_binary(path) as file:
            if kind == "csv":
                file.readline(_CHUNK)
            return bool(file.readline(_CHUNK).strip())
    except (EOFError, OSError, zlib.error) as error:
        raise _not_whole(path, error) from None


def open_binary(path: Path) -> IO[bytes]:
    """The file's bytes, decompressed."""
    return cast(IO[bytes], gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb"))


def open_text(path: Path) -> IO[str]:
    """The file's text; bytes that are no UTF-8 become the replacement character, a byte order mark is dropped."""
    return io.TextIOWrapper(open_binary(path), encoding="utf-8-sig", errors="replace", newline="")


def _csv_header(file: IO[str]) -> tuple[str, ...]:
    return tuple(name.strip() for name in next(csv.reader([file.readline(_CHUNK)]), []))


def _json_keys(path: Path, file: IO[str]) -> tuple[str, ...]:
    keys: dict[str, None] = {}
    read = 0
    for line in islice(file, LINES_PROBED):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            read += 1
            keys |= dict.fromkeys(row)
    if not read:
        raise BadInput(path, "lines", expected="a JSON object a line", found=f"none in the first {LINES_PROBED}")
    return tuple(keys)


def _parquet_schema(path: Path) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pa_parquet

    try:
        return list(pa_parquet.read_schema(path).names)
    except (pa.ArrowInvalid, OSError) as error:
        raise _not_whole(path, str(error).splitlines()[0]) from None


def _not_whole(path: Path, error: object) -> BadInput:
    return BadInput(path, "file", expected=f"a whole {path.suffix.removeprefix('.')} file", found=f"one that cannot be read: {error}",
                    hint="It may have been cut off on its way: deliver it again.")


def _delimiter_hint(columns: Sequence[str]) -> str:
    for delimiter, name in OTHER_DELIMITERS.items():
        if len(columns) == 1 and delimiter in columns[0]:
            return f"Fields are separated by commas; here they seem to be by {name}."
    return ""
