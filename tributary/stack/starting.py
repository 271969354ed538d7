"""Starts components of the stack, and waits until they can be used."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from contracts.locations import Locations
from contracts.settings import Deployment
from contracts.steps import DAG_IDS
from tributary.airflow_api import AirflowApi, ApiError
from tributary.stack import airflow, components, logs, ports, postgres, processes
from tributary.stack.components import SPARK, Setup, StackFailed

SPARK_TIMEOUT_SECONDS = 300.0  # the first start fetches the Delta jars
AIRFLOW_TIMEOUT_SECONDS = 180.0

Say = Callable[[str], None]


def start(home: Path, setup: Setup, missing: Collection[str], *, say: Say) -> None:
    """Starts the missing components, and returns when all components of the setup can be used.

    Spark Connect, which takes long, starts while the others do.

    Args:
        home: the deployment's folder.
        setup: the components, the ports and the database of this start.
        missing: names of the components to start; the others run already.
        say: called with a line for the person who waits, after each part.

    Raises:
        StackFailed: a component ended or did not answer in time.
    """
    alive = [
        record
        for name, record in components.living(home).items()
        if name not in missing and name != components.SUPERVISOR
    ]
    if SPARK in missing:
        with _timed("Spark Connect started, not waited for yet", say):
            alive.append(components.start(home, setup, SPARK))
    if postgres.NAME in missing:
        with _timed("PostgreSQL", say):
            alive.append(components.start(home, setup, postgres.NAME))
    if setup.has_airflow:
        _start_airflow(home, setup, missing, alive, say)
    with _timed("Spark Connect", say):
        wait(
            home,
            lambda: ports.answers(setup.spark_port),
            alive,
            timeout=SPARK_TIMEOUT_SECONDS,
            what=f"port {setup.spark_port}",
        )


def _start_airflow(home: Path, setup: Setup, missing: Collection[str], alive: list[processes.Record], say: Say) -> None:
    """Starts the missing parts of Airflow, adds them to the components that have to stay alive, and waits for Airflow."""
    if set(airflow.COMPONENTS) <= set(missing):  # if a part of Airflow runs, the database has its version already
        with _timed("Airflow's database", say):
            _migrate(home)
    with _timed("Airflow", say):
        for name in airflow.COMPONENTS:
            if name == airflow.SCHEDULER:  # it starts tasks at once, which would fail without the API and use up a try
                wait(
                    home,
                    lambda: ports.answers(setup.ui_port),
                    alive,
                    timeout=AIRFLOW_TIMEOUT_SECONDS,
                    what=f"port {setup.ui_port}",
                )
            if name in missing:
                alive.append(components.start(home, setup, name))
        _wait_for_airflow(home, setup, alive, say)


def wait(
    home: Path, is_ready: Callable[[], bool], needed: Collection[processes.Record], *, timeout: float, what: str
) -> None:
    """Waits until something is ready.

    Args:
        home: the deployment's folder, whose logs a message names.
        is_ready: returns whether it is ready; an ApiError counts as no.
        needed: components that have to stay alive meanwhile.
        timeout: the longest wait in seconds.
        what: what is waited for, for the message.

    Raises:
        StackFailed: a needed component ended, or the time is over.
    """
    folder = Locations(home).stack
    deadline = time.monotonic() + timeout
    while True:
        for one in needed:
            if not one.is_alive:
                log = components.log_of(home, one.name)
                raise StackFailed(
                    f"{one.name}: expected a running process, found that it ended. {log}:\n{logs.tail(log)}"
                )
        found = "none"
        try:
            if is_ready():
                return
        except ApiError as error:
            found = f"{error}"
        if time.monotonic() >= deadline:
            raise StackFailed(f"expected {what} within {timeout:.0f} s, found: {found}. Logs: {folder}/*.log")
        time.sleep(0.3)


def _migrate(home: Path) -> None:
    folder = Locations(home).stack
    log_path = folder / "migrate.log"
    with os.fdopen(os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as log:
        done = subprocess.run(
            [airflow.executable(), "db", "migrate"],
            env=airflow.marked_env(home, "migrate"),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode:
        raise StackFailed(
            f"`airflow db migrate`: expected exit code 0, found {done.returncode}. {log_path}:\n{logs.tail(log_path)}"
        )


def _wait_for_airflow(home: Path, setup: Setup, alive: Collection[processes.Record], say: Say) -> None:
    """Waits until API, scheduler and DAG processor are healthy and the DAGs are known, and makes the pool for training.

    Warns of each DAG file that could not be imported.
    """
    address = f"http://127.0.0.1:{setup.ui_port}"
    api = AirflowApi(address, airflow.USER, airflow.password(home), deployment=Deployment.load(home))
    wait(home, api.is_healthy, alive, timeout=AIRFLOW_TIMEOUT_SECONDS, what="a healthy Airflow")
    api.ensure_pool(airflow.GPU_POOL, slots=training_slots(), description="training: so many at a time")
    wait(
        home,
        lambda: set(DAG_IDS) <= set(api.dag_ids()) or bool(api.import_errors()),
        alive,
        timeout=AIRFLOW_TIMEOUT_SECONDS,
        what=f"the DAGs {', '.join(DAG_IDS)}",
    )
    for file, error in api.import_errors().items():
        say(f"warning: {file} could not be imported: {error.strip().splitlines()[-1]}")


def training_slots(devices: Path = Path("/dev")) -> int:
    """Returns how many trainings may run at a time: one for each GPU; without a GPU two, or one on a single core.

    On a CPU a training keeps about one core busy.
    """
    return len(list(devices.glob("nvidia[0-9]*"))) or min(2, os.cpu_count() or 1)


@contextmanager
def _timed(what: str, say: Say) -> Iterator[None]:
    began = time.monotonic()
    yield
    say(f"{time.monotonic() - began:6.1f} s  {what}")
