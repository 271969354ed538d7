"""How a text of a landing file becomes a timestamp: pure expressions, the same whenever and wherever a job runs.

A time is a day and a clock of ISO-8601, with an offset or in UTC. Spark's own cast takes more: a clock without a day as one of the day on
which the job runs, Java's three-letter names of zones (BST is Dhaka, CST is Chicago), years of five digits. Those are refused here.
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

CLOCK_ONLY = r"^T?\d\d?:\d\d"
NAMED_ZONE = r"^\d{4}-.*\d:\d\d?[^A-Za-z]*(?!Z$)[A-Za-z]"


def timestamp_of(text: Column) -> Column:
    """A text as a timestamp; null where it is none. Blanks around it do not count.

    Taken are a day, and a day with a clock to the minute, the second or a fraction of it (cut after microseconds), with `Z`, `UTC`, `GMT`,
    an offset of hours or hours and minutes, or nothing, which means UTC. Invalid days, 24:00 and a second 60 are none.
    """
    trimmed = F.trim(text)
    with_seconds = F.regexp_replace(trimmed, TO_THE_MINUTE, "$1:00$2").try_cast("timestamp")  # Spark takes an offset after seconds only
    other = F.when(trimmed.rlike(TIME), F.coalesce(trimmed.try_cast("timestamp"), with_seconds))
    return F.when(_is_usual(text), text.try_cast("timestamp")).otherwise(other)


def _is_usual(text: Column) -> Column:
    """Whether Spark's cast of a text may be taken without a look at its whole shape: a regular expression costs as much as the cast.

    It begins with a year of four digits, and ends with seconds and `Z`, or has no place for a name of a zone.
    """
    def at(place: int, *signs: str) -> Column:
        return F.substring(text, place, 1).isin(*signs)

    length = F.length(text)
    last = F.substring(text, -2, 2)
    in_utc = text.endswith("Z") & (last >= "0Z") & (last <= "9Z") & at(17, ":")
    fixed = at(14, ":") & at(17, ":") & ((length == 19) | ((length == 25) & at(20, "+", "-")))
    return (text >= "0001-") & (F.instr(text, "-") == 5) & (in_utc | fixed)


def faults(text: Column) -> dict[str, Column]:
    """What a text that is no timestamp should have been, by what is wrong with it; the first that holds."""
    trimmed = F.trim(text)
    return {"an ISO-8601 time with its day, not a clock alone": trimmed.rlike(CLOCK_ONLY),
            "an ISO-8601 time with an offset or Z, not with a zone's name": trimmed.rlike(NAMED_ZONE) & ~trimmed.rlike(TIME)}
