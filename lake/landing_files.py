"""Landing files: which exist, what columns they have, and whether they are complete; checked without Spark, before any job runs."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, cast
from urllib.parse import unquote

from contracts.errors import BadInput
from contracts.features import Log
from contracts.landing import HOME, IN_HOME, LandingSettings, LandingSource, Place, SideName
from contracts.locations import Locations
from contracts.tables import LANDING_COLUMNS, OPTIONAL_LANDING_COLUMNS
from lake.landing_bytes import Quotes, not_whole, scan
from lake.parquet_columns import (
    Delivered,
    columns_of_any_kind,
    delivered_columns,
    refuse_damaged,
    refuse_encrypted,
)
from lake.store_files import AnyFile, parquet_source, size_of

if TYPE_CHECKING:
    from pyarrow import orc

Format = Literal["csv", "jsonl", "parquet", "orc", "avro", "delta"]

SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".csv.gz": "csv",
    ".jsonl": "jsonl",
    ".jsonl.gz": "jsonl",
    ".parquet": "parquet",
}
LINES_PROBED = 1000  # JSON lines that are read to learn the names of the columns
OTHER_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars"}
_DELIMITERS = OTHER_DELIMITERS | {",": "commas"}
_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """Which columns are read of what is delivered as a log, or as a side table.

    Attributes:
        name: natural, ad, users or items.
        source: where it lies.
        own: columns that are read under these names: landing columns that no expression makes, or the attributes of a
            side table.
        optional: those of `own` that need not be delivered.
        by_expressions: names of their columns that the source's expressions read.
    """

    name: Log | SideName
    source: Place
    own: tuple[str, ...]
    optional: tuple[str, ...] = ()
    by_expressions: frozenset[str] = frozenset()

    @classmethod
    def of_log(cls, log: Log, landing: LandingSettings = IN_HOME) -> Delivery:
        """A log's, under these settings."""
        source = landing.of(log)
        own = tuple(name for name in LANDING_COLUMNS[log] if name not in source.columns)
        optional = tuple(name for name in own if name in OPTIONAL_LANDING_COLUMNS)
        return cls(name=log, source=source, own=own, optional=optional, by_expressions=landing.own_names(log))

    @classmethod
    def of_side(cls, side: SideName, landing: LandingSettings) -> Delivery:
        """A side table's, under these settings."""
        source = landing.side(side)
        return cls(name=side, source=source, own=landing.attributes(side), by_expressions=source.names_read())

    @property
    def is_plain(self) -> bool:
        """Whether rows are landing rows as they are delivered."""
        return isinstance(self.source, LandingSource) and self.source.is_home and not self.source.is_mapped

    @property
    def needed(self) -> tuple[str, ...]:
        """Names of their columns that every file must have."""
        own = (name for name in self.own if name not in self.optional)
        return tuple(dict.fromkeys([*own, *sorted(self.by_expressions)]))

    def names(self, paths: Iterable[AnyFile] = ()) -> list[str]:
        """Names of their columns that are read if they are there, and of those that the paths' folders name."""
        partitions = {name for path in paths for name in partition_values(path)} if not self.source.is_home else ()
        return list(dict.fromkeys([*self.own, *sorted(self.by_expressions), *sorted(partitions)]))


@dataclass(frozen=True, kw_only=True)
class LandingFile:
    """A landing file that can be ingested, as it is read; or a version of a Delta table.

    Attributes:
        path: the file.
        delivery: what it is delivered as.
        kind: its format.
        columns: the columns that it names, in its order; for JSON lines, the keys that were seen.
        parquet: how its landing columns are read, if it is a Parquet file.
        quotes: how its quotes stand, if it is a CSV file.
        has_plain_lines: whether it is a file of JSON lines of which Spark's JSON reader drops nothing.
        sha256: digest of its bytes; of a file in a store, of what the store says of them.
        opened: the path by which Spark opens it: the file, or a link to it if Spark cannot open a file of its name.
        shown: what the column `file` says of it: `<log>/<day>/<name>` in the home folder, else its whole path. Bytes that
            are no UTF-8 are replaced.
        day: the landing day that its path tells; None where its rows tell it.
        version: of a Delta table.
    """

    path: AnyFile
    delivery: Delivery
    kind: Format
    columns: tuple[str, ...]
    parquet: Mapping[str, Delivered] = field(default_factory=dict)
    quotes: Quotes = "regular"
    has_plain_lines: bool = False
    sha256: bytes
    opened: AnyFile
    shown: str
    day: date | None = None
    version: int | None = None


