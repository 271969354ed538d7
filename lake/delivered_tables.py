"""A Delta table of a team's in which a log or a side table lies: which of its files hold the rows of some days."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from contracts.errors import BadInput
from contracts.landing import SideSource
from contracts.settings import SETTINGS_FILE
from lake.landing_files import Delivery, LandingFile
from lake.store_files import StoreFile

if TYPE_CHECKING:
    from deltalake import DeltaTable


@dataclass(frozen=True, kw_only=True)
class TableFile:
    """A file of a Delta table, as the table's log tells of it.

    Attributes:
        key: what identifies it and which of its rows are deleted.
        first, last: the first and last day in it; None where the log does not say.
        rows: number of its rows; None where the log does not say, or where some are deleted.
    """

    key: str
    first: date | None
    last: date | None
    rows: int | None


def files_of(table: DeltaTable, column: str | None) -> list[TableFile]:
    """The files of a table, with what its log says of the days in them.

    Args:
        table: the table.
        column: its column of days: dates or times, or text or numbers such as 2026-01-31 or 20260131; None: it has none.
    """
    import pyarrow as pa

    rows: list[dict[str, Any]] = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    is_partition = column in table.metadata().partition_columns
    first, last = (f"partition.{column}",) * 2 if is_partition else (f"min.{column}", f"max.{column}")
    found = []
    for row in rows:
        vector = {name: value for name, value in row.items() if name.startswith(("deletionVector", "deletion_vector"))}
        has_deleted = any(vector.values())
        found.append(
            TableFile(
                key=f"{row['path']} {row['size_bytes']} {vector if has_deleted else ''}",
                first=_day_of(row.get(first)),
                last=_day_of(row.get(last)),
                rows=None if has_deleted else row.get("num_records"),
            )
        )
    return found


class DeliveredTable:
    """A team's Delta table at the version that it has when it is opened.

    Args:
        delivery: what it is delivered as.

    Raises:
        BadInput: it is no Delta table, or lacks a column.
    """

    def __init__(self, delivery: Delivery) -> None:
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError

        source, where = delivery.source, f"{SETTINGS_FILE} [landing.{delivery.name}]"
        address = source.table or ""
        try:
            self._table = DeltaTable(address)
        except (DeltaError, OSError) as error:
            raise BadInput(
                where, "table", expected="the folder of a Delta table", found=f"{address}: {str(error).splitlines()[0]}"
            ) from None
        self._columns = tuple(one.name for one in self._table.schema().fields)
        day = () if source.day is None else ((source.day, "day"),)
        for name, field in (*day, *((name, name) for name in delivery.needed)):
            if name not in self._columns:
                raise BadInput(where, field, expected=f"a column of {address}: {', '.join(self._columns)}", found=name)
        since = source.since if isinstance(source, SideSource) else None
        self._delivery = delivery
        self._files = files_of(self._table, source.day or (since if since in self._columns else None))

    @cached_property
    def file(self) -> LandingFile:
        """The version, as Spark reads it."""
        address = self._delivery.source.table or ""
        path = StoreFile(address=address, size=0, changed=datetime.now(UTC))
        return LandingFile(
            path=path,
            delivery=self._delivery,
            kind="delta",
            columns=self._columns,
            sha256=b"",
            opened=path,
            shown=address,
            version=self._table.version(),
        )

    def digest(self, first: date | None, last: date) -> str:
        """Digest of the files in which rows of `first` .. `last` may lie; without `first`, of all days until `last`."""
        return hashlib.sha256("\n".join(sorted(self._files_of(first, last))).encode()).hexdigest()

    def is_bare(self, first: date | None, last: date) -> bool:
        """Whether no file has rows of these days."""
        return not self._files_of(first, last)

    def _files_of(self, first: date | None, last: date) -> list[str]:
        return [
            file.key
            for file in self._files
            if (file.first is None or file.first <= last) and (file.last is None or first is None or first <= file.last)
        ]


def _day_of(value: object) -> date | None:
    return value.date() if isinstance(value, datetime) else as_day(value)


def as_day(value: object) -> date | None:
    """A day that is a date, or is written as 2026-01-31 or 20260131; None if it is none."""
    if isinstance(value, datetime):
        return None
    if isinstance(value, date):
        return value
    match = re.fullmatch(r"(\d{4})(-?)(\d\d)\2(\d\d)", str(value), re.ASCII)
    try:
        return date(int(match[1]), int(match[3]), int(match[4])) if match else None
    except ValueError:
        return None
