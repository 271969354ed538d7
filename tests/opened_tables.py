"""Which tables of the lake are opened while something runs in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any
from unittest import mock

from contracts.steps import LANDING, REGISTRY, Step
from lake import reader


@contextmanager
def opened_tables() -> Iterator[set[str]]:
    """Yields the names of the tables that are opened in the block: all reading, with Spark or without, goes through one function."""
    opened: set[str] = set()
    open_table = reader.open_table

    def noting(address: str) -> Any:
        opened.add(PurePosixPath(address).name)
        return open_table(address)

    with mock.patch.object(reader, "open_table", noting):
        yield opened


def assert_as_declared(step: Step, opened: set[str]) -> None:
    """What a step opened is what it declares to read; its own tables and the registry may be opened too."""
    assert opened - {*step.writes, *REGISTRY} <= set(step.reads), step
    assert set(step.reads) - {*LANDING} <= opened, step
