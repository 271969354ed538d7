"""Which period a task's run means; the rule itself: contracts/runs.py."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from contracts.periods import Cadence, Period
from contracts.runs import period_of_run
from contracts.settings import Deployment


def period_of_context(context: Mapping[str, Any], deployment: Deployment, cadence: Cadence, now: datetime) -> Period | None:
    """`period_of_run` from a task's context."""
    run = context["dag_run"]
    return period_of_run(deployment=deployment, cadence=cadence, run_type=str(getattr(run.run_type, "value", run.run_type)),
                         data_interval_start=run.data_interval_start, ds=context["params"].get("ds"), now=now)
