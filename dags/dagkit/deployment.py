"""The deployment, read once when a DAG file is parsed: a timetable needs its time zone and its first day."""

from __future__ import annotations

from functools import cache

from contracts.settings import Deployment, home_folder


@cache
def deployment() -> Deployment:
    """Settings of the deployment that this Airflow works for.

    Raises:
        BadInput: no deployment.toml. Airflow shows it as the file's import error, which names the variable to set; a DAG
            made up from defaults would run the wrong days instead.
    """
    return Deployment.load(home_folder())
