"""The components of the stack, and how each is started: by `up`, and by the supervisor after a component has died."""

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
ONLY: dict[str, tuple[str, ...]] = {"spark": (SPARK,)}  # the parts of ALL that `up --only` starts, by its argument
POSTGRES_TIMEOUT_SECONDS = postgres.RECOVERY_SECONDS + 60


class StackFailed(TributaryError):
    """A component did not start; the message ends with the last lines of its log."""

    exit_code = 1


@dataclass(frozen=True, kw_only=True)
class Setup:
    """The choices of one start of the stack, kept for whatever restarts a part of it.

    Attributes:
        ui_port: the loopback port of Airflow's UI and API.
        spark_port: the loopback port of Spark Connect.
        database: the address of Airflow's database without its password, if TRIBUTARY_DATABASE named one; "" if the
            stack runs a PostgreSQL of its own.
        only: the key in `ONLY` of the part that was started; "" for the whole stack.
    """

    ui_port: int
    spark_port: int
    database: str = ""
    only: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The components of this setup; PostgreSQL is absent where the deployment names another database."""
        chosen = ONLY[self.only] if self.only else ALL
        return tuple(name for name in chosen if not (self.database and name == postgres.NAME))

    @property
    def has_airflow(self) -> bool:
        """Whether Airflow, and with it a database, is part of this setup."""
        return airflow.API_SERVER in self.names

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
    """The components of the last start of a home folder; all components if its setup cannot be read."""
    setup = Setup.read(home)
    return ALL if setup is None else setup.names


def log_of(home: Path, name: str) -> Path:
    """Returns the log of a component: a file, or for PostgreSQL a folder."""
    return postgres.folder_of(home) / "log" if name == postgres.NAME else Locations(home).stack / f"{name}.log"


def living(home: Path) -> dict[str, processes.Record]:
    """Returns the records of the components that are alive, the supervisor included, by name."""
    records = {name: processes.read_record(Locations(home).stack, name) for name in (*names(home), SUPERVISOR)}
    return {name: one for name, one in records.items() if one is not None and one.is_alive}


def may_start(home: Path, setup: Setup, name: str) -> bool:
    """Whether a component finds what it needs.

    A part of Airflow would end at once without its database, and the scheduler's tasks would fail without the API.
    """
    if name not in airflow.COMPONENTS:
        return True
    database = processes.read_record(Locations(home).stack, postgres.NAME)
    if not setup.database and (database is None or not database.is_alive):
        return False
    return name != airflow.SCHEDULER or ports.answers(setup.ui_port)


def start(home: Path, setup: Setup, name: str) -> processes.Record:
    """Starts one component, and returns as soon as its process is recorded.

    What an earlier process of the same component has left behind is ended first.

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
    """Ends the processes that an earlier start of a component has left behind.

    Waits until the component's own process has gone, so that its port and its locks are free.
    """
    processes.kill_marked(home, component=name)
    record = processes.read_record(Locations(home).stack, name)
    if record is not None:
        processes.wait_until_gone([record])


def tasks_env(home: Path, setup: Setup, name: str) -> dict[str, str]:
    """Returns the environment of Airflow's components, which their tasks inherit.

    It names the Spark Connect server, so that tasks wait for the server while it restarts. Without that a task would
    start a writing JVM of its own, which would hold the lake's lock, and the server could not start.
    """
    return airflow.marked_env(home, name) | {
        "SPARK_REMOTE": _spark_address(setup),
        "SPARK_CONNECT_AUTHENTICATE_TOKEN": _token(home),
    }


def _spark_address(setup: Setup) -> str:
    return f"sc://localhost:{setup.spark_port}"


def _token(home: Path) -> str:
    """Returns Spark Connect's token; it is made before the server starts, since the tasks' environment holds it."""
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
        error = done.stderr.strip().removeprefix("error: ")
        raise StackFailed(error or f"postgres: expected it to start, found exit code {done.returncode}")
    return record
