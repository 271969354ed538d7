"""What the stack consists of, and how each part is started: by `up`, and by the supervisor when one has died."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from contracts.errors import TributaryError
from contracts.locations import Locations
from contracts.settings import connect_token, folder_python
from tributary.stack import airflow, ports, postgres, processes

SPARK = "spark-connect"
SUPERVISOR = "supervisor"
SETUP_FILE = "setup.json"
ALL = (postgres.NAME, SPARK, *airflow.COMPONENTS)  # in the order in which they start
POSTGRES_TIMEOUT_SECONDS = postgres.RECOVERY_SECONDS + 60


class StackFailed(TributaryError):
    """A component did not start; the message ends with the last lines of its log."""

    exit_code = 1


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What one start of the stack decided, for whoever starts a part of it again.

    Attributes:
        ui_port, spark_port: on loopback.
        database: Airflow's PostgreSQL elsewhere, without its password; "" if the stack has its own.
    """

    ui_port: int
    spark_port: int
    database: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The components of this setup; PostgreSQL is absent where the deployment names another database."""
        return tuple(name for name in ALL if not (self.database and name == postgres.NAME))

    def write(self, home: Path) -> None:
        """Writes the setup into the deployment's folder, readable only by its owner."""
        processes.write_private(Locations(home).stack / SETUP_FILE, json.dumps(asdict(self)) + "\n")

    @classmethod
    def read(cls, home: Path) -> Setup | None:
        """The setup of the last start, or None if there is none that can be read."""
        try:
            return cls(**json.loads((Locations(home).stack / SETUP_FILE).read_text()))
        except (OSError, ValueError, TypeError):
            return None


def names(home: Path) -> tuple[str, ...]:
    """The components of a home's last start."""
    setup = Setup.read(home)
    return ALL if setup is None else setup.names


def log_of(home: Path, name: str) -> Path:
    """Returns the log of a component: a file, or for PostgreSQL a folder."""
    return postgres.folder_of(home) / "log" if name == postgres.NAME else Locations(home).stack / f"{name}.log"


def living(home: Path) -> dict[str, processes.Record]:
    """Records of the components that live, and of the supervisor if it does."""
    records = {name: processes.read_record(Locations(home).stack, name) for name in (*names(home), SUPERVISOR)}
    return {name: one for name, one in records.items() if one is not None and one.is_alive}


def may_start(home: Path, setup: Setup, name: str) -> bool:
    """Whether what a component needs is there: it would end at once without its database, and tasks fail without the API."""
    if name not in airflow.COMPONENTS:
        return True
    database = processes.read_record(Locations(home).stack, postgres.NAME)
    if not setup.database and (database is None or not database.is_alive):
        return False
    return name != airflow.SCHEDULER or ports.answers(setup.ui_port)


def start(home: Path, setup: Setup, name: str) -> processes.Record:
    """Starts one component after ending what a former one has left behind; returns as soon as it is recorded.

    Raises:
        StackFailed: PostgreSQL did not start.
    """
    clear(home, name)
    folder = Locations(home).stack
    if name == postgres.NAME:
        return _start_postgres(home)
    if name == SPARK:
        python = folder_python("spark_jobs") or sys.executable
        return processes.start(
            name,
            [python, "-m", "lake.server", "--home", str(home), "--port", str(setup.spark_port)],
            env=airflow.marked_env(home, name) | {"PYSPARK_PYTHON": python},
            folder=folder,
            cwd=folder,
            address=_spark_address(setup),
        )
    if name == SUPERVISOR:
        return processes.start(
            name,
            [sys.executable, "-m", "tributary.stack", "supervise", str(home)],
            env=airflow.marked_env(home, name),
            folder=folder,
            cwd=folder,
        )
    return processes.start(
        name,
        [airflow.executable(), *airflow.COMPONENTS[name]],
        env=tasks_env(home, setup, name),
        folder=folder,
        cwd=airflow.folder_of(home),
        address=f"http://127.0.0.1:{setup.ui_port}" if name == airflow.API_SERVER else "",
    )


def clear(home: Path, name: str) -> None:
    """Ends what a former component has left behind, and waits until it has gone itself, with its port and its locks."""
    processes.kill_marked(home, component=name)
    record = processes.read_record(Locations(home).stack, name)
    if record is not None:
        processes.wait_until_gone([record])


def tasks_env(home: Path, setup: Setup, name: str) -> dict[str, str]:
    """Environment of Airflow's components, and so of tasks.

    It names the Spark Connect server: while it is being started again tasks wait for it, instead of starting a writing
    JVM of their own, which would keep the lake's lock from it.
    """
    return airflow.marked_env(home, name) | {
        "SPARK_REMOTE": _spark_address(setup),
        "SPARK_CONNECT_AUTHENTICATE_TOKEN": _token(home),
    }


def _spark_address(setup: Setup) -> str:
    return f"sc://localhost:{setup.spark_port}"


def _token(home: Path) -> str:
    """Spark Connect's token, made before the server comes up, since tasks are given it."""
    given, path = connect_token(), Locations(home).connect_token
    if given is not None:
        return given
    if not path.is_file():
        processes.write_private(path, secrets.token_urlsafe(32))
    return path.read_text().strip()


def _start_postgres(home: Path) -> processes.Record:
    folder = Locations(home).stack
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tributary.stack", "postgres", str(home)],
            cwd=folder,
            check=False,
            text=True,
            env=airflow.marked_env(home, postgres.NAME),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=POSTGRES_TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise StackFailed(
            f"postgres: expected it to start within {POSTGRES_TIMEOUT_SECONDS:.0f} s, found that it did not. "
            f"See {postgres.folder_of(home) / 'log'}"
        ) from None
    record = processes.read_record(folder, postgres.NAME)
    if done.returncode or record is None:
        said = done.stderr.strip().removeprefix("error: ")
        raise StackFailed(said or f"postgres: expected it to start, found exit code {done.returncode}")
    return record
