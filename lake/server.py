"""`python -m lake.server`: becomes the Spark Connect server of a lake, holding the lake's lock for as long as it lives."""

from __future__ import annotations

import fcntl
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from contracts.commands import run_line, with_home
from contracts.errors import BadInput, run_command
from contracts.locations import Locations
from contracts.settings import connect_token, spark_host
from lake import locks, zones
from lake.java import require_java
from lake.session import server_command


def main(argv: Sequence[str] | None = None) -> int:
    """Checks that nobody else writes to the lake, takes its lock, and replaces this process by the server."""
    return run_line(_serve, argv)


@click.command("python -m lake.server", help=__doc__)
@with_home
@click.option("--port", type=int, default=15002, show_default=True, help="Its port.")
def _serve(home: Path, port: int) -> None:
    locations = Locations(home)
    require_java()
    zones.require_same_days(locations)
    lock = locks.try_lock(locations.lake_lock)
    if lock is None:
        holder = locks.read_holder(locations.lake_lock)
        raise BadInput(
            locations.lake,
            "lake",
            expected="no other writer",
            found=f"process {holder.get('pid', '?')} ({holder.get('address') or holder.get('command', 'unknown')})",
        )
    token = _token(locations)
    host = "localhost" if spark_host() == "127.0.0.1" else spark_host()
    locks.write_holder(lock, address=f"sc://{host}:{port}")
    # The JVM inherits the open file and with it the lock, which ends when the JVM does, however it ends.
    fcntl.fcntl(lock, fcntl.F_SETFD, fcntl.fcntl(lock, fcntl.F_GETFD) & ~fcntl.FD_CLOEXEC)
    command = server_command(locations, port, token)
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.execv(command[0], command)


def _token(locations: Locations) -> str:
    """The server's token: that of the environment, else one that is made once and readable only by its owner."""
    given, path = connect_token(), locations.connect_token
    path.parent.mkdir(parents=True, exist_ok=True)
    if given is not None:
        return given
    if not path.is_file():
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(32))
    return path.read_text().strip()


if __name__ == "__main__":
    raise SystemExit(run_command(main))