def look_at(
    path: AnyFile,
    delivery: Delivery,
    locations: Locations,
    string_ids: tuple[str, ...],
    *,
    day: date | None = None,
) -> LandingFile:
    """Everything that ingestion must know of a landing file; reads it once to its end.

    Args:
        path: the file.
        delivery: what it is delivered as.
        locations: the deployment's paths, for a link to a file whose name Spark cannot open.
        string_ids: landing columns that the deployment declares as string ids.
        day: the day that its path tells.

    Raises:
        BadInput: the file is cut off, lacks a column, or has one of a type, codec or encoding that cannot be read.
    """
    source = delivery.source
    kind = format_of(path, source)
    if kind is None:
        raise BadInput(
            path,
            "format",
            expected=f"a name that ends in {', '.join(SUFFIXES)}, or the setting `format`",
            found=path.name,
        )
    columns, _ = check_columns(path, delivery)
    parquet: dict[str, Delivered] = {}
    if kind == "parquet" and delivery.is_plain:
        parquet = delivered_columns(path, cast(Log, delivery.name), string_ids)
    elif kind == "parquet":
        parquet = columns_of_any_kind(path, [name for name in delivery.names([path]) if name in columns])
    scanned = scan(path, kind, source)
    if kind == "parquet" and isinstance(path, Path):
        refuse_damaged(path, {name: how for name, how in parquet.items() if how.kind != "nested"})
    return LandingFile(
        path=path,
        delivery=delivery,
        kind=kind,
        columns=columns,
        parquet=parquet,
        quotes=scanned.quotes,
        has_plain_lines=scanned.has_plain_lines,
        sha256=scanned.sha256,
        opened=_openable(path, locations) if isinstance(path, Path) else path,
        shown=shown_name(path, source),
        day=day,
    )


def shown_name(path: AnyFile, source: Place) -> str:
    """What the column `file` says of a file; see `LandingFile`."""
    if source.is_home and isinstance(path, Path):
        return os.fsencode("/".join(path.parts[-3:])).decode(errors="replace")
    return str(path)


def format_of(path: AnyFile, source: Place = HOME) -> Format | None:
    """Returns the format that the settings or a file's name give; None for a file that is no landing file."""
    if source.format is not None:
        return cast(Format, source.format)
    return next((kind for suffix, kind in SUFFIXES.items() if path.name.endswith(suffix)), None)


def is_delivered(path: Path) -> bool:
    """Whether a file is a landing file that is whole: names that begin with a dot or underscore are still on their way."""
    return format_of(path) is not None and not path.name.startswith((".", "_"))


def unread_names(folder: Path) -> list[str]:
    """Names in a landing day's folder that are not read: other endings, and folders; those that begin with . or _ are left out."""
    return sorted(
        path.name + ("/" if path.is_dir() else "")
        for path in folder.iterdir()
        if not path.name.startswith((".", "_")) and (path.is_dir() or not is_delivered(path))
    )


def is_bare(folder: Path) -> bool:
    """Whether a landing day has no folder, or none of its files has been delivered."""
    return not folder.is_dir() or not any(map(is_delivered, folder.iterdir()))


def landing_files(locations: Locations, log: Log, day: date, *, allow_empty: bool = False) -> list[Path]:
    """The delivered files of a landing day, sorted by name.

    Args:
        locations: the deployment's paths.
        log: natural or ad.
        day: day of arrival.
        allow_empty: whether files without a row are accepted, because a person confirmed that the day is empty.

    Raises:
        BadInput: no folder, no file, or only files without a row.
    """
    folder = locations.landing_day(log, day)
    wanted = f"a file that ends in {', '.join(SUFFIXES)}"
    if not folder.is_dir():
        raise BadInput(
            folder,
            "landing day",
            expected=f"a folder with {wanted}",
            found="no such folder",
            hint="An absent day is never taken for an empty one: deliver its files, then run this again.",
        )
    files = files_in(folder)
    if not files:
        others = sorted(path.name for path in folder.iterdir())
        raise BadInput(
            folder,
            "landing day",
            expected=f"at least one {wanted.removeprefix('a ')}",
            found=", ".join(others[:5]) or "none",
        )
    if not allow_empty and not any(has_rows(path) for path in files):
        raise no_rows(files[0])
    return files


