"""The command lines of all folders: groups of declared commands, the options that they share, and how they are run."""

from __future__ import annotations

import difflib
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from functools import reduce, wraps
from pathlib import Path
from typing import Any, Protocol

import click

from contracts.errors import BadInput
from contracts.features import LOGS
from contracts.kinds import KINDS
from contracts.steps import FOLDERS, commands_of

Function = Callable[..., Any]
Decorator = Callable[[Function], Function]

HOME_HELP = "The deployment's folder (default: TRIBUTARY_HOME, else ./tributary-home)."
FORMER_NAMES = {"mend": "repair"}  # of commands; each is taken for one release more
SETTINGS = {"show_default": True, "max_content_width": 120}


class Declared(Protocol):
    """A command as it is declared: one line for people, and a command line to try."""

    @property
    def meaning(self) -> str:
        """What it does, in one line."""

    @property
    def example(self) -> str:
        """A command line that it takes."""


def texts_of(one: Declared, more: str = "") -> dict[str, Any]:
    """Help and epilog of a command as click takes them; `more` follows its line."""
    return {"help": f"{_sentence(one.meaning)}\n\n{more}", "epilog": f"\b\nExample:\n  {one.example}"}


class CommandGroup(click.Group):
    """Commands that are declared before they are written or imported, so that the help lists them all.

    Args:
        program: what is typed before a command's name.
        meaning: what the group does, as its help shows it.
        declared: the commands by name, in the order of the help.
        attributes: further arguments of `click.Group`.
    """

    def __init__(self, program: str, meaning: str, declared: Mapping[str, Declared], **attributes: Any) -> None:
        super().__init__(
            program, help=_sentence(meaning), subcommand_metavar="COMMAND ...", context_settings=SETTINGS, **attributes
        )
        self.declared = declared

    def add(self, name: str, more: str = "", **attributes: Any) -> Callable[[Function], click.Command]:
        """Makes a function the command of this name; `attributes` as click takes them."""
        return self.command(name, **texts_of(self.declared[name], more), **attributes)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, in the order of their declaration."""
        return list(self.declared)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists what is declared, and imports nothing."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, one.meaning) for name, one in self.declared.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds a command.

        Raises:
            BadInput: there is none of this name.
        """
        names = self.list_commands(ctx)
        if args[0] not in names and FORMER_NAMES.get(args[0]) in names:
            former, args = args[0], [FORMER_NAMES[args[0]], *args[1:]]
            print(
                f"`{self.name} {former}` is now `{self.name} {args[0]}`; the old name goes with the next release.",
                file=sys.stderr,
            )
        if args[0] not in names:
            close = self.close_to(args[0], names)
            hint = f"Did you mean `{self.name} {close[0]}`?" if close else f"`{self.name} --help` lists them all."
            raise BadInput(self.name, "command", expected=f"one of {', '.join(names)}", found=args[0], hint=hint)
        return super().resolve_command(ctx, args)

    def close_to(self, name: str, names: Sequence[str]) -> list[str]:
        """What may have been meant, the likeliest first."""
        return difflib.get_close_matches(name, names, n=1)


def folder_group(folder: str) -> CommandGroup:
    """The command line of a working folder."""
    return CommandGroup(f"tributary {folder}", FOLDERS[folder], commands_of(folder))


