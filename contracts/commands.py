"""Options that the folders' command lines share, so that they read alike."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from contracts.errors import BadInput
from contracts.locations import Locations
from contracts.settings import Deployment, home_folder
from contracts.steps import commands_of


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser], folder: str, name: str,
                **options: Any) -> argparse.ArgumentParser:
    """A command of a working folder, with the help that `contracts.steps` declares; `options` as argparse takes them."""
    what = commands_of(folder)[name]
    return commands.add_parser(name, help=what, **{"description": what, **options})


def add_home(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--home", type=Path, default=None, help="the deployment's folder (default: TRIBUTARY_HOME, else ./tributary-home)")


def add_days(parser: argparse.ArgumentParser) -> None:
    """`--ds D` for a day, or `--from A --to B` for consecutive days, both included."""
    parser.add_argument("--ds", type=day, help="the day, YYYY-MM-DD")
    parser.add_argument("--from", dest="first", type=day, help="first day of a range, done as one job")
    parser.add_argument("--to", dest="last", type=day, help="last day of the range, included")


def add_user(parser: argparse.ArgumentParser) -> None:
    """`--user ID` and `--dry-run` of what forgets somebody."""
    parser.add_argument("--user", required=True, metavar="ID",
                        help="the user; - reads it from standard input, which no list of processes shows")
    parser.add_argument("--dry-run", action="store_true", help="say what would be removed, and change nothing")


def add_check(parser: argparse.ArgumentParser) -> None:
    """Which landing files are to be checked: the options of `tributary sources check`."""
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="landing files, or folders of them")
    parser.add_argument("--log", choices=("natural", "ad"), help="default: what landing/<log>/ in the path says")
    parser.add_argument("--day", type=day, help="day of arrival (default: what landing/<log>/<day>/ in the path says)")
    parser.add_argument("--strict", action="store_true", help="exit with 2 on a warning too")


def given_user(text: str) -> str:
    """The value of `--user`."""
    return sys.stdin.readline().strip() if text == "-" else text


def day(text: str) -> date:
    """A day given on a command line."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a day such as 2026-01-31, found {text!r}") from None


def days_of(options: argparse.Namespace) -> list[date]:
    """The days that `--ds`, or `--from` and `--to`, name.

    Raises:
        BadInput: neither or both are given, or the range is empty.
    """
    if options.ds is not None and options.first is None and options.last is None:
        return [options.ds]
    if options.ds is not None or options.first is None or options.last is None:
        raise BadInput("command line", "days", expected="--ds D, or --from A --to B", found="neither or both")
    if options.last < options.first:
        raise BadInput("command line", "--to", expected=f"a day not before --from {options.first}", found=options.last)
    return [options.first + timedelta(days=i) for i in range((options.last - options.first).days + 1)]


def deployment_of(options: argparse.Namespace) -> tuple[Locations, Deployment]:
    """Paths and settings of the deployment that the command is about."""
    home = (options.home or home_folder()).resolve()
    return Locations(home), Deployment.load(home)


@contextmanager
def stage(title: str) -> Iterator[None]:
    """Says what is being done, and when it is done how many seconds it took."""
    start = time.monotonic()
    print(f"{title} ...", file=sys.stderr, flush=True)
    yield
    print(f"{title}: {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)


def table_text(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A plain table, columns aligned; numbers to the right."""
    cells = [[str(value) for value in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    numeric = [all(isinstance(row[i], (int, float)) for row in rows) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        return "  ".join(c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numeric, strict=True)).rstrip()

    return "\n".join([line(cells[0]), "  ".join("-" * w for w in widths), *map(line, cells[1:])])
