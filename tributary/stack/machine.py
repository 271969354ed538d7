"""Starts and ends the whole stack."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
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
        ui: the address of Airflow's UI and API; "" if Airflow does not run.
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
        of_airflow = f"Airflow        {self.ui}   user {self.user}, password in {self.password_file}"
        return [
            *([of_airflow] if self.ui else []),
            f"Spark Connect  {self.spark}   token in {self.token_file}",
        ]


def _print(line: str) -> None:
    print(line, flush=True)


def up(
    home: Path, *, ui_port: int = UI_PORT, spark_port: int = SPARK_PORT, only: str = "", say: Say = _print
) -> StackInfo:
    """Starts what a deployment needs on one machine, and returns when it can be used.

    If all that is asked for runs already, nothing is started. If parts of it run, only the missing ones are started, and
    the others keep their ports. Processes that killed components have left behind are ended first. If a component fails to
    start, everything that this call has started is ended again.

    Args:
        home: the deployment's folder.
        ui_port: the port of Airflow's UI and API.
        spark_port: the port of Spark Connect.
        only: the key in `components.ONLY` of the part that is needed; "" for the whole stack, which completes a part
            that runs.
        say: called with a line for the person who starts the stack.

    Raises:
        BadInput: there is no deployment, a port is taken, the disk is nearly full, the path is too long for
            PostgreSQL's socket, there is no database at the address that TRIBUTARY_DATABASE names, or only a part is
            asked for where other parts run.
        StackFailed: a component ended or did not answer in time.
    """
    home = home.resolve()
    external = _checked(home, only)
    with _one_at_a_time(Locations(home).stack):
        found = components.living(home)
        former = Setup.read(home) if found.keys() - {SUPERVISOR} else None
        if former is not None and _runs_already(former, found, only):
            say("already up:")
            for line in info(home).lines():
                say(f"  {line}")
            return info(home)
        setup = Setup(ui_port=ui_port, spark_port=spark_port, database=_usable(home, external), only=only)
        if former is None:
            _clear(home, setup, say)
            is_new = _start(home, setup, setup.names, say)
        elif former.only == only:
            _refuse_other_database(former, setup.database)
            is_new = _start_missing(home, former, former, found, say)
        else:
            is_new = _start_missing(home, replace(setup, spark_port=former.spark_port), former, found, say)
    answer = info(home)
    for line in answer.lines():
        say(line)
    if only:
        say(f"commands use it from now on, for example `tributary --home {home} sources check --ds DAY`")
        say(rest_of(home))
    if setup.database:
        say(f"PostgreSQL     {setup.database}, from {DATABASE_VARIABLE}")
    if is_new:
        say(f"The password of {answer.user} is {airflow.password(home)} (printed only once).")
    say(f"end it with `tributary down --home {home}`")
    return answer


def rest_of(home: Path) -> str:
    """Returns the line that tells whoever has started only a part of the stack how to add the rest."""
    return f"`tributary up --home {home}` adds the rest of the stack, and leaves what runs as it is"


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
    external = _checked(home, "")
    with _one_at_a_time(Locations(home).stack):
        setup = Setup(ui_port=ui_port, spark_port=spark_port, database=_usable(home, external))
        _clear(home, setup, say)
        setup.write(home)
        try:
            starting.start(home, replace(setup, only="spark"), [SPARK], say=say)
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
    """Whether every component of the last start is alive; the supervisor does not count."""
    return set(components.names(home)) <= components.living(home).keys()


def info(home: Path) -> StackInfo:
    """Returns the addresses of the running stack.

    Raises:
        BadInput: its Spark Connect server does not run.
    """
    home = home.resolve()
    locations = Locations(home)
    return StackInfo(
        home=home,
        ui=_address(home, airflow.API_SERVER) if airflow.API_SERVER in components.living(home) else "",
        spark=_address(home, SPARK),
        user=airflow.USER,
        password_file=airflow.password_file(home),
        token_file=locations.connect_token,
    )


def api(home: Path) -> AirflowApi:
    """Returns a client for Airflow's API of the running stack.

    Raises:
        BadInput: its API does not run.
    """
    home = home.resolve()
    address = _address(home, airflow.API_SERVER)
    return AirflowApi(address, airflow.USER, airflow.password(home), deployment=Deployment.load(home))


def _address(home: Path, name: str) -> str:
    """The address of a component; raises BadInput if it does not run."""
    folder = Locations(home).stack
    record = processes.read_record(folder, name)
    if record is None or not record.is_alive:
        hint = f"Start the stack: `tributary up --home {home}`"
        raise BadInput(folder, name, expected="a running process", found="none", hint=hint)
    return record.address


def _runs_already(former: Setup, found: Collection[str], only: str) -> bool:
    """Whether nothing has to be started.

    Args:
        former: the setup of the start that has left components running.
        found: the names of the components that run.
        only: as `up` takes it.

    Raises:
        BadInput: only a part is asked for, of which not all runs, where more has been started than that part.
    """
    if former.only == only:
        return {*former.names, SUPERVISOR} <= set(found)
    if not only:
        return False
    if set(components.ONLY[only]) <= set(found):
        return True
    raise BadInput(
        "tributary up",
        "--only",
        expected=f"that nothing else runs, or that {', '.join(components.ONLY[only])} does",
        found=", ".join(found),
        hint="Without `--only`, `tributary up` starts what is missing; `tributary down` ends what runs.",
    )


def _checked(home: Path, only: str) -> str | None:
    """Makes the stack's folder; returns the address that TRIBUTARY_DATABASE names, or None.

    Only a whole stack needs a database: for a part of it, the variable is not looked at.

    Raises:
        BadInput: there is no deployment, or PostgreSQL could not put its socket below the folder.
    """
    Deployment.load(home)
    external = None if only else database_address()
    if external is None and not only:
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
    if setup.has_airflow and setup.ui_port == setup.spark_port:
        raise BadInput("tributary up", "--spark-port", expected="a port other than --ui-port", found=setup.spark_port)
    if ending.end_all(home):
        say("ended what was left of an earlier start")
    supervisor.forget(home)
    _require_ports(home, setup, setup.names)


def _start_missing(home: Path, setup: Setup, former: Setup, found: Collection[str], say: Say) -> bool:
    """Starts the components that do not run, and leaves the others as they are; returns whether the password is new.

    Args:
        home: the deployment's folder.
        setup: what is to run then.
        former: the setup of the start that has left components running; it stays the home's where this start fails.
        found: the names of the components that run.
        say: called with a line for the person who starts the stack.
    """
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
        former.write(home)
        if SUPERVISOR in found:
            components.start(home, former, SUPERVISOR)  # so that the components that still run are supervised as before
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
        is_new = setup.has_airflow and airflow.configure(
            home, ui_port=setup.ui_port, connection=database.connection(home)
        )
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
