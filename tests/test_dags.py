"""Policies over all DAGs, the day that a run means, and how a task runs its command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

import dags
from contracts.errors import EXIT_NOT_YET, BadInput
from contracts.kinds import KINDS
from contracts.periods import Cadence, PeriodSettings
from contracts.runs import period_of_run
from contracts.settings import SETTINGS_FILE, Deployment
from dags.dagkit.child import Child
from tributary import cli
from tributary.airflow_api import CADENCES

FOLDER = Path(dags.__file__).parent
CALENDAR = Deployment(history_start=date(2026, 1, 10), actr_start=date(2026, 2, 5), history_end=date(2026, 6, 1))
SHANGHAI = Deployment(history_start=date(2022, 4, 8), actr_start=date(2022, 5, 2), day_timezone="Asia/Shanghai",
                      periods=PeriodSettings(anchor=date(2022, 4, 25), month_days=2, week_days=2))
LATER = datetime(2030, 1, 1, tzinfo=UTC)


def period(deployment: Deployment, run_type: str, start: datetime | None = None, ds: str | None = None, *, cadence: Cadence = "day",
           now: datetime = LATER) -> date | None:
    found = period_of_run(deployment=deployment, cadence=cadence, run_type=run_type, data_interval_start=start, ds=ds, now=now)
    return None if found is None else found.start


class TestPeriodOfRun:
    @pytest.mark.parametrize("deployment", [CALENDAR, SHANGHAI])
    def test_scheduled_backfilled_and_manual_runs_mean_the_same_day(self, deployment: Deployment) -> None:
        day = deployment.actr_start
        start = deployment.day_start(day).astimezone(UTC)  # as Airflow gives it
        assert {period(deployment, "scheduled", start), period(deployment, "backfill", start), period(deployment, "manual", None, str(day)),
                # Airflow gives a manual run the interval before its logical date, which is not the day that was asked for
                period(deployment, "manual", deployment.day_start(date(2023, 1, 1)), str(day))} == {day}

    def test_a_day_begins_at_its_own_midnight(self) -> None:
        assert period(SHANGHAI, "scheduled", datetime(2022, 5, 1, 16, tzinfo=UTC)) == date(2022, 5, 2)

    def test_a_shrunken_period_is_made_on_its_last_day(self) -> None:
        made = {day: period(SHANGHAI, "scheduled", SHANGHAI.day_start(date(2022, 4, day)), cadence="week") for day in (25, 26, 27, 28)}
        assert made == {25: None, 26: date(2022, 4, 25), 27: None, 28: date(2022, 4, 27)}
        assert period(SHANGHAI, "manual", None, "2022-04-25", cadence="week") == date(2022, 4, 25)

    def test_a_calendar_period_is_named_by_its_first_day(self) -> None:
        assert period(CALENDAR, "scheduled", datetime(2026, 2, 1, tzinfo=UTC), cadence="month") == date(2026, 2, 1)
        with pytest.raises(BadInput, match="expected the first day of a month, found 2026-02-03"):
            period(CALENDAR, "manual", None, "2026-02-03", cadence="month")

    @pytest.mark.parametrize(("now", "ended"), [("2022-05-02T15:59:59+00:00", False), ("2022-05-02T16:00:00+00:00", True)])
    def test_an_unfinished_day_is_refused(self, now: str, ended: bool) -> None:
        instant = datetime.fromisoformat(now)
        if ended:
            assert period(SHANGHAI, "manual", None, "2022-05-02", now=instant) == date(2022, 5, 2)
        else:
            with pytest.raises(BadInput, match="expected a day that ended before 2022-05-02 23:59 in Asia/Shanghai"):
                period(SHANGHAI, "manual", None, "2022-05-02", now=instant)

    @pytest.mark.parametrize(("run_type", "start", "ds", "message"), [
        ("manual", None, None, "expected the first day of a day"),
        ("manual", datetime(2026, 2, 1, tzinfo=UTC), "", "fill in the field `ds`"),
        ("manual", None, "yesterday", "expected a day such as 2026-01-31, found 'yesterday'"),
        ("manual", None, "2026-01-09", "from history_start 2026-01-10 on"),
        ("scheduled", None, None, "expected an instant with a time zone, found None"),
        ("asset_triggered", None, None, "expected an instant with a time zone, found None"),
        ("scheduled", datetime(2026, 2, 1), None, "expected an instant with a time zone"),
        ("backfill", datetime(2026, 2, 1, tzinfo=UTC), "2026-02-01", "expected nothing: each run takes its own period"),
    ])
    def test_what_means_no_day_is_refused(self, run_type: str, start: datetime | None, ds: str | None, message: str) -> None:
        with pytest.raises(BadInput, match=message):
            period(CALENDAR, run_type, start, ds)


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What runs instead of `python -m spark_jobs`."""
    path = tmp_path / "stub"
    path.write_text(f"#!{sys.executable}\nimport os, sys, time\n"
                    "print('pid', os.getpid(), *sys.argv[2:], flush=True)\nprint('error: bad', file=sys.stderr, flush=True)\n"
                    "print('bye', flush=True)\ntime.sleep(float(os.environ.get('STUB_SECONDS', '0')))\nsys.exit(75)\n")
    path.chmod(0o755)
    monkeypatch.setenv("TRIBUTARY_PYTHON_SPARK_JOBS", str(path))
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent))
    return path


