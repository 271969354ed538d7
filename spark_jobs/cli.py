"""`tributary spark_jobs`: each job by hand, with the arguments that the scheduler uses."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from contracts.commands import add_check, add_command, add_days, add_home, add_user, days_of, deployment_of, given_user, stage, table_text
from contracts.commands import day as day_argument
from contracts.errors import NotYet
from contracts.kinds import KINDS
from contracts.locations import Locations
from contracts.settings import Deployment, home_folder
from contracts.steps import DAY_JOBS, next_command
from contracts.tables import TABLES
from spark_jobs.days import run_checkpoint, run_days, span_option


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tributary spark_jobs", description="Spark jobs; every write to a Delta table.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="JOB")

    def add(name: str) -> argparse.ArgumentParser:
        command = add_command(commands, "spark_jobs", name)
        add_home(command)
        return command

    for name in DAY_JOBS:
        job = add(name)
        add_days(job)
        if name == "ingest_logs":
            job.add_argument("--allow-empty", action="store_true", help="a landing day without a row is right")
    add_check(add("check_landing"))
    checkpoint = add("build_checkpoints")
    checkpoint.add_argument("--until", type=day_argument, required=True, help="merge all days before this one")
    check = add("check_partials")
    check.add_argument("--ds", type=day_argument, required=True)
    check.add_argument("--json", action="store_true", help="also print what is missing as JSON")
    add("list_stale")
    compare = add("compare_tables")
    compare.add_argument("--with", dest="other", type=Path, required=True, metavar="FOLDER", help="the other deployment's folder")
    compare.add_argument("--table", action="append", default=[], choices=sorted(TABLES), metavar="TABLE",
                         help="may be repeated; logs and features by default")
    add("mend")
    maintain = add("maintain_lake")
    maintain.add_argument("--table", action="append", default=[], choices=sorted(TABLES), metavar="TABLE",
                          help="may be repeated; all by default")
    publish = add("publish_release")
    publish.add_argument("--kind", required=True, choices=tuple(KINDS))
    publish.add_argument("--period", required=True, type=day_argument, help="first day of the period")
    add("add_text_vectors")
    back = add("activate_release")
    back.add_argument("--release", required=True, help="its id")
    forget = add("forget_user")
    add_user(forget)
    options = parser.parse_args(argv)
    if options.command == "check_landing":
        return _check_landing(options)
    locations, deployment = deployment_of(options)
    return _COMMANDS.get(options.command, _run_days)(options, locations, deployment)


def _run_days(options: argparse.Namespace, locations: Locations, deployment: Deployment) -> int:
    days = days_of(options)
    deployment.refuse_unfinished(days[-1], datetime.now(UTC))
    extra = {"allow_empty": options.allow_empty} if options.command == "ingest_logs" else {}
    _say(locations, run_days(locations, deployment, options.command, days, **extra), days)
    print(f"next: tributary {next_command(options.command)} {span_option(days[0], days[-1])}")
    return 0


def _run_checkpoint(options: argparse.Namespace, locations: Locations, deployment: Deployment) -> int:
    _say(locations, run_checkpoint(locations, deployment, options.until), [options.until])
    return 0


def _check_landing(options: argparse.Namespace) -> int:
    from spark_jobs import check_landing

    return check_landing.command(options.paths, (options.home or home_folder()).resolve(), log=options.log, day=options.day,
                                 strict=options.strict)


def _check_partials(options: argparse.Namespace, locations: Locations, deployment: Deployment) -> int:
    from lake.reader import LakeReader
    from spark_jobs.inputs import missing_partials

    missing = missing_partials(LakeReader(locations), deployment, options.ds)
    if missing is not None:
        if options.json:
            print(missing.line())
        raise NotYet(f"{options.ds} waits for {missing}")
    print(f"partials of all days from {deployment.history_start} to {options.ds} are there")
    return 0


def _list_stale(_: argparse.Namespace, locations: Locations, __: Deployment) -> int:
    from spark_jobs.mend import list_stale

    return list_stale(locations)


def _compare(options: argparse.Namespace, locations: Locations, _: Deployment) -> int:
    from spark_jobs import compare_tables

    return compare_tables.command(locations, options.other.resolve(), options.table)


def _mend(_: argparse.Namespace, locations: Locations, deployment: Deployment) -> int:
    from spark_jobs.mend import mend

    return mend(locations, deployment)


def _maintain(options: argparse.Namespace, locations: Locations, _: Deployment) -> int:
    from lake.session import spark_session
    from spark_jobs import maintain_lake

    with stage("maintain_lake"), spark_session(locations, app="maintain_lake") as spark:
        done = maintain_lake.run(spark, locations, options.table)
    print(table_text(("table", "files before", "files after", "MiB"),
                     [(one.table, one.files_before, one.files_after, round(one.size_bytes / 2**20, 1)) for one in done]))
    return 0


def _publish(options: argparse.Namespace, locations: Locations, deployment: Deployment) -> int:
    from spark_jobs import publish_release

    return publish_release.command(locations, deployment, options.kind, options.period)


def _add_text_vectors(_: argparse.Namespace, locations: Locations, __: Deployment) -> int:
    from spark_jobs import add_text_vectors

    return add_text_vectors.command(locations)


def _activate(options: argparse.Namespace, locations: Locations, _: Deployment) -> int:
    from spark_jobs import activate_release

    return activate_release.command(locations, options.release)


def _forget(options: argparse.Namespace, locations: Locations, deployment: Deployment) -> int:
    from spark_jobs import forget_user

    return forget_user.command(locations, deployment, given_user(options.user), dry_run=options.dry_run)


def _say(locations: Locations, builds: Sequence[Any], days: Sequence[date]) -> None:
    """Prints what was read and written: a row a partition for a day, a row a table for a range."""
    if not builds:
        print("nothing to do: it is there already")
        return
    partitions, rows_read = _read_by(locations, builds)
    if partitions:
        print(f"read {rows_read:,} rows of {partitions} partitions")
    if len(days) == 1:
        rows = [(b.table_name, b.owner, b.row_cnt, ", ".join(f"{k} {v}" for k, v in b.counts.items() if v)) for b in builds]
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


_COMMANDS: dict[str, Callable[[argparse.Namespace, Locations, Deployment], int]] = {
    "build_checkpoints": _run_checkpoint, "check_partials": _check_partials, "publish_release": _publish,
    "activate_release": _activate, "list_stale": _list_stale, "mend": _mend, "maintain_lake": _maintain,
    "add_text_vectors": _add_text_vectors, "compare_tables": _compare, "forget_user": _forget,
}
