"""Defaults of every DAG: schedule, first day, owner, retries, the form of a manual run."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from airflow.sdk import CronDataIntervalTimetable, Param

from contracts.periods import Cadence
from dags.dagkit.deployment import deployment

OWNER = "tributary"
GPU_POOL = "gpu"  # `tributary up` makes it; a pool that does not exist never runs anything
CALENDAR_CRON: dict[Cadence, str] = {"day": "0 0 * * *", "week": "0 0 * * 1", "month": "0 0 1 * *"}


def timetable(cadence: Cadence) -> CronDataIntervalTimetable:
    """Data intervals that begin at midnight of the deployment's days.

    A plain cron string would mean empty intervals in Airflow 3. Weeks and months that are not the calendar's tick daily,
    since no timetable counts from an anchor; the days that end none are skipped.
    """
    settings = deployment().periods
    return CronDataIntervalTimetable(CALENDAR_CRON[cadence if settings.is_calendar else "day"], timezone=deployment().day_timezone)


def defaults(cadence: Cadence, *, first_day: date | None = None) -> dict[str, Any]:
    """Arguments that every DAG of this cadence shares.

    Args:
        cadence: of its periods.
        first_day: the first day that it has anything to do with; `history_start` by default.
    """
    settings = deployment()
    first = settings.periods.containing(cadence, first_day or settings.history_start).start  # history may begin inside a month
    end = settings.history_end
    return {
        "schedule": timetable(cadence),
        "start_date": settings.day_start(first),
        "end_date": None if end is None else settings.day_start(end),
        "catchup": False,  # the past is made by backfills, which say how many days at a time
        "default_args": {
            "owner": OWNER,
            "retries": 2,
            "retry_delay": timedelta(seconds=20),
            "execution_timeout": timedelta(hours=6),
        },
        "params": {"ds": Param(None, type=["null", "string"], format="date",
                               title=f"ds: first day of the {cadence}",
                               description="For a manual run only. Leave it empty in a backfill: each run takes its own period.")},
        "tags": ["tributary", cadence],
    }
