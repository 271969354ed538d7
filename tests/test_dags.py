"""Policies over all DAGs, the day that a run means, and how a task runs its command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

import dags
from contracts.completeness import Completeness
from contracts.errors import EXIT_NOT_YET, BadInput
from contracts.kinds import KINDS, RECIPES, Cadence
from contracts.periods import PeriodSettings
from contracts.runs import period_of_run
from contracts.settings import SETTINGS_FILE, Deployment
from contracts.steps import CADENCES, DAG_IDS, LANDING, STEPS, commands_of
from dags.dagkit.child import Child

FOLDER = Path(dags.__file__).parent
CALENDAR = Deployment(
    history_start=date(2026, 1, 10), actr_start=date(2026, 2, 5), history_end=date(2026, 6, 1), recipe="quick"
)
SHANGHAI = Deployment(
    history_start=date(2022, 4, 8),
    actr_start=date(2022, 5, 2),
    day_timezone="Asia/Shanghai",
    periods=PeriodSettings(anchor=date(2022, 4, 25), month_days=2, week_days=2),
)
LATER = datetime(2030, 1, 1, tzinfo=UTC)


def period(
    deployment: Deployment,
    run_type: str,
    start: datetime | None = None,
    ds: str | None = None,
    *,
    cadence: Cadence = "day",
    now: datetime = LATER,
) -> date | None:
    found = period_of_run(
        deployment=deployment, cadence=cadence, run_type=run_type, data_interval_start=start, ds=ds, now=now
    )
    return None if found is None else found.start


class TestPeriodOfRun:
    @pytest.mark.parametrize("deployment", [CALENDAR, SHANGHAI])
    def test_scheduled_backfilled_and_manual_runs_mean_the_same_day(self, deployment: Deployment) -> None:
        day = deployment.actr_start
        start = deployment.day_start(day).astimezone(UTC)  # as Airflow gives it
        assert {
            period(deployment, "scheduled", start),
            period(deployment, "backfill", start),
            period(deployment, "manual", None, str(day)),
            # Airflow gives a manual run the interval before its logical date, which is not the day that was asked for
            period(deployment, "manual", deployment.day_start(date(2023, 1, 1)), str(day)),
        } == {day}

    def test_a_day_begins_at_its_own_midnight(self) -> None:
        assert period(SHANGHAI, "scheduled", datetime(2022, 5, 1, 16, tzinfo=UTC)) == date(2022, 5, 2)

    def test_a_shrunken_period_is_made_on_its_last_day(self) -> None:
        made = {
            day: period(SHANGHAI, "scheduled", SHANGHAI.day_start(date(2022, 4, day)), cadence="week")
            for day in (25, 26, 27, 28)
        }
        assert made == {25: None, 26: date(2022, 4, 25), 27: None, 28: date(2022, 4, 27)}
        assert period(SHANGHAI, "manual", None, "2022-04-25", cadence="week") == date(2022, 4, 25)

    def test_a_calendar_period_is_named_by_its_first_day(self) -> None:
        assert period(CALENDAR, "scheduled", datetime(2026, 2, 1, tzinfo=UTC), cadence="month") == date(2026, 2, 1)
        with pytest.raises(BadInput, match="expected the first day of a month, found 2026-02-03"):
            period(CALENDAR, "manual", None, "2026-02-03", cadence="month")

    @pytest.mark.parametrize(
        ("now", "ended"), [("2022-05-02T15:59:59+00:00", False), ("2022-05-02T16:00:00+00:00", True)]
    )
    def test_an_unfinished_day_is_refused(self, now: str, ended: bool) -> None:
        instant = datetime.fromisoformat(now)
        if ended:
            assert period(SHANGHAI, "manual", None, "2022-05-02", now=instant) == date(2022, 5, 2)
        else:
            with pytest.raises(BadInput, match="expected a day that ended before 2022-05-02 23:59 in Asia/Shanghai"):
                period(SHANGHAI, "manual", None, "2022-05-02", now=instant)

    @pytest.mark.parametrize(
        ("run_type", "start", "ds", "message"),
        [
            ("manual", None, None, "expected the first day of a day"),
            ("manual", datetime(2026, 2, 1, tzinfo=UTC), "", "fill in the field `ds`"),
            ("manual", None, "yesterday", "expected a day such as 2026-01-31, found 'yesterday'"),
            ("manual", None, "2026-01-09", "from history_start 2026-01-10 on"),
            ("scheduled", None, None, "expected an instant with a time zone, found None"),
            ("asset_triggered", None, None, "expected an instant with a time zone, found None"),
            ("scheduled", datetime(2026, 2, 1), None, "expected an instant with a time zone"),
            (
                "backfill",
                datetime(2026, 2, 1, tzinfo=UTC),
                "2026-02-01",
                "expected nothing: each run takes its own period",
            ),
        ],
    )
    def test_what_means_no_day_is_refused(
        self, run_type: str, start: datetime | None, ds: str | None, message: str
    ) -> None:
        with pytest.raises(BadInput, match=message):
            period(CALENDAR, run_type, start, ds)


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What runs instead of `python -m spark_jobs`."""
    path = tmp_path / "stub"
    path.write_text(
        f"#!{sys.executable}\nimport os, sys, time\n"
        "print('pid', os.getpid(), *sys.argv[2:], flush=True)\nprint('error: bad', file=sys.stderr, flush=True)\n"
        "print('bye', flush=True)\ntime.sleep(float(os.environ.get('STUB_SECONDS', '0')))\nsys.exit(75)\n"
    )
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
        code = (
            "from dags.dagkit.child import Child; Child(['spark_jobs', 'x']).run(lambda line: print(line, flush=True))"
        )
        task = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            text=True,
            cwd=FOLDER.parent,
            env=os.environ | {"STUB_SECONDS": "60"},
        )
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

