"""Columns of a Parquet landing file, by Parquet's own types: how each is read, and which cannot be read; decided without Spark."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from contracts.errors import BadInput
from contracts.features import Log
from contracts.tables import LANDING_COLUMNS, Column, table
from lake.landing_bytes import not_whole
from lake.store_files import AnyFile, parquet_source

if TYPE_CHECKING:
    import pyarrow.parquet as pq

Kind = Literal[
    "integer",
    "decimal",
    "double",
    "boolean",
    "text",
    "bytes",
    "uuid",
    "time",
    "nanoseconds",
    "date",
    "nested",
    "nothing",
]

_NUMBERS: tuple[Kind, ...] = ("integer", "decimal", "double")
# Kinds that hold a value of a contract's type. `uuid` is an id where the deployment declares the column as a string id.
_KINDS_OF: dict[str, tuple[Kind, ...]] = {
    "bigint": (*_NUMBERS, "text", "bytes"),
    "int": (*_NUMBERS, "boolean", "text", "bytes"),
    "double": (*_NUMBERS, "text", "bytes"),
    "timestamp": ("time", "nanoseconds", "date", "text", "bytes"),
    "string": (*_NUMBERS, "text", "bytes", "uuid"),
}
WIDEST_DECIMAL = 38  # digits; Spark's own limit
# What Spark 4.2 cannot read: these codecs are not among its jars, and its vectorized reader lacks this encoding.
UNREADABLE_CODECS = frozenset({"BROTLI", "LZO"})
UNREADABLE_ENCODINGS = frozenset({"BYTE_STREAM_SPLIT"})
_ENCRYPTED_FOOTER = b"PARE"
_BATCH_ROWS = 1 << 17


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """How a column of a Parquet file is read.

    Attributes:
        kind: what its values are.
        stored: Spark's name of the type to read it as, which may differ from the type that Spark would choose; empty of
            nested values.
    """

    kind: Kind
    stored: str


def kinds_of(column: Column, *, hashed: bool) -> tuple[Kind, ...]:
    """Kinds of values from which a landing column can be read; `hashed` if it is declared as a string id."""
    kinds = ("uuid", *_KINDS_OF[column.type]) if hashed else _KINDS_OF[column.type]
    return (*kinds, "nothing")


def refuse_encrypted(path: AnyFile) -> None:
    """Raises BadInput for a file with an encrypted footer, which names neither its columns nor its types."""
    with path.open("rb") as file:
        if file.read(len(_ENCRYPTED_FOOTER)) == _ENCRYPTED_FOOTER:
            raise BadInput(
                path, "file", expected="a Parquet file that can be read without a key", found="an encrypted one"
            )


def delivered_columns(path: AnyFile, log: Log, string_ids: tuple[str, ...]) -> dict[str, Delivered]:
    """How the landing columns of a Parquet file are read; others are not looked at.

    Args:
        path: the file.
        log: natural or ad.
        string_ids: landing columns that the deployment declares as string ids.

    Raises:
        BadInput: a column cannot be read because of its type, codec or encoding, or two columns differ only in
            letter case.
    """

    def how(schema: pq.ParquetSchema, name: str) -> Delivered:
        return _delivered(path, schema, log, name, string_ids)

    return _columns_of(path, LANDING_COLUMNS[log], how)


def columns_of_any_kind(path: AnyFile, names: Sequence[str]) -> dict[str, Delivered]:
    """How columns of a Parquet file are read whose types expressions take; raises BadInput as `delivered_columns` does."""

    def how(schema: pq.ParquetSchema, name: str) -> Delivered:
        return _of_any_kind(path, schema, name)

    return _columns_of(path, names, how)


def _columns_of(
    path: AnyFile, names: Iterable[str], how: Callable[[pq.ParquetSchema, str], Delivered]
) -> dict[str, Delivered]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(parquet_source(path))
        columns: dict[str, Delivered] = {}
        for name in names:
            alike = sorted({field.name for field in file.schema_arrow if field.name.lower() == name.lower()})
            if len(alike) > 1 and name in alike:
                raise BadInput(
                    path,
                    name,
                    expected="one column of this name: Spark ignores upper and lower case in the names of Parquet columns",
                    found=f"columns {', '.join(alike)}",
                )
            if name in alike:
                columns[name] = how(file.schema, name)
        _refuse_unreadable(path, file.metadata, columns)
        return columns
    except BadInput:
        raise
    except (
        pa.ArrowException,
        OSError,
        ValueError,
    ) as error:  # metadata that is damaged, but not so much that it cannot be opened
        raise not_whole(path, _first_line(error)) from None


def refuse_damaged(path: AnyFile, columns: Mapping[str, Delivered]) -> None:
    """Decodes these columns, so that a damaged page, which would make Spark's job fail, is noticed before anything is written.

    Raises:
        BadInput: a page cannot be decoded.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(parquet_source(path))
        rows = sum(len(batch) for batch in file.iter_batches(_BATCH_ROWS, columns=list(columns)))
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise not_whole(path, _first_line(error)) from None
    assert rows == file.metadata.num_rows or not columns, path


