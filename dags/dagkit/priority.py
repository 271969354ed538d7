"""Decides whose training goes first where several tasks wait for the pool `gpu`."""

from __future__ import annotations

from typing import Any

from airflow.task.priority_strategy import PriorityWeightStrategy

BACKFILL = "backfill"
NEWEST, PAST = 100, 1


class ScheduledFirst(PriorityWeightStrategy):
    """Puts the runs of backfills after all others, so that today's model does not queue behind a month of past days.

    `plugins/scheduling.py` registers this strategy; Airflow refuses one that no plugin names when it parses a DAG.
    """

    def get_weight(self, ti: Any) -> int:
        """Returns the weight of a task instance: the highest starts first."""
        # A scheduled run that a backfill reprocesses keeps its id, so the run's type is more reliable where Airflow has
        # loaded it.
        run = ti.__dict__.get("dag_run")
        run_type = ti.run_id.split("__")[0] if run is None else run.run_type
        return PAST if run_type == BACKFILL else NEWEST
