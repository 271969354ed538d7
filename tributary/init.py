"""`tributary init`: writes a deployment's settings."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from typing import Any

import click

from contracts import zones
from contracts.commands import DAY
from contracts.errors import EXIT_BAD_INPUT, BadInput
from contracts.kinds import RECIPES
from contracts.periods import PeriodSettings
from contracts.settings import SETTINGS_FILE, Deployment, folder_python, home_folder
from contracts.transfer import TRANSFER_SETTINGS
from tributary import first_periods
from tributary.own import own_command


@own_command("init")
@click.option("--history-start", type=DAY, required=True, help="First day with logs.")
@click.option("--history-end", type=DAY, help="Last day of a closed data set; none if days keep coming.")
@click.option("--actr-start", type=DAY, required=True, help="The one ad-model day without a predecessor.")
@click.option(
    "--ad-start", type=DAY, help="First day with advertisements if they began later: before it no ad folder is needed."
)
@click.option("--day-timezone", default=Deployment.day_timezone, help="IANA name; a day begins at its midnight.")
@click.option("--source", default=Deployment.source, help="Where the landing files come from, for people.")
@click.option(
    "--allowed-lateness-days",
    type=int,
    default=Deployment.allowed_lateness_days,
    help="How many days late an event may arrive.",
)
@click.option(
    "--feedback-delay-seconds",
    type=int,
    default=Deployment.feedback_delay_seconds,
    help="Age at which a behaviour may be used.",
)
@click.option("--replay-days", type=int, default=Deployment.replay_days, help="Ad days replayed from a new CPM.")
@click.option("--recipe", type=click.Choice(RECIPES), default=Deployment.recipe, help="Settings of the models.")
@click.option(
    "--string-id",
    "string_ids",
    multiple=True,
    metavar="COLUMN",
    help="A landing column that holds strings; may be repeated.",
)
@click.option(
    "--kept-string",
    "kept_strings",
    multiple=True,
    metavar="COLUMN",
    help="Of those, one whose strings are kept next to their hashes; may be repeated.",
)
@click.option(
    "--published-string",
    "published_strings",
    multiple=True,
    metavar="COLUMN",
    help="Of those, user_id or item_id: its strings lie in the published tables too; may be repeated.",
)
@click.option(
    "--variant",
    "variants",
    multiple=True,
    default=Deployment.variants,
    type=click.Choice(tuple(TRANSFER_SETTINGS)),
    metavar="SETTING",
    help=f"A transfer setting, of {', '.join(TRANSFER_SETTINGS)}; may be repeated: they are trained side by side.",
)
@click.option("--anchor", type=DAY, help="With --month-days and --week-days: equal blocks instead of the calendar's.")
@click.option("--month-days", type=int, help="Length of a month in days.")
@click.option("--week-days", type=int, help="Length of a week in days.")
@click.option("--force", is_flag=True, help=f"Write over an existing {SETTINGS_FILE}.")
def init(force: bool, **settings: Any) -> None:
    """Writes a deployment's settings, which the options name as `Deployment` does."""
    home = home_folder()
    periods = PeriodSettings(**{one.name: settings.pop(one.name) for one in fields(PeriodSettings)})
    deployment = Deployment(periods=periods, **settings)
    path = home / SETTINGS_FILE
    if path.exists() and not force and path.read_text() != deployment.to_toml():
        raise BadInput(
            path,
            "file",
            expected="no other settings there",
            found="a deployment",
            hint="Its lake was built with them; `--force` writes over them.",
        )
    _require_zone(deployment)
    home.mkdir(parents=True, exist_ok=True)
    path.write_text(deployment.to_toml())
    print(f"wrote {path}\n")
    print(*first_periods.report(deployment), "", sep="\n")
    print(
        f"next: landing files under {home / 'landing'} (see `tributary sources --help`), then `tributary up --home {home}`"
    )


def _require_zone(deployment: Deployment) -> None:
    """Asks Java and Python for the days of the deployment's time zone.

    Raises:
        BadInput: one of them does not know it, they differ, or a day of it is no stretch of time.
    """
    name, first = deployment.day_timezone, deployment.history_start
    last = zones.last_day(first, deployment.history_end)
    zones.require_days(name, first, last)
    if name == zones.FIXED:
        return
    python = folder_python("spark_jobs") or sys.executable
    java = subprocess.run(
        [python, "-m", "lake.zones", name, "--from", str(first), "--to", str(last)],
        capture_output=True,
        text=True,
        check=False,
    )
    if java.returncode == EXIT_BAD_INPUT:
        print(
            f"note: {java.stderr.strip()}\nnote: Java's rules for {name} are compared with Python's when Spark starts",
            file=sys.stderr,
        )
        return
    if java.returncode != 0:
        raise BadInput("this machine", "java", expected="its rules of time zones", found=java.stderr.strip()[-500:])
    zones.require_same(name, [zones.python_rules(name, first, last), zones.Rules(**json.loads(java.stdout))])
