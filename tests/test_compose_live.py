"""The services of docker-compose.yml as processes of this machine: their own commands, environment and health checks, on loopback.

What is not tried so: images, volumes, networks, restarts. The store's program is looked for on PATH; docker/store.Dockerfile builds it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import compose_file
import features_reference as reference
import pytest
from compose_file import PROJECT
from test_cluster import DAYS, TABLES, free_port, run_jobs, started, wait_for

from contracts.locations import Locations
from contracts.settings import table_address
from sources.simulator import SimulatorSettings, simulate
from sources.world import WorldSettings
from spark_jobs.days import DAY_JOBS
from tributary import compose_env
from tributary.stack import postgres

pytestmark = pytest.mark.cluster

SPAN = ("--from", str(DAYS[0]), "--to", str(DAYS[-1]))
NO_PROXY = {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}


class Natively:
    """Starts services of the file as processes.

    Args:
        folder: for their logs.
        bin_folder: whose `python`, `airflow`, `spark-class` are meant.
        here: what stands for host names, ports and paths of containers, by how they are written in the file.
        env: variables of all services, in addition.
    """

    def __init__(self, folder: Path, bin_folder: Path, here: Mapping[str, str], env: Mapping[str, str]) -> None:
        compose_env.write(folder / ".env")
        self.secrets = compose_file.read_env(folder / ".env")
        self.folder, self.bin_folder, self.here, self.env = folder, bin_folder, here, dict(env)
        self.services = self._here(compose_file.filled(compose_file.raw()["services"], self.secrets | self.env))

    def env_of(self, name: str) -> dict[str, str]:
        path = {"PATH": f"{self.bin_folder}:{os.environ['PATH']}", "PYTHONPATH": str(PROJECT)}
        return {**os.environ, **NO_PROXY, **path, **self.env, **self.services[name].get("environment", {})}

    @contextmanager
    def running(self, name: str, *program: str) -> Iterator[None]:
        """The service from its first healthy moment on; `program` is the entrypoint of its image."""
        command, check = [*program, *self.services[name]["command"]], self.services[name]["healthcheck"]["test"][1:]
        with (self.folder / f"{name}.log").open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, env=self.env_of(name), cwd=PROJECT, start_new_session=True)
        try:
            deadline = time.monotonic() + 180
            while subprocess.run(check, env=self.env_of(name), cwd=PROJECT, check=False, capture_output=True).returncode:
                said = (self.folder / f"{name}.log").read_text(errors="replace")[-3000:]
                assert process.poll() is None and time.monotonic() < deadline, f"{name}: {said}"
                time.sleep(0.5)
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def run(self, name: str, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
        """A command with a service's environment."""
        return subprocess.run(command, env=self.env_of(name) | env, cwd=PROJECT, check=False, capture_output=True, text=True, timeout=600)

    def _here(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._here(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._here(inner) for inner in value]
        if not isinstance(value, str):
            return value
        return re.sub("|".join(map(re.escape, sorted(self.here, key=len, reverse=True))), lambda match: self.here[match[0]], value)


def test_a_day_on_the_cluster_with_its_lake_in_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("versitygw") is None:
        pytest.skip("no versitygw on PATH: docker/store.Dockerfile says how it is built")
    homes = {name: tmp_path / name for name in ("here", "store")}
    for home in homes.values():
        simulate(SimulatorSettings(start=DAYS[0], days=len(DAYS), world=WorldSettings(users=60, items=60)), home)
    port = free_port()
    server = (sys.executable, "-m", "lake.server", "--home", str(homes["here"]), "--port", str(port))
    with started(*server, log=tmp_path / "here.log", env={"SPARK_MASTER": "local[2]"}):
        wait_for(port, "a server with its lake in a folder")
        run_jobs(homes["here"], {})
    store, data = f"127.0.0.1:{free_port()}", tmp_path / "data"
    here = {"store:7070": store, ":7070": store, "127.0.0.1:7070": store, "/data": str(data), "spark-master": "127.0.0.1",
            **{port: str(free_port()) for port in ("7077", "8080", "8081", "15002")},
            "spark-connect": "127.0.0.2"}  # not called localhost: the client takes it for another machine
    stack = Natively(tmp_path, Path(sys.executable).parent, here, {
        "TRIBUTARY_HOME": str(homes["store"]), "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_WORKER_DIR": str(tmp_path / "work"),
        "TRIBUTARY_WORKER_MEMORY": "2g", "TRIBUTARY_EXECUTOR_MEMORY": "1g", "TRIBUTARY_SPARK_MEMORY": "1g"})
    tributary = (sys.executable, "-m", "tributary")
    (data / "lake").mkdir(parents=True)
    with ExitStack() as services:
        services.enter_context(stack.running("store", "versitygw"))
        for name in ("spark-master", "spark-worker", "spark-connect"):
            services.enter_context(stack.running(name))
        for command in (*(("spark_jobs", job, *SPAN) for job in DAY_JOBS), ("validation", "run", "--table", "natural_log", *SPAN),
                        ("spark_jobs", "maintain_lake"), ("spark_jobs", "list_stale")):
            done = stack.run("airflow-scheduler", *tributary, *command)
            assert done.returncode == 0, f"{command}: {done.stdout[-2000:]} {done.stderr[-4000:]}"
        assert "no partition is stale" in done.stdout, done.stdout
        remote = stack.env_of("airflow-scheduler")["SPARK_REMOTE"]
        refused = stack.run("airflow-scheduler", *tributary, "spark_jobs", "maintain_lake", SPARK_REMOTE=remote[:-1] + "!")
        assert refused.returncode != 0 and "UNAUTHENTICATED" in refused.stderr, refused.stderr[-2000:]
        kept = {name: reference.content(Locations(homes["here"]), name) for name in TABLES}
        for name, value in stack.services["spark-connect"]["environment"].items():
            if name.startswith(("AWS_", "TRIBUTARY_LAKE")):
                monkeypatch.setenv(name, value)
        for name in TABLES:
            assert table_address(Locations(homes["store"]), name).startswith("s3a://")
            assert kept[name] and kept[name] == reference.content(Locations(homes["store"]), name), name
    assert not (homes["store"] / "lake").exists() and (data / "lake" / "tributary" / "natural_log" / "_delta_log").is_dir()
    assert "Asked to launch executor" in (tmp_path / "spark-worker.log").read_text()


# What docs/roles.md says of each role, as requests. The last is guarded by the view that the reports in the UI ask for.
ASKED: dict[str, tuple[str, Any]] = {
    "list DAGs": ("/api/v2/dags", None),
    "read logs of tasks": ("/api/v2/dags/~/dagRuns/~/taskInstances", None),
    "trigger": ("/api/v2/dags/logs_daily/dagRuns", {"logical_date": None, "conf": {"ds": str(DAYS[0])}}),
    "clear": ("/api/v2/dags/logs_daily/clearTaskInstances", {"dry_run": True}),
    "backfill": ("/api/v2/backfills/dry_run", {"dag_id": "logs_daily", "from_date": f"{DAYS[0]}T00:00:00Z",
                                               "to_date": f"{DAYS[0]}T00:00:00Z"}),
    "read connections": ("/api/v2/connections", None),
    "read variables": ("/api/v2/variables", None),
    "make pools": ("/api/v2/pools", {"name": "another", "slots": 1}),
    "see users": ("/auth/fab/v1/users", None),
    "see reports": ("/api/v2/plugins", None),
}
READS = {"list DAGs", "read logs of tasks", "see reports"}
RUNS = READS | {"trigger", "clear", "backfill"}
OPERATES = RUNS | {"read connections", "read variables", "make pools"}
MAY = {"viewer": READS, "user": RUNS, "op": OPERATES, "admin": set(ASKED)}


def test_users_and_roles_of_airflow(tmp_path: Path) -> None:
    python = os.environ.get("TRIBUTARY_PYTHON_AIRFLOW_IMAGE")
    if not python:
        pytest.skip("TRIBUTARY_PYTHON_AIRFLOW_IMAGE names no interpreter with requirements.lock and docker/airflow.lock installed")
    home, ui, database = tmp_path / "home", free_port(), tmp_path / "pg"
    simulate(SimulatorSettings(start=DAYS[0], days=1, world=WorldSettings(users=60, items=60)), home)
    postgres.start(database, records=tmp_path)
    here = {"8080": str(ui), "8974": str(free_port()), "airflow-api-server": "127.0.0.1", "localhost": "127.0.0.1",
            "/opt/tributary": str(PROJECT)}
    stack = Natively(tmp_path, Path(python).parent, here, {"TRIBUTARY_HOME": str(home), "AIRFLOW_HOME": str(tmp_path / "airflow"),
                     "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT": here["8974"], "AIRFLOW__API__HOST": "127.0.0.1"})
    for service in stack.services.values():
        if "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN" in service.get("environment", {}):
            service["environment"]["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = postgres.connection(database)
    try:
        with ExitStack() as services:
            for _ in range(2):  # every start of the stack runs it
                done = stack.run("airflow-init", *stack.services["airflow-init"]["command"])
                assert done.returncode == 0, done.stderr[-3000:]
            for name in ("airflow-api-server", "airflow-dag-processor", "airflow-triggerer", "airflow-scheduler"):
                services.enter_context(stack.running(name))
            for role in ("Viewer", "User", "Op"):
                created = stack.run("airflow-init", "airflow", "users", "create", "--username", role.lower(), "--role", role,
                                    "--password", "p" * 20, "--firstname", "A", "--lastname", "B", "--email", f"{role}@localhost")
                assert created.returncode == 0, created.stderr[-2000:]
            address = f"http://127.0.0.1:{ui}"
            passwords = {"admin": stack.secrets["AIRFLOW_ADMIN_PASSWORD"]} | dict.fromkeys(("viewer", "user", "op"), "p" * 20)
            tokens = {user: _ask(f"{address}/auth/token", {"username": user, "password": password})[1]["access_token"]
                      for user, password in passwords.items()}
            assert _ask(f"{address}/auth/token", {"username": "admin", "password": "admin"})[0] == 401
            assert _ask(f"{address}/api/v2/importErrors", token=tokens["admin"])[1]["total_entries"] == 0
            shown = _ask(f"{address}/api/v2/dags", token=tokens["viewer"])[1]
            assert {dag["dag_id"] for dag in shown["dags"]} == {path.stem for path in (PROJECT / "dags").glob("[!_]*.py")}
            assert _ask(f"{address}/api/v2/pools/gpu", token=tokens["viewer"])[1]["slots"] == 1
            answers = {user: {what: _ask(f"{address}{path}", body, token)[0] for what, (path, body) in ASKED.items()}
                       for user, token in {"": "", **tokens}.items()}
            assert answers.pop("") == dict.fromkeys(ASKED, 401)
            refused = {user: {what for what, status in of_user.items() if status == 403} for user, of_user in answers.items()}
            assert refused == {user: set(ASKED) - MAY[user] for user in answers}
            # 409: another of them has made that pool, or triggered at the same moment
            failed = {user: {what: of_user[what] for what in MAY[user] if of_user[what] not in (200, 201, 409)}
                      for user, of_user in answers.items()}
            assert failed == {user: {} for user in answers}
    finally:
        postgres.stop(database)


def _ask(address: str, body: object = None, token: str = "") -> tuple[int, Any]:
    """Status and answer of a request: POST where there is a body."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(address, data=None if body is None else json.dumps(body).encode(), headers=headers)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())
