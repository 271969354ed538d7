"""What a log's landing day consists of, wherever it is delivered: its files or the part of a table, and their digest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from contracts.errors import BadInput
from contracts.features import Log
from contracts.landing import LandingSource
from contracts.locations import Locations
from contracts.settings import Deployment
from contracts.tables import LANDING_COLUMNS
from lake.delivered_files import DeliveredFiles
from lake.landing_files import (
    Delivery,
    LandingFile,
    digest_of,
    digest_of_files,
    has_rows,
    is_bare,
    landing_files,
    no_rows,
    unread_names,
)
from lake.store_files import AnyFile, changed_at


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
        self._delivered = DeliveredFiles(locations, deployment, Delivery.of_log(log, deployment.landing))

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
            return self._day_of_table(day, allow_empty=allow_empty or may_be_bare)
        paths = self.paths(day, allow_empty=allow_empty or may_be_bare)
        day_of_path = day if self.source.has_days and not self.source.is_home else None
        files = tuple(self._delivered.look_at(path, day_of_path) for path in paths)
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
        found = self._delivered.paths(day)
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
            return self._delivered.table.digest(day, day)
        if self.source.is_home:
            return digest_of_files(landing_files(self._locations, self._log, day, allow_empty=True))
        return digest_of(map(self._delivered.sha256, self._delivered.paths(day)))

    def is_bare(self, day: date) -> bool:
        """Whether nothing of the day has been delivered."""
        if self.source.is_home:
            return is_bare(self._locations.landing_day(self._log, day))
        if self.source.table is not None:
            return self._delivered.table.is_bare(day, day)
        return not self._delivered.paths(day)

    def changed_since(self, day: date, then: datetime) -> bool:
        """Whether its files may have changed at `then` or after it; a table is always looked at."""
        if self.source.table is not None:
            return True
        if self.source.is_home:
            folder = self._locations.landing_day(self._log, day)
            return max(map(changed_at, (folder, *folder.iterdir()))) >= then
        return self._delivered.changed_since(day, then)

    def place(self, day: date) -> str:
        """Where the day lies, for messages."""
        if self.source.is_home:
            return str(self._locations.landing_day(self._log, day))
        if self.source.table is not None:
            return self.source.table
        return next(pattern for pattern, _ in self.source.patterns(day))

    def _day_of_table(self, day: date, *, allow_empty: bool) -> LandingDay:
        table = self._delivered.table
        if table.is_bare(day, day) and not allow_empty:
            raise BadInput(
                self.source.table,
                "landing day",
                expected=f"rows with {self.source.day} = {day}",
                found=f"none in version {table.file.version}",
                hint="An absent day is never taken for an empty one: write it, then run this again.",
            )
        digest = table.digest(day, day)
        return LandingDay(where=table.file.shown, files=(table.file,), digest=digest, undeclared=frozenset(), unread=())


def distinct(files: Iterable[LandingFile]) -> list[LandingFile]:
    """Each file once, however many days read it."""
    return list({str(file.path): file for file in files}.values())
