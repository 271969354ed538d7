"""`tributary validation`: judge tables and days, look at what was found, accept a failed day; judge models."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

from contracts.commands import add_command
from contracts.errors import BadInput
from contracts.kinds import KINDS
from contracts.locations import Locations
from contracts.settings import Deployment, home_folder
from contracts.steps import VALIDATED_TABLES
from contracts.tables import owner_key
from validation.index import write_index
from validation.report import write_report
from validation.results import address_of, owner_of, record, refuse_failed
from validation.suites import judged_table
from validation.verdict import Acceptance, Verdict, report_path, require_verdict

MARKS = {"pass": "ok", "warn": "warn", "fail": "FAIL", "accepted": "accepted"}


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    locations = Locations(arguments.home.resolve() if arguments.home else home_folder())
    code: int = arguments.command(locations, arguments)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tributary validation", description=__doc__)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--home", type=Path, help="the deployment's folder (default: TRIBUTARY_HOME, else ./tributary-home)")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = add_command(commands, "validation", "run", parents=[common],
                              description="Judges tables of one day, or of a range of days together, and writes a report of each.")
    run.add_argument("--table", action="append", metavar="TABLE", help=f"may be repeated (default: {', '.join(VALIDATED_TABLES)})")
    run.add_argument("--ds", type=_day, metavar="DAY", help="the day, such as 2026-01-31")
    run.add_argument("--from", dest="first", type=_day, metavar="DAY", help="first day of a range, judged together")
    run.add_argument("--to", dest="last", type=_day, metavar="DAY", help="last day of the range, inclusive; it names the report")
    run.set_defaults(command=_run)

    index = add_command(commands, "validation", "index", parents=[common])
    index.set_defaults(command=_index)

    show = add_command(commands, "validation", "show", parents=[common])
    _add_one_day(show)
    show.set_defaults(command=_show)

    accept = add_command(commands, "validation", "accept", parents=[common])
    _add_one_day(accept)
    accept.add_argument("--reason", required=True, help="why; shown in the report and kept in quality_results")
    accept.set_defaults(command=_accept)

    gate = add_command(commands, "validation", "gate", parents=[common],
                               description="Judges the staged models of a period. A refused A-CTR does not stop the chain: its fallback, "
                                           "the model of the day before under an id of its own, is released instead.")
    gate.add_argument("--kind", required=True, choices=tuple(KINDS))
    gate.add_argument("--period", type=_day, required=True, metavar="DAY", help="first day of the period")
    gate.set_defaults(command=_gate)
    return parser


def _add_one_day(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--table", required=True, metavar="TABLE")
    parser.add_argument("--ds", type=_day, required=True, metavar="DAY", help="the day that names the report")


def _day(value: str) -> date:
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a day such as 2026-01-31, found {value!r}") from None


def _run(locations: Locations, arguments: argparse.Namespace) -> int:
    from lake.session import writing_session
    from validation.runner import require_builds, run_range

    first, last = _days(arguments)
    tables = list(dict.fromkeys(arguments.table or VALIDATED_TABLES))
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
            print(f"{table}: {MARKS[verdict.status]}, {len(verdict.results)} checks on {verdict.rows:,} rows"
                  f" in {time.monotonic() - started:.1f} s", flush=True)
        record(spark, locations, verdicts)
    print(f"\nindex of all reports: {address_of(write_index(locations))}\n")
    _print_verdicts(locations, verdicts)
    refuse_failed(locations, verdicts)
    return 0


def _days(arguments: argparse.Namespace) -> tuple[date, date]:
    """The days asked for.

    Raises:
        BadInput: neither one day nor a whole range was given, or both.
    """
    given = (arguments.ds is not None, arguments.first is not None, arguments.last is not None)
    if given == (True, False, False):
        return arguments.ds, arguments.ds
    if given == (False, True, True):
        return arguments.first, arguments.last
    names = [name for name, there in zip(("--ds", "--from", "--to"), given, strict=True) if there]
    raise BadInput("validation run", "days", expected="either --ds DAY, or --from DAY and --to DAY", found=" ".join(names) or "neither")


def _print_verdicts(locations: Locations, verdicts: Sequence[Verdict]) -> None:
    for verdict in verdicts:
        print(f"{verdict.table:<18} {verdict.period:<24} {verdict.status:<9} {verdict.rows:>12,} rows  "
              f"{address_of(report_path(locations, verdict))}")
    for verdict in verdicts:
        for result in (*verdict.failed("fail"), *verdict.failed("warn")):
            print(f"  {result.severity}: {verdict.table}: {result.id}: expected {result.expected}, found {result.found}")
    if any(verdict.status == "warn" for verdict in verdicts):
        print("Warnings do not stop the day; look at the reports.")


def _index(locations: Locations, arguments: argparse.Namespace) -> int:
    print(f"index of all reports: {address_of(write_index(locations))}")
    return 0


def _show(locations: Locations, arguments: argparse.Namespace) -> int:
    judged_table(arguments.table)
    verdict = require_verdict(locations, arguments.table, arguments.ds)
    print(f"{verdict.table}, {verdict.period}: {verdict.status}, {verdict.rows:,} rows, judged {verdict.run_ts:%Y-%m-%d %H:%M:%S} UTC")
    if verdict.acceptance is not None:
        print(f"accepted {verdict.acceptance.accepted_ts:%Y-%m-%d %H:%M:%S} UTC: {verdict.acceptance.reason}")
    for result in verdict.results:
        mark = "ok" if result.success else result.severity.upper()
        print(f"{mark:<5} {result.id:<34} expected {result.expected}; found {result.found}")
    print(f"report: {address_of(report_path(locations, verdict))}")
    return 0


def _gate(locations: Locations, arguments: argparse.Namespace) -> int:
    from validation.gate_command import gate

    Deployment.load(locations.home).lineage.period(arguments.kind, arguments.period)
    gate(locations, arguments.kind, arguments.period)
    return 0


def _accept(locations: Locations, arguments: argparse.Namespace) -> int:
    from lake.session import writing_session

    judged_table(arguments.table)
    if not arguments.reason.strip():
        raise BadInput("validation accept", "--reason", expected="a reason", found="nothing")
    verdict = require_verdict(locations, arguments.table, arguments.ds)
    if not verdict.failed("fail"):
        raise BadInput("validation accept", "--ds", expected="a day with a failed check",
                       found=f"{verdict.table}, {verdict.period}: {verdict.status}", hint="There is nothing to accept.")
    accepted = replace(verdict, acceptance=Acceptance(reason=arguments.reason.strip(), accepted_ts=datetime.now(UTC)))
    partitions = {"quality_results": [owner_key(**owner_of(accepted))]}
    with writing_session(locations, app="validation", partitions=partitions) as spark:
        record(spark, locations, [accepted])
    path = write_report(locations, accepted)
    write_index(locations)
    print(f"{accepted.table}, {accepted.period}: accepted, until it is built again. Report: {address_of(path)}")
    days = f"--ds {accepted.last_day}" if len(accepted.days) == 1 else f"--from {accepted.first_day} --to {accepted.last_day}"
    print(f"Go on with: tributary validation run --table {accepted.table} {days} (exits 0 now)")
    return 0
