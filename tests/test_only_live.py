"""Only the Spark Connect server, started, used by a command, and ended, by the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from landing_rows import DAY, csv_bytes, good_row, write
from live_fixture import outside_pytest
from stack_fixture import CALENDAR, JVM_OPTIONS, free_port

from contracts.locations import Locations
from contracts.settings import SETTINGS_FILE
from tributary import stack
from tributary.stack import airflow, components, ports, postgres, processes

pytestmark = pytest.mark.live


def tributary(home: Path, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tributary", "--home", str(home), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=airflow.PROJECT,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_command_uses_the_server_next_to_which_nothing_runs() -> None:
    port = free_port()
    with outside_pytest() as home:
        (home / SETTINGS_FILE).write_text(CALENDAR.to_toml())
        try:
            name, options = JVM_OPTIONS
            told = tributary(home, "up", "--only", "spark", "--spark-port", str(port), **{name: options})
            assert f"sc://localhost:{port}" in told and "tributary down" in told
            records = [
                processes.read_record(Locations(home).stack, one) for one in (*components.ALL, components.SUPERVISOR)
            ]
            alive = {one.name: one.pid for one in records if one is not None and one.is_alive}
            assert alive.keys() == {components.SPARK, components.SUPERVISOR}
            of_both = {pid for leader in alive.values() for pid in processes.session_of(leader)}
            assert set(processes.marked(home)) <= of_both and not processes.working_in(postgres.folder_of(home))

            write(
                Locations(home).landing_day("natural", DAY) / "a.csv", csv_bytes([good_row(one) for one in range(20)])
            )
            without_java = {"PATH": str(Path(sys.executable).parent), "JAVA_HOME": str(home / "none")}
            checked = tributary(home, "sources", "check", "--ds", str(DAY), "--log", "natural", **without_java)
            assert "verdict: sound" in checked
            assert "started with `--only spark`" in tributary(home, "status")
        finally:
            stack.down(home)
        assert not list(processes.marked(home)) and not ports.answers(port)
