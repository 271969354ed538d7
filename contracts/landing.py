"""Where rows are delivered, and how they become landing rows: the sections `[landing.*]` of the settings.

Nothing here opens a file. A log's section that is not there stands for the landing folder in the deployment's home.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from contracts.errors import BadInput
from contracts.features import FEATURES, LOGS, Log

if TYPE_CHECKING:
    from sqlglot import exp

TEXT_FORMATS = ("csv", "jsonl")
FORMATS = (*TEXT_FORMATS, "parquet", "orc", "avro")
STORE = "s3a://"
HOURS = tuple(f"{hour:02}" for hour in range(24))
PLACE = re.compile(r"\{(day|hour)(?::([^{}]*))?\}")  # of a day or an hour in a path
WILD = frozenset("*?[")
HIDDEN = (".", "_")  # begin the names that a pattern with a leading wildcard, and a landing folder, pass over
_DAY_FORMAT = "%Y-%m-%d"
_IS_ABSOLUTE = re.compile(r"/|s3a://[a-z0-9][a-z0-9.-]+/")
Require = Callable[..., None]

# Functions of Spark 4.2 whose value does not follow from the row by itself; a test compares this list with what Spark
# says of its own functions. `aes_encrypt` draws its own initial vector.
NOT_OF_THE_ROW = frozenset(
    re.findall(
        r"\w+",
        """aes_encrypt current_catalog current_database current_date current_path current_schema current_time current_timestamp
        current_timezone current_user curdate input_file_block_length input_file_block_start input_file_name localtimestamp
        monotonically_increasing_id now rand randn random randstr session_user shuffle spark_partition_id uniform user uuid
        version""",
    )
)
# Those of Spark that make several rows of one, or run other code.
NOT_A_VALUE = frozenset(
    re.findall(
        r"\w+",
        """assert_true explode explode_outer inline inline_outer java_method json_tuple posexplode posexplode_outer raise_error
        reflect session_window stack try_reflect variant_explode variant_explode_outer window""",
    )
)
# Without parentheses. Others, such as `user`, are names of columns where a file has them.
_BARE = ("current_date", "current_time", "current_timestamp", "localtimestamp")


SideName = Literal["users", "items"]
SIDES: tuple[SideName, ...] = ("users", "items")
ENTITY_OF_SIDE: dict[SideName, str] = {"users": "user_id", "items": "item_id"}
MISSING = "_missing"  # ends the names of the counts of rows whose user or item a side table lacks
# Landing columns that may be made of a side table's: what describes an impression, not what happened.
_MADE_OF_SIDES = (
    *(f.name for f in FEATURES if f.source == "landing" and f.name not in ENTITY_OF_SIDE.values()),
    "item_text",
)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where rows are delivered, and how their files are read.

    Attributes:
        path: files of a day on a file system or in a store (`s3a://`): a folder (it ends in `/`), a file, or a pattern
            with `*`. `{day}` stands for the day (`2026-01-31`, or as `{day:%Y%m%d}` says), `{hour}` for each of its
            hours (`00` .. `23`).
        table: folder of a Delta table.
        day: of rows that no `{day}` in the path tells: for a Delta table, the column that holds the day (a date, or
            `2026-01-31` or `20260131` as text or number); for files, an SQL expression of a date.
        format: format of all files; None: what the end of each name says.
        delimiter, quote, header: of CSV files. Without a header their columns are `_c0`, `_c1` ...
        types: Spark types of their columns of CSV and JSON lines, which are texts unless they are named here; a value
            that is none of its type reads as null.
        where: SQL condition on their columns; rows for which it is not true are left out.
    """

    path: str | None = None
    table: str | None = None
    day: str | None = None
    format: str | None = None
    delimiter: str = ","
    quote: str = '"'
    header: bool = True
    types: Mapping[str, str] = field(default_factory=dict)
    where: str | None = None

    @property
    def is_home(self) -> bool:
        """Whether it is the landing folder in the deployment's home."""
        return self.path is None and self.table is None

    @property
    def has_days(self) -> bool:
        """Whether the path tells the day of a file."""
        return self.is_home or (self.path is not None and "{day" in self.path)

    @property
    def is_in_store(self) -> bool:
        """Whether it lies in an S3-compatible store."""
        return (self.path or self.table or "").startswith(STORE)

    def names_read(self) -> frozenset[str]:
        """Names of their columns that the expressions read."""
        return frozenset(name for _, text in self.expressions() for name in columns_read(text))

    def patterns(self, day: date | None) -> Iterator[tuple[str, str | None]]:
        """Where the files of a day lie: patterns of paths, each with its hour if the path has one."""
        assert self.path is not None
        for hour in HOURS if "{hour" in self.path else (None,):
            values = {"day": day, "hour": hour}

            def filled(place: re.Match[str], values: Mapping[str, Any] = values) -> str:
                value = values[place[1]]
                return value.strftime(place[2] or _DAY_FORMAT) if isinstance(value, date) else str(value)

            yield PLACE.sub(filled, self.path), hour

    def expressions(self) -> Iterator[tuple[str, str]]:
        """Its SQL texts, each with the name of its setting."""
        for name in ("where", "day"):
            if getattr(self, name) is not None:
                yield name, getattr(self, name)

    def check(self, where: str) -> None:
        """Checks what can be known without a row.

        Args:
            where: the section, for messages.

        Raises:
            BadInput: two places are named, or none; an expression cannot be read, or its value does not follow from a
                row by itself; a format is unknown.
        """
        require = _requiring(where)
        self._check_place(require)
        require(
            self.format in (None, *FORMATS),
            "format",
            f"one of {', '.join(FORMATS)}",
            repr(self.format),
            "A Delta table is named by `table`.",
        )
        for name in ("delimiter", "quote"):
            value = getattr(self, name)
            require(len(value) == 1 and value not in "\r\n", name, "one character", repr(value))
        for name, text in self.expressions():
            _check_expression(name, text, where)

    def _check_place(self, require: Require) -> None:
        require(self.path is None or self.table is None, "table", "either a path or a table", "both")
        for name, value in (("path", self.path), ("table", self.table)):
            example = "an absolute path such as /data/feed/dt={day}/, or s3a://bucket/feed/dt={day}/"
            require(value is None or _IS_ABSOLUTE.match(value) is not None, name, example, repr(value))
        rest = PLACE.sub("", self.path or "")
        require("{" not in rest and "}" not in rest, "path", "no other braces than {day} and {hour}", repr(self.path))
        has_hour = "{hour" in (self.path or "")
        require(not has_hour or self.has_days, "path", "a {day} before the {hour}", repr(self.path))
        is_used = self.day is not None or self.format is not None
        require(not (self.is_home and is_used), "path", "where the rows lie, as a path or a table", "nothing")

    def _check_day_column(self, require: Require) -> None:
        require(
            self.table is None or self.day is None or re.fullmatch(r"\w+", self.day) is not None,
            "day",
            "the name of a column of the table",
            repr(self.day),
            "Its statistics tell which files a day reads.",
        )


