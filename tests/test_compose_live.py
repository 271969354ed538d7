"""The services of docker-compose.yml together, as processes on hosts of their own (`natively`).

What is not tried so: images, volumes, restarts, and the port that is published.
"""

from __future__ import annotations

import json
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import features_reference as reference
import pytest
from compose_file import PROJECT
from natively import STORE_PORT, UI_PORT, Natively, image_python, look_into_the_store, natively, needs, tables_by_hand
from test_cluster import DAYS, TABLES

from contracts.locations import Locations
from contracts.periods import PeriodSettings
from contracts.settings import SETTINGS_FILE, Deployment, table_address
from contracts.steps import DAY_JOBS
from sources.simulator import SimulatorSettings, simulate
from sources.world import WorldSettings
from tributary.airflow_api import AirflowApi
from tributary.backfills import spans_of_days, start_all, wait_for_all

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

SPAN = ("--from", str(DAYS[0]), "--to", str(DAYS[-1]))


@pytest.mark.parametrize("store", ["moto", "versitygw"])
def test_a_day_on_the_cluster_with_its_lake_in_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    if store == "versitygw":
        needs(store)
    homes = {name: tmp_path / name for name in ("here", "store")}
    for home in homes.values():
        simulate(SimulatorSettings(start=DAYS[0], days=len(DAYS), world=WorldSettings(users=60, items=60)), home)
    kept = tables_by_hand(tmp_path, homes["here"])
    tributary = (sys.executable, "-m", "tributary")
    with natively(tmp_path, sys.executable, homes["store"]) as stack, ExitStack() as services:
        services.enter_context(stack.store(store))
        for name in ("spark-master", "spark-worker", "spark-connect"):
            services.enter_context(stack.running(name))
        for command in (
            *(("spark_jobs", job, *SPAN) for job in DAY_JOBS),
            ("validation", "run", "--table", "natural_log", *SPAN),
            ("spark_jobs", "maintain_lake"),
            ("spark_jobs", "list_stale"),
        ):
            done = stack.run("cli", *tributary, *command)
            assert done.returncode == 0, f"{command}: {done.stdout[-2000:]} {done.stderr[-4000:]}"
        assert "no partition is stale" in done.stdout, done.stdout
        remote = stack.env_of("cli")["SPARK_REMOTE"]
        refused = stack.run("cli", *tributary, "spark_jobs", "maintain_lake", SPARK_REMOTE=remote[:-1] + "!")
        assert refused.returncode != 0 and "UNAUTHENTICATED" in refused.stderr, refused.stderr[-2000:]
        look_into_the_store(stack, monkeypatch)
        for name in TABLES:
            assert table_address(Locations(homes["store"]), name).startswith("s3a://")
            assert kept[name] and kept[name] == reference.content(Locations(homes["store"]), name), name
    assert not (homes["store"] / "lake").exists()
    assert "Asked to launch executor" in (tmp_path / "spark-worker.log").read_text()


