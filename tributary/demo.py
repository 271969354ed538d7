"""`tributary demo`: the whole platform from nothing, on made logs or on real ones.

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
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

import click

from contracts.errors import BadInput, TributaryError
from contracts.kinds import KINDS
from contracts.locations import Locations
from contracts.periods import ONE_DAY, Parent
from contracts.settings import DATA_VARIABLE, DEFAULT_HOME, HOME_VARIABLE, Deployment, data_folder, home_folder
from contracts.steps import DAY_DAGS, commands_over, release_commands
from contracts.transfer import reads
from tributary import stack
from tributary.airflow_api import AirflowApi
from tributary.backfills import start_all, wait_for_all
from tributary.own import own_command
from tributary.stack import postgres, processes

Source = Literal["simulator", "kuairand", "movielens"]
SOURCES: tuple[Source, ...] = ("simulator", "kuairand", "movielens")
TRAINED_AT_ONCE = 2  # a training keeps one core busy


class StageFailed(TributaryError):
    """A command of the demo failed; it has printed the reason."""

    exit_code = 1


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is loaded as history, and what goes through Airflow.

    Attributes:
        history: first and last day loaded by range jobs.
        backfilled: the last days, in order.
        trained: parents whose periods end with the history, trained by hand commands, in order.
        scheduled: parents whose periods end later, trained by Airflow.
    """

    history: tuple[date, date]
    backfilled: tuple[date, ...]
    trained: tuple[Parent, ...]
    scheduled: tuple[Parent, ...]

    @property
    def encoded(self) -> bool:
        """Whether there is an FG-BERT: then the users of the last day are encoded by it."""
        return any(parent.kind == "fg_bert" for parent in (*self.trained, *self.scheduled))


@own_command("demo")
@click.option("--source", type=click.Choice(SOURCES), default="simulator", help="Where the logs come from.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help=f"The original files of kuairand or movielens (default: {DATA_VARIABLE}).",
)
@click.option("--days", type=int, default=100, help="Days to simulate.")
@click.option("--users", type=int, default=1500, help="Users to simulate.")
@click.option("--unrelated-domains", is_flag=True, help="Simulate domains that share neither taste nor item quality.")
def demo(source: Source, data: Path | None, **simulated: Any) -> None:
    """Runs all stages, and leaves the stack up."""
    home = home_folder(f"{DEFAULT_HOME}/demo-{source}")
    os.environ[HOME_VARIABLE] = str(home)
    began = time.monotonic()
    with PeakMemory(home) as memory:
        run(home, _source_command(home, source, data, **simulated), memory)
    print(f"\ndemo: {time.monotonic() - began:.0f} s, peak memory of all its processes {memory.peak_gib:.2f} GiB\n")
    _print_addresses(home)


def run(home: Path, source_command: Sequence[str], memory: PeakMemory) -> None:
    """Runs all stages, and prints after each how many seconds it took."""
    stages = Stages(memory)
    with stages.stage("landing files"):
        command(*source_command)
    deployment = Deployment.load(home)
    plan = plan_of(deployment, landing_days(Locations(home)))
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


def plan_of(deployment: Deployment, days: Sequence[date]) -> Plan:
    """Splits the landing days into history and the last days, and finds the models that these rest on.

    Raises:
        BadInput: too few days.
    """
    backfilled = tuple(
        day for day in days if day >= deployment.actr_start
    )  # the first has no predecessor, the others are scored
    if len(backfilled) < 2 or backfilled[0] == days[0]:
        raise BadInput(
            "demo",
            "--days",
            expected=f"days before {deployment.actr_start}, and two or more from it on",
            found=len(days),
        )
    needed = _ancestors(deployment, [Parent(role="predecessor", kind="actr", period=day) for day in backfilled])
    ended = [parent for parent in needed if deployment.lineage.period(parent.kind, parent.period).end <= backfilled[0]]
    later = [parent for parent in needed if parent not in ended and parent.kind != "actr"]
    return Plan(
        history=(days[0], backfilled[0] - ONE_DAY), backfilled=backfilled, trained=tuple(ended), scheduled=tuple(later)
    )


def landing_days(locations: Locations) -> list[date]:
    """Days with landing files, in order; what a killed source left behind is hidden by a leading dot."""
    folders = (locations.landing / "natural").iterdir()
    return sorted(
        date.fromisoformat(folder.name) for folder in folders if folder.is_dir() and not folder.name.startswith(".")
    )


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


def _ancestors(deployment: Deployment, releases: Sequence[Parent]) -> list[Parent]:
    """All releases that these are made from, parents before children, without the A-CTRs themselves."""
    found: dict[tuple[str, date], Parent] = {}

    def visit(release: Parent) -> None:
        if (release.kind, release.period) in found:
            return
        for parent in deployment.lineage.parents(release.kind, release.period):
            if reads(parent.role, deployment.variants):
                visit(parent)
        found[release.kind, release.period] = release

    for release in releases:
        visit(release)
    return [release for release in found.values() if release.kind != "actr"]


def _source_command(
    home: Path, source: Source, data: Path | None, *, days: int, users: int, unrelated_domains: bool
) -> list[str]:
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