@dataclass(frozen=True, kw_only=True)
class LandingSource(Place):
    """Where and how one log is delivered; without a path and a table, in the landing folder in the home folder.

    Attributes:
        columns: SQL expression over their columns for a landing column; one that is not named is their column of the
            same name. `users.x` and `items.x` are columns of the side tables.
    """

    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_mapped(self) -> bool:
        """Whether rows are anything but landing rows as they are delivered."""
        return bool(self.columns or self.where or self.types or self.day or self.table or not self.header)

    def expression(self, column: str) -> str:
        """SQL of a landing column over their columns."""
        return self.columns.get(column, f"`{column}`")

    def expressions(self) -> Iterator[tuple[str, str]]:
        """Its SQL texts, each with the name of its setting."""
        yield from super().expressions()
        for name, text in self.columns.items():
            yield f"columns.{name}", text

    def check_columns(self, landing_columns: tuple[str, ...], sides: Collection[SideName], where: str) -> None:
        """Checks what can be known without a row.

        Args:
            landing_columns: names of the log's landing columns.
            sides: the side tables that the settings name.
            where: the section, for messages.

        Raises:
            BadInput: as for `check`; or a column is unknown, or may not be made of a side table's.
        """
        self.check(where)
        require = _requiring(where)
        self._check_day(require)
        for name in self.columns:
            expected = f"one of the landing columns {', '.join(landing_columns)}"
            require(name in landing_columns, f"columns.{name}", expected, "an unknown column")
        allowed = {f"columns.{name}" for name in _MADE_OF_SIDES}
        for name, text in self.expressions():
            found = sorted(side_columns(text).keys() & set(sides))
            expected = f"columns of the log only: side tables may be read for {', '.join(_MADE_OF_SIDES)}"
            require(not found or name in allowed, name, expected, repr(text))

    def _check_day(self, require: Require) -> None:
        if self.has_days:
            require(self.day is None, "day", "none, since the path of a file tells it", repr(self.day))
            return
        require(self.day is not None, "day", "the day of a row: a column, or an expression for files", "nothing")
        self._check_day_column(require)


