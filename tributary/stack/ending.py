"""Ends components of the stack, with every process that they have started."""

from __future__ import annotations

from pathlib import Path

from contracts.locations import Locations
from tributary.stack import airflow, components, postgres, processes
from tributary.stack.components import SPARK, SUPERVISOR

GRACE_SECONDS = 10.0  # how long running tasks may go on before they are killed


def end_supervisor(home: Path) -> None:
    """Ends the supervisor, which would otherwise restart components while this process ends or starts them."""
    record = processes.read_record(Locations(home).stack, SUPERVISOR)
    if record is not None:
        processes.ask_to_end([record], grace_seconds=GRACE_SECONDS / 2)
    processes.kill_marked(home, component=SUPERVISOR)
    processes.forget(Locations(home).stack, SUPERVISOR)


def end(home: Path, name: str) -> None:
    """Ends one component and every process that it has started."""
    if name == postgres.NAME:
        postgres.stop(postgres.folder_of(home))
    record = processes.read_record(Locations(home).stack, name)
    if record is not None:
        processes.ask_to_end([record], grace_seconds=GRACE_SECONDS / 2)
    processes.kill_marked(home, component=name)
    processes.forget(Locations(home).stack, name)


def end_all(home: Path) -> int:
    """Ends every process that an `up` of this home has started; returns how many there were.

    Tasks are not asked to end: a task that is asked reports a failure, which uses up one of its tries. Instead they have
    `GRACE_SECONDS` to finish, during which the API that they report to keeps running, and are then killed together with
    their workers. That costs no try: the next scheduler finds such a task orphaned and runs it again.
    """
    folder = Locations(home).stack
    database = postgres.folder_of(home)
    count = len(list(processes.marked(home))) + len(processes.working_in(database))
    end_supervisor(home)
    records = {name: record for name in components.ALL if (record := processes.read_record(folder, name)) is not None}
    last = [records[name] for name in (airflow.API_SERVER, SPARK) if name in records]
    processes.ask_to_end(
        [records[name] for name in records if name not in (airflow.API_SERVER, SPARK, postgres.NAME)],
        grace_seconds=GRACE_SECONDS,
    )
    processes.kill_marked(home, spare=[pid for one in last if one.is_alive for pid in processes.session_of(one.pid)])
    processes.ask_to_end(last, grace_seconds=GRACE_SECONDS / 2)
    processes.kill_marked(home)
    postgres.stop(database)  # last, since components that end in an orderly way still write to it
    processes.wait_until_gone(records.values())
    for name in components.ALL:
        processes.forget(folder, name)
    return count
