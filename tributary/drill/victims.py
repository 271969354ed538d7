"""Whom a drill kills: parts of the stack, and tasks at their work."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from contracts.steps import FOLDERS
from tributary.stack import airflow, components, postgres, processes

Victim = Literal[
    "task's command",
    "task's runner",
    "spark-connect",
    "scheduler",
    "postgres",
    "postgres, all of it",
    "api-server",
    "supervisor",
    "everything",
]
VICTIMS: tuple[Victim, ...] = (
    "task's command",
    "task's runner",
    "spark-connect",
    "scheduler",
    "postgres",
    "postgres, all of it",
    "api-server",
    "supervisor",
    "everything",
)
NEED_UP: tuple[Victim, ...] = (
    "supervisor",
    "everything",
)  # No process is left that would start them again: a person must.


def in_random_order(chance: random.Random) -> Iterator[Victim]:
    """Victims without end: each once, in a random order, then each once again, and so on."""
    while True:
        yield from chance.sample(VICTIMS, len(VICTIMS))


def pids_of(home: Path, victim: Victim) -> list[int]:
    """The processes to kill at once; [] if there is none at this moment."""
    if victim in ("task's command", "task's runner"):
        commands = sorted(commands_of_tasks(home))
        found = (
            commands[:1]
            if victim == "task's command"
            else [parent for pid in commands[:1] for parent in processes.ancestors(pid)[:1]]
        )
        return [pid for pid in found if pid > 1]
    if victim == "everything":
        return [*processes.marked(home), *processes.working_in(postgres.folder_of(home))]
    if victim == "postgres, all of it":
        return processes.working_in(postgres.folder_of(home))
    record = components.living(home).get(victim)
    return [] if record is None else [record.pid]


def commands_of_tasks(home: Path) -> list[int]:
    """Pids of the commands that Airflow's tasks are running."""
    return [
        pid for pid in processes.marked(home, component=airflow.SCHEDULER) if is_command(processes.command_line(pid))
    ]


def is_command(arguments: list[str]) -> bool:
    """Whether these are the arguments of `python -m <folder> ...`."""
    return len(arguments) > 2 and arguments[1] == "-m" and arguments[2] in FOLDERS


def orphans(home: Path) -> list[int]:
    """Processes of the stack that none of its living components has started."""
    leaders = [record.pid for record in components.living(home).values()]
    of_postgres = [
        pid
        for pid in processes.working_in(postgres.folder_of(home))
        if not {pid, *processes.ancestors(pid)} & set(leaders)
    ]
    return sorted({*processes.orphans(home, leaders), *of_postgres})
