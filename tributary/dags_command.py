"""`tributary dags`: backfill, trigger and watch the DAGs of the running stack."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import date
from functools import wraps
from typing import Any

import click

from contracts.commands import DAY, CommandGroup, Decorator, Function, run_line, span, table_text, together
from contracts.errors import BadInput
from contracts.kinds import RECIPES
from contracts.locations import Locations
from contracts.settings import home_folder
from contracts.steps import BOOTSTRAP, CADENCES, DAG_IDS
from contracts.transfer import TRANSFER_SETTINGS
from pages.files import read_stale
from tributary import stack
from tributary.airflow_api import AirflowApi, Run
from tributary.backfills import AD_MODEL, Spans, spans_of_days, start_all, table_of, wait_for_all
from tributary.own import DAGS, HOME, OWN

BY_PERIOD = tuple(CADENCES)

dags = CommandGroup("tributary dags", OWN["dags"].meaning, DAGS, params=[HOME])


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; see `tributary dags --help`."""
    return run_line(dags, argv)


def _command(name: str, more: str = "") -> Callable[[Function], click.Command]:
    """Makes a function of a client of the running stack's Airflow the command of this name."""

    def add(function: Function) -> click.Command:
        @wraps(function)
        def call(**options: Any) -> Any:
            if options.get("transfer") and options["dag_id"] not in (None, AD_MODEL):
                raise BadInput(
                    f"tributary dags {name} {options['dag_id']}",
                    "--transfer",
                    expected=f"none, or {AD_MODEL}",
                    found=options["transfer"],
                )
            return function(stack.api(home_folder()), **options)

        return dags.add(name, more, params=[HOME])(call)

    return add


def _dag(names: Sequence[str] = DAG_IDS, *, metavar: str = "DAG_ID", **attributes: Any) -> Decorator:
    """Gives a command the argument DAG_ID; `attributes` as click takes them."""
    return click.argument("dag_id", type=click.Choice(names), metavar=metavar, **attributes)


_with_form = together(  # of what starts runs: what their form has
    click.option("--recipe", type=click.Choice(RECIPES), help="Settings of the models (default: the deployment's)."),
    click.option(
        "--transfer",
        type=click.Choice(tuple(TRANSFER_SETTINGS)),
        metavar="SETTING",
        help=f"Of {AD_MODEL}: this one of the deployment's transfer settings only (default: all).",
    ),
    click.option("--no-wait", is_flag=True, help="Return as soon as Airflow knows."),
)


def _say(line: str) -> None:
    print(line, flush=True)


@_command("list")
def _list(api: AirflowApi) -> int:
    for dag in api.call("GET", "/dags", limit=100)["dags"]:
        print(f"{dag['dag_id']:<25}{'paused' if dag['is_paused'] else 'active':<8}{dag['timetable_description'] or ''}")
    errors = api.import_errors()
    for file, trace in errors.items():
        print(f"{file}: not importable\n{trace}", file=sys.stderr)
    return 1 if errors else 0


def _add_hold(name: str, *, paused: bool) -> None:
    @_command(name)
    @_dag(metavar="DAG_ID...", nargs=-1, required=True)
    def _(api: AirflowApi, dag_id: Sequence[str]) -> None:
        for one in dag_id:
            api.set_paused(one, paused)
            print(f"{one}: {'paused' if paused else 'active'}")


_add_hold("unpause", paused=False)
_add_hold("pause", paused=True)


