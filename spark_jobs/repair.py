"""Repairs stale partitions job by job and searches again after each, so that a change that leads to equal rows goes no further."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime

from contracts.commands import table_text
from contracts.errors import TributaryError
from contracts.kinds import KINDS
from contracts.locations import Locations
from contracts.periods import ONE_DAY, days_between
from contracts.quality import StaleDay, StaleReport
from contracts.settings import Deployment
from contracts.steps import step
from lake.reader import LakeReader
from lake.registry import Registry
from pages.files import write_atomically
from spark_jobs.days import run_checkpoint, run_days, span_option
from spark_jobs.staleness import JOB_OF, JOBS, Stale, find_stale, repair_commands, spans, stale_releases

SHOWN = 12  # of the stale partitions that a command lists one by one


def list_stale(locations: Locations) -> int:
    """Prints what is stale and the commands that repair it."""
    stale = find_stale(locations)
    result = _write_found(locations, stale)
    _print_releases(result)
    if not stale:
        print("no partition is stale: every one was made from its inputs as they are now")
        return 0
    print(_table(stale))
    print(
        f"\n{len(stale)} stale partitions. Repair them all: tributary spark_jobs repair\nor one by one, in this order:"
    )
    for command in repair_commands(stale):
        print(f"  {command}")
    return 0


def repair(locations: Locations, deployment: Deployment) -> int:
    """Rebuilds all stale partitions, and validates the days that changed.

    Raises:
        TributaryError: a day failed its checks; the partitions that depend on it stay stale.
    """
    done: list[tuple[str, str, int]] = []
    for job in JOBS:
        days = sorted({item.day for item in find_stale(locations) if item.changed and JOB_OF[item.table] == job})
        for span in spans(days) if job != "build_checkpoints" else [(day, day) for day in days]:
            count = _run(locations, deployment, job, span)
            done.append((job, f"{span[0]} .. {span[1]}" if span[0] != span[1] else str(span[0]), count))
            if step("spark_jobs", job).judged:
                _validate(locations, job, span)
    print(
        table_text(("repaired by", "days", "partitions"), done) if done else "nothing to repair: no partition is stale"
    )
    _print_releases(_write_found(locations, find_stale(locations)))
    return 0


def _run(locations: Locations, deployment: Deployment, job: str, span: tuple[date, date]) -> int:
    if job == "build_checkpoints":
        return len(run_checkpoint(locations, deployment, span[0]))
    return len(run_days(locations, deployment, job, list(days_between(span[0], span[1] + ONE_DAY))))


def _validate(locations: Locations, job: str, span: tuple[date, date]) -> None:
    command = [*step("spark_jobs", job).check_command, "--home", str(locations.home), *span_option(*span).split()]
    code = subprocess.run([sys.executable, "-m", *command], check=False).returncode
    if code:
        error = TributaryError(
            f"tributary {' '.join(command)}: exit code {code}. Repair the day or accept it, then run `tributary "
            "spark_jobs repair` again."
        )
        error.exit_code = code
        raise error


def _write_found(locations: Locations, stale: Sequence[Stale]) -> StaleReport:
    """Writes what is stale, and the commands that repair it, to the file that Airflow's UI shows."""
    registry = Registry.read(LakeReader(locations))
    releases = [
        (name, f"trained on rows that have changed since: {_first_of(changed)}")
        for name, changed in stale_releases(locations)
    ]
    releases += registry.stale().items()
    result = StaleReport(
        looked_ts=datetime.now(UTC),
        commands=tuple(repair_commands(stale)),
        days=tuple(StaleDay(table=item.table, day=item.day, why=_why(item.changed)) for item in stale),
        releases=tuple(releases),
        periods=tuple(_periods(registry, [name for name, _ in releases])),
    )
    write_atomically(locations.stale_found, result.to_json())
    return result


def _periods(registry: Registry, stale: Sequence[str]) -> Iterator[tuple[str, date, date]]:
    """For each DAG, the first and the last period whose models were made from stale releases."""
    served = registry.resting_on(stale)
    for kind in KINDS.values():
        periods = [one.period for one in served if one.kind == kind.name]
        if periods:
            yield kind.dag, periods[0], periods[-1]


def _print_releases(found: StaleReport) -> None:
    for name, why in found.releases:
        print(f"{name}: {why}")
    if found.periods:
        print("Rebuild the models, once no partition is stale, by `tributary dags repair`, or one by one:")
        print(*(f"  {command}" for command in found.backfills), sep="\n")


def _table(stale: Sequence[Stale]) -> str:
    rows: list[tuple[str, str, str]] = []
    for table in dict.fromkeys(item.table for item in stale):
        of_table = [item for item in stale if item.table == table]
        changed = sorted({key for item in of_table for key in item.changed})
        days = spans(item.day for item in of_table)
        listed = ", ".join(str(first) if first == last else f"{first} .. {last}" for first, last in days[:SHOWN])
        rows.append((table, listed + (", ..." if len(days) > SHOWN else ""), _why(changed)))
    return table_text(("stale", "days", "changed"), rows)


def _why(changed: Sequence[str]) -> str:
    return _first_of(changed) if changed else "what it reads is stale"


def _first_of(keys: Sequence[str]) -> str:
    return keys[0] + (f" and {len(keys) - 1} more" if len(keys) > 1 else "")