from airflow.serialization.serialized_objects import DagSerialization

bag = DagBag(sys.argv[1])
def task(one):
    return {"id": one.task_id, "kind": type(one).__name__, "command": getattr(one, "command", None),
            "cadence": getattr(one, "cadence", None), "option": getattr(one, "period_option", None),
            "retries": one.retries, "delay": one.retry_delay.total_seconds(), "owner": one.owner,
            "pool": one.pool, "down": sorted(one.downstream_task_ids), "past": one.depends_on_past, "rule": str(one.trigger_rule.value),
            "weight": type(one.weight_rule).__name__, "in": sorted(a.name for a in one.inlets), "out": sorted(a.name for a in one.outlets),
            "tells": [f"{c.__module__}.{c.__name__}" for c in one.on_failure_callback],
            "limit": (one.execution_timeout.total_seconds() if one.execution_timeout else None)}
def deadlines(dag):
    return [[type(a.reference).__name__, a.interval.total_seconds(), a.callback.path] for a in dag.deadline or []]
out = {"errors": bag.import_errors, "heavy": sorted({"pyspark", "torch", "faiss", "great_expectations", "deltalake", "pandas", "lake",
       "sources", "spark_jobs", "training", "validation", "publishing", "tributary"} & set(sys.modules)),
       "seconds": {stat.file: stat.duration.total_seconds() for stat in bag.dagbag_stats},
       "stored": sorted(DagSerialization.from_dict(DagSerialization.to_dict(dag)).dag_id for dag in bag.dags.values()),
       "dags": {dag.dag_id: {"file": dag.fileloc, "timetable": type(dag.timetable).__name__,
                "cron": getattr(dag.timetable, "summary", None),
                "timezone": str(getattr(dag.timetable, "zone", getattr(dag.timetable, "timezone", None))),
                "start": dag.start_date and dag.start_date.isoformat(),
                "deadlines": deadlines(dag), "types": dag.allowed_run_types and sorted(t.value for t in dag.allowed_run_types),
                "enum": {n: dag.params.get_param(n).schema.get("enum") for n in dag.params},
                "end": dag.end_date.isoformat() if dag.end_date else None, "catchup": dag.catchup, "runs": dag.max_active_runs,
                "tags": sorted(dag.tags), "doc": dag.doc_md or "", "params": dag.params.dump(), "tasks": [task(t) for t in dag.tasks]}
                for dag in bag.dags.values()}}
