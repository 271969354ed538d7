"""When a landing day may be read by the daily pipeline: `[completeness]` of the settings, and the answer of the command that looks.

Nothing here opens a file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any

from contracts.errors import BadInput
from contracts.landing import FORMATS, HIDDEN, PLACE, WILD, LandingSource

_SOME_DAYS = (date(2026, 1, 1), date(2026, 1, 2), date(2026, 2, 1), date(2027, 1, 1))  # they differ in one part each
_PREFIX = "readiness: "


@dataclass(frozen=True, kw_only=True)
class Completeness:
    """The section `[completeness]`: all of its rules must hold, and each log must have a file with a row.

    Attributes:
        marker: name of a file that lies in each log's folder of the day, and in that of each hour where the path names
            hours; None: no marker is waited for.
        least_share: a log's rows of the day are at least this share of the median of the trailing week's ingested days;
            None: rows are not counted.
        delay_minutes: the day is read only so long after its end.
        deadline_hours: how long after that the scheduler waits before it gives up.
    """

    marker: str | None = None
    least_share: float | None = None
    delay_minutes: int = 0
    deadline_hours: int = 12

    def opens(self, day_end: datetime) -> datetime:
        """The first instant at which a day may be read.

        Args:
            day_end: the instant at which the day ends.
        """
        return day_end + timedelta(minutes=self.delay_minutes)

    def deadline(self, day_end: datetime) -> datetime:
        """The instant at which waiting is given up; see `opens`."""
        return self.opens(day_end) + timedelta(hours=self.deadline_hours)

    def check(self, sources: Iterable[tuple[str, LandingSource]], where: str) -> None:
        """Checks the rules, and that each of them can be applied to each log.

        Args:
            sources: how each log is delivered, by the name of its section.
            where: the section, for messages.

        Raises:
            BadInput: a value is out of range, or a rule cannot be applied to a log as it is delivered.
        """

        def require(ok: bool, name: str, expected: str, hint: str = "") -> None:
            if not ok:
                raise BadInput(where, name, expected=expected, found=repr(getattr(self, name)), hint=hint)

        require(self.least_share is None or 0 < self.least_share <= 1, "least_share", "a number > 0 and <= 1")
        require(self.delay_minutes >= 0, "delay_minutes", "a number >= 0")
        require(self.deadline_hours >= 1, "deadline_hours", "a number >= 1")
        is_name = self.marker is None or (
            self.marker not in ("", ".", "..") and not any(sign in self.marker for sign in "/*?[]{}")
        )
        require(is_name, "marker", "the name of a file such as _SUCCESS, without a folder or a wildcard")
        for section, source in sources:
            require(
                self.least_share is None or source.has_days or source.table is not None,
                "least_share",
                f"none, since the days of the rows of {section} follow from an expression",
                "Only ingestion computes it: give the path a {day}, or leave this rule out.",
            )
            if self.marker is None:
                continue
            require(
                source.table is None,
                "marker",
                f"none, since {section} names a Delta table, which has no folder for a day's marker",
                "Use least_share or delay_minutes.",
            )
            require(
                source.is_home or _day_folder(source) is not None,
                "marker",
                f"a path of {section} with a folder of its own for each day, named by {{day}} and without wildcards",
            )
            require(
                not _reads(source, self.marker),
                "marker",
                f"a name that {section} does not read as a landing file, such as _SUCCESS",
            )


def marker_folders(source: LandingSource, day: date) -> Iterator[tuple[str, str | None]]:
    """Folders outside of the home folder in which a day's marker may lie, each with its hour if the folders name hours.

    Args:
        source: how a log is delivered; a marker must be possible there (`Completeness.check`).
        day: the landing day.
    """
    folder = _day_folder(source)
    assert folder is not None, source
    yield from replace(source, path=folder).patterns(day)


def _day_folder(source: LandingSource) -> str | None:
    """The path up to the last folder that names the day or the hour; None where each day has no folder of its own."""
    path = source.path or ""
    ends = [place.end() for place in PLACE.finditer(path) if "/" in path[place.end() :]]
    if not ends:
        return None
    folder = path[: path.index("/", ends[-1])]
    names = {next(replace(source, path=folder).patterns(day))[0] for day in _SOME_DAYS}
    return folder if len(names) == len(_SOME_DAYS) and not WILD & set(folder) else None


def _reads(source: LandingSource, name: str) -> bool:
    """Whether a file of this name in a day's folder would be read as a landing file."""
    if source.is_home:
        return not name.startswith(HIDDEN) and any(f".{one}" in name for one in FORMATS)
    last = next(source.patterns(_SOME_DAYS[0]))[0].rpartition("/")[2] or "*"
    return fnmatchcase(name, last) and not (name.startswith(HIDDEN) and last[0] in WILD)


@dataclass(frozen=True, kw_only=True)
class Readiness:
    """What a look at a landing day has come to, as a command prints it for the scheduler.

    Attributes:
        day: the landing day.
        missing: sentences, each with what was expected and what was found; empty if the day may be read.
        opens: the first instant at which the day may be read.
        deadline: the instant at which waiting is given up.
    """

    day: date
    missing: tuple[str, ...]
    opens: datetime
    deadline: datetime

    def line(self) -> str:
        """The line of a command's output that `read` understands."""
        values = {"day": self.day, "missing": self.missing, "opens": self.opens, "deadline": self.deadline}
        return _PREFIX + json.dumps(values, default=lambda value: value.isoformat())

    @classmethod
    def read(cls, lines: Iterable[str]) -> Readiness:
        """Parses the first such line of a command's output; there must be one."""
        line = next(line for line in lines if line.startswith(_PREFIX))
        values: dict[str, Any] = json.loads(line.removeprefix(_PREFIX))
        return cls(
            day=date.fromisoformat(values["day"]),
            missing=tuple(values["missing"]),
            opens=datetime.fromisoformat(values["opens"]),
            deadline=datetime.fromisoformat(values["deadline"]),
        )
