"""The stack for real: days backfilled through Airflow and by hand, a failed day, clients and components killed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date, timedelta
from itertools import chain
from pathlib import Path

import features_reference as reference
import psutil
import pytest
from deltalake import DeltaTable

from contracts.locations import Locations
from contracts.settings import HOME_VARIABLE
from contracts.tables import owner_key
from lake import locks
from sources.faults import FaultRates
from sources.simulator import SimulatorSettings, simulate
from sources.world import WorldSettings
from tributary import stack
from tributary.airflow_api import RunFailed
from tributary.stack import airflow, components, ports, processes

pytestmark = pytest.mark.live

START = date(2026, 1, 1)
HISTORY, KILLED = range(6), 12
BACKFILLED = {
    "features_daily": (6, 7, 8),
    "logs_daily": (9, 10, 11),
}  # by the DAG that makes them newest first, the other oldest first
TABLES = (
    "natural_log",
    "ad_log",
    "quarantine",
    "behaviour_partials",
    "statistic_partials",
    "user_histories",
    "entity_statistics",
    "natural_samples",
    "ad_samples",
)
JOBS = ("ingest_logs", "build_partials", "build_user_histories", "build_statistics", "build_samples")


def day(number: int) -> date:
    return START + timedelta(days=number)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Commands:
    """`python -m <folder> ...` on one home, against the stack's Spark Connect server."""

    def __init__(self, home: Path, info: stack.StackInfo) -> None:
        self.locations = Locations(home)
        self.env = os.environ | {
            HOME_VARIABLE: str(home),
            "SPARK_REMOTE": info.spark,
            "SPARK_CONNECT_AUTHENTICATE_TOKEN": info.token_file.read_text().strip(),
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", *arguments],
            env=self.env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, *arguments: str) -> str:
        with self.start(*arguments) as process:
            output, _ = process.communicate()
        assert process.returncode == 0, output
        return output

    def build(self, *days: str) -> None:
        for job in JOBS:
            self.run("spark_jobs", job, *days)


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Commands, Commands, stack.StackInfo]]:
    """Two homes with the same landing files; the stack of the first is up."""
    first = tmp_path_factory.mktemp("a") / "home"  # a short path: PostgreSQL's socket lies below it
    world = WorldSettings(users=80, items=90, seed=11)
    faults = FaultRates(duplicates=0.03, malformed=0.01, late=0.02)
    simulate(SimulatorSettings(start=START, days=KILLED + 1, world=world, faults=faults), first)
    second = tmp_path_factory.mktemp("b") / "home"
    shutil.copytree(first, second, ignore=shutil.ignore_patterns("locks"))
    said: list[str] = []
    stack.up_spark(first, ui_port=free_port(), spark_port=free_port())  # the rest is started later, as in the demo
    info = stack.up(first, say=said.append)
    assert said[0] == "still running: spark-connect"
    try:
        yield Commands(first, info), Commands(second, info), info
    finally:
        stack.down(first)


def test_a_backfill_equals_hand_commands(homes: tuple[Commands, Commands, stack.StackInfo]) -> None:
    through_airflow, by_hand, _ = homes
    through_airflow.build("--from", str(day(HISTORY[0])), "--to", str(day(HISTORY[-1])))
    api = stack.api(through_airflow.locations.home)
    for backwards, numbers in BACKFILLED.items():
        first, last = day(numbers[0]), day(numbers[-1])
        for dag, most in (("features_daily", 1), ("logs_daily", 2)):  # features first: they wait for the logs
            api.unpause(dag)
            api.create_backfill(dag, first, last, max_active_runs=most, backwards=dag == backwards)
        for dag in ("logs_daily", "features_daily"):
            runs = api.wait_for_periods(dag, first, last, timeout_seconds=600)
            assert [(run.period, run.state) for run in runs] == [(day(number), "success") for number in numbers]

    by_hand.build("--from", str(day(HISTORY[0])), "--to", str(last))
    run_types = {
        dag: [run.run_type for run in api.runs(dag)]
        for dag in ("bootstrap", "ad_ctr_daily", "cpm_weekly", "logs_daily")
    }
    assert run_types == {
        "bootstrap": [],
        "ad_ctr_daily": [],
        "cpm_weekly": [],
        "logs_daily": ["backfill"] * 6,
    }  # assets have started none
    for name in TABLES:
        rows = reference.content(through_airflow.locations, name)
        assert rows, name
        assert rows == reference.content(by_hand.locations, name), name
    for number in chain.from_iterable(BACKFILLED.values()):
        assert through_airflow.locations.report("natural_log", day(number)).is_file()


