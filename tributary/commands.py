"""`tributary up`, `down` and `status`: the stack on this machine."""

from __future__ import annotations

import subprocess
import sys

import click

from contracts.locations import Locations
from contracts.settings import Deployment, folder_python, home_folder, lake_address
from tributary import first_periods, stack
from tributary.own import own_command
from tributary.stack.components import ONLY
from tributary.stack.options import with_ports


@own_command("up")
@with_ports
@click.option(
    "--only", type=click.Choice(list(ONLY)), help="Start only this part of the stack; a later `up` adds the rest."
)
def up(ui_port: int, spark_port: int, only: str | None) -> None:
    """Starts the stack, or a part of it."""
    stack.up(home_folder(), ui_port=ui_port, spark_port=spark_port, only=only or "")


@own_command("down")
def down() -> None:
    """Ends the stack."""
    stack.down(home_folder())


@own_command("status")
@click.option(
    "--periods", is_flag=True, help="Instead: the first periods of the models, and the days of logs that they read."
)
def status(periods: bool) -> int:
    """Prints what runs, and what is stale."""
    home = home_folder()
    if periods:
        print(*first_periods.report(Deployment.load(home)), sep="\n")
        return 0
    print(stack.status(home))
    if lake_address() is None and not Locations(home).table("builds").is_dir():
        return 0
    print(flush=True)
    python = folder_python("spark_jobs") or sys.executable
    return subprocess.run([python, "-m", "spark_jobs", "list_stale", "--home", str(home)], check=False).returncode
