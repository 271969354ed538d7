"""Rules that a landing row must keep, derived from the table contracts; a row that breaks one goes to quarantine."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import Column
from pyspark.sql import functions as F

from contracts import tables
from contracts.features import Log
from contracts.settings import Deployment
from contracts.tables import LANDING_COLUMNS

CORRUPT = "_corrupt"  # the reader's column for lines that do not have the header's number of fields
RAW = "raw_"  # prefix of a column's landing text, beside its typed value


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a row must keep.

    Attributes:
        name: the rule's name in quarantine and reports.
        field: the landing column at fault.
        expected: in words.
        broken: true where a row breaks it; never null.
        found: what stands there instead.
    """

    name: str
    field: str
    expected: str
    broken: Column
    found: Column


def typed(column: tables.Column, *, hashed: bool) -> Column:
    """A landing column's text as its contract's type; null where it is not one.

    Args:
        column: the contract's column.
        hashed: the text is an id that is hashed: xxhash64 masked to 63 bits.
    """
    text = F.trim(F.col(RAW + column.name))
    if hashed:
        return F.when(text != "", F.xxhash64(text).bitwiseAND(F.lit(0x7FFFFFFFFFFFFFFF)))
    return text.try_cast(column.type)


def rules_for(log: Log, deployment: Deployment) -> list[Rule]:
    """The rules of a log's landing rows, in the order in which they are tried."""
    contract = tables.table(f"{log}_log")
    rules = [Rule(name="columns", field="*", expected=f"{len(LANDING_COLUMNS[log])} fields", broken=F.col(CORRUPT).isNotNull(),
                  found=F.col(CORRUPT))]
    for name in LANDING_COLUMNS[log]:
        rules += _column_rules(contract.column(name), hashed=name in deployment.string_ids)
    rules.append(Rule(name="action_of_click", field="action", expected="0 without a click, 1 or more with one",
                      broken=F.coalesce((F.col("action") >= 1) != (F.col("click") == 1), F.lit(False)),
                      found=F.concat_ws(" ", F.lit("action"), F.col("action"), F.lit("click"), F.col("click"))))
    lateness = deployment.allowed_lateness_days
    days_behind = F.datediff("ds", "event_day")
    rules.append(Rule(name="event_day", field="event_ts", expected=f"the file's day or up to {lateness} day(s) before",
                      broken=F.coalesce((days_behind < 0) | (days_behind > lateness), F.lit(False)), found=F.col(RAW + "event_ts")))
    return rules


def _column_rules(column: tables.Column, *, hashed: bool) -> list[Rule]:
    raw, value = F.col(RAW + column.name), F.col(column.name)
    is_empty = F.coalesce(F.trim(raw) == "", F.lit(True))
    unreadable = value.isNull() & ~is_empty if column.nullable else value.isNull()
    rules = [Rule(name=f"{column.name}_type", field=column.name, expected="a non-empty string" if hashed else _words(column),
                  broken=unreadable, found=F.coalesce(raw, F.lit("nothing")))]
    outside = F.lit(False)
    if column.minimum is not None:
        outside = outside | (value < column.minimum)
    if column.maximum is not None:
        outside = outside | (value > column.maximum)
    if column.allowed is not None:
        outside = outside | ~value.isin(*column.allowed)
    if column.type == "double":
        outside = outside | F.isnan(value)
    rules.append(Rule(name=f"{column.name}_range", field=column.name, expected=_words(column),
                      broken=F.coalesce(outside, F.lit(False)), found=raw))
    return rules


def _words(column: tables.Column) -> str:
    if column.allowed is not None:
        return "one of " + ", ".join(map(str, column.allowed))
    kind = {"bigint": "an integer", "int": "an integer", "double": "a number", "timestamp": "an ISO-8601 time"}[column.type]
    low = f" >= {column.minimum}" if column.minimum is not None else ""
    high = f" and <= {column.maximum}" if column.maximum is not None else ""
    return kind + low + high
