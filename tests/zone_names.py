"""Which time zones the tests of days go through, and over which days."""

from __future__ import annotations

import os
from datetime import date
from zoneinfo import ZoneInfo, available_timezones

from contracts.zones import offset_changes

ALL = os.environ.get("TRIBUTARY_ZONES") == "all"
FIRST, LAST = (date(2024, 1, 1), date(2028, 12, 31)) if ALL else (date(2026, 1, 1), date(2026, 12, 31))

# Missing midnights, doubled ones, clocks that change at 23:00, by half an hour, by rules of their own, not at all; the
# date line.
SAMPLE = (
    "Africa/Cairo",
    "Africa/Casablanca",
    "America/Havana",
    "America/Nuuk",
    "America/Santiago",
    "Asia/Beirut",
    "Asia/Shanghai",
    "Atlantic/Azores",
    "Australia/Lord_Howe",
    "Europe/Berlin",
    "Pacific/Apia",
    "Pacific/Chatham",
    "Pacific/Kiritimati",
    "UTC",
)


def zone_names() -> list[str]:
    """The sample, or all that Python knows where TRIBUTARY_ZONES is `all`."""
    return sorted(available_timezones()) if ALL else sorted(SAMPLE)


def different_zones() -> list[str]:
    """One name of those whose offsets are the same on all of these days: their days are, too."""
    return list({tuple(offset_changes(ZoneInfo(name), FIRST, LAST)): name for name in zone_names()}.values())
