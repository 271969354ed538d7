"""What is delivered as one log or side table, as it lies there now: each place is listed once, each file is looked at once."""

from __future__ import annotations

from datetime import date, datetime
from functools import cached_property

from contracts.locations import Locations
from contracts.settings import Deployment
from lake.delivered_tables import DeliveredTable
from lake.landing_bytes import scan
from lake.landing_files import Delivery, LandingFile, format_of, look_at
from lake.store_files import AnyFile, changed_at, files_like


class DeliveredFiles:
    """The files or the table of a delivery that lies outside of the home folder.

    Args:
        locations: the deployment's paths.
        deployment: the deployment's settings.
        delivery: what is delivered there.
    """

    def __init__(self, locations: Locations, deployment: Deployment, delivery: Delivery) -> None:
        self._locations, self._deployment, self._delivery = locations, deployment, delivery
        self._found: dict[date | None, list[AnyFile]] = {}
        self._looked_at: dict[str, LandingFile] = {}
        self._scanned: dict[str, bytes] = {}

    @cached_property
    def table(self) -> DeliveredTable:
        """The Delta table that the settings name; raises BadInput as `DeliveredTable` does."""
        return DeliveredTable(self._delivery)

    def paths(self, day: date | None) -> list[AnyFile]:
        """The files of a day, or, where the path names none, all files, sorted by their paths."""
        if day not in self._found:
            patterns = self._delivery.source.patterns(day)
            self._found[day] = [path for pattern, _ in patterns for path in files_like(pattern)]
        return self._found[day]

    def look_at(self, path: AnyFile, day: date | None) -> LandingFile:
        """Everything that ingestion must know of a file; see `lake.landing_files.look_at`.

        Args:
            path: the file.
            day: the day that its path tells.
        """
        key = str(path)
        if key not in self._looked_at:
            string_ids = self._deployment.string_ids
            self._looked_at[key] = look_at(path, self._delivery, self._locations, string_ids, day=day)
        return self._looked_at[key]

    def sha256(self, path: AnyFile) -> bytes:
        """Digest of a file; raises BadInput where a compressed one ends before its end."""
        key = str(path)
        if key in self._looked_at:
            return self._looked_at[key].sha256
        if key not in self._scanned:
            source = self._delivery.source
            self._scanned[key] = scan(path, format_of(path, source), source).sha256
        return self._scanned[key]

    def changed_since(self, day: date | None, then: datetime) -> bool:
        """Whether a file of a day was written at `then` or after it."""
        return any(changed_at(path) >= then for path in self.paths(day))
