"""Whose training goes first where several wait for the pool `gpu`."""

from __future__ import annotations

from typing import Any

from airflow.task.priority_strategy import PriorityWeightStrategy

BACKFILL = "backfill"
NEWEST, PAST = 100, 1


class ScheduledFirst(PriorityWeightStrategy):
    """Backfill runs behind all others: today's model does not queue behind a month of the past.

    Airflow knows it by the plugin `plugins/scheduling.py`; strategies that no plugin names are refused when a DAG is parsed.
    """

    def get_weight(self, ti: Any) -> int:
        # A run that a backfill makes again keeps its id: its type says more, where Airflow has loaded it.
        run = ti.__dict__.get("dag_run")
        run_type = ti.run_id.split("__")[0] if run is None else run.run_type
        return PAST if run_type == BACKFILL else NEWEST
