"""The names of the command's own sub-commands, and how each reads its arguments. Imported by all of them, so it imports none."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

OWN: dict[str, str] = {
    "init": "write a deployment's settings",
    "up": "start PostgreSQL, Spark Connect and Airflow on this machine",
    "down": "end them",
    "status": "say what runs, and where",
    "dags": "backfill, trigger and watch the DAGs of the running stack",
    "demo": "the whole platform on made or real logs, from nothing",
    "drill": "kill parts of a stack of its own at random, and see that nothing is lost",
    "forget": "delete every trace of a user: landing files, tables and their old versions, models",
    "compose-env": "write the secrets of the stack in containers (docker-compose.yml) into .env",
}


def own_parser(name: str) -> argparse.ArgumentParser:
    """A parser of one own command; `--home` has been taken from the arguments already, wherever it stood."""
    import argparse

    return argparse.ArgumentParser(prog=f"tributary {name}", description=f"{OWN[name]}.",
                                   epilog="--home FOLDER is the deployment's folder: TRIBUTARY_HOME by default, else ./tributary-home.")


def set_home(folder: str) -> None:
    from contracts.settings import HOME_VARIABLE

    os.environ[HOME_VARIABLE] = os.path.abspath(os.path.expanduser(folder))
