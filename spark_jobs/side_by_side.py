"""Runs independent writes of one job at the same time: a small day's time goes into planning, which one query cannot spread over cores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def side_by_side(tasks: Sequence[Callable[[], T]]) -> list[T]:
    """Runs all tasks to their end, two at a time, and returns their results in order; then raises the first error, if there was one."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        futures = [pool.submit(task) for task in tasks]
    return [future.result() for future in futures]