def files_in(folder: Path) -> list[Path]:
    """The landing files that lie directly in a folder, sorted by name."""
    return sorted(path for path in folder.iterdir() if is_delivered(path) and not path.is_dir())


def no_rows(path: AnyFile) -> BadInput:
    """The error for a landing day without a row."""
    return BadInput(
        path,
        "rows",
        expected="at least one row on this landing day",
        found="none",
        hint="If the day really was empty, ingest it with: tributary spark_jobs ingest_logs --allow-empty.",
    )


def columns_of(path: AnyFile, needed: Iterable[str] = (), source: Place = HOME) -> tuple[str, ...]:
    """The columns that a file names, in its order: in the header, the keys of the lines, or its schema.

    Args:
        path: the file.
        needed: columns that are looked for beyond the first lines of a JSON file, until all have been seen.
        source: how its log is delivered.

    Raises:
        BadInput: the file is empty, or cannot be read.
    """
    kind = format_of(path, source)
    if kind in _SCHEMAS:
        return tuple(_SCHEMAS[kind](path))
    if size_of(path) == 0:
        raise BadInput(
            path, "file", expected="a header" if kind == "csv" else "lines of JSON", found="an empty file (0 bytes)"
        )
    try:
        with open_text(path) as file:
            return _csv_header(path, file, source) if kind == "csv" else _json_keys(path, file, needed)
    except (EOFError, OSError, zlib.error) as error:
        raise not_whole(path, error) from None


def check_columns(path: AnyFile, delivery: Delivery) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns of a landing file, in its order, and those among them that nothing reads.

    Raises:
        BadInput: a column that is read is missing or named twice; or as for `columns_of`.
    """
    needed, source = delivery.needed, delivery.source
    columns = columns_of(path, needed, source)
    kind = format_of(path, source)
    where = {"csv": "in the header", "jsonl": "in its lines"}.get(kind or "csv", "in its schema")
    partitions = partition_values(path)
    for name in needed:
        if name not in columns and (source.is_home or name not in partitions):
            raise BadInput(
                path,
                name,
                expected=f"a column of this name {where} (needed: {', '.join(needed)})",
                found=f"columns {', '.join(columns) or 'none'}",
                hint=_hint(name, columns, delivery),
            )
    names = delivery.names([path])
    for name in names:
        if columns.count(name) > 1:
            raise BadInput(path, name, expected="a column named once", found="named twice")
    return columns, tuple(dict.fromkeys(name for name in columns if name not in names))


def partition_values(path: AnyFile) -> dict[str, str]:
    """Values of partition columns that the folders of a path name, as Hive writes them: `dt=2026-01-31/hour=07`."""
    parts = (part.partition("=") for part in str(path).split("/")[:-1])
    return {name: unquote(value) for name, mark, value in parts if mark and name}


def digest_of_files(files: Sequence[Path]) -> str:
    """sha256 over the content of a landing day's files, in the order of their names.

    Raises:
        BadInput: a compressed file ends before its end.
    """
    return digest_of(scan(path).sha256 for path in files)


def digest_of(files: Iterable[bytes]) -> str:
    """The digest of a landing day, from the digests of its files in the order of their names."""
    digest = hashlib.sha256()
    for of_file in files:
        digest.update(of_file)
    return digest.hexdigest()


def has_rows(path: AnyFile, source: Place = HOME) -> bool:
    """Whether a file has any row after its header; blank lines do not count.

    Raises:
        BadInput: the file cannot be read.
    """
    kind = format_of(path, source)
    if kind == "parquet":
        import pyarrow.parquet as pa_parquet

        _parquet_schema(path)
        return bool(pa_parquet.ParquetFile(parquet_source(path)).metadata.num_rows)
    if kind == "orc":
        return bool(orc_file(path).nrows)
    if kind == "avro":
        with avro_file(path) as rows:
            return next(rows, None) is not None
    try:
        with open_text(path) as file:
            if kind == "csv" and source.header and size_of(path):
                _csv_header(path, file, source)
            return any(line.strip() for line in file)
    except (EOFError, OSError, zlib.error) as error:
        raise not_whole(path, error) from None


def open_binary(path: AnyFile) -> IO[bytes]:
    """The file's bytes, decompressed."""
    if path.suffix != ".gz":
        return path.open("rb")
    return cast(IO[bytes], gzip.open(path if isinstance(path, Path) else path.open("rb"), "rb"))


