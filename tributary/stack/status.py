"""What `tributary status` prints: what runs, since when, with how much memory, and what the supervisor had to restart."""

from __future__ import annotations

import time
from pathlib import Path

from contracts.locations import Locations
from tributary.stack import components, heartbeats, logs, machine, postgres, processes, space, supervisor
from tributary.stack.components import SUPERVISOR, Setup

TITLES = ("component", "state", "pid", "MiB", "up since", "restarts", "address")


def status(home: Path) -> str:
    """Returns a table of the components, the supervisor's notes on those that died, where the logs are, and the free space."""
    home = home.resolve()
    living, watched, setup = components.living(home), supervisor.read(home), Setup.read(home)
    silent = heartbeats.silent(home, setup.ui_port) if setup is not None and setup.has_airflow and living else {}
    rows: list[tuple[str, ...]] = [TITLES]
    counted: set[int] = set()
    total = 0
    for name in (*components.names(home), SUPERVISOR):
        restarts = str(watched[name].restarts) if name in watched and name in living else "-"
        record = living.get(name)
        if record is None:
            rows.append(
                (
                    name,
                    state_of_dead(home, name, watched, is_supervised=SUPERVISOR in living),
                    "-",
                    "-",
                    "-",
                    restarts,
                    "-",
                )
            )
            continue
        pids = (
            processes.working_in(postgres.folder_of(home))
            if name == postgres.NAME
            else processes.session_of(record.pid)
        )
        counted.update(pids)
        memory = processes.memory_bytes(pids)
        total += memory
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(processes.started_at(record.start_ticks)))
        state = "no heartbeat" if name in silent else "running"
        rows.append((name, state, str(record.pid), f"{memory >> 20}", since, restarts, record.address or "-"))
    others = [pid for pid in processes.marked(home) if pid not in counted]
    if others:
        memory = processes.memory_bytes(others)
        total += memory
        rows.append(("tasks and others", "running", f"{len(others)} pids", f"{memory >> 20}", "-", "-", "-"))
    rows.append(("together", _together(home, SUPERVISOR in living), "", f"{total >> 20}", "", "", ""))
    return "\n".join([*_aligned(rows), "", *_remarks(home, watched)])


def state_of_dead(home: Path, name: str, watched: dict[str, supervisor.Watched], *, is_supervised: bool) -> str:
    """Returns why a component does not run, and whether the supervisor is about to start it."""
    if processes.read_record(Locations(home).stack, name) is None:
        return "stopped"
    if logs.wants_space(components.log_of(home, name)):
        return "dead: no space left"
    if name in watched and watched[name].given_up:
        return "dead: given up"
    return "dead: the supervisor restarts it" if is_supervised and name != SUPERVISOR else "dead"


def _together(home: Path, is_supervised: bool) -> str:
    if not machine.is_up(home):
        return "not up"
    return "up" if is_supervised else "up, unsupervised"


def _remarks(home: Path, watched: dict[str, supervisor.Watched]) -> list[str]:
    folder = Locations(home).stack
    lines = [f"{name}: {one.reason}" for name, one in watched.items() if one.reason]
    setup = Setup.read(home)
    if setup is not None and setup.database:
        lines.append(f"database: {setup.database}")
    if setup is not None and setup.only and machine.is_up(home):
        lines.append(f"started with `--only {setup.only}`: {machine.rest_of(home)}")
    if machine.is_up(home) and SUPERVISOR not in components.living(home):
        lines.append(
            f"no supervisor runs: a component that dies stays dead. `tributary up --home {home}` starts one, and changes nothing else."
        )
    free = space.free_bytes(home) if home.is_dir() else 0
    scarce = (
        f", less than the {space.FLOOR_BYTES >> 20} MiB that `tributary up` asks for"
        if free < space.FLOOR_BYTES
        else ""
    )
    return [
        *lines,
        f"logs: {folder}/*.log, of PostgreSQL {postgres.folder_of(home)}/log, of tasks {folder}/airflow/logs",
        f"free space: {free >> 20} MiB{scarce}",
    ]


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
