"""All Spark work of a KuaiRand day, by its commands against a running Spark Connect server, compared with the same day in pandas.

`python -m benchmarks.tiny_day --data FOLDER [--quick]`. The commands run without a Java on their path: none of them
starts a JVM.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from statistics import median

from benchmarks.recording import finish
from benchmarks.seeding import forget_day
from contracts.commands import table_text
from contracts.locations import Locations
from contracts.settings import data_folder
from contracts.steps import DAY_JOBS
from lake.session import spark_session
from sources.kuairand import KuaiRandSettings, convert

DAYS = [date(2022, 4, 25) + timedelta(days=n) for n in range(10)]
ALLOWED_SECONDS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=data_folder(), help="folder of KuaiRand's original files (default: TRIBUTARY_DATA)"
    )
    parser.add_argument("--quick", action="store_true", help="one repeat; nothing is recorded")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("tributary-home/benchmark-tiny-day"),
        help="scratch folder, removed at the end",
    )
    options = parser.parse_args()
    if options.data is None:
        parser.error("--data: expected the folder of KuaiRand's original files, found none")
    work, repeats = options.work.resolve(), 1 if options.quick else 5
    shutil.rmtree(work, ignore_errors=True)
    locations = Locations(work / "home")
    convert(options.data, locations.home, KuaiRandSettings())
    with server(locations, work):
        for job in DAY_JOBS:
            run_command(locations, job, "--from", str(DAYS[0]), "--to", str(DAYS[-2]))
        ours, pandas = [], []
        for repeat in range(repeats + 1):
            with spark_session(locations, app="forget") as spark:
                forget_day(spark, locations, DAYS[-1])
            seconds = {job: run_command(locations, job, "--ds", str(DAYS[-1]), env=without_java()) for job in DAY_JOBS}
            rival = timed(
                sys.executable, "-m", "benchmarks.pandas_day", str(locations.home), str(DAYS[-1]), str(work / "pandas")
            )
            if repeat:  # the first warms up
                ours.append(seconds)
                pandas.append(rival)
    by_job = {job: median(run[job] for run in ours) for job in DAY_JOBS}
    our_seconds, their_seconds = median(sum(run.values()) for run in ours), median(pandas)
    print(
        table_text(
            ("s", *DAY_JOBS, "all", "pandas"),
            [("", *(f"{value:.1f}" for value in by_job.values()), f"{our_seconds:.1f}", f"{their_seconds:.1f}")],
        )
    )
    shutil.rmtree(work)
    figures = {
        "seconds": round(our_seconds, 1),
        "pandas_seconds": round(their_seconds, 1),
        "over_allowed": round(our_seconds / (3 * their_seconds + ALLOWED_SECONDS), 3),
    }
    finish(
        "tiny_day",
        figures,
        details={"ours": ours, "pandas": pandas},
        packages=("pyspark", "delta-spark", "pandas"),
        quick=options.quick,
    )


@contextmanager
def server(locations: Locations, folder: Path) -> Iterator[None]:
    """A Spark Connect server on this lake."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "lake.server", "--home", str(locations.home), "--port", str(port)]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while socket.socket().connect_ex(("127.0.0.1", port)):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / "server.log").read_text()[-3000:])
            time.sleep(0.3)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def run_command(locations: Locations, job: str, *arguments: str, env: dict[str, str] | None = None) -> float:
    return timed(sys.executable, "-m", "spark_jobs", job, "--home", str(locations.home), *arguments, env=env)


def timed(*command: str, env: dict[str, str] | None = None) -> float:
    """Seconds of a whole process, its start included."""
    began = time.perf_counter()
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    return time.perf_counter() - began


def without_java() -> dict[str, str]:
    """An environment in which no JVM can be started."""
    kept: Sequence[str] = [folder for folder in os.environ["PATH"].split(":") if not (Path(folder) / "java").exists()]
    return {name: value for name, value in os.environ.items() if name != "JAVA_HOME"} | {"PATH": ":".join(kept)}


if __name__ == "__main__":
    main()
