"""Pages on disk, and the two files that the pages about quality are made from."""

from __future__ import annotations

import os
from pathlib import Path

from contracts.quality import JudgedDay, StaleReport, judged_from_json


def write_atomically(path: Path, text: str) -> None:
    """A reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def read_judged(path: Path) -> list[JudgedDay]:
    """The days that were judged; none where there is no file, or it cannot be read."""
    try:
        return judged_from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError):
        return []


def read_stale(path: Path) -> StaleReport | None:
    """What was found stale; None where nobody has looked, or the file cannot be read."""
    try:
        return StaleReport.from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError):
        return None
