"""Whether a landing day is complete enough to be read, by the deployment's rules; looked up without Spark, and without reading values."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from contracts.completeness import Completeness, Readiness, marker_folders
from contracts.errors import BadInput
from contracts.features import LOGS, Log
from contracts.landing import HOURS
from contracts.locations import Locations
from contracts.periods import days_between
from contracts.settings import Deployment
from contracts.tables import owner_key
from lake.landing_counts import rows_of, table_rows
from lake.landing_days import Deliveries
from lake.reader import LakeReader
from lake.store_files import kind_of

_HOUR = re.compile(r"\{hour[^{}]*\}")
WEEK = timedelta(days=7)
_LAST_HOUR = HOURS[-1]
_DELIVERED = "files with rows that have been delivered"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One rule, applied to a day.

    Attributes:
        what: the log, or the day itself.
        expected: what the rule asks for.
        found: what is there.
        holds: whether that is enough.
    """

    what: str
    expected: str
    found: str
    holds: bool

    def __str__(self) -> str:
        return f"{self.what}: expected {self.expected}, found {self.found}"


def missing(locations: Locations, deployment: Deployment, day: date, now: datetime) -> list[str]:
    """Returns what a day still lacks, as sentences with what was expected and what was found; empty if it may be read.

    Args:
        locations: the deployment's paths.
        deployment: the deployment's settings; without `completeness` nothing is ever missing.
        day: the landing day.
        now: the present instant, with a time zone.

    Raises:
        BadInput: a table or a store that the settings name cannot be opened.
    """
    return [str(one) for one in findings(locations, deployment, day, now) if not one.holds]


def readiness(deployment: Deployment, day: date, found: Sequence[Finding]) -> Readiness:
    """What `findings` have come to, for the scheduler; the deployment must have rules."""
    assert deployment.completeness is not None
    end = deployment.day_end(day)
    return Readiness(
        day=day,
        missing=tuple(str(one) for one in found if not one.holds),
        opens=deployment.completeness.opens(end),
        deadline=deployment.completeness.deadline(end),
    )


def findings(locations: Locations, deployment: Deployment, day: date, now: datetime) -> list[Finding]:
    """Applies every rule of the deployment to a day; see `missing`."""
    rules = deployment.completeness
    if rules is None:
        return []
    reader = LakeReader(locations)
    return [
        _after_delay(rules, deployment, day, now),
        *(one for log in LOGS for one in _LogDay(locations, deployment, rules, reader, log, day).findings()),
    ]


def _after_delay(rules: Completeness, deployment: Deployment, day: date, now: datetime) -> Finding:
    opens = rules.opens(deployment.day_end(day)).astimezone(deployment.timezone)
    after = f"{rules.delay_minutes} minutes after its end" if rules.delay_minutes else "its end"
    return Finding(
        what=str(day),
        expected=f"a time from {opens:%Y-%m-%d %H:%M} in {deployment.day_timezone} on, {after}",
        found=f"{now.astimezone(deployment.timezone):%Y-%m-%d %H:%M}",
        holds=now >= opens,
    )


class _LogDay:
    """One log's landing day, to which the rules are applied."""

    def __init__(
        self,
        locations: Locations,
        deployment: Deployment,
        rules: Completeness,
        reader: LakeReader,
        log: Log,
        day: date,
    ) -> None:
        self._locations, self._deployment, self._rules = locations, deployment, rules
        self._reader, self._log, self._day = reader, log, day
        self._deliveries = Deliveries(locations, deployment, log)
        self._what = f"{log} log of {day}"
        path = self._deliveries.source.path
        self._place = (
            self._deliveries.place(day)
            if path is None
            else next(replace(self._deliveries.source, path=_HOUR.sub("*", path)).patterns(day))[0]
        )

    def findings(self) -> Iterator[Finding]:
        """Applies the rules about deliveries."""
        may_be_empty = self._deployment.may_be_empty(self._log, self._day)
        if self._deliveries.is_bare(self._day):
            yield self._finding(
                "nothing, since it lies before ad_start" if may_be_empty else _DELIVERED,
                f"none in {self._place}",
                may_be_empty,
            )
            return
        if self._rules.marker is not None:
            yield from self._markers(self._rules.marker)
        try:
            yield self._rows_found(0 if may_be_empty else 1)
        except BadInput as error:  # a file without rows, or one that cannot be read, as while it is still being written
            yield self._finding(error.expected, f"{error.found} in {error.where}", False)

    def _finding(self, expected: str, found: str, holds: bool) -> Finding:
        return Finding(what=self._what, expected=expected, found=found, holds=holds)

    def _markers(self, marker: str) -> Iterator[Finding]:
        """The marker in each folder where it must lie: of hours, in those that exist and in the last one."""
        source = self._deliveries.source
        folders: list[tuple[str, str | None]] = (
            [(str(self._locations.landing_day(self._log, self._day)), None)]
            if source.is_home
            else list(marker_folders(source, self._day))
        )
        for folder, hour in folders:
            address = f"{folder}/{marker}"
            if kind_of(address) == "file":
                yield self._finding(f"the marker {address}", "it", True)
            elif hour in (None, _LAST_HOUR) or kind_of(folder) == "folder":
                there = "a folder without it" if kind_of(folder) == "folder" else "no such folder"
                yield self._finding(f"the marker {address}", there, False)

    def _rows_found(self, at_least: int) -> Finding:
        """The day's rows, and as many as the trailing week's days lead to expect."""
        place, share = self._place, self._rules.least_share
        if share is None and self._deliveries.source.table is None:  # whether a file has a row is faster to find out
            paths = self._deliveries.paths(self._day, allow_empty=at_least == 0)
            return self._finding(_DELIVERED, f"{len(paths)} in {place}", True)
        rows, before = self._rows(self._day), self._rows_before() if share is not None else []
        least, why = at_least, ""
        if before and share is not None:
            median = statistics.median(before)
            least = max(at_least, math.ceil(round(share * median, 6)))
            why = f" ({share:g} of {median:,.0f}, the median of {len(before)} ingested days of the week before)"
        elif share is not None:
            why = " (no day of the week before has been ingested)"
        return self._finding(
            f"at least {least:,} row{'' if least == 1 else 's'}{why}", f"{rows:,} in {place}", rows >= least
        )

    def _rows_before(self) -> list[int]:
        """Rows of each day of the week before that has been ingested.

        Where a filter keeps some of a delivery's rows, the builds count these only. Then the deliveries of those days
        are counted as the day's own is, as far as they are still there.
        """
        first = max(self._day - WEEK, self._deployment.history_start)
        days = [day for day in days_between(first, self._day) if not self._deployment.may_be_empty(self._log, day)]
        builds = self._reader.builds(f"{self._log}_log", [owner_key(ds=day) for day in days]) if days else {}
        built = {day: builds[owner_key(ds=day)]["counts"] for day in days if owner_key(ds=day) in builds}
        if self._deliveries.source.where is None:
            return [counts["read"] for counts in built.values() if "read" in counts]
        return [self._rows(day) for day in built if not self._deliveries.is_bare(day)]

    def _rows(self, day: date) -> int:
        source = self._deliveries.source
        if source.table is not None:
            return table_rows(source.table, source.day or "", day)
        return sum(rows_of(path, source) for path in self._deliveries.paths(day, allow_empty=True))
