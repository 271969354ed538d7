"""Text of SQL: a condition that is written so is parsed once, where one of Columns asks the JVM for each of its parts."""

from __future__ import annotations

from collections.abc import Iterable


def literal(value: str | int) -> str:
    """A value as SQL writes it."""
    return str(value) if isinstance(value, int) else "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def literals(values: Iterable[str | int]) -> str:
    """Values of a list, parted by commas."""
    return ", ".join(map(literal, values))