@dataclass(frozen=True, kw_only=True)
class SideSource(Place):
    """Where a side table lies: attributes of users or items, which the logs' expressions read as `users.x` or `items.x`.

    With `{day}` in its path, or a `day` column of its Delta table, it is a snapshot a day, which holds from the end of that day
    until a newer one does. With `since`, each row holds from a time of its own until a newer row of its key does. With
    neither, its rows always hold.

    Attributes:
        key: SQL expression of the id, as the logs have it.
        since: SQL expression of the time from which a row holds.
        holds_days: how many days after its own a snapshot still holds if no newer one has been delivered.
    """

    key: str
    since: str | None = None
    holds_days: int = 31

    @property
    def has_snapshots(self) -> bool:
        """Whether rows hold by days."""
        return self.day is not None or (self.has_days and not self.is_home)

    def expressions(self) -> Iterator[tuple[str, str]]:
        """Its SQL texts, each with the name of its setting."""
        yield from super().expressions()
        yield "key", self.key
        if self.since is not None:
            yield "since", self.since

    def check(self, where: str) -> None:
        """Checks what can be known without a row; see `Place.check`."""
        super().check(where)
        require = _requiring(where)
        require(not self.is_home, "path", "where the rows lie, as a path or a table", "nothing")
        is_day_of_table = self.day is None or self.table is not None
        require(is_day_of_table, "day", "a day of a Delta table; of files, {day} in the path tells it", repr(self.day))
        self._check_day_column(require)
        expected = "either rows with the time from which they hold, or a snapshot a day"
        require(self.since is None or not self.has_snapshots, "since", expected, "both")
        require(self.holds_days >= 1, "holds_days", "a number >= 1", self.holds_days)


HOME = LandingSource()  # landing files as docs/tables.md describes them


@dataclass(frozen=True, kw_only=True)
class LandingSettings:
    """The sections `[landing.<log>]`, and those of the side tables, `[landing.users]` and `[landing.items]`."""

    natural: LandingSource = field(default_factory=LandingSource)
    ad: LandingSource = field(default_factory=LandingSource)
    users: SideSource | None = None
    items: SideSource | None = None

    def of(self, log: Log) -> LandingSource:
        """One log's section."""
        return self.natural if log == "natural" else self.ad

    def side(self, name: SideName) -> SideSource:
        """A side table's section, which must be there."""
        source: SideSource | None = getattr(self, name)
        assert source is not None, name
        return source

    @property
    def sides(self) -> tuple[SideName, ...]:
        """The side tables that there are."""
        return tuple(name for name in SIDES if getattr(self, name) is not None)

    def sides_read(self, log: Log) -> tuple[SideName, ...]:
        """The side tables that a log's columns are made of."""
        read = {side for text in self.of(log).columns.values() for side in side_columns(text)}
        return tuple(name for name in self.sides if name in read)

    def attributes(self, side: SideName) -> tuple[str, ...]:
        """Names of a side table's columns that the logs' columns are made of."""
        texts = (text for log in LOGS for text in self.of(log).columns.values())
        return tuple(sorted({name for text in texts for name in side_columns(text).get(side, ())}))

    def own_names(self, log: Log) -> frozenset[str]:
        """Names of a log's own columns that its expressions read."""
        return self.of(log).names_read() - set(self.sides_read(log))

    @property
    def is_in_store(self) -> bool:
        """Whether any of them lies in an S3-compatible store."""
        return any(source.is_in_store for source in (*map(self.of, LOGS), *map(self.side, self.sides)))

    def check(self, landing_columns: Mapping[Log, tuple[str, ...]], where: str) -> None:
        """Checks all sections.

        Args:
            landing_columns: names of each log's landing columns.
            where: the file, for messages.

        Raises:
            BadInput: see `LandingSource.check_columns` and `SideSource.check`.
        """
        for log in LOGS:
            self.of(log).check_columns(landing_columns[log], self.sides, f"{where} [landing.{log}]")
        for name in self.sides:
            section = f"{where} [landing.{name}]"
            self.side(name).check(section)
            expected = f"columns of the logs that read {name}.x"
            if not self.attributes(name):
                raise BadInput(section, "key", expected=expected, found="none")


