"""Reads the lake without Spark, by `deltalake` into Arrow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from contracts import tables
from contracts.errors import ParentMissing
from contracts.locations import Locations
from contracts.settings import table_address
from contracts.tables import Column

Values = Sequence[Any] | Any


class LakeReader:
    """Reads one deployment's tables, each at the version that it had when this reader first opened it."""

    def __init__(self, locations: Locations) -> None:
        self.locations = locations
        self._opened: dict[str, DeltaTable | None] = {}
        self._releases: dict[
            str | None, dict[str, dict[str, Any]]
        ] = {}  # by kind of model; the key None holds all kinds
        self._activations: list[dict[str, Any]] | None = None

    def read(
        self, name: str, *, columns: Sequence[str] | None = None, where: Mapping[str, Values] | None = None
    ) -> pa.Table:
        """Rows of a table, in no particular order; an absent table reads as empty.

        Args:
            name: a table of the contracts.
            columns: the columns to read; all by default.
            where: conditions, from a column to its value or list of values; those on partition columns skip whole
                files.

        Returns:
            Arrow table with columns in the order asked for.
        """
        contract = tables.table(name)
        wanted = list(columns or contract.column_names)
        table = self._open(name)
        if table is None:
            return _empty(wanted)
        predicate = " AND ".join(_one_of(contract.column(column), values) for column, values in (where or {}).items())
        present = {field.name for field in table.schema().fields}
        stream = table.scan(columns=[column for column in wanted if column in present], predicate=predicate or None)
        rows = pa.RecordBatchReader.from_stream(stream).read_all()
        for column in wanted:
            if column not in present:  # the contract has it only since the table was last written
                rows = rows.append_column(column, pa.nulls(rows.num_rows))
        rows = rows.select(wanted)
        return rows.cast(pa.schema([(field.name, _without_views(field.type)) for field in rows.schema]))

    def fragments(self, name: str) -> list[ds.Fragment]:
        """The data files of a table, which can be read one by one and never change; an absent table has none."""
        table = self._open(name)
        return [] if table is None else list(table.to_pyarrow_dataset().get_fragments())

    def builds(self, name: str, owners: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
        """Build records of a table by owner key, e.g. `ds=2026-01-01`: row_cnt, digest, inputs, counts.

        Args:
            name: a table of the contracts.
            owners: owner keys of the partitions to look up; all by default.
        """
        where: dict[str, Values] = {"table_name": name}
        if owners is not None:
            where["owner"] = list(owners)
        return {row["owner"]: row for row in self._newest_builds(where)}

    def all_builds(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Build records of every table, by table and owner key; see `builds`."""
        return {(row["table_name"], row["owner"]): row for row in self._newest_builds({})}

    def require_builds(self, name: str, owners: Sequence[str], *, hint: str) -> dict[str, str]:
        """Digest of each partition by `table/owner`, as a release or build records its inputs.

        Raises:
            ParentMissing: a partition was never built, or only under earlier rules; `hint` names the command that makes
                it.
        """
        built = self.builds(name, owners)
        missing = [owner for owner in owners if owner not in built]
        old = [
            owner
            for owner in owners
            if owner in built and not tables.table(name).is_current(dict(built[owner]["inputs"]))
        ]
        for wanting, found in (
            (missing, "none"),
            (old, "one that an earlier version of its job made, whose rows mean something else"),
        ):
            if wanting:
                more = f" and {len(wanting) - 1} more" if len(wanting) > 1 else ""
                raise ParentMissing(f"{name}: expected a build of {wanting[0]}{more}, found {found}. {hint}")
        return {f"{name}/{owner}": built[owner]["digest"] for owner in owners}

    def releases(self, kind: str | None = None) -> dict[str, dict[str, Any]]:
        """Rows of `releases` by release id, with maps as dicts, read once; they include every release that `activations` names.

        Args:
            kind: the kind of model; all kinds by default. Only the files of this kind are read.
        """
        if kind not in self._releases and None in self._releases:
            self._releases[kind] = {name: row for name, row in self._releases[None].items() if row["kind"] == kind}
        if kind not in self._releases:
            self._open("activations")  # opened first, since a release's row is committed before its activation
            rows = self.read("releases", where={} if kind is None else {"kind": kind}).to_pylist()
            for row in rows:
                for name in ("parents", "inputs", "metrics"):
                    row[name] = dict(row[name] or ())
            self._releases[kind] = {row["release_id"]: row for row in rows}
        return self._releases[kind]

    def active(self, kind: str, variant: str, period: date) -> dict[str, Any] | None:
        """The active release of a kind, variant and period, or None."""
        return self.active_releases(kind).get((variant, period))

    def active_releases(self, kind: str) -> dict[tuple[str, date], dict[str, Any]]:
        """The active releases of a kind, by variant and period."""
        if self._activations is None:
            self._activations = self.read("activations").to_pylist()
        rows = [row for row in self._activations if row["kind"] == kind]
        releases = self.releases(kind) if rows else {}
        return {
            (row["variant"], row["period"]): releases[row["release_id"]]
            for row in rows
            if row["release_id"] in releases
        }

    def current(self, kind: str, variant: str) -> dict[str, Any] | None:
        """The release of the newest active period, or None."""
        periods = {period: row for (name, period), row in self.active_releases(kind).items() if name == variant}
        return periods[max(periods)] if periods else None

    def _newest_builds(self, where: Mapping[str, Values]) -> list[dict[str, Any]]:
        """The newest build record of each partition, which is the one that counts."""
        rows = self.read("builds", where=where)
        if rows.num_rows == 0:
            return []
        order = rows.append_column("place", pa.array(range(rows.num_rows))).select(
            ["table_name", "owner", "built_ts", "place"]
        )
        order = order.sort_by([("built_ts", "ascending")])
        newest = {(row["table_name"], row["owner"]): row["place"] for row in order.to_pylist()}
        records: list[dict[str, Any]] = rows.take(pa.array(sorted(newest.values()))).to_pylist()
        for row in records:
            row["inputs"], row["counts"] = dict(row["inputs"] or ()), dict(row["counts"] or ())
        return records

    def _open(self, name: str) -> DeltaTable | None:
        if name not in self._opened:
            self._opened[name] = open_table(table_address(self.locations, name))
        return self._opened[name]


def open_table(address: str) -> DeltaTable | None:
    """The table at its newest version; None if it does not exist, or is just being created."""
    try:
        return DeltaTable(address) if DeltaTable.is_deltatable(address) else None
    except TableNotFoundError:
        return None


def column_types(address: str) -> dict[str, str]:
    """Columns of a Delta table and their types, as it has them now; {} if there is no table."""
    table = open_table(address)
    return {} if table is None else {field.name: str(field.type) for field in table.schema().fields}


def rows_by_file(address: str, predicate: str) -> dict[str, int]:
    """Rows of each file of a Delta table that may hold rows of some partitions.

    Args:
        address: the table's folder or address in the store.
        predicate: an SQL condition on its partition columns.
    """
    table = open_table(address)
    wanted = set() if table is None else set(table.file_uris(file_pruning_predicate=predicate))
    if table is None or not wanted:
        return {}
    files = pa.table(table.get_add_actions(flatten=True)).select(["path", "num_records"]).to_pylist()
    return {file["path"]: file["num_records"] for file in files if f"{address}/{file['path']}" in wanted}


def _empty(columns: Sequence[str]) -> pa.Table:
    return pa.table({name: pa.array([], type=pa.null()) for name in columns})


def _one_of(column: Column, values: Values) -> str:
    """The condition, in DataFusion's SQL, that a column has one of the values."""
    listed = list(values) if isinstance(values, (list, tuple, set, frozenset, range)) else [values]
    prefix = "DATE " if column.type == "date" else ""
    quoted = (
        str(v) if column.type in ("bigint", "int") else prefix + "'" + str(v).replace("'", "''") + "'" for v in listed
    )
    return f"{column.name} IN ({', '.join(quoted)})" if listed else "false"


def _without_views(kind: pa.DataType) -> pa.DataType:
    """Returns a type with plain strings in place of string views, which DataFusion gives and much of Arrow cannot compute with."""
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_without_views(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _without_views(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_without_views(kind.key_type), _without_views(kind.item_type))
    return kind
