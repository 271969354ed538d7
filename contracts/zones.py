"""Where a day begins in a time zone, and which rules of the zone Python uses.

A day of a deployment is the instants whose local date it is. It begins at midnight, or, where clocks are put forward
over midnight, at the first instant after it; where midnight comes twice, at the first one. Java's rules for the same
zone: `lake/zones.py`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from zoneinfo import TZPATH, ZoneInfo

from contracts.errors import BadInput

_SECOND, _DAY = timedelta(seconds=1), timedelta(days=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIELD = "day_timezone"
FIXED = "UTC"  # by definition without rules
AHEAD = timedelta(days=3 * 366)  # zones change at short notice, so rules further ahead are not reliable
UPDATE = (
    "Bring the older one up to date: Java's by its package or its tool TZUpdater; Python's by the system's package `tzdata`, or, "
    "where it reads no files of the system, by the wheel `tzdata`."
)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """A time zone over some days, as one program knows it.

    Attributes:
        source: the program, and which version of the rules it has.
        changes: as `offset_changes` gives them; None if it does not know the zone.
    """

    source: str
    changes: Sequence[tuple[int, int]] | None


@lru_cache(maxsize=4096)
def day_start(zone: ZoneInfo, day: date) -> datetime:
    """The first instant at which the local date is not before `day`.

    Args:
        zone: the time zone.
        day: the day.

    Returns:
        The instant, in UTC.
    """
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    # In a gap the two readings of a missing midnight lie on both sides of the instant at which clocks are put forward.
    first, last = sorted(midnight.replace(fold=fold).astimezone(UTC) for fold in (0, 1))
    if first == last or first.astimezone(zone).date() == day:
        return first
    seconds = range(int((last - first) / _SECOND) + 1)
    place = bisect_left(seconds, True, key=lambda passed: (first + passed * _SECOND).astimezone(zone).date() >= day)
    return first + place * _SECOND


def offset_changes(zone: ZoneInfo, first: date, last: date) -> list[tuple[int, int]]:
    """When the offset from UTC changes, by Python's rules, from a day before `first` to a day after `last`.

    Returns:
        Pairs of an instant (seconds since 1970) and the offset in seconds that holds from it on; the first is at the
            beginning.
    """

    def offset(instant: datetime) -> int:
        return int(instant.astimezone(zone).utcoffset() / _SECOND)  # type: ignore[operator]

    def first_with(value: int, since: datetime, until: datetime) -> datetime:
        seconds = range(int((until - since) / _SECOND) + 1)
        return (
            since + bisect_left(seconds, True, key=lambda passed: offset(since + passed * _SECOND) == value) * _SECOND
        )

    now, end = bounds(first, last)
    changes = [(seconds_of(now), offset(now))]
    while now < end:
        then = min(now + _DAY, end)
        after = offset(then)
        if after != changes[-1][1]:
            changes.append((seconds_of(first_with(after, now, then)), after))
        now = then
    return changes


def bounds(first: date, last: date) -> tuple[datetime, datetime]:
    """Instants in UTC that enclose the days from `first` to `last` in every time zone."""
    return (
        datetime(first.year, first.month, first.day, tzinfo=UTC) - timedelta(days=1),
        datetime(last.year, last.month, last.day, tzinfo=UTC) + timedelta(days=2),
    )


def seconds_of(instant: datetime) -> int:
    """Seconds since 1970."""
    return int((instant - _EPOCH) / _SECOND)


def broken_days(zone: ZoneInfo, first: date, last: date) -> dict[date, str]:
    """Days that are not one stretch of time, and why: skipped at the date line, or cut in two by clocks put back over midnight."""
    broken = {}
    for instant, _ in offset_changes(zone, first, last)[1:]:
        at = _EPOCH + timedelta(seconds=instant)
        after = at.astimezone(zone)
        before = (at - _SECOND).astimezone(zone)
        day = before.date()
        while (day := day + timedelta(days=1)) < after.date():
            broken[day] = f"it is skipped: clocks go from {before:%Y-%m-%d %H:%M:%S} to {after:%Y-%m-%d %H:%M:%S}"
        if after.date() < before.date():
            broken[before.date()] = (
                f"it comes twice: clocks go from {before:%Y-%m-%d %H:%M:%S} back to {after:%Y-%m-%d %H:%M:%S}"
            )
    return {day: why for day, why in broken.items() if first <= day <= last}


def last_day(history_start: date, history_end: date | None) -> date:
    """The last day over which rules are compared: the deployment's last, or three years from now."""
    return history_end or max(datetime.now(UTC).date(), history_start) + AHEAD


def python_rules(name: str, first: date, last: date) -> Rules:
    """The rules of Python, and with it of Airflow, whose times read the same files."""
    return Rules(source=f"Python ({_version(name)})", changes=offset_changes(ZoneInfo(name), first, last))


def require_days(name: str, first: date, last: date) -> None:
    """Raises BadInput if a day from `first` to `last` is skipped in the zone, or cut in two."""
    broken = broken_days(ZoneInfo(name), first, last)
    if broken:
        day, why = min(broken.items())
        raise BadInput(
            "deployment",
            FIELD,
            expected=f"a zone in which each day from {first} to {last} is one stretch of time",
            found=f"{name}, {day}: {why}",
            hint="Begin after it, or take another zone.",
        )


def require_same(name: str, rules: Sequence[Rules]) -> None:
    """Raises BadInput unless all know the zone and agree; the message names their versions, the first difference, what to update."""
    for one in rules:
        if one.changes is None:
            raise BadInput(
                "deployment",
                FIELD,
                expected="a time zone of the IANA database that Java and Python both know",
                found=f"{name}, which {one.source} does not know",
                hint="Take a region's name such as Europe/Berlin, not an abbreviation or a file's name. "
                f"If it is a new one: {UPDATE}",
            )
    ours, *others = rules
    for other in others:
        differences = {*map(tuple, ours.changes or ())} ^ {*map(tuple, other.changes or ())}
        if differences:
            instant = min(differences)[0]
            offsets = " and ".join(f"UTC{_offset_at(one, instant)} by {one.source}" for one in (ours, other))
            raise BadInput(
                "deployment",
                FIELD,
                expected=f"the same rules for {name} in Java and Python",
                hint=UPDATE,
                found=f"from {_EPOCH + timedelta(seconds=instant):%Y-%m-%d %H:%M} UTC on {offsets}",
            )


def _offset_at(rules: Rules, instant: int) -> str:
    offset = [offset for since, offset in rules.changes or () if since <= instant][-1]
    return f"{'-' if offset < 0 else '+'}{timedelta(seconds=abs(offset))}"


def _version(name: str) -> str:
    """Which files Python reads for a zone, and their version: the system's come before the wheel `tzdata`."""
    for folder in map(Path, TZPATH):
        if (folder / name).is_file():
            return f"{folder} {_version_of(folder)}"
    return f"wheel tzdata {import_module('tzdata').IANA_VERSION}"


def _version_of(folder: Path) -> str:
    for file in ("tzdata.zi", "+VERSION"):  # the first line of the one, the whole of the other
        if (folder / file).is_file():
            with (folder / file).open(encoding="utf-8") as lines:
                return lines.readline().removeprefix("# version").strip()
    return "of an unknown version"