def test_a_client_killed_in_the_middle_of_a_write_leaves_nothing_behind(
    homes: tuple[Commands, Commands, stack.StackInfo],
) -> None:
    undisturbed, killed, _ = homes
    arguments = ("spark_jobs", "ingest_logs", "--ds", str(day(KILLED)))
    undisturbed.run(*arguments)
    lock = killed.locations.locks / "natural_log" / f"{owner_key(ds=day(KILLED))}.lock"
    process = killed.start(*arguments)
    deadline = time.monotonic() + 60
    while not (session := locks.read_holder(lock).get("session_id")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.5)  # by now it has a query running in the server
    assert process.poll() is None, process.communicate()[0]
    process.kill()
    process.communicate()
    assert locks.read_holder(lock)["session_id"] == session
    killed.run(*arguments)
    versions = {
        name: DeltaTable(str(killed.locations.table(name))).version()
        for name in ("natural_log", "ad_log", "quarantine", "builds")
    }
    time.sleep(8)  # a query that was left running would commit now
    assert versions == {name: DeltaTable(str(killed.locations.table(name))).version() for name in versions}
    for name in ("natural_log", "ad_log", "quarantine"):
        assert reference.content(killed.locations, name, ds=day(KILLED)) == reference.content(
            undisturbed.locations, name, ds=day(KILLED)
        )


CLOSED_SESSION = """
import sys, uuid
from pathlib import Path
from contracts.locations import Locations
from lake.session import end_session, spark_session
from pyspark.sql import functions as F

locations, old = Locations(Path(sys.argv[1])), str(uuid.uuid4())
with spark_session(locations, app="failed", session_id=old) as spark:
    spark.range(1).collect()
end_session(locations, old)
with spark_session(locations, app="next") as spark:
    print("rows:", spark.range(3).where(F.col("id") > 0).count())
"""


def test_the_session_of_a_failed_command_is_closed_and_does_not_hinder_the_next(
    homes: tuple[Commands, Commands, stack.StackInfo],
) -> None:
    """Its locks still name the session; PySpark's functions ask their settings of whatever session was opened first."""
    commands = homes[0]
    done = subprocess.run(
        [sys.executable, "-c", CLOSED_SESSION, str(commands.locations.home)],
        env=commands.env,
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.stdout.endswith("rows: 2\n"), done.stderr


def test_a_failed_day_ends_its_log_with_the_report(homes: tuple[Commands, Commands, stack.StackInfo]) -> None:
    locations = homes[0].locations
    path = locations.landing_day("natural", day(KILLED)) / "part-00000.csv"
    header, *rows = path.read_text(errors="replace").splitlines()
    path.write_text(
        "\n".join([header, *(row if place % 2 else "," + row.split(",", 1)[1] for place, row in enumerate(rows))])
        + "\n"
    )
    api = stack.api(locations.home)
    api.create_backfill("logs_daily", day(KILLED), day(KILLED))
    with pytest.raises(RunFailed) as failed:
        api.wait_for_periods("logs_daily", day(KILLED), day(KILLED), timeout_seconds=300)
    address = locations.report("natural_log", day(KILLED)).as_uri()
    assert "logs_daily.validate_logs (try 1)" in str(failed.value)
    assert address in str(failed.value).splitlines()[-1]
    assert "event_id_type" in locations.report("natural_log", day(KILLED)).read_text()


def test_a_second_up_says_so(homes: tuple[Commands, Commands, stack.StackInfo]) -> None:
    said: list[str] = []
    stack.up(homes[0].locations.home, say=said.append)
    assert said[0] == "already up:"


def test_what_is_killed_comes_back_without_what_it_left_behind(
    homes: tuple[Commands, Commands, stack.StackInfo],
) -> None:
    home = homes[0].locations.home
    before = components.living(home)
    workers = set(processes.marked(home, component=airflow.SCHEDULER))
    for name in (airflow.SCHEDULER, components.SPARK):
        os.kill(before[name].pid, signal.SIGKILL)
    deadline = time.monotonic() + 180
    while (
        not (stack.is_up(home) and ports.answers(int(homes[2].spark.rpartition(":")[2])))
        and time.monotonic() < deadline
    ):
        time.sleep(0.5)
    after = components.living(home)
    assert {name for name, record in after.items() if record != before[name]} == {airflow.SCHEDULER, components.SPARK}
    assert len(workers) > 1 and not workers & set(processes.marked(home))


def test_a_killed_supervisor_is_missed_by_nobody_and_started_by_up(
    homes: tuple[Commands, Commands, stack.StackInfo],
) -> None:
    home = homes[0].locations.home
    before = components.living(home)
    processes.kill([before[components.SUPERVISOR].pid])
    assert stack.is_up(home)
    assert "unsupervised" in stack.status(home)
    stack.up(home, say=lambda line: None)
    after = components.living(home)
    assert {name for name, record in after.items() if record != before[name]} == {components.SUPERVISOR}


def test_nothing_listens_beyond_loopback(homes: tuple[Commands, Commands, stack.StackInfo]) -> None:
    """Every listening socket of the stack's processes is bound to 127.0.0.1 or ::1."""
    pids = set(processes.marked(homes[0].locations.home))
    listening = {
        one.laddr.ip for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN and one.pid in pids
    }
    assert listening
    assert listening <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
