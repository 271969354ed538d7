"""`tributary forget`: lists what is stored of a user, asks for a yes, and deletes it."""

from __future__ import annotations

import subprocess
import sys

import click

from contracts.commands import given_user, with_user
from contracts.errors import BadInput
from contracts.settings import folder_python, home_folder
from tributary.own import own_command

WARNING = """
This cannot be undone. Nothing else writes to the lake meanwhile: it waits until running jobs have ended, and later jobs wait until it has
ended. Pause the DAGs first. Old versions of every table with users are deleted too: a reader who holds one open, or reads by version, gets
an error and has to open the table again."""


@own_command("forget")
@with_user
@click.option("--yes", is_flag=True, help="Do not ask.")
def forget(user: str, dry_run: bool, yes: bool) -> int:
    """Runs the command; returns 1 if the answer to its question was not yes."""
    given = given_user(user)
    if not yes and not dry_run and (user == "-" or not sys.stdin.isatty()):
        raise BadInput(
            "tributary forget", "--yes", expected="--yes or --dry-run where nobody can be asked", found="neither"
        )
    code = 0 if yes and not dry_run else _run(given, "--dry-run")
    if code or dry_run:
        return code
    if not yes:
        print(WARNING)
        if input("Forget this user? Type yes: ").strip().lower() != "yes":
            print("nothing was changed")
            return 1
    return _run(given)


def _run(user: str, *more: str) -> int:
    """Runs the command of `spark_jobs`, which reads the user's id from its standard input; returns its exit code."""
    python = folder_python("spark_jobs") or sys.executable
    argv = [python, "-m", "spark_jobs", "forget_user", "--home", str(home_folder()), "--user", "-", *more]
    return subprocess.run(argv, input=f"{user}\n", text=True, check=False).returncode
