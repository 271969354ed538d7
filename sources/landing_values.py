"""What ingestion reads out of a landing file's text, without Spark: integers, numbers, times, hashed ids, payload hashes.

The rules are those of Spark's `try_cast` and `xxhash64`: usual forms are read by Arrow a column at a time, unusual ones one by one.
Shapes: N rows.
"""

from __future__ import annotations

import math
import re
from calendar import monthrange
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_INTEGER = re.compile(r"[+-]?[0-9]+")
_DOUBLE = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?[dDfF]?")
_HEX_DOUBLE = re.compile(r"[+-]?0[xX]([0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)[pP][+-]?[0-9]+[dDfF]?")
_SPECIAL = {"nan": math.nan, "inf": math.inf, "+inf": math.inf, "infinity": math.inf, "+infinity": math.inf, "-inf": -math.inf,
            "-infinity": -math.inf}
_TIME = re.compile(r"(?P<year>[+-]?\d{4,6})(-(?P<month>\d{1,2})(-(?P<day>\d{1,2})([ T](?P<hour>\d{1,2})(:(?P<minute>\d{1,2})"
                   r"(:(?P<second>\d{1,2})(\.(?P<fraction>\d*))?)?)?(?P<zone>.*))?)?)?")
_CLOCK = re.compile(r"T?\d{1,2}:\d{1,2}")
_FAR = 1 << 60  # microseconds: 36,000 years
_USUAL_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})?$"  # for RE2
_OFFSET = re.compile(r"(?:UTC|GMT|UT)?(?P<sign>[+-])(?P<hours>\d{1,2})(:?(?P<minutes>\d{2}))?(:?(?P<seconds>\d{2}))?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LIMITS = {"bigint": 1 << 63, "int": 1 << 31}


def trimmed(text: pa.Array) -> pa.Array:
    """Without white space at both ends."""
    return pc.ascii_trim_whitespace(text)


def integers(text: pa.Array, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Values (N, int64) of trimmed text, and which of them are legible (N); others are 0."""
    usual = pc.match_substring_regex(text, r"^-?[0-9]{1,18}$")
    values_N = pc.cast(pc.if_else(usual, text, pa.scalar("0")), pa.int64()).to_numpy(zero_copy_only=False).copy()
    legible_N = usual.to_numpy(zero_copy_only=False).copy()
    for row in np.flatnonzero(~legible_N):
        found = text[int(row)].as_py()
        if found and _INTEGER.fullmatch(found) and -_LIMITS["bigint"] <= int(found) < _LIMITS["bigint"]:
            values_N[row], legible_N[row] = int(found), True
    if kind == "int":
        legible_N &= (values_N >= -_LIMITS["int"]) & (values_N < _LIMITS["int"])
    return values_N, legible_N


def doubles(text: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Values (N, float64) of trimmed text, and which of them are legible (N); others are 0."""
    usual = pc.match_substring_regex(text, r"^-?[0-9]{1,16}(\.[0-9]{1,16})?$")
    values_N = pc.cast(pc.if_else(usual, text, pa.scalar("0")), pa.float64()).to_numpy(zero_copy_only=False).copy()
    legible_N = usual.to_numpy(zero_copy_only=False).copy()
    for row in np.flatnonzero(~legible_N):
        found = text[int(row)].as_py() or ""
        if found.lower() in _SPECIAL:
            values_N[row], legible_N[row] = _SPECIAL[found.lower()], True
        elif _DOUBLE.fullmatch(found):
            values_N[row], legible_N[row] = float(found.rstrip("dDfF")), True
        elif _HEX_DOUBLE.fullmatch(found):
            values_N[row], legible_N[row] = float.fromhex(found.rstrip("dDfF")), True
    return values_N, legible_N


def times(text: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Microseconds since 1970 UTC (N, int64) of trimmed text, and which of them are legible (N); others are 0."""
    usual = pc.match_substring_regex(text, _USUAL_TIME)
    legible_N = usual.to_numpy(zero_copy_only=False).copy()
    micros_N = np.zeros(len(text), dtype=np.int64)
    safe = pc.if_else(usual, text, pa.scalar("1970-01-01T00:00:00Z"))
    for begin, end, read in ((0, 10, _day_micros), (11, 19, _clock_micros), (19, None, _tail_micros)):
        encoded = pc.utf8_slice_codeunits(safe, begin, end).dictionary_encode()
        parts = [read(part) for part in encoded.dictionary.to_pylist()]
        places_N = encoded.indices.to_numpy(zero_copy_only=False)
        micros_N += np.array([part or 0 for part in parts], dtype=np.int64)[places_N]
        legible_N &= np.array([part is not None for part in parts], dtype=bool)[places_N]
    for row in np.flatnonzero(~usual.to_numpy(zero_copy_only=False)):
        value = unusual_time(text[int(row)].as_py() or "")
        if value is not None:
            micros_N[row], legible_N[row] = value, True
    return np.where(legible_N, micros_N, 0), legible_N


@lru_cache(maxsize=1 << 16)
def _day_micros(text: str) -> int | None:
    year, month, day = int(text[:4]), int(text[5:7]), int(text[8:])
    if year < 1 or not 1 <= month <= 12 or not 1 <= day <= monthrange(year, month)[1]:
        return None
    return (date(year, month, day).toordinal() - date(1970, 1, 1).toordinal()) * 86_400_000_000


@lru_cache(maxsize=1 << 17)
def _clock_micros(text: str) -> int | None:
    hour, minute, second = int(text[:2]), int(text[3:5]), int(text[6:])
    return (hour * 3600 + minute * 60 + second) * 1_000_000 if hour < 24 and minute < 60 and second < 60 else None


def _tail_micros(text: str) -> int | None:
    """Of a fraction of a second and an offset from UTC."""
    mark = next((place for place, char in enumerate(text) if char in "Z+-"), len(text))
    micros = int(text[1:mark][:6].ljust(6, "0")) if mark > 1 else 0
    if text[mark:] in ("", "Z"):
        return micros
    hours, minutes = int(text[mark + 1: mark + 3]), int(text[mark + 4:])
    if minutes > 59 or hours * 60 + minutes > 18 * 60:
        return None
    return micros - (hours * 60 + minutes) * 60_000_000 * (1 if text[mark] == "+" else -1)


def unusual_time(text: str) -> int | None:
    """Microseconds since 1970 of a time in any form that Spark reads, a clock without a day among them: that is today's; else None."""
    if _CLOCK.match(text):
        text = f"{datetime.now(UTC).date()}T{text.removeprefix('T')}"
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    part = match.groupdict()
    zone = _zone(part["zone"] or "")
    if zone is None:
        return None
    year, micros = int(part["year"]), int((part["fraction"] or "")[:6].ljust(6, "0"))
    try:
        # A year that Python does not know has the calendar of another one; its exact time matters to nobody.
        day = (year if 1 < year < 9999 else 2000 + year % 400, int(part["month"] or 1), int(part["day"] or 1))
        moment = datetime(*day, int(part["hour"] or 0), int(part["minute"] or 0), int(part["second"] or 0), micros, tzinfo=zone)
    except ValueError:
        return None
    if not 1 < year < 9999:
        return _FAR if year > 0 else -_FAR
    return (moment - _EPOCH) // _MICROSECOND


def _zone(text: str) -> tzinfo | None:
    text = text.strip()
    if text in ("", "Z", "UTC", "GMT", "UT"):
        return UTC
    match = _OFFSET.fullmatch(text)
    if match is None:
        try:
            return ZoneInfo(text)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            return None
    hours, minutes, seconds = (int(match[name] or 0) for name in ("hours", "minutes", "seconds"))
    if minutes > 59 or seconds > 59 or hours * 3600 + minutes * 60 + seconds > 18 * 3600:
        return None
    return timezone((1 if match["sign"] == "+" else -1) * timedelta(hours=hours, minutes=minutes, seconds=seconds))
