"""The one-machine stack, without starting all of it: whose processes are ended, ports, secrets, the REST client."""

from __future__ import annotations

import os
import platform
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path

import psutil
import pytest
from stack_fixture import CALENDAR, FakeAirflow, free_port, run, wait_for

from contracts.errors import BadInput
from contracts.periods import PeriodSettings
from contracts.settings import Deployment
from tributary import dags_command, stack
from tributary.airflow_api import AirflowApi, ApiError, RunFailed
from tributary.stack import airflow, components, machine, ports, postgres, processes, starting
from tributary.stack.components import Setup

SHRUNKEN = Deployment(
    history_start=date(2022, 4, 8),
    actr_start=date(2022, 5, 2),
    day_timezone="Asia/Shanghai",
    periods=PeriodSettings(anchor=date(2022, 4, 25), month_days=2, week_days=2),
)


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

    def test_a_process_whose_threads_still_end_does_not_live_and_is_there(self, home: Path) -> None:
        """A killed JVM looks so for a while: its first thread is a zombie, and its port taken. Here only the first thread ends."""
        exit_thread = 93 if platform.machine() == "aarch64" else 60
        code = (
            f"import ctypes, threading, time; threading.Thread(target=time.sleep, args=(60,)).start(); "
            f"ctypes.CDLL(None).syscall({exit_thread}, 0)"
        )
        one = run(home, "triggerer", f"exec {sys.executable} -c '{code}'")
        wait_for(lambda: not one.is_alive)
        assert one.is_there
        began = time.monotonic()
        processes.wait_until_gone([one], timeout_seconds=0.2)
        assert one.is_there and time.monotonic() - began >= 0.2
        os.kill(one.pid, signal.SIGKILL)
        processes.wait_until_gone([one])
        assert not one.is_there

    def test_ends_what_this_home_started_and_nothing_else(
        self, home: Path, sleepers: list[subprocess.Popen[bytes]]
    ) -> None:
        ours = [sleep({processes.MARKER: str(home)}, sleepers) for _ in range(2)]
        others = [
            sleep({}, sleepers),
            sleep({processes.MARKER: f"{home}2"}, sleepers),
            sleep({"TRIBUTARY_HOME": str(home)}, sleepers),
        ]
        assert sorted(processes.marked(home)) == sorted(process.pid for process in ours)
        processes.kill_marked(home, spare=[ours[0].pid])
        assert is_running(ours[0])
        stack.down(home, say=lambda line: None)
        assert not any(map(is_running, ours))
        assert all(map(is_running, others))

    def test_a_component_is_detached_and_its_log_private(self, home: Path) -> None:
        one = processes.start(
            "triggerer",
            ["sh", "-c", "echo started; exec sleep 60"],
            folder=home / "stack",
            cwd=home,
            env=os.environ | {processes.MARKER: str(home)},
        )
        try:
            assert os.getsid(one.pid) == os.getpgid(one.pid) == one.pid
            for name in ("triggerer.log", "triggerer.json"):
                assert stat.S_IMODE((home / "stack" / name).stat().st_mode) == 0o600
        finally:
            processes.kill_marked(home)
        assert not one.is_alive
        assert not machine.is_up(home)

    def test_what_is_told_of_a_process_and_of_one_that_has_gone(self, home: Path) -> None:
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "an argument"], cwd=home)
        try:
            wait_for(lambda: processes.command_line(process.pid)[-1:] == ["an argument"])
            assert processes.ancestors(process.pid)[0] == os.getpid() and processes.working_in(home) == [process.pid]
            assert processes.memory_bytes([process.pid, process.pid]) > processes.memory_bytes([process.pid]) > 0
            ticks = processes.start_ticks(process.pid)
            assert (
                ticks is not None and abs(processes.started_at(ticks) - psutil.Process(process.pid).create_time()) < 1.5
            )
        finally:
            process.kill()
            process.wait()
        assert processes.command_line(process.pid) == []
        assert processes.ancestors(process.pid) == processes.working_in(home) == []
        assert processes.memory_bytes([process.pid]) == 0 and processes.start_ticks(process.pid) is None

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
                stack.up(home, ui_port=free_port(), spark_port=port, say=lambda line: None)
            assert ports.answers(port)
        ports.require_free(port, option="--spark-port")
        assert not ports.answers(port)
        assert list(processes.marked(home)) == []
        assert [path.name for path in (home / "stack").iterdir()] == ["up.lock"]

    def test_a_port_whose_holder_has_nearly_gone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            monkeypatch.setattr(ports, "holder", lambda port: None)
            monkeypatch.setattr(ports, "PATIENCE_SECONDS", 0.1)
            with pytest.raises(BadInput, match="used by a process of another user"):
                ports.require_free(port, option="--ui-port")
            monkeypatch.setattr(ports, "holder", lambda port: taken.close())
            ports.require_free(port, option="--ui-port")

    @pytest.mark.parametrize("port", [0, 65536])
    def test_what_is_no_port(self, port: int) -> None:
        with pytest.raises(BadInput, match="expected a port between 1 and 65535"):
            ports.require_free(port, option="--ui-port")

    def test_one_port_for_two(self, home: Path) -> None:
        with pytest.raises(BadInput, match="expected a port other than --ui-port"):
            stack.up(home, ui_port=1234, spark_port=1234, say=lambda line: None)


