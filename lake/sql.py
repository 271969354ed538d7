"""Helpers for SQL text: a condition in SQL is parsed once, while one made of Columns calls the JVM for each of its parts."""

from __future__ import annotations

from collections.abc import Iterable


def literal(value: str | int) -> str:
    """A value as an SQL literal."""
    return str(value) if isinstance(value, int) else "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def literals(values: Iterable[str | int]) -> str:
    """Values as SQL literals, separated by commas."""
    return ", ".join(map(literal, values))
