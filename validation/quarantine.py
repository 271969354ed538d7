"""What a day's quarantine holds, for the report: how many rows broke which rule, and a few of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from contracts.locations import Locations
from contracts.tables import TABLES
from lake.reader import LakeReader
from validation.masking import printable, shown
from validation.suites import log_of

ROWS_SHOWN = 20
COLUMNS = ("rule", "field", "expected", "found", "file", "ds")
RuleCount = tuple[str, str, int]


@dataclass(frozen=True, kw_only=True)
class Quarantined:
    """Bad rows of a log.

    Attributes:
        rules: (rule, field, rows), most rows first.
        rows: up to `ROWS_SHOWN` of them, values of `COLUMNS` as they may be shown; every rule has its turn.
    """

    rules: tuple[RuleCount, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()

    @property
    def total(self) -> int:
        return sum(count for _, _, count in self.rules)


def read_quarantined(locations: Locations, table: str, days: Sequence[date]) -> Quarantined | None:
    """Bad rows of these days of a log; None if the table is no log."""
    log = log_of(TABLES[table])
    if log is None:
        return None
    found = LakeReader(locations).read("quarantine", columns=COLUMNS, where={"log": log, "ds": list(days)}).to_pylist()
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in sorted(found, key=lambda row: (str(row["ds"]), row["file"], str(row["found"]))):
        groups.setdefault((row["rule"], row["field"]), []).append(row)
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    rules = tuple((printable(rule), printable(field), len(rows)) for (rule, field), rows in ordered)
    turns = [(turn, place, row) for place, (_, rows) in enumerate(ordered) for turn, row in enumerate(rows[:ROWS_SHOWN])]
    chosen = [row for _, _, row in sorted(turns, key=lambda item: item[:2])[:ROWS_SHOWN]]
    return Quarantined(rules=rules, rows=tuple(_shown(row, table) for row in chosen))


def _shown(row: dict[str, Any], table: str) -> tuple[str, ...]:
    found = shown(row["found"], fields=[row["field"]], columns=TABLES[table].column_names)
    return tuple(printable(str(row[name])) if name != "found" else found for name in COLUMNS)
