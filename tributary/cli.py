"""The one command: `tributary <folder> <command>` hands on to a folder's own command line, and imports none of them.

`tributary --help` must come at once, so this module imports the contracts of the pipeline and little of the standard library.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from contracts.errors import BadInput, run_command
from contracts.steps import FOLDERS, commands_of
from tributary.own import OWN, set_home

USAGE = "usage: tributary [--home FOLDER] <command> ...   or   tributary [--home FOLDER] <folder> <command> ..."


def main(argv: Sequence[str] | None = None) -> int:
    """The console command; returns the exit code, unless a folder's command takes this process over."""
    try:
        return run_command(_main, argv)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _main(argv: Sequence[str] | None = None) -> int:
    arguments = _take_home(list(sys.argv[1:] if argv is None else argv))
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text())
        return 0 if arguments else 2
    name, rest = arguments[0], arguments[1:]
    if name in FOLDERS:
        hand_on(name, rest)
    if name in OWN:
        from tributary import commands

        return commands.main(name, _take_home(rest, anywhere=True))
    raise _unknown(name)


def hand_on(folder: str, arguments: Sequence[str]) -> None:
    """Becomes `python -m <folder> ...`: same process, so signals and the exit code need no handling."""
    from contracts.settings import folder_python

    python = folder_python(folder) or sys.executable
    if not os.access(python, os.X_OK):
        raise BadInput("environment", f"TRIBUTARY_PYTHON_{folder.upper()}", expected="a Python interpreter", found=python)
    sys.stdout.flush()
    os.execv(python, [python, "-m", folder, *arguments])


def help_text() -> str:
    lines = [USAGE, "", "Carries knowledge from rich natural traffic to sparse ad traffic, every day.", "", "commands:"]
    lines += [f"  {name:<27}{meaning}" for name, meaning in OWN.items()]
    lines += ["", "folders (`tributary <folder> <command> --help` explains each; `python -m <folder> ...` is the same):"]
    for folder, meaning in FOLDERS.items():
        lines.append(f"  {folder:<27}{meaning}")
        lines += [f"    {name:<25}{line}" for name, line in commands_of(folder).items()]
    lines += ["", "--home FOLDER is the deployment's folder: TRIBUTARY_HOME by default, else ./tributary-home."]
    return "\n".join(lines)


def _take_home(arguments: list[str], *, anywhere: bool = False) -> list[str]:
    """Moves `--home FOLDER` into the environment, where every command and its children find it.

    For a folder's command only in front: what follows the folder's name is that folder's own.
    """
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == "--home":
            rest = arguments[place + 1:]
            if not equals:
                if not rest:
                    raise BadInput("tributary", "--home", expected="a folder", found="nothing")
                value, rest = rest[0], rest[1:]
            set_home(value)
            return [*arguments[:place], *rest]
        if not anywhere:
            break
    return arguments


def _unknown(name: str) -> BadInput:
    import difflib

    inside = [f"{folder} {command}" for folder in FOLDERS for command in commands_of(folder) if command == name]
    close = inside or difflib.get_close_matches(name, [*OWN, *FOLDERS], n=1)
    hint = f"Did you mean `tributary {close[0]}`?" if close else "`tributary --help` lists them all."
    return BadInput("tributary", "command", expected=f"one of {', '.join([*OWN, *FOLDERS])}", found=name, hint=hint)
