"""Whether two deployments hold equal tables, row by row, without the columns that differ between equal runs. Needs no Spark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.commands import table_text
from contracts.errors import EXIT_OK, EXIT_UNEXPECTED, BadInput
from contracts.locations import Locations
from contracts.tables import TABLES, Table
from lake.reader import LakeReader
from spark_jobs.staleness import JOBS

FEATURE_TABLES = tuple(name for tables in JOBS.values() for name in tables)


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One table of both deployments.

    Attributes:
        name: the table.
        rows, other_rows: numbers of rows here and in the other deployment.
        missing, surplus: rows that only the other deployment, or only this one, has; a doubled row is surplus once.
        first: the first partition that differs, for people; "" if none does.
    """

    name: str
    rows: int
    other_rows: int
    missing: int
    surplus: int
    first: str

    @property
    def is_equal(self) -> bool:
        """Whether both tables hold the same rows."""
        return not self.missing and not self.surplus


def command(locations: Locations, other: Path, names: Sequence[str]) -> int:
    """Prints a row for each table; exit code 1 if one differs."""
    if not Locations(other).lake.is_dir():
        raise BadInput(
            "tributary spark_jobs compare_tables", "--with", expected="a deployment's folder with a lake", found=other
        )
    results = [
        compare(LakeReader(locations), LakeReader(Locations(other)), TABLES[name]) for name in names or FEATURE_TABLES
    ]
    print(
        table_text(
            ("table", "rows", "rows there", "missing", "surplus", "first difference"),
            [(one.name, one.rows, one.other_rows, one.missing, one.surplus, one.first or "-") for one in results],
        )
    )
    return EXIT_OK if all(one.is_equal for one in results) else EXIT_UNEXPECTED


def compare(reader: LakeReader, other: LakeReader, table: Table) -> Compared:
    """Compares a table partition by partition, as multisets of rows."""
    keys = sorted({*_partitions(reader, table), *_partitions(other, table)}, key=str)
    rows = other_rows = missing = surplus = 0
    first = ""
    for key in keys:
        where = dict(zip(table.partition_columns, key, strict=True))
        mine, theirs = _content(reader, table, where), _content(other, table, where)
        rows, other_rows = rows + mine.total(), other_rows + theirs.total()
        missing, surplus = missing + (theirs - mine).total(), surplus + (mine - theirs).total()
        if mine != theirs and not first:
            first = ",".join(f"{name}={value}" for name, value in where.items()) or "the whole table"
    return Compared(name=table.name, rows=rows, other_rows=other_rows, missing=missing, surplus=surplus, first=first)


def _partitions(reader: LakeReader, table: Table) -> set[tuple[Any, ...]]:
    if not table.partition_columns:
        return {()}
    rows = reader.read(table.name, columns=table.partition_columns)
    return (
        {tuple(row.values()) for row in rows.group_by(list(table.partition_columns)).aggregate([]).to_pylist()}
        if len(rows)
        else set()
    )


def _content(reader: LakeReader, table: Table, where: dict[str, Any]) -> Counter[str]:
    return Counter(map(str, reader.read(table.name, columns=table.stable_columns, where=where or None).to_pylist()))
