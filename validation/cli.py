"""`tributary validation`: judge tables and days, look at what was found, accept a failed day; judge models."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import click

from contracts.commands import folder_group, one_day, run_line, with_days, with_home, with_period, with_tables
from contracts.errors import BadInput
from contracts.locations import Locations
from contracts.settings import Deployment
from contracts.steps import VALIDATED_TABLES
from contracts.tables import owner_key
from validation.index import write_index
from validation.report import write_report
from validation.results import address_of, owner_of, record, refuse_failed
from validation.suites import judged_table
from validation.verdict import Acceptance, Verdict, report_path, require_verdict

MARKS = {"pass": "ok", "warn": "warn", "fail": "FAIL", "accepted": "accepted"}

commands = folder_group("validation")
_the_table = click.option("--table", required=True, metavar="TABLE", help="The table.")
_the_day = one_day("The day that names the report.", required=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; see `tributary validation --help`."""
    return run_line(commands, argv)


@commands.add("run", "The days of a range are judged together; the last one names the report.")
@with_home
@with_tables(f"May be repeated (default: {', '.join(VALIDATED_TABLES)}).")
@with_days
def _run(home: Path, days: list[date], tables: Sequence[str]) -> None:
    from lake.session import writing_session
    from validation.runner import require_builds, run_range

    locations, first, last = Locations(home), days[0], days[-1]
    tables = list(dict.fromkeys(tables or VALIDATED_TABLES))
    for table in tables:  # before a session is opened: it takes seconds
        require_builds(locations, table, first, last)
    verdicts: list[Verdict] = []
    partitions = {"quality_results": [owner_key(table_name=table, ds=last) for table in tables]}
    with writing_session(locations, app="validation", partitions=partitions) as spark:
        for table in tables:
            started = time.monotonic()
            print(f"{table}: judging {first}{'' if first == last else f' .. {last}'}", flush=True)
            verdict = run_range(spark, locations, table, first, last)
            write_report(locations, verdict)
            verdicts.append(verdict)
            print(
                f"{table}: {MARKS[verdict.status]}, {len(verdict.results)} checks on {verdict.rows:,} rows"
                f" in {time.monotonic() - started:.1f} s",
                flush=True,
            )
        record(spark, locations, verdicts)
    print(f"\nindex of all reports: {address_of(write_index(locations))}\n")
    _print_verdicts(locations, verdicts)
    refuse_failed(locations, verdicts)


def _print_verdicts(locations: Locations, verdicts: Sequence[Verdict]) -> None:
    for verdict in verdicts:
        print(
            f"{verdict.table:<18} {verdict.period:<24} {verdict.status:<9} {verdict.rows:>12,} rows  "
            f"{address_of(report_path(locations, verdict))}"
        )
    for verdict in verdicts:
        for result in (*verdict.failed("fail"), *verdict.failed("warn")):
            print(
                f"  {result.severity}: {verdict.table}: {result.id}: expected {result.expected}, found {result.found}"
            )
    if any(verdict.status == "warn" for verdict in verdicts):
        print("Warnings do not stop the day; look at the reports.")


@commands.add("index")
@with_home
def _index(home: Path) -> None:
    print(f"index of all reports: {address_of(write_index(Locations(home)))}")


@commands.add("show")
@with_home
@_the_table
@_the_day
def _show(home: Path, table: str, ds: date) -> None:
    locations = Locations(home)
    judged_table(table)
    verdict = require_verdict(locations, table, ds)
    print(
        f"{verdict.table}, {verdict.period}: {verdict.status}, {verdict.rows:,} rows, judged {verdict.run_ts:%Y-%m-%d %H:%M:%S} UTC"
    )
    if verdict.acceptance is not None:
        print(f"accepted {verdict.acceptance.accepted_ts:%Y-%m-%d %H:%M:%S} UTC: {verdict.acceptance.reason}")
    for result in verdict.results:
        mark = "ok" if result.success else result.severity.upper()
        print(f"{mark:<5} {result.id:<34} expected {result.expected}; found {result.found}")
    print(f"report: {address_of(report_path(locations, verdict))}")


@commands.add(
    "gate",
    "A refused A-CTR does not stop the chain: its fallback, the model of the day before under an id of its own, is "
    "released instead.",
)
@with_home
@with_period
def _gate(home: Path, kind: str, period: date) -> None:
    from validation.gate_command import gate

    Deployment.load(home).lineage.period(kind, period)
    gate(Locations(home), kind, period)


@commands.add("accept")
@with_home
@_the_table
@_the_day
@click.option("--reason", required=True, help="Why; shown in the report and kept in quality_results.")
def _accept(home: Path, table: str, ds: date, reason: str) -> None:
    from lake.session import writing_session

    locations = Locations(home)
    judged_table(table)
    if not reason.strip():
        raise BadInput("validation accept", "--reason", expected="a reason", found="nothing")
    verdict = require_verdict(locations, table, ds)
    if not verdict.failed("fail"):
        raise BadInput(
            "validation accept",
            "--ds",
            expected="a day with a failed check",
            found=f"{verdict.table}, {verdict.period}: {verdict.status}",
            hint="There is nothing to accept.",
        )
    accepted = replace(verdict, acceptance=Acceptance(reason=reason.strip(), accepted_ts=datetime.now(UTC)))
    partitions = {"quality_results": [owner_key(**owner_of(accepted))]}
    with writing_session(locations, app="validation", partitions=partitions) as spark:
        record(spark, locations, [accepted])
    path = write_report(locations, accepted)
    write_index(locations)
    print(f"{accepted.table}, {accepted.period}: accepted, until it is built again. Report: {address_of(path)}")
    days = (
        f"--ds {accepted.last_day}"
        if len(accepted.days) == 1
        else f"--from {accepted.first_day} --to {accepted.last_day}"
    )
    print(f"Go on with: tributary validation run --table {accepted.table} {days} (exits 0 now)")