def _delivered(path: AnyFile, schema: pq.ParquetSchema, log: Log, name: str, string_ids: tuple[str, ...]) -> Delivered:
    leaf = _leaf(schema, name)
    column = table(f"{log}_log").column(name)
    wanted = f"a Parquet column with {'an id' if name in string_ids else column.legal_values}"
    if leaf is None:
        raise BadInput(path, name, expected=wanted, found="a column of nested values (a list, a map or a struct)")
    delivered = _kind_of(leaf)
    if delivered is None or delivered.kind not in kinds_of(column, hashed=name in string_ids):
        hint = (
            "Declare the column as one of the deployment's string ids to read it."
            if delivered and delivered.kind == "uuid"
            else ""
        )
        raise BadInput(path, name, expected=wanted, found=f"the type {_type_name(leaf)}", hint=hint)
    return delivered


def _of_any_kind(path: AnyFile, schema: pq.ParquetSchema, name: str) -> Delivered:
    leaf = _leaf(schema, name)
    if leaf is None:
        return Delivered(kind="nested", stored="")
    delivered = _kind_of(leaf)
    if delivered is None:
        raise BadInput(path, name, expected="a type that Spark can read", found=f"the type {_type_name(leaf)}")
    return delivered


def _leaf(schema: pq.ParquetSchema, name: str) -> Any:
    """The column of this name; None where it holds nested values."""
    leaves = [schema.column(number) for number in range(len(schema.names))]
    return next((leaf for leaf in leaves if leaf.path == name and leaf.max_repetition_level == 0), None)


def _kind_of(leaf: Any) -> Delivered | None:
    """How a leaf column is read; None for a type that Spark cannot read, or that no contract's type can be read from."""
    logical = json.loads(leaf.logical_type.to_json())
    name, physical = logical["Type"], leaf.physical_type
    if name == "Null":
        return Delivered(kind="nothing", stored="int")
    if name == "Int":
        is_widest = logical["bitWidth"] == 64 and not logical["isSigned"]
        return (
            Delivered(kind="decimal", stored="decimal(20,0)")
            if is_widest
            else Delivered(kind="integer", stored="bigint")
        )
    if name == "Decimal":
        precision, scale = logical["precision"], logical["scale"]
        return (
            Delivered(kind="decimal", stored=f"decimal({precision},{scale})") if precision <= WIDEST_DECIMAL else None
        )
    if name == "Timestamp":
        if logical["timeUnit"] == "nanoseconds":
            return Delivered(kind="nanoseconds", stored="bigint")
        return Delivered(kind="time", stored="timestamp" if logical["isAdjustedToUTC"] else "timestamp_ntz")
    by_logical: dict[str, Delivered] = {
        "Date": Delivered(kind="date", stored="date"),
        "UUID": Delivered(kind="uuid", stored="binary"),
        **dict.fromkeys(("String", "Enum", "JSON"), Delivered(kind="text", stored="string")),
    }
    if name != "None":
        return by_logical.get(name)
    by_physical: dict[str, Delivered] = {
        "BOOLEAN": Delivered(kind="boolean", stored="boolean"),
        "INT96": Delivered(kind="time", stored="timestamp"),
        "FLOAT": Delivered(kind="double", stored="float"),
        "DOUBLE": Delivered(kind="double", stored="double"),
        "BYTE_ARRAY": Delivered(kind="bytes", stored="binary"),
        "FIXED_LEN_BYTE_ARRAY": Delivered(kind="bytes", stored="binary"),
        **dict.fromkeys(("INT32", "INT64"), Delivered(kind="integer", stored="bigint")),
    }
    return by_physical.get(physical)


def _refuse_unreadable(path: AnyFile, metadata: pq.FileMetaData, columns: Mapping[str, Delivered]) -> None:
    for group in range(metadata.num_row_groups):
        of_group = metadata.row_group(group)
        for number in range(of_group.num_columns):
            chunk = of_group.column(number)
            if chunk.path_in_schema.split(".")[0] not in columns:
                continue
            if chunk.compression in UNREADABLE_CODECS:
                raise BadInput(
                    path,
                    chunk.path_in_schema,
                    expected="a codec that Spark can read: Snappy, Zstandard, gzip, LZ4 or none",
                    found=chunk.compression,
                )
            encodings = UNREADABLE_ENCODINGS & set(chunk.encodings)
            if encodings:
                raise BadInput(
                    path,
                    chunk.path_in_schema,
                    expected="an encoding that Spark can read",
                    found=", ".join(sorted(encodings)),
                )


def _type_name(leaf: Any) -> str:
    logical = json.loads(leaf.logical_type.to_json())
    details = ", ".join(str(logical[key]) for key in ("precision", "scale", "timeUnit") if key in logical)
    name = leaf.physical_type if logical["Type"] == "None" else logical["Type"].upper()
    return f"{name}({details})" if details else str(name)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
