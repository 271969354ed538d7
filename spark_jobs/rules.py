"""Rules that a landing row must keep, derived from the table contracts; a row that breaks one goes to quarantine."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import Column
from pyspark.sql import functions as F

from contracts import tables
from contracts.features import FEATURES, Log
from contracts.settings import Deployment
from contracts.tables import LANDING_COLUMNS
from spark_jobs import times

CORRUPT = "_corrupt"  # the reader's column for lines that do not have the header's number of fields
RAW = "raw_"  # prefix of a column as it was delivered, beside its typed value
POSITIVE_BITS = 0x7FFFFFFFFFFFFFFF  # masks a hash to an id >= 0
REPLACED = "\ufffd"  # what a reader puts for bytes that are no UTF-8
LONGEST_FOUND = 500  # characters of a bad value beside its rule; the whole row is kept too

# Delivered types that hold nothing which the contract's type cannot: taken as they are, without going through text.
_INTEGERS = ("tinyint", "smallint", "int", "bigint")
EXACT_TYPES: dict[str, tuple[str, ...]] = {
    "bigint": _INTEGERS, "int": _INTEGERS, "double": (*_INTEGERS, "float", "double"), "timestamp": ("timestamp", "timestamp_ntz"),
}


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


def typed(column: tables.Column, raw_type: str, *, hashed: bool) -> Column:
    """A landing column's value as its contract's type; null where it is not one.

    Args:
        column: the contract's column.
        raw_type: Spark's name of the type in which it was delivered.
        hashed: it is an id that is hashed: xxhash64 masked to 63 bits.
    """
    raw = F.col(RAW + column.name)
    if raw_type in EXACT_TYPES.get(column.type, ()) and not hashed:
        return raw.try_cast(column.type)
    if column.type == "timestamp" and not hashed:
        return times.timestamp_of(raw.cast("string"))
    text = raw.cast("string") if column.type == "string" else F.trim(raw.cast("string"))
    if hashed:
        return F.when((text != "") & is_utf8(text), F.xxhash64(text).bitwiseAND(F.lit(POSITIVE_BITS)))
    if column.type == "string":
        return F.when(text != "", text)
    if column.type in ("bigint", "int"):  # tools write the integers of a column with a gap as 10.0
        whole = F.when(F.endswith(text, F.lit(".0")), F.left(text, F.length(text) - F.lit(2)))
        return F.coalesce(text.try_cast(column.type), whole.try_cast(column.type))
    return text.try_cast(column.type)


def is_utf8(text: Column) -> Column:
    """Whether a text was UTF-8 before a reader took it: of ids that were not, many would be one."""
    return F.is_valid_utf8(text) & ~F.contains(text, F.lit(REPLACED))


def rules_for(log: Log, deployment: Deployment) -> list[Rule]:
    """The rules of a log's landing rows, in the order in which they are tried; a row that breaks one goes to quarantine."""
    contract = tables.table(f"{log}_log")
    rules = [Rule(name="columns", field="*", expected="a row with the fields that the header names, or one JSON object",
                  broken=F.col(CORRUPT).isNotNull(), found=F.col(CORRUPT))]
    for column in map(contract.column, LANDING_COLUMNS[log]):
        if not _costs_the_value(column):
            rules += _column_rules(column, hashed=column.name in deployment.string_ids)
    rules.append(Rule(name="action_of_click", field="action", expected="0 without a click, 1 or more with one",
                      broken=F.coalesce((F.col("action") >= 1) != (F.col("click") == 1), F.lit(False)),
                      found=F.concat_ws(" ", F.lit("action"), F.col("action"), F.lit("click"), F.col("click"))))
    lateness = deployment.allowed_lateness_days
    days_behind = F.datediff("ds", "event_day")
    rules.append(Rule(name="event_day", field="event_ts", expected=f"the file's day or up to {lateness} day(s) before",
                      broken=F.coalesce((days_behind < 0) | (days_behind > lateness), F.lit(False)), found=F.col(RAW + "event_ts")))
    return rules


def value_rules_for(log: Log, deployment: Deployment) -> list[Rule]:
    """The rules of a log's optional features: a value that breaks one reads as unknown, and its row is kept."""
    columns = map(tables.table(f"{log}_log").column, LANDING_COLUMNS[log])
    return [rule for column in columns if _costs_the_value(column)
            for rule in _column_rules(column, hashed=column.name in deployment.string_ids)]


def _costs_the_value(column: tables.Column) -> bool:
    """Whether an illegal value costs itself alone: of a feature that may be unknown.

    An unreadable `arrival_ts` costs the row, though it is optional: it bounds what a sample may see, and read as unknown it would bound
    nothing. So does a garbled `item_text`: it tells of a damaged file.
    """
    return column.nullable and any(feature.name == column.name for feature in FEATURES)


def _column_rules(column: tables.Column, *, hashed: bool) -> list[Rule]:
    raw, value = F.col(RAW + column.name), F.col(column.name)
    text = raw.cast("string")
    is_empty = F.coalesce(F.trim(text) == "", F.lit(True))
    unreadable = value.isNull() & ~is_empty if column.nullable else value.isNull()
    rules = [Rule(name=f"{column.name}_type", field=column.name, expected=expected, broken=unreadable & fault, found=text)
             for expected, fault in (times.faults(text) if column.type == "timestamp" else {}).items()]
    rules += [Rule(name=f"{column.name}_type", field=column.name, expected="a non-empty string, UTF-8" if hashed else column.legal_values,
                  broken=unreadable, found=F.coalesce(text, F.lit("nothing")))]
    within = column.legal_values
    outside = F.lit(False)
    if column.minimum is not None:
        outside = outside | (value < column.minimum)
    if column.maximum is not None:
        outside = outside | (value > column.maximum)
    if column.allowed is not None:
        outside = outside | ~value.isin(*column.allowed)
    if column.type == "double":
        outside = outside | F.isnan(value)
    if column.longest is not None:
        outside = outside | (F.length(value) > column.longest)
    outside = F.coalesce(outside, F.lit(False))
    if column.type != "string":
        return [*rules, Rule(name=f"{column.name}_range", field=column.name, expected=within, broken=outside, found=text)]
    no_utf8 = F.coalesce(~is_utf8(value), F.lit(False))
    return [Rule(name=f"{column.name}_length", field=column.name, expected=within, broken=outside, found=text),
            Rule(name=f"{column.name}_encoding", field=column.name, expected="UTF-8", broken=no_utf8, found=text)]
