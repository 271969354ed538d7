"""Makes batches in the background while a step computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

DEPTH = 2  # How many batches are ready or being made.


def prefetched(make: Callable[[T], R], keys: Sequence[T]) -> Iterator[R]:
    """Yields `make(key)` for each key in order, at most `DEPTH` ahead; an error of `make` is raised at the key's place."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch") as pool:
        rest = iter(keys)
        pending: deque[Future[R]] = deque(pool.submit(make, key) for key in islice(rest, DEPTH))
        while pending:
            made = pending.popleft().result()
            pending.extend(pool.submit(make, key) for key in islice(rest, 1))
            yield made