@_command(
    "backfill",
    "With a DAG: its periods from the one that begins on --from to the one that begins on --to. Without one: whatever "
    "the schedule would have made on these days, of every DAG.",
)
@_dag(BY_PERIOD, metavar="[DAG_ID]", required=False)
@span(
    "First period (its first day), or first day.", "Last period (its first day), or last day, included.", required=True
)
@click.option("--max-active-runs", type=int, default=1, help="Periods of a DAG at a time.")
@click.option("--backwards", is_flag=True, help="Newest first; refused by DAGs whose days are chained.")
@click.option(
    "--reprocess",
    type=click.Choice(("none", "failed", "completed")),
    default="failed",
    help="What to do besides the missing runs: nothing, failed runs, or all runs.",
)
@_with_form
def _backfill(api: AirflowApi, *, dag_id: str | None, first: date, last: date, no_wait: bool, **how: Any) -> int:
    spans = {dag_id: (first, last)} if dag_id else spans_of_days(api.deployment, first, last)
    if not spans:
        raise BadInput(
            "tributary dags backfill",
            "--to",
            expected=f"days with logs, from {api.deployment.history_start} on",
            found=f"{first} .. {last}",
        )
    start_all(api, spans, say=_say, **how)
    return 0 if no_wait else _wait_and_report(api, spans)


def _wait_and_report(api: AirflowApi, spans: Spans) -> int:
    """Waits for all runs; ends with a table, and with the logs of those that failed and what to run again."""
    ended = wait_for_all(api, spans, at_first_failure=False, say=_say)
    print(f"\n{table_of(ended)}")
    failed = [run for one in ended for run in one.failed]
    for run in failed:
        print(f"\n{run.dag_id} {run.period}: failed.\n{api.failures(run.dag_id, run.run_id)}", file=sys.stderr)
    if failed:
        again = sorted(
            {
                f"tributary dags backfill {run.dag_id} --from {run.period} --to {run.period} --reprocess failed"
                for run in failed
            }
        )
        print("\nonce their causes are repaired:", *again, sep="\n  ", file=sys.stderr)
    return 1 if failed else 0


@_command("repair")
def _repair(api: AirflowApi) -> int:
    code = subprocess.run([sys.executable, "-m", "spark_jobs", "repair"], check=False).returncode
    if code:
        return code
    found = read_stale(Locations(home_folder()).stale_found)
    assert found is not None, "a repair leaves what is still stale"
    spans = {dag: (first, last) for dag, first, last in found.periods}
    if not spans:
        print("no model has to be rebuilt")
        return 0
    start_all(api, spans, reprocess="completed", say=_say)
    return _wait_and_report(api, spans)


@_command("trigger")
@_dag()
@click.option("--period", type=DAY, help="First day of the period.")
@span(f"First day of a range, of {BOOTSTRAP}.", "Last day of the range, included.")
@_with_form
def _trigger(
    api: AirflowApi,
    *,
    dag_id: str,
    period: date | None,
    first: date | None,
    last: date | None,
    no_wait: bool,
    **form: str | None,
) -> None:
    days = {"period": period, "from": first, "to": last}
    wanted = {"period"} if dag_id in BY_PERIOD else {"from", "to"} if dag_id == BOOTSTRAP else set()
    given = {name for name, value in days.items() if value is not None}
    if given != wanted:
        raise BadInput(f"tributary dags trigger {dag_id}", "days", expected=_options(wanted), found=_options(given))
    api.unpause(dag_id)
    run_id = api.trigger(dag_id, _conf(ds=period, **{"from": first, "to": last}, **form))
    print(f"{dag_id}: {api.address}/dags/{dag_id}/runs/{run_id}")
    if not no_wait:
        api.wait_for_run(dag_id, run_id, say=_say)


def _options(names: set[str]) -> str:
    return " ".join(f"--{name}" for name in sorted(names)) or "none"


def _conf(**fields: object) -> dict[str, str]:
    """Fields of a run's form, without those that were not given."""
    return {name: str(value) for name, value in fields.items() if value is not None}


@_command("runs")
@_dag()
@span("First day.", "Last day, included.")
def _runs(api: AirflowApi, dag_id: str, first: date | None, last: date | None) -> None:
    for run in api.runs(dag_id, first, last):
        seconds = "" if run.seconds is None else f"{run.seconds:8.1f} s"
        print(f"{run.period!s:<12}{run.state:<10}{run.run_type:<12}{seconds}  {run.run_id}")


