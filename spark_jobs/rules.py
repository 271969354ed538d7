"""Rules that a landing row must keep, derived from the table contracts; a row that breaks one goes to quarantine."""

from __future__ import annotations

from dataclasses import dataclass

from contracts import tables
from contracts.features import FEATURES, Log
from contracts.settings import Deployment
from contracts.tables import LANDING_COLUMNS
from lake.sql import literals
from spark_jobs import times

CORRUPT = "_corrupt"  # the reader's column for lines that do not have the header's number of fields
DELIVERED = "_delivered"  # a row in the columns of a team's own files; null where those are the landing columns
PARTITION = "_partition"  # how a row contradicts the folder that its file lies in; null where it does not
RAW = "raw_"  # prefix of a column as it was delivered, next to its typed value
POSITIVE_BITS = 0x7FFFFFFFFFFFFFFF  # masks a hash to an id >= 0
REPLACED = "\ufffd"  # what a reader puts for bytes that are no UTF-8
LONGEST_FOUND = 500  # characters of a bad value that are kept with its rule; the whole row is kept too

# Delivered types that hold nothing which the contract's type cannot: taken as they are, without going through text.
_INTEGERS = ("tinyint", "smallint", "int", "bigint")
EXACT_TYPES: dict[str, tuple[str, ...]] = {
    "bigint": _INTEGERS,
    "int": _INTEGERS,
    "double": (*_INTEGERS, "float", "double"),
    "timestamp": ("timestamp", "timestamp_ntz"),
}


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a row must keep.

    Attributes:
        name: the rule's name in quarantine and reports.
        field: the landing column at fault.
        expected: what the field should have been, in words.
        broken: a condition of SQL, true where a row breaks it; never null.
        found: SQL expression of the value that it has instead, as text.
    """

    name: str
    field: str
    expected: str
    broken: str
    found: str


def typed(column: tables.Column, raw_type: str, *, hashed: bool) -> str:
    """SQL of a landing column's value as its contract's type; null where it is not one.

    Args:
        column: the contract's column.
        raw_type: Spark's name of the type in which it was delivered.
        hashed: it is an id that is hashed: xxhash64 masked to 63 bits.
    """
    raw = RAW + column.name
    if raw_type in EXACT_TYPES.get(column.type, ()) and not hashed:
        return f"try_cast({raw} AS {column.type})"
    text = _text(raw)
    if column.type == "timestamp" and not hashed:
        return times.timestamp_of(text)
    trimmed = trimmed_text(column.name)
    if hashed:
        return f"CASE WHEN {trimmed} != '' AND {is_utf8(trimmed)} THEN xxhash64({trimmed}) & {POSITIVE_BITS} END"
    if column.type == "string":
        return f"nullif({text}, '')"
    value = f"try_cast({trimmed} AS {column.type})"
    if column.type in ("bigint", "int"):  # tools write the integers of a column with a gap as 10.0
        whole = f"left({trimmed}, length({trimmed}) - 2)"
        return f"coalesce({value}, CASE WHEN endswith({trimmed}, '.0') THEN try_cast({whole} AS {column.type}) END)"
    return value


def trimmed_text(name: str) -> str:
    """SQL of a landing column as it was delivered, as text without the blanks around it: what an id's hash is of."""
    return f"trim({_text(RAW + name)})"


def is_utf8(text: str) -> str:
    """Whether a text was UTF-8 before a reader took it: of ids that were not, many would be one."""
    return f"is_valid_utf8({text}) AND NOT contains({text}, '{REPLACED}')"


def readable(text: str) -> str:
    """Text whose bytes are UTF-8, whatever was delivered: other readers of the table refuse it else."""
    return f"make_valid_utf8({text})"