def open_text(path: AnyFile) -> IO[str]:
    """The file's text; bytes that are no UTF-8 become the replacement character, a byte order mark is dropped."""
    return io.TextIOWrapper(open_binary(path), encoding="utf-8-sig", errors="replace", newline="")


def _csv_header(path: AnyFile, file: IO[str], source: Place) -> tuple[str, ...]:
    """The names in the first line that is not blank, after which the file is then positioned; without a header `_c0`, `_c1` ..."""
    lines = (line for line in iter(lambda: file.readline(_CHUNK), "") if line.strip())
    try:
        fields = next(csv.reader(lines, delimiter=source.delimiter, quotechar=source.quote), [])
        return tuple(name.strip() if source.header else f"_c{place}" for place, name in enumerate(fields))
    except csv.Error as error:
        raise BadInput(path, "file", expected="a header", found=f"a first line that cannot be read: {error}") from None


def _json_keys(path: AnyFile, file: IO[str], needed: Iterable[str]) -> tuple[str, ...]:
    keys: dict[str, None] = {}
    missing = set(needed)
    for number, line in enumerate(file):
        if number >= LINES_PROBED and keys and not missing:
            break
        row = _first_object(line)
        if row is not None:
            keys |= dict.fromkeys(row)
            missing -= row.keys()
    if not keys:
        raise BadInput(path, "lines", expected="a JSON object a line", found="none in the whole file")
    return tuple(keys)


def _first_object(line: str) -> dict[str, Any] | None:
    """The JSON object at the start of a line, or None; anything after it is left for Spark's reader to judge."""
    try:
        row = _DECODER.raw_decode(line.lstrip())[0]
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


_DECODER = json.JSONDecoder()


def _parquet_schema(path: AnyFile) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pa_parquet

    refuse_encrypted(path)
    try:
        return list(pa_parquet.read_schema(parquet_source(path)).names)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise not_whole(path, str(error).splitlines()[0]) from None


def orc_file(path: AnyFile) -> orc.ORCFile:
    """An ORC file that is open; raises BadInput where it is cut off, or none of ORC."""
    import pyarrow as pa
    from pyarrow import orc

    try:
        return orc.ORCFile(path if isinstance(path, Path) else parquet_source(path))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise not_whole(path, str(error).splitlines()[0]) from None


@contextmanager
def avro_file(path: AnyFile, read: Callable[[IO[bytes]], Any] | None = None) -> Iterator[Any]:
    """An Avro file, opened by a reader of fastavro: by default the one that gives rows.

    Raises:
        BadInput: the file is cut off, or none of Avro.
    """
    from fastavro import reader

    try:
        with path.open("rb") as file:
            yield (read or reader)(file)
    except (EOFError, ValueError, LookupError, TypeError) as error:
        raise not_whole(path, error) from None


def _avro_schema(path: AnyFile) -> list[str]:
    with avro_file(path) as rows:
        return [one["name"] for one in rows.writer_schema.get("fields", ())]


# How the names of the columns are read from files that hold a schema.
_SCHEMAS: dict[str | None, Callable[[AnyFile], list[str]]] = {
    "parquet": _parquet_schema,
    "orc": lambda path: list(orc_file(path).schema.names),
    "avro": _avro_schema,
}


def _openable(path: Path, locations: Locations) -> Path:
    """A path of the file that Spark can open: Hadoop refuses a colon in a file's name, and Java bytes that are not UTF-8."""
    try:
        path.name.encode()
    except UnicodeEncodeError:
        pass
    else:
        if ":" not in path.name:
            return path
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]
    suffix = next(suffix for suffix in SUFFIXES if path.name.endswith(suffix))
    link = locations.landing_names / path.parent.parent.name / path.parent.name / f"{name}{suffix}"
    link.parent.mkdir(parents=True, exist_ok=True)
    temporary = link.with_name(f".{name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(os.path.relpath(path.resolve(), link.parent.resolve()))
    temporary.replace(link)
    return link


def _hint(name: str, columns: Sequence[str], delivery: Delivery) -> str:
    source = delivery.source
    for delimiter, what in OTHER_DELIMITERS.items():
        if len(columns) == 1 and delimiter in columns[0] and delimiter != source.delimiter:
            return f"Fields are separated by {_DELIMITERS.get(source.delimiter, repr(source.delimiter))}; here they seem to be by {what}."
    if isinstance(source, LandingSource) and not source.is_home and name not in delivery.by_expressions:
        return f"Say by `columns.{name}` in the settings how it follows from theirs."
    return ""
