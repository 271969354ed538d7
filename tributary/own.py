"""The command's own sub-commands as they are declared, and how each finds its deployment. Imported by all of them, so it imports none."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import click

from contracts.commands import HOME_HELP, Function, texts_of


@dataclass(frozen=True)
class Own:
    """A sub-command.

    Attributes:
        meaning: one line for people.
        example: a command line to try.
        module: where it is written, imported when it is asked for; nothing for those of `dags`.
    """

    meaning: str
    example: str
    module: str = ""


OWN: dict[str, Own] = {
    "init": Own("write a deployment's settings", "tributary init --history-start 2026-01-01 --actr-start 2026-03-02", "tributary.init"),
    "up": Own("start PostgreSQL, Spark Connect and Airflow on this machine", "tributary up --home tributary-home", "tributary.commands"),
    "down": Own("end them", "tributary down --home tributary-home", "tributary.commands"),
    "status": Own("say what runs, and where", "tributary status --home tributary-home", "tributary.commands"),
    "dags": Own("backfill, trigger and watch the DAGs of the running stack", "tributary dags list", "tributary.dags_command"),
    "demo": Own("the whole platform on made or real logs, from nothing", "tributary demo --days 100 --users 1500", "tributary.demo"),
    "drill": Own("kill parts of a stack of its own at random, and see that nothing is lost", "tributary drill --kills 3 --seed 1",
                 "tributary.drill.command"),
    "forget": Own("delete every trace of a user: landing files, tables and their old versions, models",
                  "tributary forget --user 17 --dry-run", "tributary.forget"),
    "compose-env": Own("write the secrets of the stack in containers (docker-compose.yml) into .env", "tributary compose-env --out .env",
                       "tributary.compose_env"),
}

DAGS: dict[str, Own] = {
    "list": Own("DAGs, whether they are paused, and files that could not be imported", "tributary dags list"),
    "unpause": Own("let DAGs run", "tributary dags unpause logs_daily features_daily"),
    "pause": Own("hold DAGs", "tributary dags pause ad_ctr_daily"),
    "backfill": Own("run all periods of a range, of one DAG or of all", "tributary dags backfill --from 2026-03-02 --to 2026-03-09"),
    "mend": Own("build stale days again, and then the models that rest on what changed", "tributary dags mend"),
    "trigger": Own("run one period by hand, or a DAG that has none", "tributary dags trigger logs_daily --period 2026-03-02"),
    "runs": Own("runs of a DAG", "tributary dags runs ad_ctr_daily --from 2026-03-02 --to 2026-03-09"),
}


def own_command(name: str, more: str = "") -> Callable[[Function], click.Command]:
    """Makes a function the sub-command of this name."""
    return click.command(name, params=[HOME], **texts_of(OWN[name], more))


def _set_home(_: click.Context, __: click.Parameter, folder: str | None) -> None:
    from contracts.settings import HOME_VARIABLE

    if folder is not None:
        os.environ[HOME_VARIABLE] = os.path.abspath(os.path.expanduser(folder))


# It goes into the environment, where the command and its children find it.
HOME = click.Option(["--home"], metavar="FOLDER", callback=_set_home, expose_value=False, help=HOME_HELP)
