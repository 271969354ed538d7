"""`tributary drill --kills N`: kills, changed inputs, recoveries, and the comparison with an undisturbed deployment."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import click

from contracts.commands import table_text
from contracts.errors import BadInput, TributaryError
from contracts.locations import Locations
from contracts.settings import DEFAULT_HOME, SETTINGS_FILE, home_folder
from contracts.steps import DAY_JOBS
from tributary import stack
from tributary.airflow_api import AirflowApi, ApiError
from tributary.drill import inputs, victims
from tributary.drill.backfill import Backfill, NotReached
from tributary.drill.victims import NEED_UP, Victim
from tributary.own import own_command
from tributary.stack import components, ports, processes
from tributary.stack.options import with_ports

MARK = "drill.txt"  # This file marks a folder as the drill's own.
START = date(2026, 1, 1)
PAUSE_SECONDS = (2.0, 20.0)  # The shortest and longest pause between a recovery and the next kill.
STEADY_SECONDS = (
    5.0  # All must be healthy for so long, since the death of one part shows in another only after a while.
)
RECOVERY_SECONDS = 300.0
TASK_SECONDS = 90.0  # How long to wait for a task to kill.
FINISH_SECONDS = 1800.0


@dataclass(frozen=True, kw_only=True)
class Kill:
    """One kill and what came of it.

    Attributes:
        at: the time of the kill, in seconds since the drill began.
        victim: what was killed.
        pids: the number of processes that were killed.
        seconds: how long it took until all was healthy again; None if that did not happen in time.
        needed: what a person had to do.
    """

    at: float
    victim: Victim
    pids: int
    seconds: float | None
    needed: str


@own_command("drill")
@click.option("--kills", type=click.IntRange(min=1), default=20, metavar="N", help="How many.")
@click.option(
    "--seed", type=int, metavar="N", help="Another one gives other moments and another order (default: at random)."
)
@click.option("--days", type=click.IntRange(min=1), default=4, metavar="N", help="Simulated days of logs and features.")
@with_ports
@click.option("--keep-up", is_flag=True, help="Leave the stack running, to look at it.")
def drill(kills: int, seed: int | None, days: int, keep_up: bool, **of_stack: int) -> int:
    """Makes its deployment anew, disturbs it, and compares it with another; 1 if they differ."""
    home = home_folder(f"{DEFAULT_HOME}/drill")
    seed = random.randrange(1_000_000) if seed is None else seed
    say(f"drill of {kills} kills in {home}, --seed {seed}")
    make_deployment(home, days)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that its stack is ended with it
    try:
        return _drill(home, kills, seed, days, of_stack)
    finally:
        if not keep_up:
            stack.down(home, say=say)


def _drill(home: Path, count: int, seed: int, days: int, of_stack: dict[str, int]) -> int:
    def up() -> None:
        ui_port, spark_port = of_stack["ui_port"], of_stack["spark_port"]
        stack.up(home, ui_port=ui_port, spark_port=spark_port, say=lambda line: say(f"  {line}"))

    up()
    last = START + timedelta(days=days - 1)
    backfill = Backfill(api=stack.api(home), first=START, last=last)
    kills = list(kill_at_random(home, backfill, count, random.Random(seed), up))
    problems = [
        f"{kill.victim}: not healthy {RECOVERY_SECONDS:.0f} s after its death" for kill in kills if kill.seconds is None
    ]
    say("no more kills: the backfill comes to its end")
    try:
        backfill.finish(timeout_seconds=FINISH_SECONDS, say=say)
    except NotReached as error:
        problems.append(str(error))
    # Runs that were under way built some days from files that changed afterwards; `list_stale` would report those days.
    if _tributary("spark_jobs", "repair", "--home", str(home), env=_with_server(home)):
        problems.append("what had become stale could not be repaired")
    build_undisturbed(home, last)
    if _tributary("spark_jobs", "compare_tables", "--home", str(home), "--with", str(_undisturbed(home))):
        problems.append("the tables differ from those of the undisturbed deployment")
    if left := lasting_orphans(home):
        problems.append(
            "processes left behind: "
            + "; ".join(f"{pid} {' '.join(processes.command_line(pid))[:100]}" for pid in left)
        )
    print_kills(kills)
    print(
        f"backfill: started {backfill.rounds} times, two DAGs over {days} days; runs that failed and were run again: "
        f"{', '.join(backfill.failed) or 'none'}"
    )
    for problem in problems:
        print(f"problem: {problem}")
    print(
        f"drill: {len(kills)} kills, seed {seed}: " + ("FAILED" if problems else "equal to an undisturbed deployment"),
        flush=True,
    )
    return 1 if problems else 0


def make_deployment(home: Path, days: int) -> None:
    """Makes the drill's own deployment from the start, a copy of its settings, and one of its landing files, which will change.

    Raises:
        BadInput: the folder holds something else.
    """
    if home.exists() and any(home.iterdir()) and not (home / MARK).is_file():
        raise BadInput(
            "tributary drill",
            "--home",
            expected="a folder that does not exist, or one of an earlier drill",
            found=home,
            hint="A drill deletes and replaces everything in its folder.",
        )
    if home.exists():
        stack.down(home, say=say)
        shutil.rmtree(home)
    home.mkdir(parents=True)
    (home / MARK).write_text("Made by `tributary drill`, which deletes and replaces everything in this folder.\n")
    if _tributary(
        "sources",
        "simulate",
        "--home",
        str(home),
        "--from",
        str(START),
        "--days",
        str(days),
        "--users",
        "80",
        "--items",
        "90",
    ):
        raise BadInput(
            "tributary drill", "landing files", expected="them to be simulated", found="an error, printed above"
        )
    other = _undisturbed(home)
    other.mkdir()
    shutil.copyfile(home / SETTINGS_FILE, other / SETTINGS_FILE)
    inputs.copy_landing(home, other)
    shutil.copytree(Locations(home).landing, _delivered(home))


def build_undisturbed(home: Path, last: date) -> None:
    """Builds the copy's tables by hand commands, a job for all days, from the landing files as they are after all changes."""
    say("the same days, undisturbed, by hand commands")
    inputs.copy_landing(home, _undisturbed(home))
    env = _with_server(home)
    for job in DAY_JOBS:
        if _tributary(
            "spark_jobs", job, "--home", str(_undisturbed(home)), "--from", str(START), "--to", str(last), env=env
        ):
            raise NotReached(f"{job}: expected the undisturbed days to be built, found an error, printed above")


