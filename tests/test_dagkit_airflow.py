"""What the DAGs ask of Airflow's own classes: triggers, callbacks, deadlines, priorities, backfills. Each case in Airflow's own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from contracts.settings import SETTINGS_FILE, Deployment

PROJECT = Path(__file__).resolve().parent.parent
DEPLOYMENT = Deployment(history_start=date(2026, 1, 10), actr_start=date(2026, 2, 5))

pytestmark = pytest.mark.airflow


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deployment whose `notify` command keeps what it gets on its standard input."""
    home = tmp_path_factory.mktemp("home")
    tell = home / "tell"
    tell.write_text(
        f"#!{sys.executable}\nimport sys\nopen({str(home / 'told')!r}, 'a').write(sys.stdin.read() + chr(10))\n"
    )
    tell.chmod(0o755)
    (home / SETTINGS_FILE).write_text(
        Deployment(
            history_start=DEPLOYMENT.history_start, actr_start=DEPLOYMENT.actr_start, notify=f"{tell} now"
        ).to_toml()
    )
    return home


def said(home: Path, code: str) -> Any:
    """What the code prints as JSON after RESULT."""
    (home / "told").unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=PROJECT,
        env=os.environ
        | {
            "TRIBUTARY_HOME": str(home),
            "AIRFLOW_HOME": str(home / "airflow"),
            "PYTHONPATH": str(PROJECT),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT / "plugins"),
        },
    )
    assert done.returncode == 0, done.stderr
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))[len("RESULT") :])


def told(home: Path) -> list[dict[str, Any]]:
    path = home / "told"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


WAIT = """
import asyncio, json, types
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred
from airflow.sdk._shared.module_loading import import_string
from contracts.awaited import Awaited
from dags.dagkit import runs, waiting
from datetime import date, datetime

one = Awaited(what="the pretrained cpm of 2026-04-20", dag="cpm_weekly", periods=(date(2026, 4, 20),))
wait = waiting.WaitOperator(task_id="wait_for_parents", command=["publishing", "parents", "--kind", "actr"], cadence="day")
context = {"dag_run": types.SimpleNamespace(dag_id="ad_ctr_daily")}
answers = []
wait.run_command = lambda context: answers.pop(0)

def run(event=None):
    try:
        wait.execute(context) if event is None else wait.execute_complete(context, event)
    except TaskDeferred as deferred:
        return deferred.trigger
    except AirflowFailException as failed:
        return str(failed)

asked = []
async def runs_in(dag, ticks, states):
    asked.append([dag, [str(t) for t in ticks or []], sorted(states)])
    return int(states == ["failed"])
runs.runs_in = runs_in

async def first(trigger):
    async for event in trigger.run():
        return event.payload

answers += [(75, [one.line(), "error: not yet"])] * 2 + [(0, [])] + [(75, [one.line()])] * 2
trigger = run()
path, values = trigger.serialize()
again = import_string(path)(**json.loads(json.dumps(values)) | {"grace_seconds": 0, "poll_seconds": 0})
event = asyncio.run(first(again))
out = {"event": event, "failed": run(event), "there": run(event), "asked": asked, "command": wait.command, "values": values,
       "made": run({"state": "made", "dag": "cpm_weekly", "final": False}).asked_again,
       "still": run({"state": "made", "dag": "cpm_weekly", "final": True})}
print("RESULT" + json.dumps(out))
"""


def test_a_wait_is_a_trigger_and_ends_with_the_command_that_helps(home: Path) -> None:
    found = said(home, WAIT)
    assert found["command"][-1] == "--json"
    assert found["values"]["awaited"] == {"cpm_weekly": ["2026-04-20"]} and found["values"]["wait_seconds"] == 12 * 3600
    assert found["asked"] == [["cpm_weekly", ["2026-04-20 00:00:00+00:00"], ["failed"]]]
    assert found["event"] == {"state": "failed", "dag": "cpm_weekly", "final": True}
    assert found["failed"] == (
        "the pretrained cpm of 2026-04-20: the run of cpm_weekly that makes it has failed. Correct what its log "
        "names, then run: tributary dags backfill cpm_weekly --from 2026-04-20 --to 2026-04-20 --reprocess failed"
    )
    assert found["there"] is None, "what the command finds there is there, whatever its run has come to"
    assert found["made"] is True
    assert found["still"].endswith(
        "tributary dags backfill cpm_weekly --from 2026-04-20 --to 2026-04-20 --reprocess completed"
    )


