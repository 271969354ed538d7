"""Options of the commands that start a stack."""

import click

from contracts.commands import together
from tributary.stack.machine import SPARK_PORT, UI_PORT

with_ports = together(
    click.option("--ui-port", type=int, default=UI_PORT, help="Airflow's UI and API."),
    click.option("--spark-port", type=int, default=SPARK_PORT, help="Spark Connect."),
)
