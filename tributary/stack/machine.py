"""Start, stop and show the whole stack."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from contracts.errors import BadInput, TributaryError
from contracts.locations import Locations
from contracts.settings import Deployment, folder_python
from tributary.airflow_api import AirflowApi, ApiError
from tributary.stack import airflow, ports, postgres, processes

UI_PORT = 8080
SPARK_PORT = 15002
SPARK = "spark-connect"
API_SERVER = airflow.API_SERVER
NAMES = (postgres.NAME, SPARK, *airflow.COMPONENTS)
GRACE_SECONDS = 10.0  # what running tasks have to finish, after which all is killed
SPARK_TIMEOUT_SECONDS = 300.0  # the first start fetches the Delta jars
AIRFLOW_TIMEOUT_SECONDS = 180.0

Say = Callable[[str], None]


class StackFailed(TributaryError):
    """A component did not start; the message ends with the last lines of its log."""

    exit_code = 1


@dataclass(frozen=True, kw_only=True)
class StackInfo:
    """Where the running stack is reached.

    Attributes:
        home: the deployment's folder.
        ui: address of Airflow's UI and API.
        spark: address of the Spark Connect server; it asks for the token.
        user: name for the UI.
        password_file: holds the password, readable by its owner alone.
        token_file: holds Spark Connect's token, readable by its owner alone.
    """

    home: Path
    ui: str
    spark: str
    user: str
    password_file: Path
    token_file: Path

    def lines(self) -> list[str]:
        return [f"Airflow        {self.ui}   user {self.user}, password in {self.password_file}",
                f"Spark Connect  {self.spark}   token in {self.token_file}"]


def _print(line: str) -> None:
    print(line, flush=True)


def up(home: Path, *, ui_port: int = UI_PORT, spark_port: int = SPARK_PORT, say: Say = _print) -> StackInfo:
    """Starts what a deployment needs on one machine, and returns when it can be used.

    Beside a running stack it starts nothing; what is left of a killed one is ended first. If a component does not come up,
    everything started is ended again.

    Raises:
        BadInput: no deployment, a taken port, a path too long for PostgreSQL's socket.
        StackFailed: a component ended or did not answer in time.
    """
    home = home.resolve()
    Deployment.load(home)
    postgres.check_folder(postgres.folder_of(home))
    folder = Locations(home).stack
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _one_at_a_time(folder):
        if is_up(home):
            say("already up:")
            for line in info(home).lines():
                say(f"  {line}")
            return info(home)
        if _end_all(home):
            say("ended what was left of an earlier start")
        if ui_port == spark_port:
            raise BadInput("tributary up", "--spark-port", expected="a port other than --ui-port", found=spark_port)
        ports.require_free(ui_port, option="--ui-port")
        ports.require_free(spark_port, option="--spark-port")
        try:
            is_new = _start_all(home, ui_port=ui_port, spark_port=spark_port, say=say)
        except BaseException:
            _end_all(home)
            raise
    found = info(home)
    for line in found.lines():
        say(line)
    if is_new:
        say(f"The password of {found.user} is {airflow.password(home)} (said this once).")
    say(f"end it with `tributary down --home {home}`")
    return found


def down(home: Path, *, say: Say = _print) -> None:
    """Ends the stack with everything it has started, and makes sure of it.

    Raises:
        StackFailed: a process outlived SIGKILL.
    """
    home = home.resolve()
    folder = Locations(home).stack
    if not folder.is_dir():
        say(f"nothing runs: there is no stack in {home}")
        return
    began = time.monotonic()
    with _one_at_a_time(folder):
        ended = _end_all(home)
    left = [*processes.marked(home), *processes.working_in(postgres.folder_of(home))]
    if left:
        raise StackFailed(f"{home}: expected no process of the stack after `down`, found {', '.join(map(str, left))}")
    say(f"down: {ended} processes ended in {time.monotonic() - began:.1f} s" if ended else "nothing was running")


def is_up(home: Path) -> bool:
    """Whether every component lives."""
    records = [processes.read_record(Locations(home).stack, name) for name in NAMES]
    return all(record is not None and record.is_alive for record in records)


def info(home: Path) -> StackInfo:
    """Addresses of the running stack.

    Raises:
        BadInput: it does not run.
    """
    home = home.resolve()
    locations = Locations(home)
    found = {name: processes.read_record(locations.stack, name) for name in (API_SERVER, SPARK)}
    for name, record in found.items():
        if record is None or not record.is_alive:
            raise BadInput(locations.stack, name, expected="a running process", found="none",
                           hint=f"Start the stack: `tributary up --home {home}`")
    ui, spark = (record.address for record in found.values() if record is not None)
    return StackInfo(home=home, ui=ui, spark=spark, user=airflow.USER, password_file=airflow.password_file(home),
                     token_file=locations.connect_token)


def status(home: Path) -> str:
    """A table: component, state, pid, memory with its children, address, since."""
    home = home.resolve()
    folder = Locations(home).stack
    rows = [("component", "state", "pid", "MiB", "since", "address")]
    counted: set[int] = set()
    total = 0
    for name in NAMES:
        record = processes.read_record(folder, name)
        if record is None or not record.is_alive:
            rows.append((name, "stopped" if record is None else "dead", "-", "-", "-", f"see {folder / name}.log" if record else "-"))
            continue
        pids = processes.working_in(postgres.folder_of(home)) if name == postgres.NAME else processes.session_of(record.pid)
        counted.update(pids)
        memory = processes.memory_bytes(pids)
        total += memory
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(processes.started_at(record.start_ticks)))
        rows.append((name, "running", str(record.pid), f"{memory >> 20}", since, record.address or "-"))
    others = [pid for pid in processes.marked(home) if pid not in counted]
    if others:
        memory = processes.memory_bytes(others)
        total += memory
        rows.append(("tasks and others", "running", f"{len(others)} pids", f"{memory >> 20}", "-", "-"))
    rows.append(("together", "up" if is_up(home) else "not up", "", f"{total >> 20}", "", ""))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def _start_all(home: Path, *, ui_port: int, spark_port: int, say: Say) -> bool:
    """Starts the components, the slow ones beside each other. Returns whether the password is new."""
    folder = Locations(home).stack
    env = airflow.marked_env(home)
    is_new = airflow.configure(home, ui_port=ui_port)
    spark_env = env | {"PYSPARK_PYTHON": folder_python("spark_jobs") or sys.executable}
    with _timed("Spark Connect started, not waited for yet", say):
        spark = processes.start(SPARK, [folder_python("spark_jobs") or sys.executable, "-m", "lake.server", "--home", str(home),
                                        "--port", str(spark_port)],
                                env=spark_env, folder=folder, cwd=folder, address=f"sc://localhost:{spark_port}")
    with _timed("PostgreSQL", say):
        postgres.start(postgres.folder_of(home), records=folder)
    with _timed("Airflow's database", say):
        _migrate(folder, env)
    with _timed("Airflow", say):
        address = f"http://127.0.0.1:{ui_port}"
        started = [spark]
        for name, arguments in airflow.COMPONENTS.items():
            if name == airflow.SCHEDULER:  # it would start tasks at once, which fail without the API and lose a try
                _wait(lambda: ports.answers(ui_port), started, folder, timeout=AIRFLOW_TIMEOUT_SECONDS, what=f"port {ui_port}")
            started.append(processes.start(name, [airflow.executable(), *arguments], env=env, folder=folder,
                                           cwd=airflow.folder_of(home), address=address if name == API_SERVER else ""))
        _wait_for_airflow(home, address, started, say)
    with _timed("Spark Connect", say):
        _wait(lambda: ports.answers(spark_port), [spark], folder, timeout=SPARK_TIMEOUT_SECONDS, what=f"port {spark_port}")
    return is_new


def _migrate(folder: Path, env: dict[str, str]) -> None:
    log_path = folder / "migrate.log"
    with os.fdopen(os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as log:
        done = subprocess.run([airflow.executable(), "db", "migrate"], env=env, cwd=folder, stdin=subprocess.DEVNULL, stdout=log,
                              stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise StackFailed(f"`airflow db migrate`: expected exit code 0, found {done.returncode}. {log_path}:\n{processes.tail(log_path)}")


def _wait_for_airflow(home: Path, address: str, started: list[processes.Record], say: Say) -> None:
    """Until API, scheduler and DAG processor are healthy, the DAGs are known and the pool is there."""
    folder = Locations(home).stack
    api = AirflowApi(address, airflow.USER, airflow.password(home), deployment=Deployment.load(home))
    _wait(api.is_healthy, started, folder, timeout=AIRFLOW_TIMEOUT_SECONDS, what="a healthy Airflow")
    api.ensure_pool(airflow.GPU_POOL, slots=1, description="training: one at a time")
    wanted = {path.stem for path in (airflow.PROJECT / "dags").glob("*.py") if not path.stem.startswith("_")}
    _wait(lambda: wanted <= set(api.dag_ids()) or bool(api.import_errors()), started, folder, timeout=AIRFLOW_TIMEOUT_SECONDS,
          what=f"the DAGs {', '.join(sorted(wanted))}")
    for file, error in api.import_errors().items():
        say(f"warning: {file} could not be imported: {error.strip().splitlines()[-1]}")


def _wait(is_ready: Callable[[], bool], needed: list[processes.Record], folder: Path, *, timeout: float, what: str) -> None:
    deadline = time.monotonic() + timeout
    while True:
        for one in needed:
            if not one.is_alive:
                log = folder / f"{one.name}.log"
                raise StackFailed(f"{one.name}: expected a running process, found that it ended. {log}:\n{processes.tail(log)}")
        try:
            if is_ready():
                return
        except ApiError as error:
            if time.monotonic() >= deadline:
                raise StackFailed(f"expected {what} within {timeout:.0f} s, found: {error}. Logs: {folder}/*.log") from None
        if time.monotonic() >= deadline:
            raise StackFailed(f"expected {what} within {timeout:.0f} s, found none. Logs: {folder}/*.log")
        time.sleep(0.3)


def _end_all(home: Path) -> int:
    """Ends whatever an `up` of this home has started; returns how many processes there were.

    A task that is asked to end reports a failure and has lost one of its tries; one that finishes, or is killed together
    with its worker, has not: the next scheduler finds it orphaned and runs it again. So tasks have the grace to finish,
    with an API to say so to, and are killed after it.
    """
    folder = Locations(home).stack
    database = postgres.folder_of(home)
    count = len(list(processes.marked(home))) + len(processes.working_in(database))
    records = {name: record for name in NAMES if (record := processes.read_record(folder, name)) is not None}
    last = [records[name] for name in (API_SERVER, SPARK) if name in records]
    processes.ask_to_end([records[name] for name in records if name not in (API_SERVER, SPARK, postgres.NAME)],
                         grace_seconds=GRACE_SECONDS)
    processes.kill_marked(home, spare=[pid for one in last if one.is_alive for pid in processes.session_of(one.pid)])
    processes.ask_to_end(last, grace_seconds=GRACE_SECONDS / 2)
    processes.kill_marked(home)
    postgres.stop(database)  # what ended in good order has written to it
    for name in NAMES:
        processes.forget(folder, name)
    return count


@contextmanager
def _timed(what: str, say: Say) -> Iterator[None]:
    began = time.monotonic()
    yield
    say(f"{time.monotonic() - began:6.1f} s  {what}")


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Keeps two `up` or `down` of one home apart."""
    with os.fdopen(os.open(folder / "up.lock", os.O_RDWR | os.O_CREAT, 0o600), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackFailed(f"{folder}: expected no other `tributary up` or `down` at work, found one. Try again when it has ended.") \
                from None
        yield