_with_run = together(  # of what is about one run: which
    _dag(),
    click.option("--period", type=DAY, help="First day of the period; of several runs of it, the newest."),
    click.option("--run", "run_id", metavar="RUN_ID", help="The run, as `runs` lists it; for DAGs without a period."),
)


def _run_of(api: AirflowApi, name: str, dag_id: str, period: date | None, run_id: str | None) -> Run:
    """The run that the options name.

    Raises:
        BadInput: neither or both options, or a period without a run.
    """
    where = f"tributary dags {name} {dag_id}"
    if (period is None) == (run_id is None):
        options = "--run" if dag_id not in BY_PERIOD else "either --period or --run"
        given = "both" if period else "neither"
        raise BadInput(
            where, "run", expected=options, found=given, hint=f"`tributary dags runs {dag_id}` lists the runs."
        )
    if run_id is not None:
        return api.run(dag_id, run_id)
    if dag_id not in BY_PERIOD:
        raise BadInput(where, "--period", expected="--run, since this DAG has no periods", found=period)
    assert period is not None
    runs = api.runs_of_period(dag_id, period)
    if not runs:
        raise BadInput(
            where,
            "--period",
            expected="a period with a run",
            found=period,
            hint=f"`tributary dags backfill {dag_id} --from {period} --to {period}` makes one.",
        )
    return runs[-1]


def _tasks_text(api: AirflowApi, run: Run) -> str:
    rows = [
        (
            task["task_id"],
            task["state"] or "to come",
            task["try_number"],
            "" if task["duration"] is None else f"{task['duration']:.1f}",
            (task["start_date"] or "")[:19].replace("T", " "),
        )
        for task in sorted(api.tasks(run.dag_id, run.run_id), key=lambda task: task["start_date"] or "~")
    ]
    return f"{run.dag_id} {run.run_id}: {run.state}\n\n" + table_text(
        ("task", "state", "try", "seconds", "began (UTC)"), rows
    )


@_command("tasks")
@_with_run
def _tasks(api: AirflowApi, **which: Any) -> None:
    print(_tasks_text(api, _run_of(api, "tasks", **which)))


@_command("logs", "Without the lines that Airflow adds to every log.")
@_with_run
@click.argument("task_id", metavar="TASK")
@click.option("--try", "try_number", type=click.IntRange(min=1), metavar="N", help="Which try (default: the last).")
def _logs(api: AirflowApi, *, task_id: str, try_number: int | None, **which: Any) -> None:
    run = _run_of(api, "logs", **which)
    tries = {task["task_id"]: task["try_number"] for task in api.tasks(run.dag_id, run.run_id)}
    where = f"tributary dags logs {run.dag_id}"
    if task_id not in tries:
        raise BadInput(where, "TASK", expected=f"one of {', '.join(tries)}", found=task_id)
    last = tries[task_id]
    if not last:
        raise BadInput(
            where, "TASK", expected="a task that has begun", found=f"{task_id}, which has not, in {run.run_id}"
        )
    if try_number is not None and try_number > last:
        raise BadInput(where, "--try", expected=f"1 .. {last}", found=try_number)
    print(*api.log(run.dag_id, run.run_id, task_id, try_number or last), sep="\n")


@_command(
    "stop",
    "Its running tasks are ended, those to come are skipped. Runs that wait for it go on as after a run that has failed.",
)
@_with_run
def _stop(api: AirflowApi, **which: Any) -> None:
    run = _run_of(api, "stop", **which)
    if not run.is_unfinished:
        raise BadInput(
            f"tributary dags stop {run.dag_id}",
            "run",
            expected="one that runs or waits",
            found=f"{run.run_id}: {run.state}",
        )
    api.stop(run.dag_id, run.run_id)
    print(_tasks_text(api, api.run(run.dag_id, run.run_id)))
    again = (
        f"backfill {run.dag_id} --from {run.period} --to {run.period} --reprocess failed"
        if run.period
        else f"trigger {run.dag_id}"
    )
    print(f"\nits running tasks end within seconds; to run it again: tributary dags {again}")
