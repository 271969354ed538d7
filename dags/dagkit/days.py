"""Finds the period that a task's run stands for, by the rule in `contracts/runs.py`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from contracts.kinds import Cadence
from contracts.periods import Period
from contracts.runs import period_of_run
from contracts.settings import Deployment


def period_of_context(
    context: Mapping[str, Any], deployment: Deployment, cadence: Cadence, now: datetime
) -> Period | None:
    """Returns the period that a run stands for, as `contracts.runs.period_of_run` finds it.

    Args:
        context: the context that Airflow gives to the task.
        deployment: the deployment's settings.
        cadence: the cadence of the period.
        now: the present instant, with a time zone.

    Returns:
        The period, or None where no period of this cadence ends with the run's day.
    """
    run = context["dag_run"]
    return period_of_run(
        deployment=deployment,
        cadence=cadence,
        run_type=str(getattr(run.run_type, "value", run.run_type)),
        data_interval_start=run.data_interval_start,
        ds=context["params"].get("ds"),
        now=now,
    )