# What docs/roles.md states about each role, as requests. The last of these is guarded by the view that the reports in the UI
# ask for.
ASKED: dict[str, tuple[str, Any]] = {
    "list DAGs": ("/api/v2/dags", None),
    "read logs of tasks": ("/api/v2/dags/~/dagRuns/~/taskInstances", None),
    "trigger": ("/api/v2/dags/logs_daily/dagRuns", {"logical_date": None, "conf": {"ds": str(DAYS[0])}}),
    "clear": ("/api/v2/dags/logs_daily/clearTaskInstances", {"dry_run": True}),
    "backfill": (
        "/api/v2/backfills/dry_run",
        {"dag_id": "logs_daily", "from_date": f"{DAYS[0]}T00:00:00Z", "to_date": f"{DAYS[0]}T00:00:00Z"},
    ),
    "read connections": ("/api/v2/connections", None),
    "read variables": ("/api/v2/variables", None),
    "make pools": ("/api/v2/pools", {"name": "another", "slots": 1}),
    "see users": ("/auth/fab/v1/users", None),
    "see plugins": ("/api/v2/plugins", None),
}
READS = {"list DAGs", "read logs of tasks", "see plugins"}
RUNS = READS | {"trigger", "clear", "backfill"}
OPERATES = RUNS | {"read connections", "read variables", "make pools"}
MAY = {"viewer": READS, "user": RUNS, "op": OPERATES, "admin": set(ASKED)}
PASSWORD = "p" * 20


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Natively]:
    """Airflow with its users, the cluster and the store together, as one brings them up."""
    python = image_python()
    needs("versitygw")
    folder = tmp_path_factory.mktemp("compose")
    home = folder / "home"
    simulate(SimulatorSettings(start=DAYS[0], days=len(DAYS), world=WorldSettings(users=120, items=90, seed=5)), home)
    settings = replace(
        Deployment.load(home),
        actr_start=DAYS[-1],
        variants=("none", "tpm+cpm"),
        periods=PeriodSettings(anchor=DAYS[0], month_days=2, week_days=2),
    )
    (home / SETTINGS_FILE).write_text(settings.to_toml())
    with natively(folder, python, home) as stack, ExitStack() as services:
        services.enter_context(stack.postgres())
        services.enter_context(stack.store("versitygw"))
        for _ in range(2):  # every start of the stack runs it
            done = stack.run("airflow-init", *stack.services["airflow-init"]["command"])
            assert done.returncode == 0, done.stderr[-3000:]
        for name in (
            "spark-master",
            "spark-worker",
            "spark-connect",
            "airflow-api-server",
            "airflow-dag-processor",
            "airflow-triggerer",
            "airflow-scheduler",
        ):
            services.enter_context(stack.running(name))
        for role in ("Viewer", "User", "Op"):
            created = stack.run(
                "airflow-scheduler",
                "airflow",
                "users",
                "create",
                "--username",
                role.lower(),
                "--role",
                role,
                "--password",
                PASSWORD,
                "--firstname",
                "A",
                "--lastname",
                "B",
                "--email",
                f"{role}@localhost",
            )
            assert created.returncode == 0, created.stderr[-2000:]
        yield stack


@pytest.fixture(scope="module")
def address(stack: Natively) -> str:
    return f"http://{stack.at['airflow-api-server'].addresses['control']}:{UI_PORT}"


@pytest.fixture(scope="module")
def tokens(stack: Natively, address: str) -> dict[str, str]:
    """By user; nobody's is empty."""
    passwords = {"admin": stack.secrets["AIRFLOW_ADMIN_PASSWORD"]} | dict.fromkeys(("viewer", "user", "op"), PASSWORD)
    return {"": ""} | {
        user: _ask(f"{address}/auth/token", {"username": user, "password": password})[1]["access_token"]
        for user, password in passwords.items()
    }


def test_who_reaches_whom(stack: Natively) -> None:
    ports = {
        "postgres": 5432,
        "store": STORE_PORT,
        "spark-master": 7077,
        "spark-connect": 15002,
        "airflow-api-server": UI_PORT,
    }
    reached = {
        name: {
            other
            for other, port in ports.items()
            if stack.run(name, "timeout", "5", "bash", "-c", f"</dev/tcp/{other}/{port}").returncode == 0
        }
        for name in ("airflow-triggerer", "airflow-scheduler", "spark-worker", "cli")
    }
    control, data = {"postgres", "airflow-api-server"}, {"store", "spark-master", "spark-connect"}
    assert reached == {
        "airflow-triggerer": control,
        "airflow-scheduler": control | data,
        "spark-worker": data,
        "cli": data,
    }


