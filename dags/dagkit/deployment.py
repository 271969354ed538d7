"""Reads the deployment's settings once when a DAG file is parsed: a timetable needs the time zone and the first day."""

from __future__ import annotations

from functools import cache

from contracts.settings import Deployment, home_folder


@cache
def deployment() -> Deployment:
    """Returns the settings of the deployment that this Airflow works for.

    Raises:
        BadInput: there is no deployment.toml. Airflow shows this as the import error of the DAG file, and the message
            names the variable to set; a DAG with default settings would run the wrong days instead.
    """
    return Deployment.load(home_folder())