print("RESULT" + json.dumps(out))
"""


def parse(home: Path, airflow_home: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", PARSE, str(FOLDER)],
        capture_output=True,
        text=True,
        check=True,
        cwd=FOLDER.parent,
        env=os.environ
        | {
            "TRIBUTARY_HOME": str(home),
            "AIRFLOW_HOME": str(airflow_home),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(FOLDER.parent / "plugins"),
        },
    )
    return dict(
        json.loads(next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))[len("RESULT") :])
    )


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
    def test_there_is_one_of_each_kind_and_cadence(self, parsed: dict[str, Any]) -> None:
        for found in parsed.values():
            assert found["errors"] == {}
            assert set(found["dags"]) == set(DAG_IDS)
            assert found["stored"] == sorted(DAG_IDS)
            print({file: f"{seconds:.2f} s" for file, seconds in found["seconds"].items()})

    def test_parsing_imports_nothing_heavy(self, parsed: dict[str, Any]) -> None:
        assert [found["heavy"] for found in parsed.values()] == [[], []]

    def test_intervals_are_the_deployments_days(self, parsed: dict[str, Any]) -> None:
        crons = {"day": "0 0 * * *", "week": "0 0 * * 1", "month": "0 0 1 * *"}
        for name, cadence in CADENCES.items():
            dag, shrunken = (found["dags"][name] for found in parsed.values())
            assert (dag["timetable"], dag["cron"], dag["timezone"]) == ("PeriodTimetable", crons[cadence], "UTC")
            assert (shrunken["timetable"], shrunken["cron"]) == ("PeriodTimetable", "0 0 * * *")
            assert shrunken["timezone"] == "Asia/Shanghai"
            assert not dag["catchup"] and not shrunken["catchup"]

    def test_first_and_last_day(self, parsed: dict[str, Any]) -> None:
        starts = {name: dag["start"] for name, dag in parsed["calendar"]["dags"].items() if name in CADENCES}
        assert starts == {
            "logs_daily": "2026-01-10T00:00:00+00:00",
            "features_daily": "2026-01-10T00:00:00+00:00",
            "ad_ctr_daily": "2026-02-05T00:00:00+00:00",
            "tpm_monthly": "2026-01-01T00:00:00+00:00",
            "cpm_weekly": "2026-01-05T00:00:00+00:00",
            "fg_bert_weekly": "2026-01-26T00:00:00+00:00",
            "fg_bert_users_daily": "2026-02-05T00:00:00+00:00",
            "bahe_daily": "2026-02-04T00:00:00+00:00",
        }
        assert {dag["end"] for name, dag in parsed["calendar"]["dags"].items() if name in CADENCES} == {
            "2026-06-01T00:00:00+00:00"
        }
        shrunken = parsed["shrunken"]["dags"]
        # 2022-04-08 lies in the block of the 7th and 8th; midnight in Shanghai is 16:00 of the day before in UTC.
        assert shrunken["logs_daily"]["start"] == "2022-04-07T16:00:00+00:00"
        assert shrunken["cpm_weekly"]["start"] == "2022-04-06T16:00:00+00:00"
        assert {dag["end"] for dag in shrunken.values()} == {None}

    def test_every_dag_can_be_handed_to_a_person_on_call(self, parsed: dict[str, Any]) -> None:
        for name, dag in parsed["calendar"]["dags"].items():
            assert "tributary" in dag["tags"] and (name not in CADENCES or CADENCES[name] in dag["tags"])
            assert f"tributary dags {'backfill' if name in CADENCES else 'trigger'} {name}" in dag["doc"]
            for task in dag["tasks"]:
                assert f"`{task['id']}`" in dag["doc"], (name, task["id"])
                assert (task["owner"], task["retries"]) == ("tributary", 2) and task["delay"] <= 60 and task["limit"], (
                    name,
                    task["id"],
                )
                assert task["tells"] == ["dags.dagkit.notify.task_failed"], (name, task["id"])
            ((reference, seconds, callback),) = dag["deadlines"]
            assert (reference, callback) == (
                "DagRunQueuedAtDeadline",
                "dags.dagkit.notify.deadline_missed",
            ) and seconds >= 8 * 3600

    def test_the_form_of_a_run_reaches_its_commands(self, parsed: dict[str, Any]) -> None:
        for name, dag in parsed["calendar"]["dags"].items():
            commands = [task["command"] for task in dag["tasks"] if task["command"]]
            trains = [command[:2] for command in commands if "{{ params.recipe }}" in command]
            if name == "bootstrap":
                assert dag["params"] == {"from": "2026-01-10", "to": "2026-02-04"}
                assert all(
                    command[-4:] == ["--from", "{{ params['from'] }}", "--to", "{{ params['to'] }}"]
                    for command in commands
                )
            elif name not in CADENCES:
                assert dag["params"] == {}
            elif name == "ad_ctr_daily":
                assert dag["params"] == {"ds": None, "recipe": "quick", "transfer": "all"}
                assert dag["enum"]["transfer"] == ["all", *CALENDAR.variants]
                assert commands[1] == [
                    "training",
                    "actr",
                    "--recipe",
                    "{{ params.recipe }}",
                    "--transfer",
                    "{{ params.transfer }}",
                ]
            elif trains:
                assert dag["params"] == {"ds": None, "recipe": "quick"} and dag["enum"]["recipe"] == list(RECIPES)
            else:
                assert dag["params"] == {"ds": None}
            expected = {"bahe_daily": [["training", "encode_texts"], ["training", "bahe"]], "fg_bert_users_daily": []}
            models = [["training", kind.name] for kind in KINDS.values() if kind.dag == name]
            assert sorted(trains) == sorted(expected.get(name, models)), name

    def test_what_has_no_period_takes_no_backfill(self, parsed: dict[str, Any]) -> None:
        found = parsed["shrunken"]["dags"]
        assert (found["lake_maintenance_weekly"]["timetable"], found["bootstrap"]["timetable"]) == (
            "CronTriggerTimetable",
            "NullTimetable",
        )
        assert found["lake_maintenance_weekly"]["types"] == ["manual", "scheduled"]
        assert found["lake_maintenance_weekly"]["timezone"] == "Asia/Shanghai"
        assert not found["lake_maintenance_weekly"]["catchup"]

    def test_whatever_is_published_is_an_asset_that_somebody_made(self, parsed: dict[str, Any]) -> None:
        dags = parsed["calendar"]["dags"]
        made = {asset for dag in dags.values() for task in dag["tasks"] for asset in task["out"]}
        read = {asset for dag in dags.values() for task in dag["tasks"] for asset in task["in"]}
        inside = {
            table for step in STEPS if not step.dag for table in step.writes
        }  # made by hand, or when a job first needs it
        assert set(LANDING) <= read - made <= {*LANDING, *inside}
        for kind in KINDS.values():
            (publish,) = (task for task in dags[kind.dag]["tasks"] if task["id"] == f"publish_{kind.name}")
            assert {kind.vectors, f"{kind.name}_release"} <= set(publish["out"])
        for name, deployment in (("calendar", CALENDAR), ("shrunken", SHANGHAI)):
            for kind in KINDS.values():
                day = deployment.periods.closed_before(
                    kind.cadence, date(2026, 5, 20) if name == "calendar" else date(2022, 5, 10)
                ).start
                (train,) = (
                    task for task in parsed[name]["dags"][kind.dag]["tasks"] if task["id"] == f"train_{kind.name}"
                )
                parents = {f"{parent.kind}_release" for parent in deployment.lineage.parents(kind.name, day)}
                assert parents == {asset for asset in train["in"] if asset.endswith("_release")}, kind.name

    def test_a_chain_refuses_to_run_backwards(self, parsed: dict[str, Any]) -> None:
        """Airflow refuses it where a task depends on the past; the one that does must neither fail nor be passed by."""
        for name, dag in parsed["calendar"]["dags"].items():
            kind = next((kind for kind in KINDS.values() if kind.dag == name), None)
            goes_on = kind is not None and any(
                parent.role == "predecessor"
                for parent in CALENDAR.lineage.parents(
                    kind.name, CALENDAR.periods.closed_before(kind.cadence, date(2026, 5, 20)).start
                )
            )
            past = [(task["id"], task["kind"], task["rule"]) for task in dag["tasks"] if task["past"]]
            assert past == ([("oldest_first", "EmptyOperator", "all_done")] if goes_on else []), name

    def test_every_task_runs_a_command_that_exists(self, parsed: dict[str, Any], tmp_path: Path) -> None:
        commands = []
        for name, dag in parsed["calendar"]["dags"].items():
            for task in dag["tasks"]:
                if task["kind"] == "EmptyOperator":
                    continue
                folder, command, *_ = task["command"]
                assert command in commands_of(folder), (name, task["id"])
                assert task["cadence"] == CADENCES.get(name)
                values = {
                    "{{ params.recipe }}": "quick",
                    "{{ params.transfer }}": "all",
                    "{{ params['from'] }}": "2026-02-05",
                    "{{ params['to'] }}": "2026-02-05",
                }
                filled = [values.get(word, word) for word in task["command"]]
                commands.append(
                    [*filled, *([task["option"], "2026-02-05"] if task["option"] and task["cadence"] else [])]
                )
        assert _refused(commands, tmp_path / "nowhere") == []
        assert _refused([["spark_jobs", "ingest_logs", "--period", "2026-02-05"]], tmp_path / "nowhere") != []

    def test_only_a_deployment_with_rules_waits_for_its_deliveries(self, tmp_path: Path) -> None:
        with_rules = replace(CALENDAR, completeness=Completeness(delay_minutes=30))
        (tmp_path / SETTINGS_FILE).write_text(with_rules.to_toml())
        found = parse(tmp_path, tmp_path / "airflow")
        assert found["errors"] == {} and found["heavy"] == []
        dag = found["dags"]["logs_daily"]
        wait = dag["tasks"][0]
        assert (wait["id"], wait["kind"], wait["down"]) == ("wait_for_delivery", "DeliveryOperator", ["ingest_logs"])
        assert (wait["command"], wait["option"], wait["cadence"]) == (["sources", "ready", "--json"], "--ds", "day")
        assert wait["tells"] == ["dags.dagkit.notify.task_failed"] and "`wait_for_delivery`" in dag["doc"]
        assert "wait_for_delivery" not in [task["id"] for name in CADENCES for task in found["dags"][name]["tasks"][1:]]
        assert _refused([[*wait["command"], "--ds", "2026-02-05"]], tmp_path / "nowhere") == []

    def test_waiting_holds_no_worker_and_training_takes_turns(self, parsed: dict[str, Any]) -> None:
        tasks = [task for dag in parsed["calendar"]["dags"].values() for task in dag["tasks"]]
        assert {task["id"] for task in tasks if task["kind"] == "WaitOperator"} == {
            "wait_for_partials",
            "wait_for_parents",
        }
        gpu = {"encode_texts", *(f"train_{kind}" for kind in KINDS)}
        assert {task["id"] for task in tasks if task["pool"] == "gpu"} == gpu
        assert {task["id"] for task in tasks if task["weight"] == "ScheduledFirst"} == gpu
        for name in CADENCES:  # whatever a run reads of others, it waits for first
            begins = {task["id"] for task in parsed["calendar"]["dags"][name]["tasks"]} - {
                then for task in parsed["calendar"]["dags"][name]["tasks"] for then in task["down"]
            }
            assert begins == {"logs_daily": {"ingest_logs"}, "features_daily": {"wait_for_partials"}}.get(
                name, {"wait_for_parents"}
            ), name
        chained = [kind.dag for kind in KINDS.values()]
        assert all(
            parsed["calendar"]["dags"][name]["runs"] > 1 for name in chained
        )  # one that waits must not block its predecessor

    def test_order_of_tasks(self, parsed: dict[str, Any]) -> None:
        down = {
            name: {task["id"]: task["down"] for task in dag["tasks"]}
            for name, dag in parsed["calendar"]["dags"].items()
        }
        assert down["logs_daily"] == {
            "ingest_logs": ["validate_logs"],
            "validate_logs": ["build_partials", "collect_texts"],
            "build_partials": [],
            "collect_texts": [],
        }
        assert down["features_daily"]["wait_for_partials"] == ["build_histories", "build_statistics"]
        assert down["features_daily"]["build_samples"] == ["validate_features"]
        for kind, name in ((kind.name, kind.dag) for kind in KINDS.values()):
            first = ["encode_texts", "add_text_vectors"] if kind == "bahe" else []
            tasks = ["wait_for_parents", *first, *(f"{step}_{kind}" for step in ("train", "gate", "audit", "publish"))]
            row = {task: [then] if then else [] for task, then in zip(tasks, [*tasks[1:], None], strict=True)}
            if "oldest_first" in down[name]:
                row |= {"wait_for_parents": sorted([tasks[1], "oldest_first"]), "oldest_first": [tasks[1]]}
            assert down[name] == row

    def test_without_a_deployment_the_import_error_says_what_to_do(self, tmp_path: Path) -> None:
        found = parse(tmp_path / "nowhere", tmp_path / "airflow")
        assert found["dags"] == {} and len(found["errors"]) == len([*FOLDER.glob("*.py")]) - 1  # __init__.py makes none
        for error in found["errors"].values():
            assert "Set TRIBUTARY_HOME to the deployment's folder" in error.strip().splitlines()[-1]


# Every folder's own parser is asked, in one process; what it takes then fails, since there is no deployment.
ASK = """
import importlib, json, sys
refused = []
for folder, *arguments in json.loads(sys.argv[1]):
    try:
        if importlib.import_module(f"{folder}.cli").main(arguments) == 2:
            refused.append([folder, *arguments])
    except ValueError:
        pass
print("RESULT" + json.dumps(refused))
"""


def _refused(commands: list[list[str]], home: Path) -> list[list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", ASK, json.dumps(commands)],
        capture_output=True,
        text=True,
        check=True,
        cwd=FOLDER.parent,
        env=os.environ | {"TRIBUTARY_HOME": str(home)},
    )
    return list(
        json.loads(next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))[len("RESULT") :])
    )
