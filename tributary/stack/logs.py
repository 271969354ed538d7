"""Logs of the stack: all lie in its folder, and their size is bounded, so that they cannot fill the disk.

Each start of a component begins a new log; the three before it are kept as `.1`, `.2` and `.3`. Processes append to their
logs (O_APPEND), so a log that has grown too large can be cut while a process writes it.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

KEPT = 3
LIMIT_BYTES = 32 << 20
AIRFLOW_DAYS = 30  # how long logs of tasks, and of the parsing of DAGs, are kept
NO_SPACE = (
    "No space left on device",
    "Disk quota exceeded",
)  # messages of the C library, which Java and PostgreSQL log too
_TAIL_BYTES = 64 << 10


def open_new(path: Path) -> BinaryIO:
    """Opens a new log for a process, readable only by its owner; the log before it becomes `.1`, and so on."""
    rotate(path)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb")


def rotate(path: Path) -> None:
    """Renames a log to `.1`, that one to `.2`, and so on; of each at most the last `LIMIT_BYTES` are kept."""
    if not path.is_file() or path.stat().st_size == 0:
        return
    for number in range(KEPT, 1, -1):
        with suppress(FileNotFoundError):
            _former(path, number - 1).replace(_former(path, number))
    path.replace(_former(path, 1))
    if _former(path, 1).stat().st_size > LIMIT_BYTES:
        _former(path, 1).write_bytes(_last_bytes(_former(path, 1), LIMIT_BYTES))


def bound(path: Path) -> bool:
    """Empties a log that is larger than `LIMIT_BYTES`, also while a process writes it; returns whether it did.

    The last `LIMIT_BYTES` of its content become `.1`.
    """
    if not path.is_file() or path.stat().st_size <= LIMIT_BYTES:
        return False
    kept = _last_bytes(path, LIMIT_BYTES)
    os.truncate(path, 0)  # before the copy is written, for which a full disk has no room
    with os.fdopen(os.open(_former(path, 1), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as former:
        former.write(kept)
    return True


def prune(folder: Path, *, days: int = AIRFLOW_DAYS) -> int:
    """Removes files that were not written to for `days` days, and folders that become empty by that; returns how many files."""
    oldest, removed = time.time() - days * 86_400, 0
    emptied: set[str] = set()
    for name, _, files in os.walk(folder, topdown=False):
        for file in files:
            path = Path(name, file)
            with suppress(FileNotFoundError):
                if path.lstat().st_mtime < oldest:
                    path.unlink()
                    removed += 1
                    emptied.add(name)
        if name in emptied and Path(name) != folder:
            with suppress(OSError):  # not empty
                Path(name).rmdir()
                emptied.add(str(Path(name).parent))
    return removed


def tail(path: Path, lines: int = 15) -> str:
    """Returns the last lines of a log, for an error message; "" if it cannot be read."""
    with suppress(OSError):
        return "\n".join(_last_bytes(path, _TAIL_BYTES).decode(errors="replace").splitlines()[-lines:])
    return ""


def wants_space(path: Path) -> bool:
    """Returns whether the end of a log reports that the disk was full."""
    end = tail(path, 200)
    return any(words in end for words in NO_SPACE)


def _former(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _last_bytes(path: Path, count: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - count))
        return file.read()