def kill_at_random(
    home: Path, backfill: Backfill, count: int, chance: random.Random, up: Callable[[], None]
) -> Iterator[Kill]:
    """Kills `count` times; after each, changes a landing file, waits until all is healthy, and starts what nobody else would."""
    began = time.monotonic()
    order = victims.in_random_order(chance)
    for number in range(1, count + 1):
        backfill.keep_going()
        time.sleep(chance.uniform(*PAUSE_SECONDS))
        victim, pids = _next_victim(home, order, backfill)
        at, now = time.monotonic(), time.time()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        changed = inputs.change_one(home, _delivered(home), number, chance)
        say(f"{number}/{count}: kill -9 of {victim}: {_shown(pids)}; changed: {changed.relative_to(home)}")
        needed = "nothing"
        if victim in NEED_UP:
            needed = "tributary up" if _try_up(up) else "tributary up, which failed"
        healthy = wait_until_healthy(home, backfill.api, since=now, timeout_seconds=RECOVERY_SECONDS)
        if healthy is None:
            needed = "tributary up, after all" if _try_up(up) else "tributary up, which failed"
        kill = Kill(
            at=at - began,
            victim=victim,
            pids=len(pids),
            seconds=None if healthy is None else healthy - at,
            needed=needed,
        )
        say(
            f"{number}/{count}: "
            + (f"not healthy in {RECOVERY_SECONDS:.0f} s" if healthy is None else f"healthy after {_seconds(kill)} s")
            + f"; to be done: {needed}"
        )
        yield kill


