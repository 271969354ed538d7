"""Progress bars: one look for every command."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any

from tqdm import tqdm

_hidden = False


def hide_progress() -> None:
    """Shows no more bars in this process, because another process shows them."""
    global _hidden
    _hidden = True


def progress(
    items: Iterable[Any] | None = None,
    *,
    total: int | None = None,
    description: str = "",
    unit: str = "it",
    initial: int = 0,
) -> Any:
    """A bar on stderr; in a log file (no terminal) it writes a line every ten seconds instead of redrawing."""
    interactive = sys.stderr.isatty()
    return tqdm(
        items,
        total=total,
        initial=initial,
        desc=description,
        unit=unit,
        unit_scale=unit == "sample",
        disable=_hidden,
        mininterval=0.2 if interactive else 10.0,
        ascii=not interactive,
        dynamic_ncols=interactive,
    )


def each(items: Iterable[Any], *, description: str, unit: str = "it") -> Iterator[Any]:
    """Iterates over the items with a progress bar."""
    known = list(items)
    yield from progress(known, total=len(known), description=description, unit=unit)
