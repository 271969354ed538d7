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
        name: what `tributary` is followed by.
        meaning: one line for people.
        options: those of its example.
        module: where in `tributary` it is written, imported when it is asked for.
    """

    name: str
    meaning: str
    options: str
    module: str

    @property
    def example(self) -> str:
        """A command line to try."""
        return f"tributary {self.name} {self.options}".rstrip()


OWN: dict[str, Own] = {
    one.name: one
    for one in (
        Own("init", "write a deployment's settings", "--history-start 2026-01-01 --actr-start 2026-03-02", "init"),
        Own("up", "start PostgreSQL, Spark Connect and Airflow on this machine", "--home tributary-home", "commands"),
        Own("down", "end them", "--home tributary-home", "commands"),
        Own("status", "report what runs, and where", "--home tributary-home", "commands"),
        Own("dags", "backfill, trigger and watch the DAGs of the running stack", "list", "dags_command"),
        Own("demo", "the whole platform on made or real logs, from nothing", "--days 100 --users 1500", "demo"),
        Own(
            "drill",
            "kill parts of a stack of its own at random, and see that nothing is lost",
            "--kills 3",
            "drill.command",
        ),
        Own(
            "forget",
            "delete every trace of a user: landing files, tables and their old versions, models",
            "--user 17 --dry-run",
            "forget",
        ),
        Own(
            "compose-env",
            "write the secrets of the stack in containers (docker-compose.yml) into .env",
            "--out .env",
            "compose_env",
        ),
    )
}
DAGS: dict[str, Own] = {
    name: Own(f"dags {name}", meaning, options, "dags_command")
    for name, meaning, options in (
        ("list", "DAGs, whether they are paused, and files that could not be imported", ""),
        ("unpause", "let DAGs run", "logs_daily features_daily"),
        ("pause", "hold DAGs", "ad_ctr_daily"),
        ("backfill", "run all periods of a range, of one DAG or of all", "--from 2026-03-02 --to 2026-03-09"),
        ("repair", "build stale days again, and then the models that rest on what changed", ""),
        ("trigger", "run one period by hand, or a DAG that has none", "logs_daily --period 2026-03-02"),
        ("runs", "runs of a DAG", "ad_ctr_daily --from 2026-03-02 --to 2026-03-09"),
        ("tasks", "tasks of a run: state, tries, seconds", "ad_ctr_daily --period 2026-03-02"),
        ("logs", "print the log of a task", "ad_ctr_daily train_actr --period 2026-03-02"),
        ("stop", "end a run and its tasks", "ad_ctr_daily --period 2026-03-02"),
    )
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