def test_an_operator_backfills_all_dags_and_the_store_holds_what_one_machine_makes(
    stack: Natively, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Path(stack.env["TRIBUTARY_HOME"])
    deployment = Deployment.load(home)
    by_hand = stack.folder / "by_hand"
    shutil.copytree(home, by_hand, ignore=shutil.ignore_patterns("locks"))
    api = AirflowApi(address, "op", PASSWORD, deployment=deployment)
    assert api.import_errors() == {}
    spans = spans_of_days(deployment, DAYS[0], DAYS[-1])
    assert set(spans) == {"logs_daily", "features_daily", "tpm_monthly", "cpm_weekly", "ad_ctr_daily"}
    start_all(api, spans, max_active_runs=3, recipe="quick")
    wait_for_all(api, spans, timeout_seconds=1200)
    kept = tables_by_hand(stack.folder, by_hand)
    done = stack.run("cli", sys.executable, "-m", "tributary", "publishing", "releases")
    assert done.returncode == 0, done.stderr[-2000:]
    assert {tuple(line.split()[1:3]) for line in done.stdout.splitlines()} >= {
        ("tpm", "default"),
        ("cpm", "default"),
        ("actr", "none"),
        ("actr", "tpm+cpm"),
    }, done.stdout
    look_into_the_store(stack, monkeypatch)
    for name in TABLES:
        assert kept[name] and kept[name] == reference.content(Locations(home), name), name
    assert (
        not (home / "lake").exists()
        and (stack.folder / "data" / "lake" / "tributary" / "actr_embeddings" / "_delta_log").is_dir()
    )


def test_reports_are_for_users_alone(address: str, tokens: dict[str, str]) -> None:
    runs = _ask(f"{address}/api/v2/dags/logs_daily/dagRuns", token=tokens["viewer"])[1]["dag_runs"]
    run = next(one["dag_run_id"] for one in runs if one["run_type"] == "backfill")
    day = str(DAYS[0])
    pages = (
        "index.html",
        f"day.html?{urlencode({'ds': day, 'table': 'natural_log'})}",
        f"natural_log/{day}.html",
        f"gate.html?{urlencode({'kind': 'actr', 'period': str(DAYS[-1])})}",
        f"runs/logs_daily/{quote(run, safe='')}?table=natural_log",
    )
    answers = {
        user: [_ask(f"{address}/data-quality/{page}", token=token)[0] for page in pages]
        for user, token in tokens.items()
    }
    assert answers == {user: [200 if user else 401] * len(pages) for user in tokens}


def test_what_each_role_may_do(address: str, tokens: dict[str, str]) -> None:
    assert _ask(f"{address}/auth/token", {"username": "admin", "password": "admin"})[0] == 401
    shown = _ask(f"{address}/api/v2/dags", token=tokens["viewer"])[1]
    assert {dag["dag_id"] for dag in shown["dags"]} == {path.stem for path in (PROJECT / "dags").glob("[!_]*.py")}
    assert _ask(f"{address}/api/v2/pools/gpu", token=tokens["viewer"])[1]["slots"] == 1
    answers = {
        user: {what: _ask(f"{address}{path}", body, token)[0] for what, (path, body) in ASKED.items()}
        for user, token in tokens.items()
    }
    assert answers.pop("") == dict.fromkeys(ASKED, 401)
    refused = {user: {what for what, status in of_user.items() if status == 403} for user, of_user in answers.items()}
    assert refused == {user: set(ASKED) - MAY[user] for user in answers}
    # 409: another of them has made that pool, or triggered at the same moment
    failed = {
        user: {what: of_user[what] for what in MAY[user] if of_user[what] not in (200, 201, 409)}
        for user, of_user in answers.items()
    }
    assert failed == {user: {} for user in answers}


def _ask(address: str, body: object = None, token: str = "") -> tuple[int, Any]:
    """Status and answer of a request: POST where there is a body; JSON is read."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(address, data=None if body is None else json.dumps(body).encode(), headers=headers)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            text = answer.read()
            return answer.status, json.loads(text) if answer.headers.get_content_type() == "application/json" else text
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
