"""The supervisor of the one-machine stack, and `up` while a part of one runs: with shell scripts in the place of components."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from stack_fixture import FakeAirflow, free_port, run, wait_for

from contracts.errors import BadInput
from tributary import stack
from tributary.stack import (
    airflow,
    components,
    database,
    heartbeats,
    machine,
    ports,
    postgres,
    processes,
    starting,
    supervisor,
)
from tributary.stack.components import SUPERVISOR, Setup


def is_up_after_look(watcher: supervisor.Supervisor, home: Path) -> bool:
    watcher.look()
    return machine.is_up(home)


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
        (left_behind,) = set(processes.session_of(first.pid)) - {first.pid}
        watcher = supervisor.Supervisor(home, self.SETUP)
        watcher.look()
        assert self.starts == 0
        os.kill(first.pid, signal.SIGKILL)
        wait_for(lambda: not first.is_there)
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

    def test_what_fails_again_and_again_is_left_down_and_said(
        self, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(supervisor, "pause_seconds", lambda failures: 0.0)
        self.script = "exit 3"
        run(home, "triggerer", "exit 3")
        watcher = supervisor.Supervisor(home, self.SETUP)

        def gives_up() -> bool:
            watcher.look()
            return watcher.watched["triggerer"].given_up

        wait_for(gives_up)
        for _ in range(5):
            watcher.look()
        assert self.starts == supervisor.MOST_FAILURES - 1
        said = stack.status(home)
        assert "dead: given up" in said and "ended with exit code 3" in said
        supervisor.forgive(home, self.SETUP)  # as the next `up` does
        self.script = "sleep 60"
        watcher = supervisor.Supervisor(home, self.SETUP)
        wait_for(lambda: is_up_after_look(watcher, home))

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

    def test_what_lives_without_a_heartbeat_is_started_again(
        self, home: Path, monkeypatch: pytest.MonkeyPatch, fake: tuple[type[FakeAirflow], str]
    ) -> None:
        handler, address = fake
        setup = replace(self.SETUP, ui_port=int(address.rpartition(":")[2]))
        beats = {
            "scheduler": {"latest_scheduler_heartbeat": None},
            "dag_processor": {"latest_dag_processor_heartbeat": None},
        }
        for state, age in (
            ("healthy", 80),
            ("unhealthy", 100),
            ("healthy", 100),
            ("healthy", 80),
            ("healthy", 100),
            ("healthy", 100),
        ):
            beat = (datetime.now(UTC) - timedelta(seconds=age)).isoformat()
            handler.answers.append(
                (200, {"metadatabase": {"status": state}, "triggerer": {"latest_triggerer_heartbeat": beat}, **beats})
            )
        now = time.time()
        monkeypatch.setattr(processes, "started_at", lambda ticks: now - 100)
        first = run(home, "triggerer", "sleep 60")
        watcher = supervisor.Supervisor(home, setup)
        for _ in range(5):
            watcher.listen()
            assert first.is_alive  # not once in a row, and not while the database is away
        watcher.listen()
        assert not first.is_alive
        wait_for(lambda: is_up_after_look(watcher, home))
        assert "had no heartbeat for 100 s" in stack.status(home)
        assert handler.answers == [] and heartbeats.ages(free_port()) == {}

    def test_the_scheduler_waits_for_the_api(self, home: Path) -> None:
        with socket.socket() as api:
            api.bind(("127.0.0.1", 0))
            setup = replace(self.SETUP, ui_port=api.getsockname()[1])
            assert components.may_start(home, setup, "triggerer") and not components.may_start(
                home, setup, airflow.SCHEDULER
            )
            api.listen()
            assert components.may_start(home, setup, airflow.SCHEDULER)
        assert not components.may_start(
            home, replace(setup, database=""), "triggerer"
        )  # its own PostgreSQL does not run


class TestRepair:
    """`up` while a part of the stack runs."""

    SETUP = Setup(ui_port=free_port(), spark_port=free_port(), database="")

    @pytest.fixture(autouse=True)
    def killed_in_part(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        self.SETUP.write(home)
        self.alive = {name: run(home, name, "sleep 60") for name in (components.SPARK, airflow.API_SERVER, "triggerer")}
        self.missing: list[str] = []
        real = components.start
        monkeypatch.setattr(
            components,
            "start",
            lambda home, setup, name: run(home, name, "sleep 60") if name == SUPERVISOR else real(home, setup, name),
        )
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

    def test_what_lives_without_a_heartbeat_is_missing(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(heartbeats, "silent", lambda home, ui_port: {"triggerer": 100.0})
        assert "no heartbeat" in stack.status(home)
        said: list[str] = []
        stack.up(home, say=said.append)
        assert self.missing == ["postgres", "dag-processor", "triggerer", "scheduler"]
        assert not self.alive["triggerer"].is_alive
        assert said[0] == "ended triggerer, which had no heartbeat for 100 s"

    def test_a_failure_ends_only_what_was_started(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(home: Path, setup: Setup, missing: list[str], say: object) -> None:
            self.start(home, setup, missing, say)
            raise stack.StackFailed("why")

        monkeypatch.setattr(starting, "start", fail)
        with pytest.raises(stack.StackFailed, match="why"):
            stack.up(home, say=lambda line: None)
        assert components.living(home) == self.alive
        first = run(home, SUPERVISOR, "sleep 60")
        with pytest.raises(stack.StackFailed, match="why"):
            stack.up(home, say=lambda line: None)
        living = components.living(home)
        assert living.pop(SUPERVISOR) != first and living == self.alive  # what goes on is supervised as before

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
            with pytest.raises(
                BadInput, match=rf"expected a free port, found {self.SETUP.ui_port}, used by process {os.getpid()}"
            ):
                stack.up(home, say=lambda line: None)


class TestOnly:
    """`up --only spark`, and what may follow it."""

    @pytest.fixture(autouse=True)
    def stand_ins(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Shell scripts in the place of all components; those of Airflow and its database are only counted."""
        self.started: list[str] = []
        self.said: list[str] = []
        monkeypatch.setattr(components, "start", self.start)
        monkeypatch.setattr(starting, "_start_airflow", self.start_airflow)
        monkeypatch.setattr(ports, "answers", lambda port: True)
        yield
        processes.kill_marked(home)

    def start(self, home: Path, setup: Setup, name: str) -> processes.Record:
        self.started.append(name)
        address = f"http://127.0.0.1:{setup.ui_port}" if name == airflow.API_SERVER else "sc://localhost:2"
        return run(home, name, f"echo {setup.spark_port}; sleep 60", address)

    def start_airflow(
        self, home: Path, setup: Setup, missing: list[str], alive: list[processes.Record], say: object
    ) -> None:
        for name in airflow.COMPONENTS:
            alive.append(self.start(home, setup, name))

    def up(self, home: Path, only: str = "spark", ui_port: int | None = None) -> stack.StackInfo:
        self.said.clear()
        self.started.clear()
        return stack.up(home, only=only, ui_port=ui_port or free_port(), spark_port=free_port(), say=self.said.append)

    def test_starts_nothing_else_and_tells_what_comes_next(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TRIBUTARY_DATABASE", "no database, which a part of the stack does not need")
        monkeypatch.setattr(airflow, "executable", lambda: pytest.fail("Airflow is not needed"))
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            info = self.up(home, ui_port=taken.getsockname()[1])
        assert self.started == [components.SPARK, SUPERVISOR] and stack.is_up(home)
        assert (info.ui, info.spark) == ("", "sc://localhost:2")
        assert not airflow.folder_of(home).exists() and not postgres.folder_of(home).exists()
        told = "\n".join(self.said)
        assert f"`tributary up --home {home}` adds the rest" in told and f"`tributary down --home {home}`" in told
        assert "Airflow" not in told
        table = stack.status(home)
        assert "started with `--only spark`" in table and "together       up" in table
        assert "scheduler" not in table and "postgres " not in table
        with pytest.raises(BadInput, match="api-server: expected a running process, found none"):
            stack.api(home)

    def test_a_second_start_starts_nothing(self, home: Path) -> None:
        self.up(home)
        self.up(home)
        assert self.started == [] and self.said[0] == "already up:"

    def test_a_path_that_only_postgres_refuses(self, home: Path) -> None:
        deep = home / ("x" * postgres.SOCKET_PATH_BYTES)
        (deep / "stack").mkdir(parents=True)
        (deep / "deployment.toml").write_text((home / "deployment.toml").read_text())
        self.up(deep)
        try:
            with pytest.raises(BadInput, match="since PostgreSQL's socket lies below it"):
                self.up(deep, only="")
            assert components.living(deep).keys() == {components.SPARK, SUPERVISOR}
        finally:
            processes.kill_marked(deep)

    def test_a_later_start_of_all_leaves_spark_running(self, home: Path) -> None:
        self.up(home)
        before, port = components.living(home)[components.SPARK], free_port()
        first = Setup.read(home)
        self.up(home, only="", ui_port=port)
        assert self.said[0] == "still running: spark-connect"
        assert self.started == [postgres.NAME, *airflow.COMPONENTS, SUPERVISOR]
        assert first is not None and Setup.read(home) == Setup(ui_port=port, spark_port=first.spark_port)
        assert components.living(home)[components.SPARK] == before
        assert components.living(home).keys() == {*components.ALL, SUPERVISOR}
        self.up(home)
        assert self.started == [] and self.said[0] == "already up:"

    def test_where_the_rest_does_not_come_up_spark_stays_as_it_was(
        self, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.up(home)
        before, setup = components.living(home), Setup.read(home)

        def fail(*_: object) -> None:
            raise stack.StackFailed("why")

        monkeypatch.setattr(starting, "_start_airflow", fail)
        with pytest.raises(stack.StackFailed, match="why"):
            self.up(home, only="")
        assert Setup.read(home) == setup and stack.is_up(home)
        after = components.living(home)
        assert after.keys() == before.keys() and after[components.SPARK] == before[components.SPARK]

    def test_next_to_other_parts_without_spark_it_is_refused(self, home: Path) -> None:
        Setup(ui_port=1, spark_port=2).write(home)
        run(home, "triggerer", "sleep 60")
        with pytest.raises(
            BadInput, match="--only: expected that nothing else runs, or that spark-connect does, found triggerer"
        ):
            self.up(home)
        assert components.living(home).keys() == {"triggerer"} and self.started == []

    def test_what_died_is_started_again_without_the_rest(self, home: Path) -> None:
        self.up(home)
        setup = Setup.read(home)
        assert setup is not None
        watcher = supervisor.Supervisor(home, setup)
        processes.kill([components.living(home)[components.SPARK].pid])
        self.started.clear()
        wait_for(lambda: is_up_after_look(watcher, home))
        assert self.started == [components.SPARK]