IN_HOME = LandingSettings()


@cache
def side_columns(text: str) -> Mapping[SideName, frozenset[str]]:
    """Names of the columns of side tables that an SQL expression reads, by side table: those of `users.x` and `items.x`."""
    from sqlglot import exp

    parts = [column.parts for column in _parsed(text).find_all(exp.Column)]
    read = {side: frozenset(part[1].name for part in parts if len(part) > 1 and part[0].name == side) for side in SIDES}
    return {side: names for side, names in read.items() if names}


def _requiring(where: str) -> Require:
    def require(ok: bool, name: str, expected: str, found: object, hint: str = "") -> None:
        if not ok:
            raise BadInput(where, name, expected=expected, found=found, hint=hint)

    return require


@cache
def columns_read(text: str) -> frozenset[str]:
    """Names of the columns that an SQL expression reads, without what is read inside of them."""
    from sqlglot import exp

    return frozenset(column.parts[0].name for column in _parsed(text).find_all(exp.Column))


def _parsed(text: str) -> exp.Expr:
    from sqlglot import parse_one

    return parse_one(text, dialect="spark")


def _check_expression(name: str, text: str, where: str) -> None:
    """Raises BadInput where a text is no expression of a single row, or not one whose value follows from the row by itself."""
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    expected = "an SQL expression over the columns of one row"
    try:
        tree, words = _parsed(text), list(_words(text))
    except SqlglotError as error:
        raise BadInput(where, name, expected=expected, found=f"{text!r}: {str(error).splitlines()[0]}") from None
    for word in words:
        if word in NOT_OF_THE_ROW:
            hint = "A day must read the same whenever it is read."
            raise BadInput(where, name, expected=f"{expected} only", found=f"{word} in {text!r}", hint=hint)
        if word in NOT_A_VALUE:
            raise BadInput(where, name, expected=f"{expected}: one value", found=f"{word} in {text!r}")
    if "unix_timestamp" in words and re.search(r"unix_timestamp\s*\(\s*\)", text, re.IGNORECASE):
        raise BadInput(where, name, expected=f"{expected} only", found=f"unix_timestamp() in {text!r}")
    for kind, what in (
        (exp.Query, "a subquery"),
        (exp.Window, "a window function"),
        (exp.Star, "*"),
        (exp.Alias, "AS"),
        (exp.AggFunc, "an aggregate"),
        (exp.Placeholder, "a parameter"),
    ):
        if tree.find(kind) is not None:
            raise BadInput(where, name, expected=expected, found=f"{what} in {text!r}")
    if not isinstance(tree, exp.Condition):
        raise BadInput(where, name, expected=expected, found=repr(text))


def _words(text: str) -> Iterator[str]:
    """Names of the functions that an expression calls, in lower case."""
    from sqlglot import TokenType, tokenize

    tokens = tokenize(text, dialect="spark")
    for before, token, after in zip([None, *tokens], tokens, [*tokens[1:], None], strict=False):
        if token.token_type in (TokenType.STRING, TokenType.IDENTIFIER):
            continue
        is_part = before is not None and before.token_type == TokenType.DOT
        is_called = after is not None and after.token_type == TokenType.L_PAREN
        word = token.text.lower()
        if is_called or (word in _BARE and not is_part):
            yield word
