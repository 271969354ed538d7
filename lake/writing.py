"""The only way to write a Delta table: replace exactly the partitions that the producer owns, and record their build."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import reduce
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

from contracts import tables
from contracts.errors import TributaryError
from contracts.locations import Locations
from contracts.settings import table_address
from contracts.tables import Table, owner_key
from lake.persisted import persisted
from lake.reader import column_types, rows_by_file
from lake.sql import literal, literals

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

Owner = Mapping[str, object]

# A pinned training set and the longest replay stay readable by version; VACUUM respects both.
RETENTION = {
    "delta.deletedFileRetentionDuration": "interval 120 days",
    "delta.logRetentionDuration": "interval 120 days",
}
# All readers select by partition, so minima and maxima of forty columns would be computed for every row and never used.
NO_COLUMN_STATISTICS = {"delta.dataSkippingNumIndexedCols": "0"}
COMMIT_ATTEMPTS = 6
OVERTAKEN = ("DELTA_CONCURRENT", "DELTA_METADATA_CHANGED", "DELTA_PROTOCOL_CHANGED")
NOTHING = (0, "0:0")  # row count and digest of an empty partition
_PREPARING = threading.Lock()  # jobs may write at the same time, even two logs into one table
_MERGING = threading.Lock()  # two merges at once would have one view's name, and one would be overtaken by the other
UNSHUFFLED_PARTITIONS = 2
OBSERVED_PARTITIONS = 8  # above it, digests are read back after the write: docs/adr/0003


@dataclass(frozen=True, kw_only=True)
class Build:
    """The record of one written partition: a row of `builds`."""

    table_name: str
    owner: str
    row_cnt: int
    digest: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)


def replace_partitions(
    spark: SparkSession,
    locations: Locations,
    name: str,
    df: DataFrame,
    *,
    owners: Sequence[Owner],
    inputs: Mapping[str, Mapping[str, str]] | None = None,
    counts: Mapping[str, Mapping[str, int]] | None = None,
) -> list[Build]:
    """Replaces partitions of a table and records their builds; for the arguments see `write_partitions`."""
    builds = write_partitions(spark, locations, name, df, owners=owners, inputs=inputs, counts=counts)
    record_builds(spark, locations, builds)
    return builds


def write_partitions(
    spark: SparkSession,
    locations: Locations,
    name: str,
    df: DataFrame,
    *,
    owners: Sequence[Owner],
    inputs: Mapping[str, Mapping[str, str]] | None = None,
    counts: Mapping[str, Mapping[str, int]] | None = None,
) -> list[Build]:
    """Replaces partitions of a table in one atomic commit, without recording them.

    If a row lies outside the owners' partitions, nothing is written; an owner without rows becomes an empty partition.
    The caller must hold the partitions' locks (`lake.session.writing_session`), because a partition without files is
    appended to, not replaced.

    Args:
        spark: the Spark session.
        locations: the deployment's paths.
        name: a table of the contracts.
        df: rows with the contract's columns, in any order.
        owners: values of the table's owner columns, one mapping for each partition.
        inputs: digests of the partitions that were read, by owner key of the partition written.
        counts: counts that the job reports, by owner key.

    Returns:
        One build for each partition, with its row count and content digest.
    """
    contract = tables.table(name)
    missing = set(contract.column_names) - set(df.columns)
    assert not missing, f"{name}: expected columns {contract.column_names}, missing {sorted(missing)}"
    prepare(spark, locations, contract)
    rows = df.select(*contract.column_names)
    if len(owners) <= OBSERVED_PARTITIONS:
        figures = _write_observed(locations, contract, rows, owners)
    else:
        _commit(locations, contract, rows, owners, mode="replace")
        figures = _read_back(spark, locations, contract, owners)
    return [
        Build(
            table_name=name,
            owner=key,
            row_cnt=figures.get(key, NOTHING)[0],
            digest=figures.get(key, NOTHING)[1],
            inputs={**(inputs or {}).get(key, {}), **contract.rules_input},
            counts=(counts or {}).get(key, {}),
        )
        for key in (owner_key(**owner) for owner in owners)
    ]


def record_builds(spark: SparkSession, locations: Locations, builds: Sequence[Build]) -> None:
    """Records partitions as built, in one commit; until then readers that ask for a build do not see them.

    Rows are appended, and the newest of a partition counts: this takes a third of the time of replacing rows, and
    concurrent writers never conflict (docs/adr/0006).
    """
    contract = tables.TABLES["builds"]
    now = datetime.now(UTC).replace(tzinfo=None)
    rows = [
        (b.table_name, b.owner, b.row_cnt, b.digest, dict(b.inputs), dict(b.counts), version("tributary"), now)
        for b in builds
    ]
    prepare(spark, locations, contract)
    df = spark.createDataFrame(rows, schema=contract.ddl).coalesce(1)
    df.write.format("delta").mode("append").save(table_address(locations, contract.name))


def insert_new(
    spark: SparkSession, locations: Locations, name: str, df: DataFrame, *, by: str
) -> dict[object, tuple[int, str]]:
    """Adds the rows that a content-addressed table does not have yet; adding the same rows again changes nothing.

    Args:
        spark: the Spark session.
        locations: the deployment's paths.
        name: a content-addressed table of the contracts.
        df: rows with the contract's columns and the column `by`.
        by: the column, e.g. ds, by which row counts and digests are grouped; it is not written.

    Returns:
        Row count and digest of the rows given, whether new or not, by the value of `by`.
    """
    from pyspark.sql import functions as F

    contract = tables.table(name)
    assert contract.content_addressed, name
    prepare(spark, locations, contract)
    with persisted(df) as kept:  # read twice: for the figures, and for what is new
        figures = {
            row[by]: (int(row["row_cnt"]), str(row["digest"]))
            for row in kept.groupBy(by)
            .agg(F.count(F.lit(1)).alias("row_cnt"), digest_of(contract).alias("digest"))
            .collect()
        }
        with _MERGING:
            _merge_new(
                spark, locations, contract, kept.select(*contract.column_names).dropDuplicates(list(contract.unique))
            )
    return figures


def _merge_new(spark: SparkSession, locations: Locations, contract: Table, rows: DataFrame) -> None:
    """Runs one insert-only MERGE, and retries when another commit came first."""
    from pyspark.errors import PySparkException

    keys = " AND ".join(f"there.{key} = new.{key}" for key in contract.unique)
    for attempt in range(1, COMMIT_ATTEMPTS + 1):
        rows.createOrReplaceTempView("new_rows")
        try:
            spark.sql(
                f"MERGE INTO delta.`{table_address(locations, contract.name)}` AS there USING new_rows AS new ON {keys} "
                "WHEN NOT MATCHED THEN INSERT *"
            ).collect()
            return
        except PySparkException as error:
            _retry_or_raise(error, attempt)
        finally:
            spark.catalog.dropTempView("new_rows")


def prepare(spark: SparkSession, locations: Locations, contract: Table) -> None:
    """Creates an empty plain Delta table of this contract (reader 1, writer 2), or adds the columns that it lacks.

    A column that was declared later reads as null in the partitions written before.
    """
    from pyspark.errors import PySparkException

    for attempt in range(1, COMMIT_ATTEMPTS + 1):
        try:
            with _PREPARING:
                _prepare(spark, table_address(locations, contract.name), contract)
            return
        except PySparkException as error:  # another process created the same table at the same time
            _retry_or_raise(error, attempt)


def _prepare(spark: SparkSession, address: str, contract: Table) -> None:
    present = set(column_types(address))
    if present:
        missing = ", ".join(
            f"`{column.name}` {column.type}" for column in contract.columns if column.name not in present
        )
        if missing:
            spark.sql(f"ALTER TABLE delta.`{address}` ADD COLUMNS ({missing})")
        return
    properties = ", ".join(f"'{key}' = '{value}'" for key, value in (RETENTION | NO_COLUMN_STATISTICS).items())
    by = ", ".join(f"`{name}`" for name in contract.partition_columns)
    spark.sql(
        f"CREATE TABLE IF NOT EXISTS delta.`{address}` ({contract.ddl}) USING delta "
        + (f"PARTITIONED BY ({by}) " if by else "")
        + f"TBLPROPERTIES ({properties})"
    )


def digest_of(contract: Table, condition: Column | None = None) -> Column:
    """An aggregate: the sum of xxhash64 over the non-volatile columns, as text; equal for equal rows in any order.

    The upper and lower half of each hash are summed separately, as integers that cannot overflow below 2^31 rows;
    decimals wide enough for the whole sum would take longer than the hashing.

    Args:
        contract: the contract of the table.
        condition: which rows to include; all by default.
    """
    from pyspark.sql import functions as F

    columns = [c for c in contract.columns if not c.volatile]
    hashable = [
        F.array_sort(F.map_entries(c.name)) if c.type.startswith("map<") else F.col(c.name) for c in columns
    ]  # maps have no order
    row = F.xxhash64(*hashable)
    halves = (F.shiftright(row, 32), row.bitwiseAND(F.lit(0xFFFFFFFF)))
    return F.concat_ws(
        ":", *(F.coalesce(F.sum(half if condition is None else F.when(condition, half)), F.lit(0)) for half in halves)
    )


def _write_observed(
    locations: Locations, contract: Table, rows: DataFrame, owners: Sequence[Owner]
) -> dict[str, tuple[int, str]]:
    """Writes a few partitions; the row count and digest of each are computed during the write."""
    from pyspark.sql import Observation
    from pyspark.sql import functions as F

    observed: dict[str, Any] = {}
    conditions = (
        [F.expr(owner_predicate([owner])) for owner in owners] if len(owners) > 1 else [None]
    )  # Delta refuses foreign rows
    figures = [
        figure
        for i, condition in enumerate(conditions)
        for figure in (
            F.count(F.lit(1) if condition is None else F.when(condition, 1)).alias(f"row_cnt_{i}"),
            digest_of(contract, condition).alias(f"digest_{i}"),
        )
    ]

    def observe(df: DataFrame) -> DataFrame:
        observed["now"] = Observation()  # an Observation can be used once, so a retry needs a new one
        return df.observe(observed["now"], *figures)

    # Replacing costs Delta a reconstruction of the table's state, four times the rest of a small commit: docs/adr/0007
    is_new = set(contract.owner) == set(contract.partition_columns) and not _rows_there(locations, contract, owners)
    _commit(locations, contract, rows, owners, mode="add" if is_new else "replace", observe=observe)
    values = observed["now"].get
    written = {
        owner_key(**owner): (int(values[f"row_cnt_{i}"]), str(values[f"digest_{i}"])) for i, owner in enumerate(owners)
    }
    if is_new:
        _refuse_shared(locations, contract, owners, sum(row_cnt for row_cnt, _ in written.values()))
    return written


def _refuse_shared(locations: Locations, contract: Table, owners: Sequence[Owner], row_cnt: int) -> None:
    """Raises TributaryError if partitions hold other rows than were just appended: somebody wrote them without their locks."""
    there = sum(_rows_there(locations, contract, owners).values())
    if there != row_cnt:
        partitions = ", ".join(owner_key(**owner) for owner in owners)
        raise TributaryError(
            f"{contract.name}: expected {row_cnt} rows in {partitions}, found {there}: two writers had the same "
            "partitions at once. Run the command again: it replaces them."
        )


def _rows_there(locations: Locations, contract: Table, owners: Sequence[Owner]) -> dict[str, int]:
    return rows_by_file(table_address(locations, contract.name), owner_predicate(owners))


def _read_back(
    spark: SparkSession, locations: Locations, contract: Table, owners: Sequence[Owner]
) -> dict[str, tuple[int, str]]:
    """Row count and digest of each partition, from one pass over the committed rows."""
    from pyspark.sql import functions as F

    rows = (
        spark.read.format("delta")
        .load(table_address(locations, contract.name))
        .where(owner_predicate(owners))
        .groupBy(*contract.owner)
        .agg(F.count(F.lit(1)).alias("row_cnt"), digest_of(contract).alias("digest"))
        .collect()
    )
    return {
        owner_key(**{name: row[name] for name in contract.owner}): (int(row["row_cnt"]), str(row["digest"]))
        for row in rows
    }


def _commit(
    locations: Locations,
    contract: Table,
    rows: DataFrame,
    owners: Sequence[Owner],
    *,
    mode: Literal["add", "replace"],
    observe: Any = None,
) -> None:
    """Appends to or replaces the owners' partitions in one commit, and retries when another commit to the table came first."""
    from pyspark.errors import PySparkException

    for attempt in range(1, COMMIT_ATTEMPTS + 1):
        # Many partitions are shuffled so that each has few files; one or two get as many files as the job has tasks,
        # without a shuffle.
        df = rows.hint("rebalance", *contract.partition_columns) if len(owners) > UNSHUFFLED_PARTITIONS else rows
        df = _inside(df, contract, owners) if mode == "add" else df
        try:
            writer = (observe(df) if observe else df).write.format("delta")
            if mode == "add":
                writer.mode("append").save(table_address(locations, contract.name))
            else:
                writer.mode("overwrite").option("replaceWhere", owner_predicate(owners)).save(
                    table_address(locations, contract.name)
                )
            return
        except PySparkException as error:
            _retry_or_raise(error, attempt)


