"""The same commands through a Spark standalone cluster of two workers: another address, the same tables."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

import features_reference as reference
import pytest

from contracts.locations import Locations
from contracts.steps import DAY_JOBS
from lake.java import spark_home
from sources.simulator import SimulatorSettings, simulate
from sources.world import WorldSettings

pytestmark = pytest.mark.cluster

DAYS = [date(2026, 1, 1) + timedelta(days=n) for n in range(3)]
TABLES = (
    "natural_log",
    "ad_log",
    "quarantine",
    "behaviour_partials",
    "statistic_partials",
    "behaviour_texts",
    "user_histories",
    "entity_statistics",
    "natural_samples",
    "ad_samples",
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(port: int, what: str) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.3)
    raise TimeoutError(what)


@contextmanager
def started(*command: str, log: Path, env: dict[str, str] | None = None) -> Iterator[None]:
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env=os.environ | (env or {}), start_new_session=True
        )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """A master and two workers of one core each; yields the master's address."""
    spark_class, port = str(spark_home() / "bin" / "spark-class"), free_port()
    address = f"spark://127.0.0.1:{port}"
    local = {"SPARK_LOCAL_IP": "127.0.0.1", "SPARK_WORKER_DIR": str(folder / "work")}
    master = (
        spark_class,
        "org.apache.spark.deploy.master.Master",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--webui-port",
        "0",
    )
    worker = (
        spark_class,
        "org.apache.spark.deploy.worker.Worker",
        "--host",
        "127.0.0.1",
        "--cores",
        "1",
        "--memory",
        "1g",
        "--webui-port",
        "0",
        address,
    )
    with started(*master, log=folder / "master.log", env=local):
        wait_for(port, "the master")
        with (
            started(*worker, log=folder / "worker-1.log", env=local),
            started(*worker, log=folder / "worker-2.log", env=local),
        ):
            yield address


def run_jobs(home: Path, env: dict[str, str]) -> None:
    span = ("--from", str(DAYS[0]), "--to", str(DAYS[-1]))
    for job in DAY_JOBS:
        subprocess.run(
            [sys.executable, "-m", "spark_jobs", job, "--home", str(home), *span], env=os.environ | env, check=True
        )


def test_a_cluster_of_two_workers_gives_the_same_tables(tmp_path: Path) -> None:
    homes = {name: tmp_path / name for name in ("local", "cluster")}
    for home in homes.values():
        simulate(SimulatorSettings(start=DAYS[0], days=len(DAYS), world=WorldSettings(users=60, items=60)), home)
    with cluster(tmp_path) as address:
        for name, home in homes.items():
            port = free_port()
            env = {"SPARK_MASTER": address if name == "cluster" else "local[2]"}
            server = (sys.executable, "-m", "lake.server", "--home", str(home), "--port", str(port))
            with started(*server, log=tmp_path / f"{name}.log", env=env):
                wait_for(port, (tmp_path / f"{name}.log").read_text()[-2000:])
                run_jobs(home, env)
        assert (
            sum(
                b"Launch executor" in line or b"Asked to launch executor" in line
                for number in (1, 2)
                for line in (tmp_path / f"worker-{number}.log").read_bytes().splitlines()
            )
            >= 2
        )
    for name in TABLES:
        one, other = (reference.content(Locations(home), name) for home in homes.values())
        assert one, name
        assert one == other, name