def run_line(command: click.Command, argv: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit code; errors and interrupts of what it calls pass through.

    Not `click.Command.main`: that ends without a word where a pipe breaks, and makes an interrupt an error of its own.
    """
    try:
        with command.make_context(command.name, list(sys.argv[1:] if argv is None else argv)) as context:
            return command.invoke(context) or 0
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code


class Day(click.ParamType[date]):
    """A day, such as 2026-01-31."""

    name = "day"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        """Reads the day that was typed."""
        try:
            return value if isinstance(value, date) else date.fromisoformat(value)
        except ValueError:
            self.fail(f"expected a day such as 2026-01-31, found {value!r}", param, ctx)


DAY = Day()


def together(*decorators: Decorator) -> Decorator:
    """One decorator of several; the help lists what they give in this order."""
    return lambda function: reduce(lambda inner, decorator: decorator(inner), reversed(decorators), function)


def _folder(_: click.Context, __: click.Parameter, given: Path | None) -> Path:
    from contracts.settings import home_folder

    return (given or home_folder()).resolve()


# Decorators of commands: each adds options, whose values the function gets under their names.
with_home = click.option("--home", type=click.Path(path_type=Path), metavar="FOLDER", callback=_folder, help=HOME_HELP)
with_period = together(
    click.option("--kind", required=True, type=click.Choice(tuple(KINDS)), help="The kind of model."),
    click.option("--period", required=True, type=DAY, help="First day of the period."),
)
with_user = together(  # of what forgets somebody
    click.option(
        "--user",
        required=True,
        metavar="ID",
        help="The user; - reads it from standard input, which no list of processes shows.",
    ),
    click.option("--dry-run", is_flag=True, help="Say what would be removed, and change nothing."),
)


def one_day(help: str = "The day.", **attributes: Any) -> Decorator:
    """Adds `--ds`; `attributes` as click takes them."""
    return click.option("--ds", type=DAY, help=help, **attributes)


def span(first: str, last: str, **attributes: Any) -> Decorator:
    """Adds `--from` and `--to` with these help texts, which the function gets as `first` and `last`; `attributes` as click takes them."""
    return together(
        click.option("--from", "first", type=DAY, help=first, **attributes),
        click.option("--to", "last", type=DAY, help=last, **attributes),
    )


def with_tables(help: str, names: Collection[str] | None = None) -> Decorator:
    """Adds `--table`, which may be repeated and which the function gets as `tables`; only `names` are taken, where they are given."""
    return click.option(
        "--table",
        "tables",
        multiple=True,
        type=click.Choice(sorted(names)) if names else str,
        metavar="TABLE",
        help=help,
    )


with_landing_files = together(  # of `tributary sources check`, and of the job that it runs
    with_home,
    click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[PATH]..."),
    click.option("--log", type=click.Choice(LOGS), help="Default: the log that landing/<log>/ in the path names."),
    one_day("Day of arrival (default: the day that landing/<log>/<day>/ in the path names)."),
    click.option("--strict", is_flag=True, help="Exit with 2 on a warning too."),
)


def with_deployment(function: Function) -> Function:
    """Adds `--home`; the function gets paths and settings of that deployment as its first arguments."""

    @with_home
    @wraps(function)
    def call(home: Path, **options: Any) -> Any:
        from contracts.locations import Locations
        from contracts.settings import Deployment

        return function(Locations(home), Deployment.load(home), **options)

    return call


def with_days(function: Function) -> Function:
    """Adds `--ds D` for a day and `--from A --to B` for consecutive days, which the function gets as the list `days`.

    The command raises BadInput where neither or both are given, or where the range is empty.
    """

    @one_day()
    @span("First day of a range, done as one job.", "Last day of the range, included.")
    @wraps(function)
    def call(*arguments: Any, ds: date | None, first: date | None, last: date | None, **options: Any) -> Any:
        return function(*arguments, days=_days(ds, first, last), **options)

    return call


def _days(ds: date | None, first: date | None, last: date | None) -> list[date]:
    names = " ".join(name for name, value in (("--ds", ds), ("--from", first), ("--to", last)) if value is not None)
    if names not in ("--ds", "--from --to"):
        raise BadInput(
            "command line", "days", expected="either --ds DAY, or --from DAY and --to DAY", found=names or "neither"
        )
    begin, end = ds or first, ds or last
    assert begin is not None and end is not None
    if end < begin:
        raise BadInput("command line", "--to", expected=f"a day not before --from {begin}", found=end)
    return [begin + timedelta(days=i) for i in range((end - begin).days + 1)]


def given_user(text: str) -> str:
    """The value of `--user`."""
    return sys.stdin.readline().strip() if text == "-" else text


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


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
