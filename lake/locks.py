"""Locks on (table, partition), by `flock`: released by the kernel when their holder dies, however it dies.

A lock file names its holder and the Spark Connect session that it writes through: a client killed by -9 leaves its
query running in the server, so the next holder ends that session first. Each session also has a lock of its own, by
which the next client detects a killed one even if it writes other partitions.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO

from contracts.errors import TributaryError


class Locked(TributaryError):
    """Somebody else holds the lock."""

    exit_code = 1  # a retry helps: the lock may be free by then


def read_holder(path: Path) -> dict[str, Any]:
    """What the last holder of a lock wrote about itself; {} if there is nothing that can be read."""
    try:
        holder = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


def try_lock(path: Path, *, shared: bool = False) -> TextIO | None:
    """Takes the lock, exclusively or `shared`, and returns the open file that holds it; None if somebody else has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+")
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def write_holder(file: TextIO, **values: object) -> None:
    """Writes into the file of a held lock who holds it."""
    file.seek(0)
    file.truncate()
    json.dump({"pid": os.getpid(), "command": _command_line(), **values}, file)
    file.flush()


def _command_line() -> str:
    """This process's command line without a user's id, since a lock file outlives the command."""
    words = sys.argv
    return " ".join(
        "..." if before == "--user" else re.sub(r"^--user=.*", "--user=...", word)
        for before, word in zip(["", *words], words, strict=False)
    )


def is_held(path: Path) -> bool:
    """Whether somebody holds the lock now."""
    if not path.exists():
        return False
    file = try_lock(path)
    if file is None:
        return True
    file.close()
    return False


@contextmanager
def hold(
    paths: Iterable[Path],
    *,
    timeout_seconds: float = 600,
    session_id: str | None = None,
    end_session: Callable[[str], None] | None = None,
) -> Iterator[None]:
    """Holds all locks, which are taken in sorted order so that two holders cannot wait for each other.

    Args:
        paths: the lock files.
        timeout_seconds: how long to wait for each.
        session_id: id of the Spark Connect session that this holder writes through.
        end_session: called with the session id of a former holder that died or failed; it must end that session.

    Raises:
        Locked: another process still held one after the timeout; the message names it.
    """
    with ExitStack() as stack:
        held = [(path, stack.enter_context(_wait_for(path, timeout_seconds))) for path in sorted(set(paths))]
        left_behind = {holder["session_id"] for path, _ in held if (holder := read_holder(path)).get("session_id")}
        for old_session in sorted(left_behind - {session_id}):
            if end_session is not None:
                end_session(old_session)
        for _, file in held:
            write_holder(file, session_id=session_id)
        yield
        for _, file in held:  # not reached when the body raises: a failed writer's session is ended by the next one
            file.seek(0)
            file.truncate()
            file.flush()


@contextmanager
def hold_session(folder: Path, session_id: str) -> Iterator[None]:
    """Holds a session's own lock; its file remains if the holder dies or fails: see `sessions_left_behind`.

    Args:
        folder: the folder of the sessions' lock files.
        session_id: id of the Spark Connect session that is about to be opened.
    """
    path, making = folder / f"{session_id}.lock", folder / f".{session_id}"
    with _wait_for(making, timeout_seconds=0) as file:
        write_holder(file)
        making.rename(path)  # so that the file never has its final name without being locked
        yield
        path.unlink()


def sessions_left_behind(folder: Path) -> list[str]:
    """Ids of the sessions whose client has died or failed."""
    return sorted(path.stem for path in folder.glob("*.lock") if not is_held(path))


def release_session(folder: Path, session_id: str) -> None:
    """Deletes the lock file of a session that was left behind, once the session has been ended and cleared."""
    (folder / f"{session_id}.lock").unlink(missing_ok=True)


@contextmanager
def share(path: Path, *, exclusive: bool = False, timeout_seconds: float = 600) -> Iterator[None]:
    """Holds a lock together with all who share it, or exclusively.

    Args:
        path: the lock file.
        exclusive: whether to hold it without sharing: it waits until all sharers have ended, and none begins meanwhile.
        timeout_seconds: how long to wait for it.

    Raises:
        Locked: it was not free after the timeout.
    """
    with _wait_for(path, timeout_seconds, shared=not exclusive) as file:
        if exclusive:
            write_holder(file)
        yield
        if exclusive:
            file.seek(0)
            file.truncate()


@contextmanager
def _wait_for(path: Path, timeout_seconds: float, *, shared: bool = False) -> Iterator[TextIO]:
    deadline = time.monotonic() + timeout_seconds
    is_reported = False
    while (file := try_lock(path, shared=shared)) is None:
        holder = read_holder(path)
        who = f"process {holder.get('pid', '?')} ({holder.get('command', 'unknown command')})"
        if time.monotonic() >= deadline:
            raise Locked(f"{path}: expected a free lock within {timeout_seconds:.0f} s, found it held by {who}")
        if not is_reported:
            print(f"waiting for {path.name}, held by {who}", file=sys.stderr, flush=True)
            is_reported = True
        time.sleep(0.2)
    with file:
        yield file
