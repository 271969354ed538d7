"""Starts and ends the whole stack."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from contracts.errors import BadInput
from contracts.locations import Locations
from contracts.settings import DATABASE_VARIABLE, Deployment, database_address
from tributary.airflow_api import AirflowApi
from tributary.stack import (
    airflow,
    components,
    database,
    ending,
    heartbeats,
    logs,
    ports,
    postgres,
    processes,
    space,
    starting,
    supervisor,
)
from tributary.stack.components import SPARK, SUPERVISOR, Setup, StackFailed
from tributary.stack.starting import Say

UI_PORT = 8080
SPARK_PORT = 15002


@dataclass(frozen=True, kw_only=True)
class StackInfo:
    """Where the running stack is reached.

    Attributes:
        home: the deployment's folder.
        ui: the address of Airflow's UI and API.
        spark: the address of the Spark Connect server, which accepts only clients that send the token.
        user: the user name for the UI.
        password_file: the file with that user's password, readable only by its owner.
        token_file: the file with Spark Connect's token, readable only by its owner.
    """

    home: Path
    ui: str
    spark: str
    user: str
    password_file: Path
    token_file: Path

    def lines(self) -> list[str]:
        """Returns the lines that are printed after a start: where the services are and how to log in."""
        return [
            f"Airflow        {self.ui}   user {self.user}, password in {self.password_file}",
            f"Spark Connect  {self.spark}   token in {self.token_file}",
        ]


def _print(line: str) -> None:
    print(line, flush=True)


def up(home: Path, *, ui_port: int = UI_PORT, spark_port: int = SPARK_PORT, say: Say = _print) -> StackInfo:
    """Starts what a deployment needs on one machine, and returns when it can be used.

    If the whole stack runs already, nothing is started. If parts of it run, only the missing ones are started, and the
    others keep their ports. Processes that killed components have left behind are ended first. If a component fails to
    start, everything that this call has started is ended again.

    Args:
        home: the deployment's folder.
        ui_port: the port of Airflow's UI and API.
        spark_port: the port of Spark Connect.
        say: called with a line for the person who starts the stack.

    Raises:
        BadInput: there is no deployment, a port is taken, the disk is nearly full, the path is too long for
            PostgreSQL's socket, or there is no database at the address that TRIBUTARY_DATABASE names.
        StackFailed: a component ended or did not answer in time.
    """
    home = home.resolve()
    external = _checked(home)
    with _one_at_a_time(Locations(home).stack):
        found = components.living(home)
        setup = Setup.read(home) if found.keys() - {SUPERVISOR} else None
        if setup is not None and {*setup.names, SUPERVISOR} <= found.keys():
            say("already up:")
            for line in info(home).lines():
                say(f"  {line}")
            return info(home)
        shown = _usable(home, external)
        if setup is None:
            setup = Setup(ui_port=ui_port, spark_port=spark_port, database=shown)
            _clear(home, setup, say)
            is_new = _start(home, setup, setup.names, say)
        else:
            _refuse_other_database(setup, shown)
            is_new = _start_missing(home, setup, found, say)
    answer = info(home)
    for line in answer.lines():
        say(line)
    if setup.database:
        say(f"PostgreSQL     {setup.database}, from {DATABASE_VARIABLE}")
    if is_new:
        say(f"The password of {answer.user} is {airflow.password(home)} (printed only once).")
    say(f"end it with `tributary down --home {home}`")
    return answer


def up_spark(home: Path, *, ui_port: int = UI_PORT, spark_port: int = SPARK_PORT, say: Say = _print) -> None:
    """Starts only the Spark Connect server, without a supervisor; commands need no more, and `up` can start the rest later.

    It refuses whatever `up` would refuse. If any part of the stack runs already, it does the same as `up`.

    Raises:
        BadInput, StackFailed: as `up` does.
    """
    home = home.resolve()
    if components.living(home):
        up(home, ui_port=ui_port, spark_port=spark_port, say=say)
        return
    external = _checked(home)
    with _one_at_a_time(Locations(home).stack):
        setup = Setup(ui_port=ui_port, spark_port=spark_port, database=_usable(home, external))
        _clear(home, setup, say)
        setup.write(home)
        try:
            starting.start_spark(home, setup, say=say)
        except BaseException:
            ending.end(home, SPARK)
            raise


def down(home: Path, *, say: Say = _print) -> None:
    """Ends the stack with every process that it has started, and checks that none is left.

    Raises:
        StackFailed: a process is still there after SIGKILL.
    """
    home = home.resolve()
    folder = Locations(home).stack
    if not folder.is_dir():
        say(f"nothing runs: there is no stack in {home}")
        return
    began = time.monotonic()
    with _one_at_a_time(folder):
        ended = ending.end_all(home)
    left = [*processes.marked(home), *processes.working_in(postgres.folder_of(home))]
    if left:
        raise StackFailed(f"{home}: expected no process of the stack after `down`, found {', '.join(map(str, left))}")
    say(f"down: {ended} processes ended in {time.monotonic() - began:.1f} s" if ended else "nothing was running")


def is_up(home: Path) -> bool:
    """Whether every component is alive; the supervisor does not count."""
    return set(components.names(home)) <= components.living(home).keys()


def info(home: Path) -> StackInfo:
    """Returns the addresses of the running stack.

    Raises:
        BadInput: it does not run.
    """
    home = home.resolve()
    locations = Locations(home)
    found = {name: processes.read_record(locations.stack, name) for name in (airflow.API_SERVER, SPARK)}
    for name, record in found.items():
        if record is None or not record.is_alive:
            raise BadInput(
                locations.stack,
                name,
                expected="a running process",
                found="none",
                hint=f"Start the stack: `tributary up --home {home}`",
            )
    ui, spark = (record.address for record in found.values() if record is not None)
    return StackInfo(
        home=home,
        ui=ui,
        spark=spark,
        user=airflow.USER,
        password_file=airflow.password_file(home),
        token_file=locations.connect_token,
    )


def api(home: Path) -> AirflowApi:
    """Returns a client for Airflow's API of the running stack.

    Raises:
        BadInput: it does not run.
    """
    found = info(home)
    return AirflowApi(found.ui, found.user, airflow.password(found.home), deployment=Deployment.load(found.home))


def _checked(home: Path) -> str | None:
    """Makes the stack's folder; returns the address that TRIBUTARY_DATABASE names, or None.

    Raises:
        BadInput: there is no deployment, or PostgreSQL could not put its socket below the folder.
    """
    Deployment.load(home)
    external = database_address()
    if external is None:
        postgres.check_folder(postgres.folder_of(home))
    Locations(home).stack.mkdir(parents=True, exist_ok=True, mode=0o700)
    return external


def _usable(home: Path, external: str | None) -> str:
    """Raises BadInput if the disk is nearly full, or the external database cannot be used.

    Returns:
        The external database's address without its password; "" if there is none.
    """
    space.require(home)
    if external is not None:
        database.check(external)
    return database.shown(external)


def _clear(home: Path, setup: Setup, say: Say) -> None:
    """Ends what is left of an earlier start. Raises BadInput if another program listens on a port of the stack."""
    if setup.ui_port == setup.spark_port:
        raise BadInput("tributary up", "--spark-port", expected="a port other than --ui-port", found=setup.spark_port)
    if ending.end_all(home):
        say("ended what was left of an earlier start")
    supervisor.forget(home)
    _require_ports(home, setup, setup.names)


def _start_missing(home: Path, setup: Setup, found: Collection[str], say: Say) -> bool:
    """Starts the components that do not run, and leaves the others as they are; returns whether the password is new."""
    ending.end_supervisor(home)  # so that it starts nothing meanwhile; `_start` starts a new supervisor
    try:
        silent = heartbeats.silent(home, setup.ui_port) if airflow.API_SERVER in found else {}
        for name, age in silent.items():
            say(f"ended {name}, which had no heartbeat for {age:.0f} s")
            ending.end(home, name)
        kept = [name for name in setup.names if name in found and name not in silent]
        say(f"still running: {', '.join(kept)}")
        missing = [name for name in setup.names if name not in kept]
        _require_ports(home, setup, missing)
        return _start(home, setup, missing, say)
    except BaseException:
        if SUPERVISOR in found:
            components.start(home, setup, SUPERVISOR)  # so that the components that still run are supervised as before
        raise


def _require_ports(home: Path, setup: Setup, missing: Collection[str]) -> None:
    """Raises BadInput if another program listens on the port of a component that is to be started.

    What a killed component has left behind is ended first, since it may still hold the port.
    """
    for name, port, option in (
        (airflow.API_SERVER, setup.ui_port, "--ui-port"),
        (SPARK, setup.spark_port, "--spark-port"),
    ):
        if name in missing:
            components.clear(home, name)
            ports.require_free(port, option=option)


def _refuse_other_database(setup: Setup, shown_database: str) -> None:
    """Raises BadInput if the parts that run use another database than the parts that are to be started would use."""
    if setup.database != shown_database:
        raise BadInput(
            "environment",
            DATABASE_VARIABLE,
            expected=f"{setup.database or 'nothing'}, as for the parts that run",
            found=shown_database or "nothing",
            hint="End them first: `tributary down`.",
        )


def _start(home: Path, setup: Setup, missing: Collection[str], say: Say) -> bool:
    """Starts the missing components and the supervisor; returns whether the password is new."""
    try:
        logs.prune(airflow.logs_of(home))
        logs.bound(components.log_of(home, postgres.NAME))
        setup.write(home)
        is_new = airflow.configure(home, ui_port=setup.ui_port, connection=database.connection(home))
        starting.start(home, setup, missing, say=say)
        supervisor.forgive(home, setup)
        components.start(home, setup, SUPERVISOR)
    except BaseException:
        for name in reversed([*missing, SUPERVISOR]):
            ending.end(home, name)
        raise
    return is_new


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Holds a lock, so that no two `up` or `down` of one home run at the same time."""
    with os.fdopen(os.open(folder / "up.lock", os.O_RDWR | os.O_CREAT, 0o600), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackFailed(
                f"{folder}: expected no other `tributary up` or `down` at work, found one. Try again when it has ended."
            ) from None
        yield
