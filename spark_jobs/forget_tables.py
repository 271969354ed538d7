"""Tables without a user's rows: partitions that hold some are replaced by what is left of them, and the journal follows.

Counts of items, categories and whole logs stay as they are: they name nobody. Whatever was built from a partition or a
landing day that has another digest now is recorded as built from that one, so forgetting makes nothing stale
(docs/adr/0014).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING

import pyarrow.dataset as ds

from contracts.features import FEATURES
from contracts.locations import Locations
from contracts.settings import table_address
from contracts.steps import LOG_TABLES
from contracts.tables import ENTITY_ID_COLUMNS, TABLES, Table, owner_key
from lake.forgotten import User
from lake.progress import each
from lake.reader import LakeReader, open_table
from lake.writing import Build, owner_predicate, prepare, record_builds, write_partitions

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

QUARANTINE, ID_STRINGS = "quarantine", "id_strings"
OF_USERS = [
    one.name for one in FEATURES if one.side == "user" and one.name in ENTITY_ID_COLUMNS and one.name != "user_id"
]
Owners = dict[str, int]  # rows of a user by owner key


def tables_with_users(user: User) -> list[Table]:
    """Tables that may hold rows of a user."""
    return [
        table for table in TABLES.values() if table.name == QUARANTINE or table.rows_of_user(user.user_id) is not None
    ]


def find_rows(locations: Locations, user: User) -> dict[str, Owners]:
    """Partitions that hold rows of a user, and how many, by table; needs no Spark."""
    reader = LakeReader(locations)
    rows = {
        table.name: _find(reader, table, user)
        for table in each(tables_with_users(user), description="look through", unit="table")
    }
    return {name: owners for name, owners in rows.items() if owners}


def _find(reader: LakeReader, table: Table, user: User) -> Owners:
    if table.name == QUARANTINE:
        return {owner: len(raws) for owner, raws in _quarantined(reader, user).items()}
    names = table.owner or table.partition_columns
    rows = [
        row
        for where in _rows_of(reader, table, user)
        for row in reader.read(table.name, columns=names, where=where).to_pylist()
    ]
    return dict(Counter(owner_key(**{name: row[name] for name in names}) for row in rows))


def _rows_of(reader: LakeReader, table: Table, user: User) -> list[dict[str, int | str]]:
    """Columns and values that select the rows about a user, each by itself."""
    where = table.rows_of_user(user.user_id)
    assert where is not None, table.name
    return [where, *(_own_strings(reader, user) if table.name == ID_STRINGS else [])]


def _own_strings(reader: LakeReader, user: User) -> list[dict[str, int | str]]:
    """The rows of `id_strings` that hold what the logs show of this user and of nobody else, such as a segment of one."""
    of_user: dict[str, set[int]] = {}
    for name in OF_USERS:
        there = reader.read(ID_STRINGS, columns=["id"], where={"field": name})["id"].to_pylist()
        seen = {
            value
            for log in (LOG_TABLES if there else ())
            for value in reader.read(log, columns=[name], where={"user_id": user.user_id})[name].to_pylist()
        }
        of_user[name] = seen & set(there)
    for fragment in (fragment for log in LOG_TABLES for fragment in reader.fragments(log)):
        names = [name for name, values in of_user.items() if values and name in fragment.physical_schema.names]
        if not any(of_user.values()):
            break  # a segment of many users is seen with another in the first file
        if names:
            others = fragment.to_table(columns=names, filter=ds.field("user_id") != user.user_id)
            for name in names:
                of_user[name] -= set(others[name].unique().to_pylist())
    return [{"field": name, "id": value} for name, values in of_user.items() for value in sorted(values)]


def _quarantined(reader: LakeReader, user: User) -> dict[str, list[str]]:
    """A user's rows in quarantine, as they were delivered, by owner key; read file by file, for there may be many."""
    found: dict[str, list[str]] = defaultdict(list)
    for fragment in reader.fragments(QUARANTINE):
        keys = ds.get_partition_keys(fragment.partition_expression)
        raws = [raw for raw in fragment.to_table(columns=["raw"])["raw"].to_pylist() if user.is_in_raw(raw)]
        if raws:
            found[owner_key(**{name: keys[name] for name in TABLES[QUARANTINE].owner})] += raws
    return dict(found)