def rules_for(log: Log, deployment: Deployment) -> list[Rule]:
    """The rules of a log's landing rows, in the order in which they are tried; a row that breaks one goes to quarantine."""
    contract = tables.table(f"{log}_log")
    rules = [
        Rule(
            name="columns",
            field="*",
            expected="a row with the fields that the header names, or one JSON object",
            broken=f"{CORRUPT} IS NOT NULL",
            found=CORRUPT,
        ),
        Rule(
            name="partition",
            field="*",
            expected="in its partition columns, what its folder's name says",
            broken=f"{PARTITION} IS NOT NULL",
            found=PARTITION,
        ),
    ]
    for column in map(contract.column, LANDING_COLUMNS[log]):
        if not _costs_the_value(column):
            rules += _column_rules(column, hashed=column.name in deployment.string_ids)
    rules.append(
        Rule(
            name="action_of_click",
            field="action",
            expected="0 without a click, 1 or more with one",
            broken="coalesce((action >= 1) != (click = 1), false)",
            found="concat_ws(' ', 'action', action, 'click', click)",
        )
    )
    lateness = deployment.allowed_lateness_days
    rules.append(
        Rule(
            name="event_day",
            field="event_ts",
            expected=f"the file's day or up to {lateness} day(s) before",
            broken=f"coalesce(datediff(ds, event_day) NOT BETWEEN 0 AND {lateness}, false)",
            found=_text(RAW + "event_ts"),
        )
    )
    return rules


def value_rules_for(log: Log, deployment: Deployment) -> list[Rule]:
    """The rules of a log's optional features: a value that breaks one reads as unknown, and its row is kept."""
    columns = map(tables.table(f"{log}_log").column, LANDING_COLUMNS[log])
    return [
        rule
        for column in columns
        if _costs_the_value(column)
        for rule in _column_rules(column, hashed=column.name in deployment.string_ids)
    ]


def _costs_the_value(column: tables.Column) -> bool:
    """Whether an illegal value only reads as unknown, and its row is kept: true of optional features.

    A row with an unreadable `arrival_ts` goes to quarantine although the column is optional: the time bounds what a
    sample may see, and an unknown one would bound nothing. So does a row with a garbled `item_text`, which is a sign of
    a damaged file.
    """
    return column.nullable and any(feature.name == column.name for feature in FEATURES)


def _column_rules(column: tables.Column, *, hashed: bool) -> list[Rule]:
    text = _text(RAW + column.name)
    unreadable = f"{column.name} IS NULL"
    if column.nullable:
        unreadable += f" AND coalesce(trim({text}) != '', false)"
    rules = []
    for expected, fault in (times.faults(text) if column.type == "timestamp" else {}).items():
        rules.append(
            Rule(
                name=f"{column.name}_type",
                field=column.name,
                expected=expected,
                found=text,
                broken=f"{unreadable} AND coalesce({fault}, false)",
            )
        )
        unreadable += f" AND NOT coalesce({fault}, false)"
    rules.append(
        Rule(
            name=f"{column.name}_type",
            field=column.name,
            broken=unreadable,
            found=f"coalesce({text}, 'nothing')",
            expected="a non-empty string, UTF-8" if hashed else column.legal_values,
        )
    )
    within = Rule(
        name=f"{column.name}_{'length' if column.type == 'string' else 'range'}",
        field=column.name,
        expected=column.legal_values,
        broken=f"coalesce({_is_outside(column)}, false)",
        found=text,
    )
    if column.type != "string":
        return [*rules, within]
    return [
        within,
        Rule(
            name=f"{column.name}_encoding",
            field=column.name,
            expected="UTF-8",
            found=text,
            broken=f"coalesce(NOT ({is_utf8(column.name)}), false)",
        ),
    ]


def _is_outside(column: tables.Column) -> str:
    """Whether a value is none of the legal ones; may be null where the value is."""
    name = column.name
    bounds = {
        f"{name} < {column.minimum}": column.minimum,
        f"{name} > {column.maximum}": column.maximum,
        f"{name} NOT IN ({literals(column.allowed or ())})": column.allowed,
        f"isnan({name})": column.type == "double" or None,
        f"length({name}) > {column.longest}": column.longest,
    }
    return " OR ".join(condition for condition, bound in bounds.items() if bound is not None) or "false"


def _text(name: str) -> str:
    return f"CAST({name} AS string)"
