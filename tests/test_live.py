"""The stack for real: a failed day, clients and components killed, a supervisor that is missed by nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime

import features_reference as reference
import psutil
import pytest
from deltalake import DeltaTable
from live_fixture import BAD, KILLED, FailedDay, Live

from contracts.steps import LOG_TABLES
from contracts.tables import owner_key
from lake import locks
from tributary import stack
from tributary.airflow_api import RunFailed
from tributary.stack import airflow, components, ports, processes

pytestmark = pytest.mark.live

TABLES = (*LOG_TABLES, "quarantine")


def test_a_client_killed_in_the_middle_of_a_write_leaves_nothing_behind(live: Live) -> None:
    undisturbed, killed = live.deployed, live.by_hand
    command = ("spark_jobs", "ingest_logs", "--ds", str(KILLED))
    undisturbed.run(command)
    lock = killed.locations.locks / "natural_log" / f"{owner_key(ds=KILLED)}.lock"
    client = killed.start(command)
    deadline = time.monotonic() + 60
    while not (session := locks.read_holder(lock).get("session_id")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert client.kill(after=1), client.log.read_text()  # by now it has a query running in the server
    assert locks.read_holder(lock)["session_id"] == session
    killed.run(command)
    versions = {name: DeltaTable(str(killed.locations.table(name))).version() for name in (*TABLES, "builds")}
    time.sleep(8)  # a query that was left running would commit now
    assert versions == {name: DeltaTable(str(killed.locations.table(name))).version() for name in versions}
    for name in TABLES:
        rows = reference.content(killed.locations, name, ds=KILLED)
        assert rows and rows == reference.content(undisturbed.locations, name, ds=KILLED)


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
    live: Live,
) -> None:
    """Its locks still name the session; PySpark's functions ask their settings of whatever session was opened first."""
    done = subprocess.run(
        [sys.executable, "-c", CLOSED_SESSION, str(live.home)],
        env=os.environ | live.deployed.environment,
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.stdout.endswith("rows: 2\n"), done.stderr


def test_a_failed_day_ends_its_log_with_the_report(live: Live, failed_day: FailedDay) -> None:
    report, error = live.deployed.locations.report("natural_log", BAD), str(failed_day.error)
    assert "logs_daily.validate_logs (try 1)" in error
    assert report.as_uri() in error.splitlines()[-1]
    assert "event_id_type" in report.read_text()


def test_a_manual_run_makes_the_day_that_it_names_and_none_that_has_not_ended(
    live: Live, failed_day: FailedDay
) -> None:
    assert {owner for table, owner in failed_day.built if table in LOG_TABLES} == {owner_key(ds=BAD)}
    api, today = stack.api(live.home), datetime.now(UTC).date()
    api.unpause("logs_daily")
    with pytest.raises(RunFailed, match=rf"expected a day that ended before .*, found .*{today}"):
        api.wait_for_run("logs_daily", api.trigger("logs_daily", {"ds": str(today)}), timeout_seconds=300)


def test_a_second_up_says_so(live: Live) -> None:
    said: list[str] = []
    stack.up(live.home, say=said.append)
    assert said[0] == "already up:"


def test_what_is_killed_comes_back_without_what_it_left_behind(live: Live) -> None:
    home = live.home
    before = components.living(home)
    workers = set(processes.marked(home, component=airflow.SCHEDULER))
    for name in (airflow.SCHEDULER, components.SPARK):
        os.kill(before[name].pid, signal.SIGKILL)
    deadline = time.monotonic() + 180
    while (
        not (stack.is_up(home) and ports.answers(int(live.deployed.info.spark.rpartition(":")[2])))
        and time.monotonic() < deadline
    ):
        time.sleep(0.5)
    after = components.living(home)
    assert {name for name, record in after.items() if record != before[name]} == {airflow.SCHEDULER, components.SPARK}
    assert len(workers) > 1 and not workers & set(processes.marked(home))


def test_a_killed_supervisor_is_missed_by_nobody_and_started_by_up(live: Live) -> None:
    home = live.home
    before = components.living(home)
    processes.kill([before[components.SUPERVISOR].pid])
    assert stack.is_up(home)
    assert "unsupervised" in stack.status(home)
    stack.up(home, say=lambda line: None)
    after = components.living(home)
    assert {name for name, record in after.items() if record != before[name]} == {components.SUPERVISOR}


def test_nothing_listens_beyond_loopback(live: Live) -> None:
    """Every listening socket of the stack's processes is bound to 127.0.0.1 or ::1."""
    pids = set(processes.marked(live.home))
    listening = {
        one.laddr.ip for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN and one.pid in pids
    }
    assert listening
    assert listening <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