def remove_rows(
    spark: SparkSession, locations: Locations, user: User, partitions: Mapping[str, Sequence[str]]
) -> list[Build]:
    """Replaces these partitions by their rows without the user, without recording the builds."""
    builds: list[Build] = []
    # Strings first: which of them are the user's own is read from the logs.
    in_order = sorted(partitions.items(), key=lambda item: item[0] != ID_STRINGS)
    for name, keys in each(in_order, description="rewrite", unit="table"):
        contract, owners = TABLES[name], [dict(part.split("=", 1) for part in key.split(",")) for key in keys]
        prepare(spark, locations, contract)
        rows = spark.read.format("delta").load(table_address(locations, name)).where(owner_predicate(owners))
        builds += write_partitions(
            spark, locations, name, _others(spark, locations, contract, rows, user), owners=owners
        )
    return builds


def _others(spark: SparkSession, locations: Locations, contract: Table, rows: DataFrame, user: User) -> DataFrame:
    from pyspark.sql import functions as F

    if contract.name != QUARANTINE:
        for where in _rows_of(LakeReader(locations), contract, user):
            is_users = reduce(
                lambda both, one: both & one, (F.col(name).eqNullSafe(F.lit(value)) for name, value in where.items())
            )
            rows = rows.where(~is_users)
        return rows
    removed = {raw for raws in _quarantined(LakeReader(locations), user).values() for raw in raws}
    raws = spark.createDataFrame([(raw,) for raw in sorted(removed)], "raw string")
    return rows.join(F.broadcast(raws), "raw", "left_anti")


def record(
    spark: SparkSession,
    locations: Locations,
    builds: Sequence[Build],
    removed: Mapping[str, Owners],
    landing: Mapping[str, tuple[str, str]],
) -> int:
    """Records rewritten partitions, and with them all that were built from them or from rewritten landing days, in one commit.

    Args:
        spark: the Spark session.
        locations: the deployment's paths.
        builds: the rewritten partitions.
        removed: number of rows that were removed from each.
        landing: digests of rewritten landing days before and now, by their keys among a build's inputs.

    Returns:
        How many builds were recorded that were not rewritten.
    """
    before = LakeReader(locations).all_builds()
    rewritten = {
        (build.table_name, build.owner): build for build in builds if (build.table_name, build.owner) in before
    }
    changes = dict(landing)
    changes |= {
        f"{name}/{owner}": (before[name, owner]["digest"], build.digest) for (name, owner), build in rewritten.items()
    }
    records = []
    for (name, owner), row in before.items():
        inputs = {
            key: changes[key][1] if key in changes and changes[key][0] == digest else digest
            for key, digest in row["inputs"].items()
        }
        counts, own = _counts(name, owner, row["counts"], removed), rewritten.get((name, owner))
        if own is not None or inputs != row["inputs"] or counts != row["counts"]:
            build = own or Build(table_name=name, owner=owner, row_cnt=row["row_cnt"], digest=row["digest"])
            records.append(replace(build, inputs=inputs, counts=counts))
    if records:
        record_builds(spark, locations, records)
    return len(records) - len(rewritten)


def _counts(name: str, owner: str, counts: Mapping[str, int], removed: Mapping[str, Owners]) -> dict[str, int]:
    """Figures of an ingestion without the rows that were taken from its log and its quarantine: they add up as before."""
    kept = removed.get(name, {}).get(owner, 0) if name.endswith("_log") else 0
    bad = removed.get(QUARANTINE, {}).get(f"{owner},log={name.removesuffix('_log')}", 0) if name.endswith("_log") else 0
    if not kept + bad:
        return dict(counts)
    taken = {"kept": -kept, "quarantined": -bad, "forgotten": kept + bad}
    return {key: counts.get(key, 0) + taken.get(key, 0) for key in {**counts, **taken}}


def vacuum(spark: SparkSession, locations: Locations, tables: Iterable[Table]) -> None:
    """Deletes every file that the newest versions of the tables do not name; no other job may be writing."""
    check = "spark.databricks.delta.retentionDurationCheck.enabled"
    before = spark.conf.get(check)
    spark.conf.set(check, "false")
    try:
        for table in each(list(tables), description="delete old versions", unit="table"):
            if open_table(table_address(locations, table.name)) is not None:
                spark.sql(f"VACUUM delta.`{table_address(locations, table.name)}` RETAIN 0 HOURS").collect()
    finally:
        spark.conf.set(check, str(before))