class TestSparkAlone:
    def test_what_would_hinder_the_rest_is_refused_first(self, home: Path) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            with pytest.raises(BadInput, match=f"found {taken.getsockname()[1]}, used by process {os.getpid()}"):
                stack.up_spark(home, ui_port=taken.getsockname()[1], spark_port=free_port(), say=lambda line: None)
        assert components.living(home) == {}

    def test_beside_a_part_of_a_stack_all_is_started(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(components, "living", lambda home: {"triggerer": None})
        monkeypatch.setattr(machine, "up", lambda home, **ports: asked.append(ports["spark_port"]))
        asked: list[int] = []
        stack.up_spark(home, spark_port=17)
        assert asked == [17]

    def test_one_that_does_not_come_up_is_ended(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(components, "start", lambda home, setup, name: run(home, name, "echo why; exit 1"))
        with pytest.raises(stack.StackFailed, match=r"spark-connect: expected a running process(.|\n)*why"):
            stack.up_spark(home, ui_port=free_port(), spark_port=free_port(), say=lambda line: None)
        assert list(processes.marked(home)) == []


class TestStart:
    def test_two_at_once(self, home: Path) -> None:
        with (
            machine._one_at_a_time(home / "stack"),
            pytest.raises(stack.StackFailed, match="no other `tributary up` or `down`"),
        ):
            stack.up(home, say=lambda line: None)

    def test_a_component_that_ends_takes_the_rest_down(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def started(home: Path, *_: object, **__: object) -> None:
            run(home, "scheduler", "sleep 60")
            ended = run(home, "triggerer", "echo why; exit 1")
            starting.wait(home, lambda: False, [ended], timeout=20, what="anything")
            raise AssertionError

        monkeypatch.setattr(starting, "start", started)
        with pytest.raises(
            stack.StackFailed, match=r"triggerer: expected a running process, found that it ended(.|\n)*why"
        ):
            stack.up(home, ui_port=free_port(), spark_port=free_port(), say=lambda line: None)
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


def _row(day: str, state: str, **more: object) -> dict[str, object]:
    return {
        "dag_id": "cpm_weekly",
        "dag_run_id": f"run {day}",
        "state": state,
        "run_type": "backfill",
        "conf": {},
        "duration": 1.0,
        "data_interval_start": day,
        **more,
    }


class TestApi:
    def test_a_shrunken_period_is_backfilled_by_its_last_day(self, fake: tuple[type[FakeAirflow], str]) -> None:
        handler, address = fake
        handler.answers += [(200, {"id": 7})]
        api = AirflowApi(address, "admin", "secret", deployment=SHRUNKEN)
        assert api.create_backfill("cpm_weekly", date(2022, 4, 25), date(2022, 4, 29), max_active_runs=2) == 7
        method, path, body = handler.asked[-1]
        assert (method, path) == ("POST", "/api/v2/backfills")
        assert [datetime.fromisoformat(body[name]) for name in ("from_date", "to_date")] == [
            datetime.fromisoformat(midnight) for midnight in ("2022-04-26T00:00:00+08:00", "2022-04-30T00:00:00+08:00")
        ]
        with pytest.raises(BadInput, match="expected the first day of a week, found 2022-04-26"):
            api.create_backfill("cpm_weekly", date(2022, 4, 26), date(2022, 4, 29))

    def test_a_calendar_period_is_backfilled_by_its_first_day(self, fake: tuple[type[FakeAirflow], str]) -> None:
        handler, address = fake
        handler.answers += [(200, {"id": 1}), (200, {"id": 2})]
        api = AirflowApi(address, "admin", "secret", deployment=CALENDAR)
        api.create_backfill("tpm_monthly", date(2026, 1, 1), date(2026, 3, 1))
        api.create_backfill(
            "ad_ctr_daily", date(2026, 1, 6), date(2026, 1, 7), reprocess="completed", conf={"recipe": "quick"}
        )
        bodies = [body for method, path, body in handler.asked if path == "/api/v2/backfills"]
        assert [(body["from_date"][:10], body["to_date"][:10], body["reprocess_behavior"]) for body in bodies] == [
            ("2026-01-01", "2026-03-01", "failed"),
            ("2026-01-06", "2026-01-07", "completed"),
        ]
        assert [body["dag_run_conf"] for body in bodies] == [{}, {"recipe": "quick"}]

    @pytest.mark.parametrize(
        ("arguments", "conf"),
        [
            (["ad_ctr_daily", "--period", "2026-01-06", "--recipe", "quick"], {"ds": "2026-01-06", "recipe": "quick"}),
            (
                ["ad_ctr_daily", "--period", "2026-01-06", "--transfer", "tpm+cpm"],
                {"ds": "2026-01-06", "transfer": "tpm+cpm"},
            ),
            (["bootstrap", "--from", "2026-01-01", "--to", "2026-01-05"], {"from": "2026-01-01", "to": "2026-01-05"}),
            (["lake_maintenance_weekly"], {}),
        ],
    )
    def test_a_run_by_hand_gets_what_its_form_has(
        self,
        fake: tuple[type[FakeAirflow], str],
        monkeypatch: pytest.MonkeyPatch,
        arguments: list[str],
        conf: dict[str, str],
    ) -> None:
        handler, address = fake
        handler.answers += [(200, None), (200, {"dag_run_id": "r"})]
        monkeypatch.setattr(stack, "api", lambda home: AirflowApi(address, "admin", "secret", deployment=CALENDAR))
        assert dags_command.main(["trigger", *arguments, "--no-wait"]) == 0
        assert handler.asked[-1] == (
            "POST",
            f"/api/v2/dags/{arguments[0]}/dagRuns",
            {"logical_date": None, "conf": conf},
        )

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["ad_ctr_daily"], "expected --period, found none"),
            (["bootstrap", "--period", "2026-01-06"], "expected --from --to, found --period"),
            (["lake_maintenance_weekly", "--period", "2026-01-06"], "expected none, found --period"),
            (
                ["bahe_daily", "--period", "2026-01-06", "--transfer", "tpm"],
                "--transfer: expected none, or ad_ctr_daily, found tpm",
            ),
        ],
    )
    def test_days_that_a_run_does_not_take_are_refused(
        self, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
    ) -> None:
        monkeypatch.setattr(
            stack, "api", lambda home: AirflowApi("http://nowhere", "admin", "secret", deployment=CALENDAR)
        )
        with pytest.raises(BadInput, match=message):
            dags_command.main(["trigger", *arguments])

    def test_periods_of_runs(self, fake: tuple[type[FakeAirflow], str]) -> None:
        handler, address = fake
        rows = [
            _row("2022-04-24T16:00:00Z", "success"),
            _row("2022-04-25T16:00:00Z", "success"),
            _row("2022-04-25T16:00:00Z", "success", conf={"ds": "2022-04-29"}),
            {**_row("", "success"), "data_interval_start": None},
        ]
        handler.answers += [(200, {"dag_runs": rows, "total_entries": 4})]
        runs = AirflowApi(address, "admin", "secret", deployment=SHRUNKEN).runs("cpm_weekly")
        # The 25th and 26th are one week: the first ends none, the second ends the week of the 25th.
        assert [run.period for run in runs] == [None, date(2022, 4, 25), date(2022, 4, 29), None]

    def test_waits_until_all_have_ended(
        self, fake: tuple[type[FakeAirflow], str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
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
            (
                200,
                {
                    "task_instances": [
                        {"task_id": "train_cpm", "state": "failed", "try_number": 3},
                        {"task_id": "audit", "state": None},
                    ]
                },
            ),
            (
                200,
                {
                    "content": [
                        {"event": "::group::Pre Execute"},
                        {"event": "error: samples: rows: expected > 0, found 0."},
                        {
                            "event": "Task failed with exception",
                            "error_detail": [{"exc_type": "X", "exc_value": "exit code 2"}],
                        },
                    ]
                },
            ),
        ]
        api = AirflowApi(address, "admin", "secret", deployment=CALENDAR)
        with pytest.raises(RunFailed) as failed:
            api.wait_for_periods("cpm_weekly", date(2026, 1, 5), date(2026, 1, 5))
        assert str(failed.value).splitlines()[1:] == [
            "cpm_weekly.train_cpm (try 3):",
            "    error: samples: rows: expected > 0, found 0.",
            "    X: exit code 2",
        ]
        assert handler.asked[-1][1].startswith(
            "/api/v2/dags/cpm_weekly/dagRuns/run%202026-01-05T00%3A00%3A00Z/taskInstances/"
        )
        assert "/train_cpm/logs/3?" in handler.asked[-1][1]

    def test_waits_for_a_former_backfill(
        self, fake: tuple[type[FakeAirflow], str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
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
            AirflowApi(f"http://127.0.0.1:{free_port()}", "admin", "secret", deployment=CALENDAR).is_healthy()


def test_a_slot_for_each_gpu_and_two_trainings_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    assert starting.training_slots(tmp_path) == 2
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert starting.training_slots(tmp_path) == 3
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert starting.training_slots(tmp_path / "none") == 1
