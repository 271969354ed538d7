"""The plugin as Airflow loads it: every address asks for a user, a viewer may read, links stand on the tasks that judge."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import date
from html import unescape
from pathlib import Path
from typing import Any

import pytest

import plugins
from contracts.settings import SETTINGS_FILE, Deployment
from pages.markup import POLICY

pytestmark = pytest.mark.airflow

FOLDER = Path(plugins.__file__).parent
DEPLOYMENT = Deployment(history_start=date(2026, 1, 1), actr_start=date(2026, 1, 5))

# In a process of its own: Airflow reads its settings when it is imported, and warns of what is not ours.
ASK = """
import json, sys
from types import SimpleNamespace
from airflow import plugins_manager
from airflow.api_fastapi.app import create_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.api_fastapi.common.db.common import _get_session
from airflow.api_fastapi.core_api.security import get_user
from airflow.dag_processing.dagbag import DagBag
from airflow.models.dag import DagModel
from airflow.serialization.serialized_objects import DagSerialization
from fastapi import FastAPI
from fastapi.testclient import TestClient

found, errors = plugins_manager._get_plugins()
ours = [one for one in found if one.name == "tributary_reports"]
out = {"errors": errors, "loaded": len(ours), "app_is_imported_at_once": "plugins.quality.app" in sys.modules,
       "parts": sorted({"__init__", "app", "calendar_page", "files", "links", "task_pages"} & set(sys.modules)),
       "views": [view for one in ours for view in one.external_views]}

def links(dag_id, task_id):
    task = dags[dag_id].get_task(task_id)
    ti = SimpleNamespace(key=SimpleNamespace(dag_id=dag_id, run_id="backfill__2026-01-03T00:00:00+00:00", task_id=task_id))
    return {name: task.get_extra_links(ti, name) for name in task.extra_links}

dags = {dag.dag_id: DagSerialization.from_dict(DagSerialization.to_dict(dag)) for dag in DagBag(sys.argv[1]).dags.values()}
out["links"] = {f"{dag_id}.{task}": links(dag_id, task) for dag_id, task in (
    ("logs_daily", "validate_logs"), ("logs_daily", "ingest_logs"), ("ad_ctr_daily", "gate_actr"), ("cpm_weekly", "gate_cpm"))}

(mounted,) = plugins_manager.get_fastapi_plugins()[0]
app, prefix = mounted["app"], mounted["url_prefix"]
root = FastAPI()
root.mount(prefix, app)
client = TestClient(root, follow_redirects=False)
create_auth_manager()
addresses = [prefix + route.path for route in app.routes] + sys.argv[2:]
out["routes"] = [route.path for route in app.routes]
out["methods"] = sorted({method for route in app.routes for method in route.methods})

def asked(headers=None):
    answers = {address: client.get(address, headers=headers or {}) for address in addresses}
    return {address: {"status": answer.status_code, "text": answer.text, "headers": dict(answer.headers)}
            for address, answer in answers.items()}

out["anonymous"] = asked()
out["wrong token"] = asked({"Authorization": "Bearer x.y.z"})
runs = {"scheduled": ("scheduled", "2026-01-03T00:00:00+00:00", {}), "by hand": ("manual", None, {"ds": "2026-01-04"}),
        "no day": ("manual", None, {})}

class Session:
    def scalar(self, statement):
        from datetime import datetime
        run = runs.get(statement.compile().params["run_id_1"])
        return run and SimpleNamespace(run_type=run[0], data_interval_start=run[1] and datetime.fromisoformat(run[1]), conf=run[2])

