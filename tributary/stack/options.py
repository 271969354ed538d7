"""Options of the commands that start a stack."""

from __future__ import annotations

import click

from contracts.commands import Function
from tributary.stack.machine import SPARK_PORT, UI_PORT


def with_ports(function: Function) -> Function:
    """Gives a command `--ui-port` and `--spark-port`, and the function `ui_port` and `spark_port`."""
    return click.option("--ui-port", type=int, default=UI_PORT, help="Airflow's UI and API.")(
        click.option("--spark-port", type=int, default=SPARK_PORT, help="Spark Connect.")(function))
