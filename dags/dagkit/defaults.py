"""Defaults of every DAG: schedule, first day, owner, retries, the deadline of a run, and the form by which a person starts one."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from airflow.sdk import Param

from contracts.kinds import RECIPES, Cadence
from contracts.transfer import ALL_SETTINGS
from dags.dagkit.deployment import deployment
from dags.dagkit.notify import late_after, task_failed
from dags.dagkit.timetable import PeriodTimetable

OWNER = "tributary"
GPU_POOL = "gpu"  # `tributary up` creates it: Airflow never runs a task whose pool does not exist.
RECIPE, TRANSFER = "recipe", "transfer"
LATE_AFTER: dict[Cadence, timedelta] = {
    "day": timedelta(hours=8),
    "week": timedelta(hours=24),
    "month": timedelta(hours=48),
}


def timetable(cadence: Cadence) -> PeriodTimetable:
    """Returns a timetable whose data intervals begin at midnight of the deployment's days.

    A plain cron string would mean empty intervals in Airflow 3. Weeks and months that are blocks of days run daily,
    since no timetable counts from an anchor; the days that end no block are skipped.
    """
    settings = deployment().periods
    return PeriodTimetable(cadence if settings.is_calendar else "day", deployment().day_timezone)


def task_defaults() -> dict[str, Any]:
    """Returns the arguments of every task.

    A failure that may be gone at the next try is retried; a data error is not (`dagkit.commands`).
    """
    return {
        "owner": OWNER,
        "retries": 2,
        "retry_delay": timedelta(seconds=20),
        "execution_timeout": timedelta(hours=6),
        "on_failure_callback": task_failed,
    }


def defaults(
    cadence: Cadence, *, first_day: date | None = None, trains: bool = False, transfers: bool = False
) -> dict[str, Any]:
    """Returns the arguments that all DAGs of a cadence share.

    Args:
        cadence: the cadence of the DAG's periods.
        first_day: a day of the DAG's first period; the deployment's `history_start` by default.
        trains: whether a person may choose a recipe for a run.
        transfers: whether a person may choose a transfer setting for a run.
    """
    settings = deployment()
    first = settings.periods.containing(
        cadence, first_day or settings.history_start
    ).start  # The history may begin inside a month.
    end = settings.history_end
    return {
        "schedule": timetable(cadence),
        "start_date": settings.day_start(first),
        "end_date": None if end is None else settings.day_start(end),
        "catchup": False,  # Past days are made by backfills, which limit how many days run at a time.
        "default_args": task_defaults(),
        "deadline": late_after(LATE_AFTER[cadence]),
        "params": {
            "ds": Param(
                None,
                type=["null", "string"],
                format="date",
                title=f"ds: first day of the {cadence}",
                description="For a manual run only. Leave it empty in a backfill: each run takes its own period.",
            ),
            **({RECIPE: _recipe()} if trains else {}),
            **({TRANSFER: _transfer()} if transfers else {}),
        },
        "tags": ["tributary", cadence, *(["model"] if trains else [])],
    }


def _recipe() -> Param:
    return Param(
        deployment().recipe,
        type="string",
        enum=list(RECIPES),
        title="recipe: settings of the models",
        description="Use one recipe for a whole chain: a model cannot continue from a model whose shapes differ.",
    )


def _transfer() -> Param:
    return Param(
        ALL_SETTINGS,
        type="string",
        enum=[ALL_SETTINGS, *deployment().variants],
        title="transfer: setting of the ad model",
        description="A setting continues from its own model of the day before; the day after needs every setting that it makes.",
    )
