"""How a text of a landing file becomes a timestamp: expressions of SQL, the same whenever and wherever a job runs.

A time is a day and a clock of ISO-8601, with an offset or in UTC. Spark's own cast takes more: a clock without a day as
one of the day on which the job runs, Java's three-letter names of zones (BST is Dhaka, CST is Chicago), years of five
digits. Those are refused here.
"""

from __future__ import annotations

from lake.sql import literal

DAY = r"(?!0000)\d{4}-\d\d?-\d\d?"
MINUTE = r"[T ]\d\d?:\d\d?"
SECOND = r":\d\d?(?:\.\d*)?"
OFFSET = r" ?(?:Z|UTC|GMT|[+-]\d\d?:\d\d|[+-]\d\d(?:\d\d)?)"
TIME = f"^{DAY}(?:{MINUTE}(?:{SECOND})?(?:{OFFSET})?)?$"
TO_THE_MINUTE = f"^({DAY}{MINUTE})({OFFSET})$"

CLOCK_ONLY = r"^T?\d\d?:\d\d"
NAMED_ZONE = r"^\d{4}-.*\d:\d\d?[^A-Za-z]*(?!Z$)[A-Za-z]"


def timestamp_of(text: str) -> str:
    """A text as a timestamp; null where it is none. Blanks around it do not count.

    Taken are a day, and a day with a clock to the minute, the second or a fraction of it (cut after microseconds), with
    `Z`, `UTC`, `GMT`, an offset of hours or hours and minutes, or nothing, which means UTC. Invalid days, 24:00 and a
    second 60 are none.

    Args:
        text: an expression of a string.
    """
    trimmed = f"trim({text})"
    # Spark takes an offset after seconds only.
    with_seconds = f"try_cast(regexp_replace({trimmed}, {literal(TO_THE_MINUTE)}, '$1:00$2') AS timestamp)"
    return f"""CASE WHEN {_is_usual(text)} THEN try_cast({text} AS timestamp)
        WHEN {trimmed} RLIKE {literal(TIME)} THEN coalesce(try_cast({trimmed} AS timestamp), {with_seconds}) END"""


def _is_usual(text: str) -> str:
    """Whether Spark's cast of a text may be taken without a look at its whole shape: a regular expression costs as much as the cast.

    It begins with a year of four digits, and ends with seconds and `Z`, or has no place for a name of a zone.
    """
    in_utc = (
        f"endswith({text}, 'Z') AND substring({text}, -2, 2) BETWEEN '0Z' AND '9Z' AND substring({text}, 17, 1) = ':'"
    )
    offset = f"length({text}) = 25 AND substring({text}, 20, 1) IN ('+', '-')"
    fixed = f"substring({text}, 14, 1) = ':' AND substring({text}, 17, 1) = ':' AND (length({text}) = 19 OR {offset})"
    return f"{text} >= '0001-' AND instr({text}, '-') = 5 AND ({in_utc} OR {fixed})"


def faults(text: str) -> dict[str, str]:
    """What a text that is no timestamp should have been, by what is wrong with it; the first that holds. It may be null."""
    trimmed = f"trim({text})"
    other_zone = f"{trimmed} RLIKE {literal(NAMED_ZONE)} AND NOT {trimmed} RLIKE {literal(TIME)}"
    return {
        "an ISO-8601 time with its day, not a clock alone": f"{trimmed} RLIKE {literal(CLOCK_ONLY)}",
        "an ISO-8601 time with an offset or Z, not with a zone's name": other_zone,
    }
