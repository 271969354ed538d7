"""Which files of a side table a landing day reads, and their digest: attributes of users or items, as of each impression."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta

from contracts.errors import BadInput
from contracts.landing import SideName, SideSource
from contracts.locations import Locations
from contracts.periods import ONE_DAY, days_between
from contracts.settings import SETTINGS_FILE, Deployment
from lake.delivered_files import DeliveredFiles
from lake.landing_files import Delivery, LandingFile, digest_of


class SideTable:
    """A side table as it lies there now.

    Args:
        locations: the deployment's paths.
        deployment: the deployment's settings.
        name: users or items.
    """

    def __init__(self, locations: Locations, deployment: Deployment, name: SideName) -> None:
        self._lateness = timedelta(days=deployment.allowed_lateness_days)
        self.name = name
        self.source: SideSource = deployment.landing.side(name)
        self.delivery = Delivery.of_side(name, deployment.landing)
        self._delivered = DeliveredFiles(locations, deployment, self.delivery)

    def event_days(self, day: date) -> list[date]:
        """The days on which events of rows of a landing day may have happened."""
        return list(days_between(day - self._lateness, day + ONE_DAY))

    def snapshot_for(self, event_day: date) -> date | None:
        """The day of the snapshot that holds on a day: the newest before it; None where there is none."""
        days = (event_day - timedelta(days=back) for back in range(1, self.source.holds_days + 1))
        return next((day for day in days if self._has_snapshot(day)), None)

    def files(self, event_days: Iterable[date]) -> list[LandingFile]:
        """The files that hold on these days.

        Raises:
            BadInput: the table has no file, a file lacks a column, or is cut off.
        """
        if self.source.table is not None:
            return [self._delivered.table.file]
        files = [
            self._delivered.look_at(path, day)
            for day in self._snapshots(event_days)
            for path in self._delivered.paths(day)
        ]
        if not files and not self.source.has_snapshots:
            raise BadInput(
                f"{SETTINGS_FILE} [landing.{self.name}]",
                "path",
                expected="at least one file",
                found=f"none at {self.source.path}",
            )
        return files

    def digest(self, day: date) -> str:
        """Digest of what ingestion of a landing day reads of it now.

        Raises:
            BadInput: a compressed file ends before its end, or the table cannot be read.
        """
        parts = [f"{of_day} {self._digest_of(of_day, day)}" for of_day in self._snapshots(self._read_by(day))]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def is_bare(self, day: date) -> bool:
        """Whether nothing is there that ingestion of a landing day could read."""
        if self.source.has_snapshots:
            return not self._snapshots(self._read_by(day))
        if self.source.table is not None:
            return self._delivered.table.is_bare(None, day)
        return not self._delivered.paths(None)

    def changed_since(self, day: date, then: datetime) -> bool:
        """Whether what ingestion of a landing day reads may have changed at `then` or after it; a table is always looked at."""
        if self.source.table is not None:
            return True
        return any(self._delivered.changed_since(of_day, then) for of_day in self._snapshots(self._read_by(day)))

    def _read_by(self, day: date) -> list[date]:
        """Event days of all rows that ingestion of a landing day reads: it looks for repeated events on the days before, too."""
        return list(days_between(day - 2 * self._lateness, day + ONE_DAY))

    def _snapshots(self, event_days: Iterable[date]) -> Sequence[date | None]:
        """The days of the snapshots that hold on these days; [None] of a table without snapshots."""
        if not self.source.has_snapshots:
            return [None]
        return sorted({found for day in event_days if (found := self.snapshot_for(day)) is not None})

    def _has_snapshot(self, day: date) -> bool:
        if self.source.table is not None:
            return not self._delivered.table.is_bare(day, day)
        return bool(self._delivered.paths(day))

    def _digest_of(self, snapshot: date | None, day: date) -> str:
        if self.source.table is not None:
            # A time of `since` is in UTC, which may be a day behind the deployment's.
            return self._delivered.table.digest(snapshot, snapshot or day + ONE_DAY)
        return digest_of(map(self._delivered.sha256, self._delivered.paths(snapshot)))


def side_tables(locations: Locations, deployment: Deployment) -> dict[SideName, SideTable]:
    """The side tables that a deployment's settings name."""
    return {name: SideTable(locations, deployment, name) for name in deployment.landing.sides}
