"""How a text of a landing file becomes a timestamp: pure expressions, the same whenever and wherever a job runs.

A time is a day and a clock of ISO-8601, with an offset or in UTC. Spark's own cast takes more: a clock without a day as one of the day on which
the job runs, Java's three-letter names of zones (BST is Dhaka, CST is Chicago), years of five digits. Those are refused here.
"""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F

DAY = r"(?!0000)\d{4}-\d\d?-\d\d?"
MINUTE = r"[T ]\d\d?:\d\d?"
SECOND = r":\d\d?(?:\.\d*)?"
OFFSET = r" ?(?:Z|UTC|GMT|[+-]\d\d?:\d\d|[+-]\d\d(?:\d\d)?)"
TIME = f"^{DAY}(?:{MINUTE}(?:{SECOND})?(?:{OFFSET})?)?$"
TO_THE_MINUTE = f"^({DAY}{MINUTE})({OFFSET})$"
SIGNS = "0123456789:.+-TZ "  # what nearly every time consists of: a regular expression would cost as much as the cast
SHORTEST = len("2026-3-1")

CLOCK_ONLY = r"^T?\d\d?:\d\d"
NAMED_ZONE = r"^\d{4}-.*[:\d] ?\[?([A-Za-z][A-Za-z_/+-]*[\w/+-]*)\]?$"
EXPECTED = {
    "clock": "an ISO-8601 time with its day, not a clock alone",
    "zone": "an ISO-8601 time with an offset or Z, not with the name of a zone",
}


def timestamp_of(text: Column) -> Column:
    """A trimmed text as a timestamp; null where it is none.

    Taken are a day, and a day with a clock to the minute, the second or a fraction of it (cut after microseconds), with `Z`, `UTC`, `GMT`, an
    offset of hours or hours and minutes, or nothing, which means UTC. Invalid days, 24:00 and a second 60 are none.
    """
    begins_with_year = (F.substring(text, 5, 1) == "-") & ~text.startswith("0000") & (F.length(text) >= SHORTEST)
    usual = begins_with_year & (F.rtrim(F.lit(SIGNS), text) == "")
    with_seconds = F.regexp_replace(text, TO_THE_MINUTE, "$1:00$2").try_cast("timestamp")  # Spark takes an offset after seconds only
    return F.when(usual | text.rlike(TIME), F.coalesce(text.try_cast("timestamp"), with_seconds))


def expected_time(text: Column, otherwise: str) -> Column:
    """What a text that is no timestamp should have been, in words that say what is wrong with it.

    Args:
        text: the trimmed text.
        otherwise: what is expected where nothing more is known.
    """
    zone = F.regexp_extract(text, NAMED_ZONE, 1)
    named = F.concat(F.lit(EXPECTED["zone"] + ": "), zone)
    return F.when(text.rlike(CLOCK_ONLY), EXPECTED["clock"]).when((zone != "") & ~zone.isin("Z", "UTC", "GMT", "T"), named).otherwise(otherwise)
