"""What a day's quarantine holds, for the report: how many rows broke which rule, a few of them, and how to find them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from contracts.features import Log
from contracts.locations import Locations
from contracts.masking import printable, shown
from contracts.settings import table_address
from contracts.tables import TABLES
from lake.reader import LakeReader
from lake.sql import literal
from validation.suites import log_of

ROWS_SHOWN = 20
COLUMNS = ("found", "file", "ds")


@dataclass(frozen=True, kw_only=True)
class BrokenRule:
    """Bad rows of one rule and field.

    Attributes:
        rule, field, expected: values of the quarantine's columns, safe to show.
        count: number of rows.
        rows: a few of them, as values of `COLUMNS` that are safe to show.
        finder: a line of PySpark that reads all of them.
    """

    rule: str
    field: str
    expected: str
    count: int
    rows: tuple[tuple[str, ...], ...]
    finder: str


@dataclass(frozen=True, kw_only=True)
class Quarantined:
    """Bad rows of a log, the rule with most rows first; every rule has its turn in the `ROWS_SHOWN` rows that are shown."""

    rules: tuple[BrokenRule, ...] = ()

    @property
    def total(self) -> int:
        """Number of bad rows of all rules."""
        return sum(rule.count for rule in self.rules)

    @property
    def rows_shown(self) -> int:
        """Number of rows that are shown."""
        return sum(len(rule.rows) for rule in self.rules)


def read_quarantined(locations: Locations, table: str, days: Sequence[date]) -> Quarantined | None:
    """Bad rows of these days of a log; None if the table is no log."""
    log = log_of(TABLES[table])
    if log is None:
        return None
    bad = LakeReader(locations).read(
        "quarantine", columns=("rule", "field", "expected", *COLUMNS), where={"log": log, "ds": list(days)}
    )
    if not bad.num_rows:
        return Quarantined()
    groups = bad.group_by(["rule", "field"]).aggregate([([], "count_all")]).to_pylist()
    groups.sort(key=lambda group: (-group["count_all"], group["rule"], group["field"]))
    several = len(groups) > len({group["rule"] for group in groups})
    shares = _turns([group["count_all"] for group in groups])
    return Quarantined(
        rules=tuple(
            _broken_rule(
                group,
                _some_rows(bad, group, shown_rows),
                table,
                finder(locations, log, days, group["rule"], group["field"] if several else None),
            )
            for group, shown_rows in zip(groups, shares, strict=True)
        )
    )


def finder(locations: Locations, log: Log, days: Sequence[date], rule: str, field: str | None = None) -> str:
    """A line of PySpark that reads the rows; values are quoted for SQL, and the SQL for Python."""
    conditions = [
        f"ds = '{days[0]}'" if len(days) == 1 else f"ds BETWEEN '{min(days)}' AND '{max(days)}'",
        f"log = {literal(log)}",
        f"rule = {literal(rule)}",
        *([f"field = {literal(field)}"] if field is not None else []),
    ]
    path = _python(table_address(Locations(locations.home.absolute()), "quarantine"))
    return f'spark.read.format("delta").load({path}).where({_python(" AND ".join(conditions))})'


def _python(value: str) -> str:
    """A double-quoted literal in ASCII."""
    return '"' + value.encode("unicode_escape").decode("ascii").replace('"', '\\"') + '"'


def _turns(counts: Sequence[int]) -> list[int]:
    """How many rows of each rule are shown: one each in turn, until all have had theirs or the rows are enough."""
    shares = [0] * len(counts)
    while sum(shares) < min(ROWS_SHOWN, sum(counts)):
        for i, count in enumerate(counts):
            if shares[i] < count and sum(shares) < ROWS_SHOWN:
                shares[i] += 1
    return shares


def _some_rows(found: pa.Table, group: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """The first rows of a rule by day, file and value: the same ones whenever asked."""
    if not count:
        return []
    own = found.filter(pc.and_(pc.equal(found["rule"], group["rule"]), pc.equal(found["field"], group["field"])))
    order = pc.select_k_unstable(
        own, k=count, sort_keys=[("ds", "ascending"), ("file", "ascending"), ("found", "ascending")]
    )
    rows: list[dict[str, Any]] = own.take(order).to_pylist()
    return rows


def _broken_rule(group: dict[str, Any], rows: Sequence[dict[str, Any]], table: str, line: str) -> BrokenRule:
    columns = TABLES[table].column_names
    cells = tuple(
        (shown(row["found"], fields=[row["field"]], columns=columns), printable(str(row["file"])), str(row["ds"]))
        for row in rows
    )
    return BrokenRule(
        rule=printable(group["rule"]),
        field=printable(group["field"]),
        count=group["count_all"],
        rows=cells,
        finder=line,
        expected=printable(str(rows[0]["expected"])) if rows else "",
    )