class TestChild:
    def test_passes_output_and_exit_code_on(self, stub: Path) -> None:
        lines: list[str] = []
        child = Child(["spark_jobs", "ingest_logs", "--ds", "2026-01-31"])
        assert child.run(lines.append) == EXIT_NOT_YET
        assert lines[0].endswith("spark_jobs ingest_logs --ds 2026-01-31") and lines[1:] == ["error: bad", "bye"]
        assert child.error_line() == "error: bad"

    def test_is_ended_when_the_task_is_cut_off(self, stub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("STUB_SECONDS", "60")
        pids: list[int] = []

        def cut_off(line: str) -> None:
            pids.append(int(line.split()[1]))
            raise TimeoutError

        began = time.monotonic()
        with pytest.raises(TimeoutError):
            Child(["spark_jobs", "ingest_logs"]).run(cut_off)
        assert not _is_running(pids[0])
        assert time.monotonic() - began < 30  # it was ended, not waited for

    def test_dies_with_a_killed_task(self, stub: Path) -> None:
        code = "from dags.dagkit.child import Child; Child(['spark_jobs', 'x']).run(lambda line: print(line, flush=True))"
        task = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=FOLDER.parent,
                                env=os.environ | {"STUB_SECONDS": "60"})
        assert task.stdout is not None
        with task.stdout:
            pid = int(task.stdout.readline().split()[1])
            assert _is_running(pid)
            os.kill(task.pid, signal.SIGKILL)
            task.wait()
            deadline = time.monotonic() + 5
            while _is_running(pid) and time.monotonic() < deadline:
                time.sleep(0.01)
        assert not _is_running(pid)


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


# Parsed in a process of its own, so that what a DAG file imports can be seen, and Airflow's warnings are its own.
PARSE = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.bases.operator import BaseOperator
from airflow.sdk.bases.sensor import BaseSensorOperator

bag = DagBag(sys.argv[1])
def task(one):
    return {"id": one.task_id, "kind": type(one).__name__, "command": getattr(one, "command", None), "cadence": one.cadence,
            "option": one.period_option, "retries": one.retries, "delay": one.retry_delay.total_seconds(), "owner": one.owner,
            "pool": one.pool, "down": sorted(one.downstream_task_ids), "mode": getattr(one, "mode", None),
            "limit": (one.execution_timeout.total_seconds() if one.execution_timeout else None)}
