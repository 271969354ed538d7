"""What a log's landing day consists of, wherever it is delivered: its files or the part of a table, and their digest."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from contracts.errors import BadInput
from contracts.features import Log
from contracts.landing import LandingSource
from contracts.locations import Locations
from contracts.settings import SETTINGS_FILE, Deployment
from contracts.tables import LANDING_COLUMNS, OPTIONAL_LANDING_COLUMNS
from lake.landing_bytes import scan
from lake.landing_files import (
    LandingFile,
    digest_of,
    digest_of_files,
    format_of,
    has_rows,
    is_bare,
    landing_files,
    look_at,
    no_rows,
    unread_names,
)
from lake.store_files import AnyFile, StoreFile, changed_at, files_like

if TYPE_CHECKING:
    from deltalake import DeltaTable


@dataclass(frozen=True, kw_only=True)
class LandingDay:
    """One log's files of a landing day.

    Attributes:
        where: the folder or table, for messages.
        files: the files, and how each is read.
        digest: digest of their content.
        undeclared: columns of any file that no landing column is made of.
        unread: names of other files and folders next to them, which are not read.
    """

    where: str
    files: tuple[LandingFile, ...]
    digest: str
    undeclared: frozenset[str]
    unread: tuple[str, ...]


class Deliveries:
    """One log's landing days; each file is looked at once, however many days read it.

    Args:
        locations: the deployment's paths.
        deployment: the deployment's settings.
        log: natural or ad.
    """

    def __init__(self, locations: Locations, deployment: Deployment, log: Log) -> None:
        self._locations, self._deployment, self._log = locations, deployment, log
        self.source: LandingSource = deployment.landing.of(log)
        self._looked_at: dict[str, LandingFile] = {}
        self._table: _Table | None = None

    def day(self, day: date, *, allow_empty: bool = False) -> LandingDay:
        """A landing day.

        Args:
            day: day of arrival.
            allow_empty: whether it may have no row, because a person confirmed that the day is empty.

        Raises:
            BadInput: it is missing or empty, a file lacks a column, or is cut off.
        """
        may_be_bare = self._deployment.may_be_empty(self._log, day)
        if may_be_bare and self.is_bare(day):
            return LandingDay(where="", files=(), digest=digest_of(()), undeclared=frozenset(), unread=())
        if self.source.table is not None:
            return self._open_table().day(day, allow_empty=allow_empty or may_be_bare)
        paths = self.paths(day, allow_empty=allow_empty or may_be_bare)
        files = tuple(self._look_at(path, day) for path in paths)
        undeclared: set[str] = set()
        unread: list[str] = []
        if self.source.is_home:
            undeclared = {name for file in files for name in file.columns} - set(LANDING_COLUMNS[self._log])
            unread = unread_names(self._locations.landing_day(self._log, day))
        return LandingDay(
            where=self.place(day),
            files=files,
            digest=digest_of(file.sha256 for file in files),
            undeclared=frozenset(undeclared),
            unread=tuple(unread),
        )

    def paths(self, day: date, *, allow_empty: bool = False) -> Sequence[AnyFile]:
        """The files of a day, sorted by their paths.

        Raises:
            BadInput: there is none, or none has a row.
        """
        if self.source.is_home:
            return landing_files(self._locations, self._log, day, allow_empty=allow_empty)
        if self.source.table is not None:
            return [file.path for file in self.day(day, allow_empty=allow_empty).files]
        found = self._found(day)
        if not found:
            raise BadInput(
                self.place(day),
                "landing day",
                expected="at least one file that has been delivered",
                found="none",
                hint="An absent day is never taken for an empty one: deliver its files, then run this again.",
            )
        if not allow_empty and not any(has_rows(path, self.source) for path in found):
            raise no_rows(found[0])
        return found

    def digest(self, day: date) -> str:
        """The digest that a build of the day would record now.

        Raises:
            BadInput: a compressed file ends before its end, or the table cannot be read.
        """
        if self.source.table is not None:
            return self._open_table().digest(day)
        if self.source.is_home:
            return digest_of_files(landing_files(self._locations, self._log, day, allow_empty=True))
        return digest_of(scan(path, format_of(path, self.source), self.source).sha256 for path in self._found(day))

    def is_bare(self, day: date) -> bool:
        """Whether nothing of the day has been delivered."""
        if self.source.is_home:
            return is_bare(self._locations.landing_day(self._log, day))
        return self._open_table().is_bare(day) if self.source.table is not None else not self._found(day)

    def changed_since(self, day: date, then: datetime) -> bool:
        """Whether its files may have changed at `then` or after it; a table is always looked at."""
        if self.source.table is not None:
            return True
        if self.source.is_home:
            folder = self._locations.landing_day(self._log, day)
            changes = [path.stat().st_mtime for path in (folder, *folder.iterdir())]
            return datetime.fromtimestamp(max(changes), UTC) >= then
        return any(changed_at(path) >= then for path in self._found(day))

    def place(self, day: date) -> str:
        """Where the day lies, for messages."""
        if self.source.is_home:
            return str(self._locations.landing_day(self._log, day))
        if self.source.table is not None:
            return self.source.table
        return next(pattern for pattern, _ in self.source.patterns(day))

    def _found(self, day: date) -> list[AnyFile]:
        return [path for pattern, _ in self.source.patterns(day) for path in files_like(pattern)]

    def _look_at(self, path: AnyFile, day: date) -> LandingFile:
        if str(path) not in self._looked_at:
            self._looked_at[str(path)] = look_at(
                path,
                self._log,
                self._locations,
                self._deployment.string_ids,
                source=self.source,
                day=day if self.source.has_days and not self.source.is_home else None,
            )
        return self._looked_at[str(path)]

    def _open_table(self) -> _Table:
        if self._table is None:
            self._table = _Table(self.source, self._log)
        return self._table


class _Table:
    """A Delta table in which a log lies, at the version that it has when it is opened."""

    def __init__(self, source: LandingSource, log: Log) -> None:
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError

        self._source, self._log, self._where = source, log, f"{SETTINGS_FILE} [landing.{log}]"
        address = source.table or ""
        try:
            self._table: DeltaTable = DeltaTable(address)
        except (DeltaError, OSError) as error:
            raise BadInput(
                self._where,
                "table",
                expected="the folder of a Delta table",
                found=f"{address}: {str(error).splitlines()[0]}",
            ) from None
        self._columns = tuple(one.name for one in self._table.schema().fields)
        day = source.day or ""
        needed = source.needed(LANDING_COLUMNS[log], OPTIONAL_LANDING_COLUMNS)
        for name, field in ((day, "day"), *((name, name) for name in needed)):
            if name not in self._columns:
                raise BadInput(
                    self._where, field, expected=f"a column of {address}: {', '.join(self._columns)}", found=name
                )
        self._is_partition = day in self._table.metadata().partition_columns
        self._files = self._actions()

    def day(self, day: date, *, allow_empty: bool) -> LandingDay:
        """The part of a day.

        Raises:
            BadInput: no file of the table has rows of the day.
        """
        if self.is_bare(day) and not allow_empty:
            raise BadInput(
                self._source.table,
                "landing day",
                expected=f"rows with {self._source.day} = {day}",
                found=f"none in version {self._table.version()}",
                hint="An absent day is never taken for an empty one: write it, then run this again.",
            )
        address = self._source.table or ""
        path: AnyFile = StoreFile(address=address, size=0, changed=datetime.now(UTC))
        file = LandingFile(
            path=path,
            log=self._log,
            kind="delta",
            columns=self._columns,
            sha256=b"",
            opened=path,
            shown=address,
            version=self._table.version(),
        )
        return LandingDay(where=address, files=(file,), digest=self.digest(day), undeclared=frozenset(), unread=())

    def digest(self, day: date) -> str:
        """Digest of the files in which rows of the day may lie."""
        return hashlib.sha256("\n".join(sorted(self._files_of(day))).encode()).hexdigest()

    def is_bare(self, day: date) -> bool:
        """Whether no file has rows of the day."""
        return not self._files_of(day)

    def _files_of(self, day: date) -> list[str]:
        return [key for key, first, last in self._files if first is None or last is None or first <= day <= last]

    def _actions(self) -> list[tuple[str, date | None, date | None]]:
        """For each file what identifies it, and the first and last day in it; None where the table does not say."""
        import pyarrow as pa

        rows: list[dict[str, Any]] = pa.table(self._table.get_add_actions(flatten=True)).to_pylist()
        day = self._source.day
        first, last = (f"partition.{day}",) * 2 if self._is_partition else (f"min.{day}", f"max.{day}")
        found = []
        for row in rows:
            vector = {
                name: value for name, value in row.items() if name.startswith(("deletionVector", "deletion_vector"))
            }
            key = f"{row['path']} {row['size_bytes']} {vector if any(vector.values()) else ''}"
            found.append((key, as_day(row.get(first)), as_day(row.get(last))))
        return found


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


def distinct(files: Iterable[LandingFile]) -> list[LandingFile]:
    """Each file once, however many days read it."""
    return list({str(file.path): file for file in files}.values())
