"""The one command: `tributary <folder> <command>` hands on to a folder's own command line, and imports none of them.

`tributary --help` must come at once, so this module imports the declarations of the commands, click, and little else.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from contracts.commands import CommandGroup, run_line
from contracts.errors import BadInput, run_command
from contracts.steps import FOLDERS, commands_of
from tributary.own import HOME, OWN


class Tributary(CommandGroup):
    """The command's own sub-commands, each imported when it is asked for, and the working folders."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the names of the sub-commands and of the working folders."""
        return [*OWN, *FOLDERS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        """Returns a sub-command, or a command that passes its arguments on to a working folder."""
        if cmd_name in FOLDERS:
            return Folder(cmd_name)
        found: click.Command = getattr(import_module(f"tributary.{OWN[cmd_name].module}"), cmd_name.replace("-", "_"))
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands of the folders too."""
        super().format_commands(ctx, formatter)
        with formatter.section(
            "Folders (`tributary <folder> <command> --help` explains each; `python -m <folder> ...` is the same)"
        ):
            formatter.write_dl(list(FOLDERS.items()))
        for folder in FOLDERS:
            with formatter.section(folder):
                formatter.write_dl([(name, one.meaning) for name, one in commands_of(folder).items()])

    def close_to(self, name: str, names: Sequence[str]) -> list[str]:
        """A folder's command of this very name, else a name that is like it."""
        inside = [f"{folder} {name}" for folder in FOLDERS if name in commands_of(folder)]
        return inside or super().close_to(name, names)


class Folder(click.Command):
    """A working folder: what follows its name is its own, options too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Takes everything as it is."""
        ctx.args = args
        return args

    def invoke(self, ctx: click.Context) -> None:
        """Becomes the folder's command line."""
        hand_on(str(self.name), ctx.args)


tributary = Tributary(
    "tributary", "carries knowledge from rich natural traffic to sparse ad traffic, every day", OWN, params=[HOME]
)


def main(argv: Sequence[str] | None = None) -> int:
    """The console command; returns the exit code, unless a folder's command takes this process over."""
    try:
        return run_command(lambda given: run_line(tributary, given), argv)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def hand_on(folder: str, arguments: Sequence[str]) -> None:
    """Becomes `python -m <folder> ...`: same process, so signals and the exit code need no handling."""
    from contracts.settings import folder_python

    python = folder_python(folder) or sys.executable
    if not os.access(python, os.X_OK):
        raise BadInput(
            "environment", f"TRIBUTARY_PYTHON_{folder.upper()}", expected="a Python interpreter", found=python
        )
    sys.stdout.flush()
    os.execv(python, [python, "-m", folder, *arguments])