def _inside(rows: DataFrame, contract: Table, owners: Sequence[Owner]) -> DataFrame:
    """Returns the same rows; a row outside of the owners' partitions makes the job fail, as it does when Delta replaces partitions."""
    from pyspark.sql import functions as F

    name, predicate = contract.owner[0], owner_predicate(owners)
    actual = F.to_json(F.struct(*contract.owner))
    wrong = F.raise_error(F.concat(F.lit(f"{contract.name}: expected rows where {predicate}, found "), actual))
    return rows.withColumn(name, F.when(F.expr(predicate), F.col(name)).otherwise(wrong)).select(*rows.columns)


def _retry_or_raise(error: Exception, attempt: int) -> None:
    """Waits a little if another commit came first and attempts are left; otherwise raises the error."""
    if attempt == COMMIT_ATTEMPTS or not any(name in str(error) for name in OVERTAKEN):
        raise error
    time.sleep(0.3 * attempt)


def owner_predicate(owners: Sequence[Owner]) -> str:
    """The SQL condition that selects exactly the owners' partitions: a conjunction of INs where they form a grid."""
    names = list(owners[0])
    values = {name: sorted({str(owner[name]) for owner in owners}) for name in names}
    if reduce(lambda size, name: size * len(values[name]), names, 1) == len(
        {tuple(map(str, o.values())) for o in owners}
    ):
        return " AND ".join(f"{name} IN ({literals(values[name])})" for name in names)
    return " OR ".join(
        "(" + " AND ".join(f"{name} = {literal(str(value))}" for name, value in owner.items()) + ")" for owner in owners
    )
