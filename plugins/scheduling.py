"""Tells Airflow of the DAGs' priority strategy, which it refuses unless a plugin names it."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from dags.dagkit.priority import ScheduledFirst


class SchedulingPlugin(AirflowPlugin):
    """The order of training tasks in the pool `gpu`."""

    name = "tributary_scheduling"
    priority_weight_strategies = [ScheduledFirst]  # noqa: RUF012
