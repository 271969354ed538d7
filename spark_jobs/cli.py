"""`tributary spark_jobs`: each job by hand, with the arguments that the scheduler uses."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import click

from contracts.commands import (
    folder_group,
    given_user,
    one_day,
    run_line,
    stage,
    table_text,
    with_days,
    with_deployment,
    with_landing_files,
    with_period,
    with_tables,
    with_user,
)
from contracts.errors import NotYet
from contracts.features import Log
from contracts.locations import Locations
from contracts.settings import Deployment
from contracts.steps import DAY_JOBS, next_command
from contracts.tables import TABLES
from spark_jobs.days import run_checkpoint, run_days, span_option

commands = folder_group("spark_jobs")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; see `tributary spark_jobs --help`."""
    return run_line(commands, argv)


def _add_day_job(name: str) -> None:
    def job(locations: Locations, deployment: Deployment, days: list[date], **options: Any) -> None:
        deployment.refuse_unfinished(days[-1], datetime.now(UTC))
        _print_builds(locations, run_days(locations, deployment, name, days, **options), days)
        print(f"next: tributary {next_command(name)} {span_option(days[0], days[-1])}")

    if name == "ingest_logs":
        job = click.option("--allow-empty", is_flag=True, help="A landing day without a row is right.")(job)
    commands.add(name)(with_deployment(with_days(job)))


for _name in DAY_JOBS:
    _add_day_job(_name)


@commands.add("build_checkpoints")
@with_deployment
@one_day("The day before which all days are merged.", required=True)
def _build_checkpoints(locations: Locations, deployment: Deployment, ds: date) -> None:
    _print_builds(locations, run_checkpoint(locations, deployment, ds), [ds])


@commands.add("check_landing")
@with_landing_files
def _check_landing(home: Path, paths: Sequence[Path], log: Log | None, ds: date | None, strict: bool) -> int:
    from spark_jobs import check_landing

    return check_landing.command(paths, home, log=log, day=ds, strict=strict)


@commands.add("check_partials")
@with_deployment
@one_day(required=True)
@click.option("--json", "as_json", is_flag=True, help="Also print what is missing as JSON.")
def _check_partials(locations: Locations, deployment: Deployment, ds: date, as_json: bool) -> None:
    from lake.reader import LakeReader
    from spark_jobs.inputs import missing_partials

    missing = missing_partials(LakeReader(locations), deployment, ds)
    if missing is not None:
        if as_json:
            print(missing.line())
        raise NotYet(f"{ds} waits for {missing}")
    print(f"partials of all days from {deployment.history_start} to {ds} are there")


@commands.add("list_stale")
@with_deployment
def _list_stale(locations: Locations, _: Deployment) -> int:
    from spark_jobs.repair import list_stale

    return list_stale(locations)


@commands.add("compare_tables")
@with_deployment
@click.option(
    "--with",
    "other",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FOLDER",
    help="The other deployment's folder.",
)
@with_tables("May be repeated; logs and features by default.", TABLES)
def _compare_tables(locations: Locations, _: Deployment, other: Path, tables: Sequence[str]) -> int:
    from spark_jobs import compare_tables

    return compare_tables.command(locations, other.resolve(), tables)


@commands.add("repair")
@with_deployment
def _repair(locations: Locations, deployment: Deployment) -> int:
    from spark_jobs.repair import repair

    return repair(locations, deployment)


@commands.add("maintain_lake")
@with_deployment
@with_tables("May be repeated; all by default.", TABLES)
def _maintain_lake(locations: Locations, _: Deployment, tables: Sequence[str]) -> None:
    from lake.session import spark_session
    from spark_jobs import maintain_lake

    with stage("maintain_lake"), spark_session(locations, app="maintain_lake") as spark:
        done = maintain_lake.run(spark, locations, tables)
    print(
        table_text(
            ("table", "files before", "files after", "MiB"),
            [(one.table, one.files_before, one.files_after, round(one.size_bytes / 2**20, 1)) for one in done],
        )
    )


@commands.add("publish_release")
@with_deployment
@with_period
def _publish_release(locations: Locations, deployment: Deployment, kind: str, period: date) -> int:
    from spark_jobs import publish_release

    return publish_release.command(locations, deployment, kind, period)


@commands.add("add_text_vectors")
@with_deployment
def _add_text_vectors(locations: Locations, _: Deployment) -> int:
    from spark_jobs import add_text_vectors

    return add_text_vectors.command(locations)


@commands.add("activate_release")
@with_deployment
@click.option("--release", required=True, metavar="ID", help="Its id.")
def _activate_release(locations: Locations, _: Deployment, release: str) -> int:
    from spark_jobs import activate_release

    return activate_release.command(locations, release)


@commands.add("forget_user")
@with_deployment
@with_user
def _forget_user(locations: Locations, deployment: Deployment, user: str, dry_run: bool) -> int:
    from spark_jobs import forget_user

    return forget_user.command(locations, deployment, given_user(user), dry_run=dry_run)


def _print_builds(locations: Locations, builds: Sequence[Any], days: Sequence[date]) -> None:
    """Prints what was read and written: a row a partition for a day, a row a table for a range."""
    if not builds:
        print("nothing to do: it is there already")
        return
    partitions, rows_read = _read_by(locations, builds)
    if partitions:
        print(f"read {rows_read:,} rows of {partitions} partitions")
    if len(days) == 1:
        rows = [
            (b.table_name, b.owner, b.row_cnt, ", ".join(f"{k} {v}" for k, v in b.counts.items() if v)) for b in builds
        ]
        print(table_text(("wrote", "partition", "rows", "of which"), rows))
        return
    names = list(dict.fromkeys(b.table_name for b in builds))
    rows = []
    for name in names:
        of_table = [b for b in builds if b.table_name == name]
        keys = dict.fromkeys(k for b in of_table for k in b.counts)
        totals = ", ".join(f"{k} {total}" for k in keys if (total := sum(b.counts[k] for b in of_table)))
        rows.append((name, f"{len(of_table)} partitions", sum(b.row_cnt for b in of_table), totals))
    print(table_text(("wrote", "partitions", "rows", "of which"), rows))


def _read_by(locations: Locations, builds: Sequence[Any]) -> tuple[int, int]:
    """Partitions of the lake that these builds were made from, and their rows; landing files are counted by `read`."""
    from lake.reader import LakeReader

    owners: dict[str, list[str]] = defaultdict(list)
    for key in {key for build in builds for key in build.inputs if not key.startswith("landing/")}:
        table, owner = key.split("/", 1)
        owners[table].append(owner)
    reader = LakeReader(locations)
    rows = [build["row_cnt"] for table, wanted in owners.items() for build in reader.builds(table, wanted).values()]
    return len(rows), sum(rows)