def wait_until_healthy(home: Path, api: AirflowApi, *, since: float, timeout_seconds: float) -> float | None:
    """The instant (`time.monotonic`) from which every part lives and answers, and goes on doing so; None if it did not come in time.

    Args:
        home: the drill's deployment.
        api: the API of the stack.
        since: seconds since the epoch; heartbeats before it are those of the dead.
        timeout_seconds: how long to wait.
    """
    began = time.monotonic()
    healthy_from: float | None = None
    while time.monotonic() - began < timeout_seconds:
        if not is_healthy(home, api, since):
            healthy_from = None
        elif healthy_from is None:
            healthy_from = time.monotonic()
        if healthy_from is not None and time.monotonic() - healthy_from >= STEADY_SECONDS:
            return healthy_from
        time.sleep(0.5)
    return None


def is_healthy(home: Path, api: AirflowApi, since: float) -> bool:
    """Whether all components and the supervisor live, ports answer, and the scheduler has written a heartbeat since."""
    setup = components.Setup.read(home)
    if (
        setup is None
        or not {*setup.names, components.SUPERVISOR} <= components.living(home).keys()
        or not ports.answers(setup.spark_port)
    ):
        return False
    try:
        health = api.call("GET", "/monitor/health")
    except ApiError:
        return False
    beat = health["scheduler"]["latest_scheduler_heartbeat"]
    return (
        all(health[part]["status"] == "healthy" for part in ("metadatabase", "scheduler", "dag_processor"))
        and beat is not None
        and datetime.fromisoformat(beat).timestamp() > since
    )


def lasting_orphans(home: Path, *, seconds: float = 30.0) -> list[int]:
    """Orphans that are still there after a while: one may just be about to end."""
    deadline = time.monotonic() + seconds
    while (left := victims.orphans(home)) and time.monotonic() < deadline:
        time.sleep(1)
    return left


def print_kills(kills: Sequence[Kill]) -> None:
    """Prints a table of all kills: when, what, how long the stack needed, and what had to be done."""
    print()
    print(
        table_text(
            ("kill", "at s", "victim", "processes", "healthy after s", "what had to be done"),
            [
                (number, round(kill.at), kill.victim, kill.pids, _seconds(kill), kill.needed)
                for number, kill in enumerate(kills, start=1)
            ],
        )
    )


def say(line: str) -> None:
    """Prints a line with the time of day."""
    print(f"{time.strftime('%H:%M:%S')}  {line}", flush=True)


def _next_victim(home: Path, order: Iterator[Victim], backfill: Backfill) -> tuple[Victim, list[int]]:
    """The next victim that is there; a task may first have to come."""
    for victim in order:
        deadline = time.monotonic() + TASK_SECONDS
        while time.monotonic() < deadline:
            if pids := victims.pids_of(home, victim):
                return victim, pids
            backfill.keep_going()
            time.sleep(0.2)
        say(f"{victim}: none came in {TASK_SECONDS:.0f} s; another victim")
    raise AssertionError("victims come without end")


def _try_up(up: Callable[[], None]) -> bool:
    try:
        up()
    except TributaryError as error:
        say(str(error))
        return False
    return True


def _seconds(kill: Kill) -> str:
    return "not in time" if kill.seconds is None else f"{kill.seconds:.1f}"


def _shown(pids: Sequence[int]) -> str:
    return f"process {pids[0]}" if len(pids) == 1 else f"{len(pids)} processes"


def _undisturbed(home: Path) -> Path:
    return home / "undisturbed"


def _delivered(home: Path) -> Path:
    return home / "delivered"


def _with_server(home: Path) -> dict[str, str]:
    """The environment of a command that works through the stack's Spark Connect server."""
    info = stack.info(home)
    return os.environ | {
        "SPARK_REMOTE": info.spark,
        "SPARK_CONNECT_AUTHENTICATE_TOKEN": info.token_file.read_text().strip(),
    }


def _tributary(*arguments: str, env: dict[str, str] | None = None) -> int:
    """Runs a command with its output shown; returns its exit code."""
    say(f"$ tributary {' '.join(arguments)}")
    return subprocess.run([sys.executable, "-m", *arguments], env=env, check=False).returncode
