"""Which period a run means: one answer for scheduled, backfilled and manual runs.

Never the clock, `logical_date` or `{{ ds }}`: a manual run of Airflow has the interval of the day *before* its logical
date, or none at all.
"""

from __future__ import annotations

from datetime import date, datetime

from contracts.errors import BadInput
from contracts.kinds import Cadence
from contracts.periods import Period
from contracts.settings import Deployment

MANUAL = "manual"


def period_of_run(
    *,
    deployment: Deployment,
    cadence: Cadence,
    run_type: str,
    data_interval_start: datetime | None,
    ds: str | None,
    now: datetime,
) -> Period | None:
    """The period that a run is to make.

    Args:
        deployment: the deployment's settings.
        cadence: the cadence of the DAG: day, week or month.
        run_type: Airflow's type of the run: scheduled, backfill, manual, ...
        data_interval_start: beginning of the run's data interval, with a time zone.
        ds: the run's parameter `ds`: first day of the period, given to manual runs only.
        now: the present instant, with a time zone.

    Returns:
        The period, or None for a daily run inside a week or month of a fixed number of days: there is nothing to do.

    Raises:
        BadInput: a manual run without `ds`, a scheduled or backfilled one with it, a day that begins no period, a
            period that has not ended, or one before `history_start`.
    """
    if run_type == MANUAL:
        period = _named_by_hand(deployment, cadence, ds)
    else:
        scheduled = _scheduled(deployment, cadence, run_type, data_interval_start, ds)
        if scheduled is None:
            return None
        period = scheduled
    if now < deployment.day_start(period.end):
        raise BadInput(
            "run",
            "period",
            expected=f"a {cadence} that ended before {now.astimezone(deployment.timezone):%Y-%m-%d %H:%M} "
            f"in {deployment.day_timezone}",
            found=period,
        )
    if not deployment.lineage.exists(period):
        raise BadInput(
            "run",
            "period",
            expected=f"a {cadence} with days from history_start {deployment.history_start} on",
            found=period,
        )
    return period


def _named_by_hand(deployment: Deployment, cadence: Cadence, ds: str | None) -> Period:
    if not ds:
        raise BadInput(
            "manual run",
            "ds",
            expected=f"the first day of a {cadence}, such as {deployment.history_start}",
            found="nothing",
            hint="Trigger again and fill in the field `ds`; the logical date is not used.",
        )
    try:
        day = date.fromisoformat(ds)
    except ValueError:
        raise BadInput("manual run", "ds", expected="a day such as 2026-01-31", found=repr(ds)) from None
    return deployment.periods.named(cadence, day)


def _scheduled(
    deployment: Deployment, cadence: Cadence, run_type: str, data_interval_start: datetime | None, ds: str | None
) -> Period | None:
    if ds:
        raise BadInput(
            f"{run_type} run",
            "ds",
            expected="nothing: each run takes its own period",
            found=ds,
            hint="`ds` is for manual runs; in a backfill it would make every run the same.",
        )
    if data_interval_start is None or data_interval_start.tzinfo is None:
        raise BadInput(
            f"{run_type} run",
            "data_interval_start",
            expected="an instant with a time zone",
            found=data_interval_start,
            hint="Start the DAG by its schedule, by a backfill, or by hand with `ds`.",
        )
    day = data_interval_start.astimezone(deployment.timezone).date()
    if cadence == "day" or deployment.periods.is_calendar:
        return deployment.periods.named(cadence, day)
    return deployment.periods.ends_on(cadence, day)