out = {"errors": bag.import_errors, "heavy": sorted({"pyspark", "torch", "faiss", "great_expectations", "deltalake", "pandas", "lake",
       "sources", "spark_jobs", "training", "validation", "publishing", "tributary"} & set(sys.modules)),
       "dags": {dag.dag_id: {"file": dag.fileloc, "timetable": type(dag.timetable).__name__, "cron": dag.timetable.expression,
                "timezone": str(dag.timetable.timezone), "start": dag.start_date.isoformat(),
                "end": dag.end_date.isoformat() if dag.end_date else None, "catchup": dag.catchup, "runs": dag.max_active_runs,
                "tags": sorted(dag.tags), "doc": dag.doc_md or "", "params": dag.params.dump(), "tasks": [task(t) for t in dag.tasks]}
                for dag in bag.dags.values()}}
print("RESULT" + json.dumps(out))
"""


def parse(home: Path, airflow_home: Path) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", PARSE, str(FOLDER)], capture_output=True, text=True, check=True, cwd=FOLDER.parent,
                          env=os.environ | {"TRIBUTARY_HOME": str(home), "AIRFLOW_HOME": str(airflow_home)})
    return dict(json.loads(next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))[len("RESULT"):]))


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    found = {}
    for name, deployment in (("calendar", CALENDAR), ("shrunken", SHANGHAI)):
        home = tmp_path_factory.mktemp(name)
        (home / SETTINGS_FILE).write_text(deployment.to_toml())
        found[name] = parse(home, home / "airflow")
    return found


@pytest.mark.airflow
class TestDags:
    def test_one_per_file_named_after_it(self, parsed: dict[str, Any]) -> None:
        for found in parsed.values():
            assert found["errors"] == {}
            assert {Path(dag["file"]).stem: name for name, dag in found["dags"].items()} == {name: name for name in CADENCES}
        assert {path.stem for path in FOLDER.glob("*.py")} - {"__init__"} == set(CADENCES)

    def test_parsing_imports_nothing_heavy(self, parsed: dict[str, Any]) -> None:
        assert [found["heavy"] for found in parsed.values()] == [[], []]

    def test_intervals_are_the_deployments_days(self, parsed: dict[str, Any]) -> None:
        crons = {"day": "0 0 * * *", "week": "0 0 * * 1", "month": "0 0 1 * *"}
        for name, cadence in CADENCES.items():
            dag, shrunken = (found["dags"][name] for found in parsed.values())
            assert (dag["timetable"], dag["cron"], dag["timezone"]) == ("CronDataIntervalTimetable", crons[cadence], "UTC")
            assert (shrunken["timetable"], shrunken["cron"]) == ("CronDataIntervalTimetable", "0 0 * * *")
            assert shrunken["timezone"] == "Asia/Shanghai"
            assert not dag["catchup"] and not shrunken["catchup"]

    def test_first_and_last_day(self, parsed: dict[str, Any]) -> None:
        starts = {name: dag["start"] for name, dag in parsed["calendar"]["dags"].items()}
        assert starts == {"logs_daily": "2026-01-10T00:00:00+00:00", "features_daily": "2026-01-10T00:00:00+00:00",
                          "ad_ctr_daily": "2026-02-05T00:00:00+00:00",
                          "tpm_monthly": "2026-01-01T00:00:00+00:00", "cpm_weekly": "2026-01-05T00:00:00+00:00",
                          "fg_bert_weekly": "2026-01-26T00:00:00+00:00", "fg_bert_users_daily": "2026-02-05T00:00:00+00:00",
                          "bahe_daily": "2026-02-04T00:00:00+00:00"}
        assert {dag["end"] for dag in parsed["calendar"]["dags"].values()} == {"2026-06-01T00:00:00+00:00"}
        shrunken = parsed["shrunken"]["dags"]
        # 2022-04-08 lies in the block of the 7th and 8th; midnight in Shanghai is 16:00 of the day before in UTC.
        assert shrunken["logs_daily"]["start"] == "2022-04-07T16:00:00+00:00"
        assert shrunken["cpm_weekly"]["start"] == "2022-04-06T16:00:00+00:00"
        assert {dag["end"] for dag in shrunken.values()} == {None}

    def test_every_dag_can_be_handed_to_a_person_on_call(self, parsed: dict[str, Any]) -> None:
        for name, dag in parsed["calendar"]["dags"].items():
            assert "tributary" in dag["tags"] and CADENCES[name] in dag["tags"]
            assert f"tributary dags backfill {name}" in dag["doc"]
            assert dag["params"] == {"ds": None}
            for task in dag["tasks"]:
                assert f"`{task['id']}`" in dag["doc"], (name, task["id"])
                assert (task["owner"], task["retries"]) == ("tributary", 2) and task["delay"] <= 60 and task["limit"], (name, task["id"])

    def test_every_task_runs_a_command_that_exists(self, parsed: dict[str, Any], tmp_path: Path) -> None:
        commands = []
        for name, dag in parsed["calendar"]["dags"].items():
            for task in dag["tasks"]:
                folder, command, *_ = task["command"]
                assert command in cli.FOLDERS[folder][1], (name, task["id"])
                assert task["cadence"] == CADENCES[name]
                commands.append([*task["command"], *([task["option"], "2026-02-05"] if task["option"] else [])])
        assert _refused(commands, tmp_path / "nowhere") == []
        assert _refused([["spark_jobs", "ingest_logs", "--period", "2026-02-05"]], tmp_path / "nowhere") != []

    def test_waiting_holds_no_worker_and_training_takes_turns(self, parsed: dict[str, Any]) -> None:
        tasks = [task for dag in parsed["calendar"]["dags"].values() for task in dag["tasks"]]
        assert {task["mode"] for task in tasks if task["id"].startswith("wait_for_")} == {"reschedule"}
        assert {task["id"] for task in tasks if task["kind"] == "CommandSensor"} == {"wait_for_partials", "wait_for_parents"}
        assert {task["id"] for task in tasks if task["pool"] == "gpu"} == {"encode_texts", *(f"train_{kind}" for kind in KINDS)}
        chained = [kind.dag for kind in KINDS.values()]
        assert all(parsed["calendar"]["dags"][name]["runs"] > 1 for name in chained)  # one that waits must not block its predecessor

    def test_order_of_tasks(self, parsed: dict[str, Any]) -> None:
        down = {name: {task["id"]: task["down"] for task in dag["tasks"]} for name, dag in parsed["calendar"]["dags"].items()}
        assert down["logs_daily"] == {"ingest_logs": ["validate_logs"], "validate_logs": ["build_partials", "collect_texts"],
                                      "build_partials": [], "collect_texts": []}
        assert down["features_daily"]["wait_for_partials"] == ["build_histories", "build_statistics"]
        assert down["features_daily"]["build_samples"] == ["validate_features"]
        for kind, name in ((kind.name, kind.dag) for kind in KINDS.values()):
            first = ["encode_texts", "add_text_vectors"] if kind == "bahe" else []
            tasks = ["wait_for_parents", *first, *(f"{step}_{kind}" for step in ("train", "gate", "audit", "publish"))]
            assert down[name] == {task: [then] if then else [] for task, then in zip(tasks, [*tasks[1:], None], strict=True)}

    def test_without_a_deployment_the_import_error_says_what_to_do(self, tmp_path: Path) -> None:
        found = parse(tmp_path / "nowhere", tmp_path / "airflow")
        assert found["dags"] == {} and len(found["errors"]) == len(CADENCES)
        for error in found["errors"].values():
            assert "Set TRIBUTARY_HOME to the deployment's folder" in error.strip().splitlines()[-1]


# Every folder's own parser is asked, in one process; what it takes then fails, since there is no deployment.
ASK = """
import importlib, json, sys
refused = []
for folder, *arguments in json.loads(sys.argv[1]):
    try:
        importlib.import_module(f"{folder}.cli").main(arguments)
    except SystemExit:
        refused.append([folder, *arguments])
    except ValueError:
        pass
print("RESULT" + json.dumps(refused))
"""


def _refused(commands: list[list[str]], home: Path) -> list[list[str]]:
    done = subprocess.run([sys.executable, "-c", ASK, json.dumps(commands)], capture_output=True, text=True, check=True, cwd=FOLDER.parent,
                          env=os.environ | {"TRIBUTARY_HOME": str(home)})
    return list(json.loads(next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))[len("RESULT"):]))
