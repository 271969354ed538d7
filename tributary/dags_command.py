"""`tributary dags`: backfill, trigger and watch the DAGs of the running stack."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence

from contracts.commands import day
from contracts.errors import BadInput
from contracts.kinds import RECIPES
from contracts.locations import Locations
from contracts.settings import home_folder
from contracts.steps import BOOTSTRAP, CADENCES, DAG_IDS
from contracts.transfer import TRANSFER_SETTINGS
from pages.files import read_stale
from tributary.airflow_api import AirflowApi
from tributary.backfills import AD_MODEL, Spans, spans_of_days, start_all, table_of, wait_for_all
from tributary.own import own_parser

BY_PERIOD = tuple(CADENCES)


def main(argv: Sequence[str] | None = None) -> int:
    from tributary import stack

    parser = own_parser("dags")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="DAGs, whether they are paused, and files that could not be imported")
    for name, text in (("unpause", "let a DAG run"), ("pause", "hold a DAG")):
        one = commands.add_parser(name, help=text)
        one.add_argument("dag_id", nargs="+", choices=DAG_IDS, metavar="dag_id")
    backfill = commands.add_parser("backfill", help="run all periods of a range, of one DAG or of all",
                                   description="With a DAG: its periods from the one that begins on --from to the one that begins on --to. "
                                   "Without one: whatever the schedule would have made on these days, of every DAG.")
    backfill.add_argument("dag_id", nargs="?", choices=BY_PERIOD, metavar="dag_id", help="all DAGs by default")
    backfill.add_argument("--from", dest="first", type=day, required=True, help="first period (its first day), or first day")
    backfill.add_argument("--to", dest="last", type=day, required=True, help="last period (its first day), or last day, inclusive")
    backfill.add_argument("--max-active-runs", type=int, default=1, help="periods of a DAG at a time (default 1)")
    backfill.add_argument("--backwards", action="store_true", help="newest first; refused by DAGs whose days are chained")
    backfill.add_argument("--reprocess", choices=("none", "failed", "completed"), default="failed",
                          help="what to do beside the missing runs: nothing, failed runs (default), or all runs")
    _add_form(backfill)
    backfill.add_argument("--no-wait", action="store_true", help="return as soon as Airflow knows")
    commands.add_parser("mend", help="build stale days again, and then the models that rest on what changed")
    trigger = commands.add_parser("trigger", help="run one period by hand, or a DAG that has none")
    trigger.add_argument("dag_id", choices=DAG_IDS, metavar="dag_id")
    trigger.add_argument("--ds", type=day, help="first day of the period")
    trigger.add_argument("--from", dest="first", type=day, help=f"first day of a range, of {BOOTSTRAP}")
    trigger.add_argument("--to", dest="last", type=day, help="last day of the range, included")
    _add_form(trigger)
    trigger.add_argument("--no-wait", action="store_true", help="return as soon as Airflow knows")
    runs = commands.add_parser("runs", help="runs of a DAG")
    runs.add_argument("dag_id", choices=DAG_IDS, metavar="dag_id")
    runs.add_argument("--from", dest="first", type=day, help="first day")
    runs.add_argument("--to", dest="last", type=day, help="last day")
    options = parser.parse_args(argv)
    if getattr(options, "transfer", None) and options.dag_id not in (None, AD_MODEL):
        raise BadInput(f"tributary dags {options.command} {options.dag_id}", "--transfer", expected=f"none, or {AD_MODEL}",
                       found=options.transfer)
    api = stack.api(home_folder())
    return {"list": _list, "pause": _pause, "unpause": _pause, "backfill": _backfill, "mend": _mend, "trigger": _trigger, "runs": _runs}[
        options.command](api, options)


def _add_form(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--recipe", choices=RECIPES, help="settings of the models (default: the deployment's)")
    parser.add_argument("--transfer", choices=TRANSFER_SETTINGS, metavar="SETTING",
                        help=f"of {AD_MODEL}: this one of the deployment's transfer settings alone (default: all)")


def _say(line: str) -> None:
    print(line, flush=True)


def _list(api: AirflowApi, options: argparse.Namespace) -> int:
    for dag in api.call("GET", "/dags", limit=100)["dags"]:
        print(f"{dag['dag_id']:<25}{'paused' if dag['is_paused'] else 'active':<8}{dag['timetable_description'] or ''}")
    errors = api.import_errors()
    for file, trace in errors.items():
        print(f"{file}: not importable\n{trace}", file=sys.stderr)
    return 1 if errors else 0


def _pause(api: AirflowApi, options: argparse.Namespace) -> int:
    for dag_id in options.dag_id:
        api.set_paused(dag_id, options.command == "pause")
        print(f"{dag_id}: {'paused' if options.command == 'pause' else 'active'}")
    return 0


def _backfill(api: AirflowApi, options: argparse.Namespace) -> int:
    first, last = options.first, options.last
    spans = {options.dag_id: (first, last)} if options.dag_id else spans_of_days(api.deployment, first, last)
    if not spans:
        raise BadInput("tributary dags backfill", "--to", expected=f"days with logs, from {api.deployment.history_start} on",
                       found=f"{first} .. {last}")
    start_all(api, spans, max_active_runs=options.max_active_runs, reprocess=options.reprocess,
              backwards=options.backwards, recipe=options.recipe, transfer=options.transfer, say=_say)
    return 0 if options.no_wait else _wait_and_tell(api, spans)


def _wait_and_tell(api: AirflowApi, spans: Spans) -> int:
    """Waits for all runs; ends with a table, and with the logs of those that failed and what to run again."""
    ended = wait_for_all(api, spans, at_first_failure=False, say=_say)
    print(f"\n{table_of(ended)}")
    failed = [run for one in ended for run in one.failed]
    for run in failed:
        print(f"\n{run.dag_id} {run.period}: failed.\n{api.failures(run.dag_id, run.run_id)}", file=sys.stderr)
    if failed:
        again = sorted({f"tributary dags backfill {run.dag_id} --from {run.period} --to {run.period} --reprocess failed" for run in failed})
        print("\nwhen their causes are mended:", *again, sep="\n  ", file=sys.stderr)
    return 1 if failed else 0


def _mend(api: AirflowApi, _: argparse.Namespace) -> int:
    code = subprocess.run([sys.executable, "-m", "spark_jobs", "mend"], check=False).returncode
    if code:
        return code
    found = read_stale(Locations(home_folder()).stale_found)
    assert found is not None, "mending leaves what is still stale"
    spans = {dag: (first, last) for dag, first, last in found.periods}
    if not spans:
        print("no model has to be made again")
        return 0
    start_all(api, spans, reprocess="completed", say=_say)
    return _wait_and_tell(api, spans)


def _trigger(api: AirflowApi, options: argparse.Namespace) -> int:
    days = {"ds": options.ds, "from": options.first, "to": options.last}
    wanted = {"ds"} if options.dag_id in BY_PERIOD else {"from", "to"} if options.dag_id == BOOTSTRAP else set()
    given = {name for name, value in days.items() if value is not None}
    if given != wanted:
        raise BadInput(f"tributary dags trigger {options.dag_id}", "days", expected=_options(wanted), found=_options(given))
    api.unpause(options.dag_id)
    run_id = api.trigger(options.dag_id, _conf(**days, recipe=options.recipe, transfer=options.transfer))
    print(f"{options.dag_id}: {api.address}/dags/{options.dag_id}/runs/{run_id}")
    if not options.no_wait:
        api.wait_for_run(options.dag_id, run_id, say=_say)
    return 0


def _options(names: set[str]) -> str:
    return " ".join(f"--{name}" for name in sorted(names)) or "none"


def _conf(**fields: object) -> dict[str, str]:
    """Fields of a run's form, without those that were not given."""
    return {name: str(value) for name, value in fields.items() if value is not None}


def _runs(api: AirflowApi, options: argparse.Namespace) -> int:
    for run in api.runs(options.dag_id, options.first, options.last):
        seconds = "" if run.seconds is None else f"{run.seconds:8.1f} s"
        print(f"{run.period!s:<12}{run.state:<10}{run.run_type:<12}{seconds}  {run.run_id}")
    return 0
