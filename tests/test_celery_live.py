"""Airflow with CeleryExecutor: tasks run on workers of their own hosts, which the scheduler hands them by a queue.

Needs what test_compose_live.py needs, `redis-server` on PATH, and Airflow's provider of Celery in the interpreter of
Airflow's image.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from contextlib import ExitStack
from copy import deepcopy
from pathlib import Path
from typing import Any

import compose_file
import features_reference as reference
import pytest
from natively import UI_PORT, image_python, look_into_the_store, natively, needs, tables_by_hand
from test_cluster import DAYS, TABLES

from contracts.locations import Locations
from contracts.settings import Deployment
from sources.simulator import SimulatorSettings, simulate
from sources.world import WorldSettings
from tributary.airflow_api import AirflowApi
from tributary.backfills import start_all, wait_for_all

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

WORKERS = ("airflow-worker-1", "airflow-worker-2")
CELERY = {  # docs/scaling.md
    "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
    "AIRFLOW__CELERY__BROKER_URL": "redis://redis:6379/0",
    "AIRFLOW__CELERY__RESULT_BACKEND": "db+postgresql+psycopg2://airflow:${POSTGRES_PASSWORD:?run tributary compose-env}@postgres/airflow",
    "AIRFLOW__CELERY__WORKER_CONCURRENCY": "2",
}


def services() -> dict[str, Any]:
    """Those of the file, with a broker and two workers; the scheduler reaches neither Spark nor the store."""
    found: dict[str, Any] = deepcopy(compose_file.raw()["services"])
    worker = deepcopy(found["airflow-scheduler"]) | {
        "command": ["airflow", "celery", "worker"],
        "healthcheck": {
            "test": [
                "CMD",
                "bash",
                "-c",
                "celery --app airflow.providers.celery.executors.celery_executor.app "
                'inspect ping --destination "celery@$(hostname)"',
            ]
        },
    }
    found |= {name: deepcopy(worker) for name in WORKERS}
    found["airflow-scheduler"] = found["airflow-scheduler"] | {
        "networks": ["control"],
        "environment": deepcopy(found["airflow-dag-processor"]["environment"]),
    }
    for name, service in found.items():
        if name.startswith("airflow-"):
            service["environment"] = service["environment"] | CELERY
    found["redis"] = {
        "networks": ["control"],
        "command": ["--bind", "0.0.0.0", "--protected-mode", "no", "--save", ""],
        "healthcheck": {"test": ["CMD", "redis-cli", "ping"]},
    }
    return found


def test_days_are_made_by_two_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = image_python()
    for program in ("versitygw", "redis-server"):
        needs(program)
    if subprocess.run(
        [python, "-c", "import airflow.providers.celery, redis"], check=False, capture_output=True
    ).returncode:
        pytest.skip(f"{python} has no apache-airflow-providers-celery")
    home, by_hand = tmp_path / "home", tmp_path / "by_hand"
    simulate(SimulatorSettings(start=DAYS[0], days=len(DAYS), world=WorldSettings(users=60, items=60)), home)
    shutil.copytree(home, by_hand)
    kept = tables_by_hand(tmp_path, by_hand)
    with natively(tmp_path, python, home, services()) as stack, ExitStack() as running:
        running.enter_context(stack.postgres())
        running.enter_context(stack.store("versitygw"))
        running.enter_context(stack.running("redis", "redis-server"))
        done = stack.run("airflow-init", *stack.services["airflow-init"]["command"])
        assert done.returncode == 0, done.stderr[-3000:]
        for name in (
            "spark-master",
            "spark-worker",
            "spark-connect",
            "airflow-api-server",
            "airflow-dag-processor",
            "airflow-triggerer",
            *WORKERS,
            "airflow-scheduler",
        ):
            running.enter_context(stack.running(name))
        address = f"http://{stack.at['airflow-api-server'].addresses['control']}:{UI_PORT}"
        api = AirflowApi(address, "admin", stack.secrets["AIRFLOW_ADMIN_PASSWORD"], deployment=Deployment.load(home))
        spans = {name: (DAYS[0], DAYS[-1]) for name in ("logs_daily", "features_daily")}
        start_all(api, spans, max_active_runs=3)
        wait_for_all(api, spans, timeout_seconds=1200)
        look_into_the_store(stack, monkeypatch)
        for name in TABLES:
            assert kept[name] and kept[name] == reference.content(Locations(home), name), name
    finished = {
        name: len(re.findall(r"Task \S+\[\S+\] succeeded", (tmp_path / f"{name}.log").read_text())) for name in WORKERS
    }
    assert all(finished.values()), finished
