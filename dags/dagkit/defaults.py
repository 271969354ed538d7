"""Defaults of every DAG: schedule, first day, owner, retries, when a run is late, the form of a run."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from airflow.sdk import Param

from contracts.kinds import RECIPES
from contracts.periods import Cadence
from contracts.transfer import ALL_SETTINGS
from dags.dagkit.deployment import deployment
from dags.dagkit.notify import late_after, task_failed
from dags.dagkit.timetable import PeriodTimetable

OWNER = "tributary"
GPU_POOL = "gpu"  # `tributary up` makes it; a pool that does not exist never runs anything
RECIPE, TRANSFER = "recipe", "transfer"
LATE_AFTER: dict[Cadence, timedelta] = {"day": timedelta(hours=8), "week": timedelta(hours=24), "month": timedelta(hours=48)}


def timetable(cadence: Cadence) -> PeriodTimetable:
    """Data intervals that begin at midnight of the deployment's days.

    A plain cron string would mean empty intervals in Airflow 3. Weeks and months that are not the calendar's tick daily,
    since no timetable counts from an anchor; the days that end none are skipped.
    """
    settings = deployment().periods
    return PeriodTimetable(cadence if settings.is_calendar else "day", deployment().day_timezone)


def task_defaults() -> dict[str, Any]:
    """Arguments of every task. What failed for a reason that another try may not meet is tried again; data errors are not
    (`dagkit.commands`)."""
    return {
        "owner": OWNER,
        "retries": 2,
        "retry_delay": timedelta(seconds=20),
        "execution_timeout": timedelta(hours=6),
        "on_failure_callback": task_failed,
    }


def defaults(cadence: Cadence, *, first_day: date | None = None, trains: bool = False,
             transfers: bool = False) -> dict[str, Any]:
    """Arguments that every DAG of this cadence shares.

    Args:
        cadence: of its periods.
        first_day: the first day that it has anything to do with; `history_start` by default.
        trains: whether its runs take a recipe.
        transfers: whether its runs take a transfer setting.
    """
    settings = deployment()
    first = settings.periods.containing(cadence, first_day or settings.history_start).start  # history may begin inside a month
    end = settings.history_end
    return {
        "schedule": timetable(cadence),
        "start_date": settings.day_start(first),
        "end_date": None if end is None else settings.day_start(end),
        "catchup": False,  # the past is made by backfills, which say how many days at a time
        "default_args": task_defaults(),
        "deadline": late_after(LATE_AFTER[cadence]),
        "params": {"ds": Param(None, type=["null", "string"], format="date",
                               title=f"ds: first day of the {cadence}",
                               description="For a manual run only. Leave it empty in a backfill: each run takes its own period."),
                   **({RECIPE: _recipe()} if trains else {}), **({TRANSFER: _transfer()} if transfers else {})},
        "tags": ["tributary", cadence, *(["model"] if trains else [])],
    }


def _recipe() -> Param:
    return Param(deployment().recipe, type="string", enum=list(RECIPES), title="recipe: settings of the models",
                 description="The same for a whole chain: what goes on from a model of another recipe's shapes is refused by name.")


def _transfer() -> Param:
    return Param(ALL_SETTINGS, type="string", enum=[ALL_SETTINGS, *deployment().variants], title="transfer: setting of the ad model",
                 description="One alone goes on from its own of the day before; the day after needs it of every setting that it makes.")
