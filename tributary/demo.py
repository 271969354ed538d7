"""`tributary demo`: the whole platform from nothing, on made logs, on public ones, or on those that a team has landed.

History is loaded as range jobs, TPM and CPM are trained by hand commands, and the last days go through Airflow: a real
backfill of every DAG that they need. Everything it calls is a command that a person can run alike.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import click

from contracts.errors import BadInput, TributaryError
from contracts.kinds import KINDS
from contracts.locations import Locations
from contracts.periods import Parent
from contracts.settings import (
    DATA_VARIABLE,
    DEFAULT_HOME,
    HOME_VARIABLE,
    SETTINGS_FILE,
    Deployment,
    data_folder,
    home_folder,
)
from contracts.steps import DAY_DAGS, commands_over, release_commands
from tributary import first_periods, stack
from tributary.airflow_api import AirflowApi
from tributary.backfills import start_all, wait_for_all
from tributary.demo_plan import Plan, plan_of, whole_days
from tributary.own import own_command
from tributary.stack import postgres, processes

Source = Literal["simulator", "kuairand", "movielens", "own"]
SOURCES: tuple[Source, ...] = ("simulator", "kuairand", "movielens", "own")
OWN: Source = "own"  # a deployment that a team has described, with landing files of its own
TRAINED_AT_ONCE = 2  # a training keeps one core busy


class StageFailed(TributaryError):
    """A command of the demo failed; it has printed the reason."""

    exit_code = 1


@own_command("demo")
@click.option(
    "--source",
    type=click.Choice(SOURCES),
    help=f"Where the logs come from; own: the landing files of a deployment that is there (default: what the "
    f"{SETTINGS_FILE} of --home names, else simulator).",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help=f"The original files of kuairand or movielens (default: {DATA_VARIABLE}).",
)
@click.option("--days", type=int, default=100, help="Days to simulate.")
@click.option("--users", type=int, default=1500, help="Users to simulate.")
@click.option("--unrelated-domains", is_flag=True, help="Simulate domains that share neither taste nor item quality.")
def demo(source: Source | None, data: Path | None, **simulated: Any) -> None:
    """Runs all stages, and leaves the stack up."""
    source = source or source_of(home_folder(f"{DEFAULT_HOME}/demo-simulator"))
    home = home_folder(DEFAULT_HOME if source == OWN else f"{DEFAULT_HOME}/demo-{source}")
    os.environ[HOME_VARIABLE] = str(home)
    made_by = _source_command(home, source, data, **simulated)
    began = time.monotonic()
    with PeakMemory(home) as memory:
        run(home, made_by, memory)
    print(f"\ndemo: {time.monotonic() - began:.0f} s, peak memory of all its processes {memory.peak_gib:.2f} GiB\n")
    _print_addresses(home)


def source_of(home: Path) -> Source:
    """The source that the settings in a folder name, `own` if it is none of the demo's; the simulator for a folder without settings."""
    if not (home / SETTINGS_FILE).is_file():
        return "simulator"
    named = Deployment.load(home).source
    return next((source for source in SOURCES if source == named), OWN)


def run(home: Path, source_command: Sequence[str] | None, memory: PeakMemory) -> None:
    """Runs all stages, and prints after each how many seconds it took.

    Args:
        home: the deployment's folder.
        source_command: the command that makes its settings and landing files; None if they are there already.
        memory: the measurement that each stage's peak is read from.
    """
    stages = Stages(memory)
    if source_command is not None:
        with stages.stage("landing files"):
            command(*source_command)
    deployment = Deployment.load(home)
    plan = plan_of(deployment, whole_days(deployment, Locations(home), datetime.now(UTC)))
    print(*plan.lines(), *first_periods.report(deployment), sep="\n", flush=True)
    with stages.stage("start Spark Connect"):
        stack.up_spark(home)  # an idle Airflow would take a seventh of two cores from what follows
    first, last = map(str, plan.history)
    span = ("--from", first, "--to", last)
    for dag, makes in DAY_DAGS.items():
        with stages.stage(f"history {first} .. {last}: {makes.partition(' -> ')[2]}"):
            for arguments in commands_over(span, dag=dag):
                command(*arguments)
    with stages.stage(f"{len(plan.trained)} models of the history, {TRAINED_AT_ONCE} at a time"):
        train(deployment, plan.trained)
    with stages.stage("start PostgreSQL and Airflow"):
        stack.up(home)
    with stages.stage(f"Airflow backfill {plan.backfilled[0]} .. {plan.backfilled[-1]}"):
        backfill(stack.api(home), plan)
    print()
    scored = ("--from", str(plan.backfilled[0]), "--to", str(plan.backfilled[-1]))
    command("training", "compare", *scored)
    command("training", "report", *scored)
    command("validation", "index")  # links the report
    stages.print_table()


def train(deployment: Deployment, releases: Sequence[Parent]) -> None:
    """Trains, judges and publishes these releases, each as soon as its own parents are there.

    Raises:
        StageFailed: a command failed; none starts after it.
    """
    waiting, running = list(releases), dict[Future[None], Parent]()
    with ThreadPoolExecutor(TRAINED_AT_ONCE) as pool:
        while waiting or running:
            unmade = {(one.kind, one.period) for one in (*waiting, *running.values())}
            ready = [
                one
                for one in waiting
                if not unmade
                & {(parent.kind, parent.period) for parent in deployment.lineage.parents(one.kind, one.period)}
            ]
            for release in ready[: TRAINED_AT_ONCE - len(running)]:
                waiting.remove(release)
                running[pool.submit(_train, release)] = release
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                del running[done]
                done.result()


