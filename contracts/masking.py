"""What may be shown of log content: user ids masked, control and direction marks made visible, long texts cut.

Log content is hostile. Escaping for HTML is the report's own work, done on every value without exception.
"""

from __future__ import annotations

from collections.abc import Iterable

MASKED_FIELDS = frozenset({"user_id"})
LONGEST_SHOWN = 120


def mask(text: str) -> str:
    """The text's shape: digits as 9, letters as x; sign, spaces and marks stay, for they are often what is wrong."""
    return "".join("9" if char.isdigit() else "x" if char.isalpha() else char for char in text)


def shown(value: object, *, fields: Iterable[str], columns: Iterable[str]) -> str:
    """A bad value as it may be shown.

    Args:
        value: the value that a check or rule refused.
        fields: the fields that held it.
        columns: columns of the table; a value of none of them may be a whole row, and is masked.
    """
    if value is None:
        return "nothing"
    known, named = set(columns), set(fields)
    text = str(value)
    if named & MASKED_FIELDS or not named <= known:
        text = mask(text)
    return printable(text)


def printable(text: str, longest: int = LONGEST_SHOWN) -> str:
    """The text, cut to a readable length; characters that are not printable (control, direction marks) are escaped."""
    cut = text if len(text) <= longest else text[:longest] + "..."
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in cut)
