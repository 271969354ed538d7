"""Logs of the stack: all in its folder, and bounded, so that they cannot fill the disk.

A component's log begins anew at each of its starts; the former ones are kept as `.1`, `.2`, `.3`. All are written at
their end (O_APPEND), so one that grows too large can be cut while it is written.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

KEPT = 3
LIMIT_BYTES = 32 << 20
AIRFLOW_DAYS = 30  # of the logs of tasks, and of the parsing of DAGs
NO_SPACE = ("No space left on device", "Disk quota exceeded")  # the C library's words, which Java and PostgreSQL repeat
_TAIL_BYTES = 64 << 10


def open_new(path: Path) -> BinaryIO:
    """Opens a log for a process that starts, readable only by its owner; the log before it moves to `.1`, and so on."""
    rotate(path)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb")


def rotate(path: Path) -> None:
    """Makes way for a new log; of each former one at most the last `LIMIT_BYTES` are kept."""
    if not path.is_file() or path.stat().st_size == 0:
        return
    for number in range(KEPT, 1, -1):
        with suppress(FileNotFoundError):
            _former(path, number - 1).replace(_former(path, number))
    path.replace(_former(path, 1))
    if _former(path, 1).stat().st_size > LIMIT_BYTES:
        _former(path, 1).write_bytes(_last_bytes(_former(path, 1), LIMIT_BYTES))


def bound(path: Path) -> bool:
    """Cuts a log while it is written, once it is larger than `LIMIT_BYTES`: its content moves to `.1`. Returns whether it did."""
    if not path.is_file() or path.stat().st_size <= LIMIT_BYTES:
        return False
    kept = _last_bytes(path, LIMIT_BYTES)
    os.truncate(path, 0)  # first: on a full disk there is no room for a copy beside it
    with os.fdopen(os.open(_former(path, 1), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as former:
        former.write(kept)
    return True


def prune(folder: Path, *, days: int = AIRFLOW_DAYS) -> int:
    """Removes files that were not written for so many days, and folders that become empty; returns how many files."""
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
    """The last lines of a log, for an error message."""
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
