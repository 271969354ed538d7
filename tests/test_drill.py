"""The drill: whom it kills, whose folder it may use, when it calls a stack healthy; and twenty kills for real."""

from __future__ import annotations

import itertools
import random
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import BadInput
from tributary.drill import command, inputs, victims
from tributary.stack import postgres, processes


@pytest.mark.parametrize(
    ("arguments", "is_one"),
    [
        (["/usr/bin/python", "-m", "spark_jobs", "ingest_logs"], True),
        (["python", "-m"], False),
        (["python", "-m", "http.server", "1"], False),
        (["airflow", "scheduler", "-m"], False),
        ([], False),
    ],
)
def test_commands_of_tasks(arguments: list[str], is_one: bool) -> None:
    assert victims.is_command(arguments) == is_one


def test_everybody_comes_once_before_anybody_comes_twice() -> None:
    order = victims.in_random_order(random.Random(1))
    first, second = (list(itertools.islice(order, len(victims.VICTIMS))) for _ in range(2))
    assert sorted(first) == sorted(second) == sorted(victims.VICTIMS)
    assert first != second


def test_the_runner_is_the_parent_of_the_command(tmp_path: Path) -> None:
    """Both as Airflow has them: a process that starts `python -m <folder>` and waits for it."""
    folder = tmp_path / "spark_jobs"
    folder.mkdir()
    (folder / "__main__.py").write_text("import time; time.sleep(60)")
    run = f"import subprocess, sys; subprocess.run([sys.executable, '-m', 'spark_jobs', 'wait'], cwd={str(tmp_path)!r})"
    runner = subprocess.Popen(
        [sys.executable, "-c", run], env={processes.MARKER: str(tmp_path), processes.COMPONENT: "scheduler"}
    )
    try:
        deadline = time.monotonic() + 20
        while not (commands := victims.pids_of(tmp_path, "task's command")) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(commands) == 1 and commands != [runner.pid]
        assert victims.pids_of(tmp_path, "task's runner") == [runner.pid]
        assert sorted(victims.pids_of(tmp_path, "everything")) == sorted([runner.pid, *commands])
        assert victims.orphans(tmp_path) == sorted([runner.pid, *commands])  # no component is recorded here
        assert victims.pids_of(tmp_path, "scheduler") == []
    finally:
        processes.kill_marked(tmp_path)
        runner.wait()


def test_a_folder_that_is_not_the_drills(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(BadInput, match="--home: expected a folder that does not exist, or one of an earlier drill"):
        command.make_deployment(tmp_path, 2)
    assert (tmp_path / "mine").read_text() == "precious"


def test_a_landing_file_changes_whole_and_each_time_otherwise(tmp_path: Path) -> None:
    delivered, home = tmp_path / "delivered", tmp_path / "home"
    for folder in (delivered, home / "landing"):
        for log in ("natural", "ad"):
            path = folder / log / "2026-01-01" / "part-00000.csv"
            path.parent.mkdir(parents=True)
            path.write_bytes(b"header\n" + b"".join(b"%d\n" % row for row in range(40)))
    found = set()
    for number in range(1, 9):
        path = inputs.change_one(home, delivered, number, random.Random(number))
        header, *rows = path.read_bytes().splitlines()
        assert header == b"header" and len(rows) == 36
        found.add((path, tuple(rows)))
        assert [one.name for one in path.parent.iterdir()] == ["part-00000.csv"]
    assert len(found) == 8 and len({path for path, _ in found}) == 2
    inputs.copy_landing(home, tmp_path / "other")
    for path, _ in found:
        assert (tmp_path / "other" / path.relative_to(home)).read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_the_undisturbed_copy_has_the_same_landing_files(tmp_path: Path) -> None:
    home = tmp_path / "drill"
    for _ in range(2):  # the second time it makes everything anew
        command.make_deployment(home, 2)
        (home / "lake").mkdir()
    assert not (home / "undisturbed" / "lake").exists()
    for name in (
        "deployment.toml",
        "landing/natural/2026-01-02/part-00000.csv",
        "landing/ad/2026-01-01/part-00000.csv",
    ):
        assert (home / name).read_bytes() == (home / "undisturbed" / name).read_bytes()


def test_healthy_is_what_stays_healthy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[bool] = [False, True, True, False]  # a part dies of another's death, a little later
    clock = iter(range(1000))
    api: Any = None
    monkeypatch.setattr(command, "is_healthy", lambda *_: looks.pop(0) if looks else True)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    healthy = command.wait_until_healthy(tmp_path, api, since=0, timeout_seconds=100)
    assert looks == [] and healthy is not None and healthy > 6
    monkeypatch.setattr(command, "is_healthy", lambda *_: False)
    assert command.wait_until_healthy(tmp_path, api, since=0, timeout_seconds=100) is None


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.drill
@pytest.mark.timeout(5400)
def test_twenty_kills(tmp_path: Path) -> None:
    home = tmp_path / "h"  # a short path: PostgreSQL's socket lies below it
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tributary",
            "drill",
            "--home",
            str(home),
            "--kills",
            "20",
            "--ui-port",
            str(free_port()),
            "--spark-port",
            str(free_port()),
        ],
        check=False,
    )
    assert done.returncode == 0
    assert list(processes.marked(home)) == processes.working_in(postgres.folder_of(home)) == []