DELIVERY = """
import asyncio, json
from datetime import UTC, date, datetime, timedelta
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferred
from airflow.sdk._shared.module_loading import import_string
from contracts.completeness import Readiness
from dags.dagkit import waiting

NOW = datetime.now(UTC)
wait = waiting.DeliveryOperator(task_id="wait_for_delivery", command=["sources", "ready"], cadence="day")
answers = []
wait.run_command = lambda context: answers.pop(0)
wait._child = type("Child", (), {"arguments": ["sources", "ready"], "error_line": lambda self: "error: bad"})()

def run(code, hours_to_opening=0.0, hours_to_deadline=0.0, resumed=True):
    one = Readiness(day=date(2026, 1, 31), missing=("ad log: expected files, found none",),
                    opens=NOW + timedelta(hours=hours_to_opening), deadline=NOW + timedelta(hours=hours_to_deadline))
    answers.append((code, ["some line", one.line(), "error: not yet"]))
    try:
        wait.execute_complete({}, None) if resumed else wait.execute({})
    except TaskDeferred as deferred:
        path, values = deferred.trigger.serialize()
        return [deferred.method_name, path, round((values["moment"] - NOW).total_seconds() / 60)]
    except AirflowException as failed:
        return [type(failed).__name__, str(failed)]
    return None

async def fires(moment):
    async for event in import_string(waiting.DateTimeTrigger(moment=moment).serialize()[0])(moment=moment).run():
        return True

out = {"first": run(75, -1, 10, resumed=False), "again": run(75, -1, 10), "early": run(75, 2, 14), "last": run(75, -12, 0.02),
       "over": run(75, -12, -0.01), "there": run(0), "there_after_all": run(0, -12, -0.01), "bad": run(2),
       "command": wait.command, "fires": asyncio.run(fires(NOW))}
print("RESULT" + json.dumps(out))
"""


def test_a_delivery_is_looked_for_again_until_its_deadline(home: Path) -> None:
    found = said(home, DELIVERY)
    assert found["command"] == ["sources", "ready", "--json"] and found["fires"]
    trigger = ["execute_complete", "airflow.providers.standard.triggers.temporal.DateTimeTrigger"]
    assert found["first"] == found["again"] == [*trigger, 5]
    assert found["early"] == [*trigger, 120], "before the day may be read nobody looks"
    assert found["last"] == [*trigger, 1], "the last look is at the deadline"
    kind, message = found["over"]
    assert kind == "AirflowFailException"
    assert (
        "is not complete: ad log: expected files, found none. Deliver what is missing, then clear this task" in message
    )
    assert found["there"] is found["there_after_all"] is None
    assert found["bad"] == ["AirflowFailException", "tributary sources ready: exit code 2 (bad input): error: bad"]


LATE = """
import asyncio, json
from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.definitions.deadline import SerializedReferenceModels
from airflow.serialization.serialized_objects import DagSerialization
from airflow.triggers.callback import CallbackTrigger

dag = DagBag("dags").dags["ad_ctr_daily"]
alert, = dag.deadline
DagSerialization.to_dict(dag)
async def miss(run_type):
    run = {"dag_id": "ad_ctr_daily", "dag_run_id": f"{run_type}__1", "run_type": run_type}
    trigger = CallbackTrigger(alert.callback.path, {"context": {"dag_run": run, "deadline": {"id": "1", "deadline_time": "2026-02-06"}}})
    return [event.payload["state"] async for event in trigger.run()]
states = [asyncio.run(miss(run_type)) for run_type in ("backfill", "scheduled", "manual")]
known = {one.__name__ for one in SerializedReferenceModels.TYPES.DAGRUN}
print("RESULT" + json.dumps([states, type(alert.reference).__name__ in known]))
"""