app.dependency_overrides[get_user] = lambda: SimpleAuthManagerUser(username="someone", role="VIEWER")
app.dependency_overrides[_get_session] = Session
DagModel.get_team_name = staticmethod(lambda *_, **__: None)  # it would ask a database
out["viewer"] = asked()
app.dependency_overrides[get_user] = lambda: SimpleAuthManagerUser(username="nobody", role=None)
out["no role"] = asked()
print("RESULT" + json.dumps(out))
"""
REPORT, SECRET = "/data-quality/natural_log/2026-01-03.html", "/data-quality/..%2fdeployment.toml"
RUNS = "/data-quality/runs/logs_daily"
ADDRESSES = [
    REPORT,
    SECRET,
    "/data-quality/%2e%2e/%2e%2e/secret.html",
    "/data-quality/%2Fetc%2Fpasswd",
    "/data-quality/..%2fsecret.html",
    "/data-quality/index.html?month=2026-01",
    "/data-quality/index.html?month=x",
    "/data-quality/docs",
    "/data-quality/openapi.json",
    "/data-quality/day.html?ds=2026-01-03&table=natural_log",
    "/data-quality/day.html?ds=2026-01-03&table=nothing",
    "/data-quality/gate.html?kind=actr&period=2026-01-05",
    f"{RUNS}/scheduled?table=natural_log&table=ad_log",
    f"{RUNS}/by%20hand?kind=actr",
    f"{RUNS}/no%20day?table=ad_log",
    f"{RUNS}/none?table=ad_log",
]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    home = tmp_path_factory.mktemp("home")
    (home / SETTINGS_FILE).write_text(DEPLOYMENT.to_toml())
    (home / "reports" / "natural_log").mkdir(parents=True)
    (home / "reports" / "natural_log" / "2026-01-03.html").write_text("the report")
    (home / "secret.html").write_text("secret")
    env = os.environ | {
        "TRIBUTARY_HOME": str(home),
        "AIRFLOW_HOME": str(home / "airflow"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(FOLDER),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__API__BASE_URL": "http://localhost:8080/under",
        "PYTHONPATH": str(FOLDER.parent),
    }
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(FOLDER.parent / "dags"), *ADDRESSES],
        capture_output=True,
        text=True,
        check=False,
        env=env,
        cwd=home,
    )
    assert done.returncode == 0, done.stderr
    return dict(
        json.loads(next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))[len("RESULT") :])
    )


def test_airflow_loads_one_plugin_and_its_app_only_when_asked(found: dict[str, Any]) -> None:
    assert found["errors"] == {} and found["loaded"] == 1
    assert not found["app_is_imported_at_once"]
    assert (
        found["parts"] == []
    )  # .airflowignore: Airflow takes no part of it for a plugin, and for a module of that name
    assert [(view["name"], view["destination"], view["href"]) for view in found["views"]] == [
        ("Data quality", "nav", "data-quality/index.html")
    ]


def test_every_address_is_refused_to_whoever_is_nobody(found: dict[str, Any]) -> None:
    assert len(found["routes"]) == 6 and found["methods"] == ["GET"]
    for visitor, refused in (("anonymous", 401), ("wrong token", 403), ("no role", 403)):
        answers = found[visitor]
        assert len(answers) == len(found["routes"]) + len(ADDRESSES)
        assert {address: answer["status"] for address, answer in answers.items()} == dict.fromkeys(answers, refused), (
            visitor
        )
        assert not [
            address for address, answer in answers.items() if "report" in answer["text"] or "secret" in answer["text"]
        ]


def test_a_viewer_reads_reports_and_no_other_file(found: dict[str, Any]) -> None:
    answers = found["viewer"]
    assert (answers[REPORT]["status"], answers[REPORT]["text"]) == (200, "the report")
    for address in ADDRESSES[1:5]:
        assert answers[address]["status"] == 404, address
        assert "secret" not in answers[address]["text"] and "history_start" not in answers[address]["text"]
    assert [answers[address]["status"] for address in ADDRESSES[5:12]] == [200, 404, 404, 404, 200, 404, 404]
    assert "a month such as 2026-01, found 'x'" in unescape(answers["/data-quality/index.html?month=x"]["text"])
    assert "tributary training actr --ds 2026-01-05" in answers[ADDRESSES[11]]["text"]


def test_answers_forbid_scripts_sniffing_and_caching(found: dict[str, Any]) -> None:
    for visitor in ("viewer", "anonymous"):
        for answer in found[visitor].values():
            headers = answer["headers"]
            assert headers["content-security-policy"].startswith(f"{POLICY}; ")
            assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "private, no-store"


def test_links_stand_on_tasks_that_judge_and_lead_to_the_runs_day(found: dict[str, Any]) -> None:
    run = "backfill__2026-01-03T00%3A00%3A00%2B00%3A00"
    links = found["links"]
    assert links["logs_daily.validate_logs"] == {
        "Quality report": f"/under/data-quality/runs/logs_daily/{run}?table=natural_log&table=ad_log",
        "Gate result": "",
    }
    assert links["ad_ctr_daily.gate_actr"] == {
        "Quality report": "",
        "Gate result": f"/under/data-quality/runs/ad_ctr_daily/{run}?kind=actr",
    }
    assert links["cpm_weekly.gate_cpm"]["Gate result"].endswith("?kind=cpm")
    assert set(links["logs_daily.ingest_logs"].values()) == {""}

    answers = found["viewer"]
    for address, leads_to in (
        (ADDRESSES[12], "../../day.html?ds=2026-01-03&table=natural_log&table=ad_log"),
        (ADDRESSES[13], "../../gate.html?kind=actr&period=2026-01-04"),
    ):
        assert (answers[address]["status"], answers[address]["headers"]["location"]) == (303, leads_to)
    assert answers[ADDRESSES[14]]["status"] == 404 and "fill in the field `ds`" in answers[ADDRESSES[14]]["text"]
    assert "expected a run of logs_daily" in answers[ADDRESSES[15]]["text"]