def _train(release: Parent) -> None:
    prefix, began = f"{release.kind} {release.period} | ", time.monotonic()
    for arguments in release_commands(release.kind, release.period):
        command(*arguments, prefix=prefix)
    print(f"{prefix}{time.monotonic() - began:.0f} s", flush=True)


def backfill(api: AirflowApi, plan: Plan) -> None:
    """Starts the backfills of all DAGs that the last days need, whose runs wait for their parents."""
    spans = {dag: (plan.backfilled[0], plan.backfilled[-1]) for dag in (*DAY_DAGS, KINDS["actr"].dag)}
    if plan.encoded:
        spans[KINDS["fg_bert_users"].dag] = (plan.backfilled[-1], plan.backfilled[-1])
    for kind in KINDS.values():
        periods = sorted(parent.period for parent in plan.scheduled if parent.kind == kind.name)
        if periods:
            spans[kind.dag] = (periods[0], periods[-1])
    start_all(api, spans, max_active_runs=dict.fromkeys(DAY_DAGS, 2), reprocess="completed")
    wait_for_all(api, spans, timeout_seconds=3600)


def command(*arguments: str, prefix: str = "") -> None:
    """Runs `tributary <arguments>`, its output shown as it comes.

    Args:
        arguments: the words of the command line after `tributary`.
        prefix: put before each line of output, to tell commands that run at the same time apart.

    Raises:
        StageFailed: it failed.
    """
    line = f"tributary {' '.join(arguments)}"
    print(f"{prefix}$ {line}", flush=True)
    code = _run(arguments) if not prefix else _run_prefixed(arguments, prefix)
    if code != 0:
        raise StageFailed(
            f"`{line}` ended with exit code {code}; the stack is left up. "
            "Repair what it names and run the demo again, or end the stack with `tributary down`."
        )


def _run(arguments: Sequence[str]) -> int:
    return subprocess.run([sys.executable, "-m", *arguments], check=False).returncode


def _run_prefixed(arguments: Sequence[str], prefix: str) -> int:
    with subprocess.Popen(
        [sys.executable, "-m", *arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:  # a progress bar's returns end lines too
            if line.strip():
                print(f"{prefix}{line.rstrip()}", flush=True)
    return process.returncode


class Stages:
    """A line per stage with its seconds and the memory at its peak, and a table of them in the end."""

    def __init__(self, memory: PeakMemory) -> None:
        self._memory = memory
        self._rows: list[tuple[str, float, float]] = []

    @contextmanager
    def stage(self, title: str) -> Iterator[None]:
        """Prints a stage of the demo, and records its seconds and its peak of memory."""
        print(f"\n== {title}", flush=True)
        began = time.monotonic()
        self._memory.start_interval()
        yield
        self._rows.append((title, time.monotonic() - began, self._memory.interval_gib))
        print(f"== {title}: {self._rows[-1][1]:.0f} s", flush=True)

    def print_table(self) -> None:
        """Prints the stages with their seconds and peaks."""
        width = max(len(title) for title, _, _ in self._rows)
        print(f"\n{'stage'.ljust(width)}  seconds  peak GiB")
        for title, seconds, gib in self._rows:
            print(f"{title.ljust(width)}  {seconds:7.0f}  {gib:8.2f}")


class PeakMemory:
    """Samples, every five seconds, the memory of all processes of a deployment: proportional set size."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._peak = self._interval = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def peak_gib(self) -> float:
        """The highest memory use so far, in GiB."""
        return self._peak / 2**30

    @property
    def interval_gib(self) -> float:
        """The highest memory use since `start_interval`, in GiB."""
        return self._interval / 2**30

    def start_interval(self) -> None:
        """Begins an interval, whose highest memory use `interval_gib` gives."""
        self._interval = 0

    def _sample(self) -> None:
        while not self._stop.wait(5.0):
            pids = {
                *processes.marked(self._home, HOME_VARIABLE),
                *processes.working_in(postgres.folder_of(self._home)),
                os.getpid(),
            }
            used = processes.memory_bytes(sorted(pids))
            self._peak, self._interval = max(self._peak, used), max(self._interval, used)


def _source_command(
    home: Path, source: Source, data: Path | None, *, days: int, users: int, unrelated_domains: bool
) -> list[str] | None:
    """The command that makes the landing files; None where they are a team's own."""
    if source == OWN:
        Deployment.load(home)
        if data is not None:
            raise BadInput(
                "tributary demo", "--data", expected="none with --source own, whose landing files are there", found=data
            )
        return None
    if source == "simulator":
        unrelated = ["--unrelated-domains"] if unrelated_domains else []
        return ["sources", "simulate", "--home", str(home), "--days", str(days), "--users", str(users), *unrelated]
    folder = data or data_folder()
    if folder is None:
        raise BadInput(
            "tributary demo",
            "--data",
            expected=f"the folder of the original files of {source}",
            found="none",
            hint=f"With make: make demo SOURCE={source} DATA=<folder>, or set {DATA_VARIABLE}.",
        )
    return ["sources", source, "--home", str(home), "--data", str(folder.resolve())]


def _print_addresses(home: Path) -> None:
    locations = Locations(home)
    print("The stack is left up:")
    for line in stack.info(home).lines():
        print(f"  {line}")
    print(f"  quality reports  {(locations.reports / 'index.html').as_uri()}")
    for report in sorted(locations.model_reports.glob("*.html")):
        print(f"  model report     {report.as_uri()}")
    print(
        f"next: tributary --home {home} publishing neighbours --table actr_embeddings --id 1, or end it: tributary down --home {home}"
    )
