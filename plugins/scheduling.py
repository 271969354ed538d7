"""Registers the DAGs' timetable and priority strategy, which Airflow refuses unless a plugin names them."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from dags.dagkit.priority import ScheduledFirst
from dags.dagkit.timetable import PeriodTimetable


class SchedulingPlugin(AirflowPlugin):
    """Registers the timetable, which decides when runs are due, and the order of training tasks in the pool `gpu`."""

    name = "tributary_scheduling"
    timetables = [PeriodTimetable]  # noqa: RUF012
    priority_weight_strategies = [ScheduledFirst]  # noqa: RUF012