def test_a_late_run_is_told_of_but_not_a_backfills(home: Path) -> None:
    states, is_known = said(home, LATE)
    assert states == [["running", "success"]] * 3 and is_known
    assert [(one["event"], one["dag"], one["run_type"]) for one in told(home)] == [
        ("deadline_missed", "ad_ctr_daily", "scheduled"),
        ("deadline_missed", "ad_ctr_daily", "manual"),
    ]
    assert told(home)[0]["deployment"] == str(home)


FAILED = """
import json, types
from dags.dagkit.defaults import task_defaults
task = types.SimpleNamespace(dag_id="logs_daily", run_id="backfill__1", task_id="validate_logs", try_number=1, log_url="http://log")
task_defaults()["on_failure_callback"]({"ti": task, "dag_run": types.SimpleNamespace(run_type="backfill"), "exception": ValueError("bad")})
print("RESULT1")
"""


def test_a_failed_task_is_told_of(home: Path) -> None:
    said(home, FAILED)
    assert told(home) == [
        {
            "event": "task_failed",
            "deployment": str(home),
            "dag": "logs_daily",
            "run": "backfill__1",
            "run_type": "backfill",
            "task": "validate_logs",
            "try_number": 1,
            "error": "bad",
            "log": "http://log",
        }
    ]


def test_a_notifier_that_fails_stops_nothing(home: Path) -> None:
    path = home / SETTINGS_FILE
    before = path.read_text()
    try:
        path.write_text(before.replace("/tell now", "/nowhere"))
        said(home, FAILED)
    finally:
        path.write_text(before)
    assert told(home) == []


WEIGHTS = """
import json
from airflow.dag_processing.dagbag import DagBag
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.serialization.serialized_objects import DagSerialization

stored = DagSerialization.from_dict(DagSerialization.to_dict(DagBag("dags").dags["ad_ctr_daily"]))
train = stored.get_task("train_actr")
def weight(run_id, run_type=None):
    one = TaskInstance(task=train, run_id=run_id, dag_version_id=None)
    if run_type:
        one.dag_run = DagRun(dag_id="ad_ctr_daily", run_id=run_id, run_type=run_type)
        one.refresh_from_task(train)
    return one.priority_weight
print("RESULT" + json.dumps([weight("scheduled__1"), weight("manual__1"), weight("backfill__1"), weight("scheduled__1", "backfill")]))
"""


def test_scheduled_training_goes_before_a_backfills(home: Path) -> None:
    scheduled, manual, backfilled, made_again = said(home, WEIGHTS)
    assert scheduled == manual > backfilled == made_again


BACKFILLS = """
import json
from datetime import datetime, timezone
from airflow.dag_processing.dagbag import DagBag
from airflow.models.backfill import ReprocessBehavior, _validate_backfill_params
from airflow.serialization.serialized_objects import DagSerialization

def refusal(dag, **changes):
    values = {"reverse": False, "reprocess_behavior": ReprocessBehavior.FAILED, "from_date": datetime(2026, 2, 5, tzinfo=timezone.utc),
              "to_date": datetime(2026, 2, 7, tzinfo=timezone.utc), "dag_run_conf": {}} | changes
    try:
        _validate_backfill_params(dag, **values)
    except Exception as error:
        return type(error).__name__

out = {}
for name, dag in DagBag("dags").dags.items():
    stored = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    out[name] = [refusal(stored), refusal(stored, reverse=True), refusal(stored, dag_run_conf={"recipe": "no such"}),
                 refusal(stored, reprocess_behavior=ReprocessBehavior.NONE)]
print("RESULT" + json.dumps(out))
"""


def test_airflow_refuses_a_chain_that_runs_backwards(home: Path) -> None:
    found = said(home, BACKFILLS)
    chained = [None, "InvalidBackfillDirection", "InvalidBackfillConf", "InvalidReprocessBehavior"]
    assert {
        name: found[name] for name in ("ad_ctr_daily", "bahe_daily", "tpm_monthly", "fg_bert_weekly")
    } == dict.fromkeys(("ad_ctr_daily", "bahe_daily", "tpm_monthly", "fg_bert_weekly"), chained)
    assert found["cpm_weekly"] == [None, None, "InvalidBackfillConf", None]
    assert found["logs_daily"] == found["features_daily"] == [None, None, None, None]
