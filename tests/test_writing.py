"""The writer: partitions are added or replaced whole, rows of others are refused, and two writers of one partition are noticed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from deltalake import DeltaTable

from contracts.errors import TributaryError
from contracts.locations import Locations
from lake import writing
from lake.reader import LakeReader

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

pytestmark = pytest.mark.spark

TABLE = "statistic_partials"
FIRST, SECOND = date(2026, 1, 1), date(2026, 1, 2)


@pytest.fixture
def locations(tmp_path: Path) -> Locations:
    return Locations(tmp_path)


def counted(spark: SparkSession, day: date, ids: Sequence[int], *, log: str = "ad") -> DataFrame:
    rows = [("user", number, 3, 1, day, log) for number in ids]
    return spark.createDataFrame(
        rows, "entity string, entity_id bigint, impressions bigint, clicks bigint, ds date, log string"
    )


def ids_of(locations: Locations, day: date) -> list[int]:
    return sorted(LakeReader(locations).read(TABLE, columns=["entity_id"], where={"ds": day})["entity_id"].to_pylist())


def operations(locations: Locations) -> list[str]:
    """What each commit of the table did, oldest first."""
    commits = DeltaTable(str(locations.table(TABLE))).history()
    return [commit["operationParameters"].get("mode", commit["operation"]) for commit in reversed(commits)]


def test_a_new_partition_is_added_and_then_replaced(spark: Any, locations: Locations) -> None:
    first, second = ({"ds": day, "log": "ad"} for day in (FIRST, SECOND))
    writing.replace_partitions(spark, locations, TABLE, counted(spark, FIRST, [1, 2]), owners=[first])
    writing.replace_partitions(spark, locations, TABLE, counted(spark, SECOND, [7]), owners=[second])
    (build,) = writing.replace_partitions(spark, locations, TABLE, counted(spark, FIRST, [3]), owners=[first])
    assert operations(locations) == ["CREATE TABLE", "Append", "Append", "Overwrite"]
    assert (ids_of(locations, FIRST), ids_of(locations, SECOND), build.row_cnt) == ([3], [7], 1)
    writing.replace_partitions(spark, locations, TABLE, counted(spark, FIRST, []), owners=[first])
    assert (ids_of(locations, FIRST), ids_of(locations, SECOND)) == ([], [7])


@pytest.mark.parametrize("is_new", [True, False])
def test_a_row_of_another_partition_is_refused_and_nothing_written(
    spark: Any, locations: Locations, is_new: bool
) -> None:
    owner = {"ds": FIRST, "log": "ad"}
    if not is_new:
        writing.replace_partitions(spark, locations, TABLE, counted(spark, FIRST, [1]), owners=[owner])
    for rows in (counted(spark, SECOND, [9]), counted(spark, FIRST, [9], log="natural")):
        with pytest.raises(Exception, match="expected rows where ds IN" if is_new else "DELTA_REPLACE_WHERE_MISMATCH"):
            writing.replace_partitions(spark, locations, TABLE, rows.union(counted(spark, FIRST, [2])), owners=[owner])
    assert LakeReader(locations).read(TABLE).num_rows == (0 if is_new else 1)
    assert ids_of(locations, FIRST) == ([] if is_new else [1])


def test_two_writers_of_one_partition_are_noticed(
    spark: Any, locations: Locations, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = {"ds": FIRST, "log": "ad"}
    look = writing._rows_there

    def overtaken(*arguments: Any) -> dict[str, int]:
        """Finds nothing, and then another writer is faster."""
        monkeypatch.setattr(writing, "_rows_there", look)
        writing.write_partitions(spark, locations, TABLE, counted(spark, FIRST, [1, 2]), owners=[owner])
        return {}

    monkeypatch.setattr(writing, "_rows_there", overtaken)
    with pytest.raises(TributaryError, match=r"expected 1 rows in ds=2026-01-01,log=ad, found 3: two writers"):
        writing.replace_partitions(spark, locations, TABLE, counted(spark, FIRST, [5]), owners=[owner])
    assert LakeReader(locations).builds(TABLE) == {}
    writing.replace_partitions(spark, locations, TABLE, counted(spark, FIRST, [5]), owners=[owner])
    assert ids_of(locations, FIRST) == [5]


def test_a_table_that_another_process_makes_at_the_same_moment_is_used(
    spark: Any, locations: Locations, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyspark.errors import PySparkException

    make, tries = writing._prepare, []

    def overtaken(*arguments: Any) -> None:
        make(*arguments)
        tries.append(arguments)
        if len(tries) == 1:
            raise PySparkException("[DELTA_PROTOCOL_CHANGED] The protocol version of the Delta table has been changed")

    monkeypatch.setattr(writing, "_prepare", overtaken)
    writing.replace_partitions(spark, locations, TABLE, counted(spark, FIRST, [1]), owners=[{"ds": FIRST, "log": "ad"}])
    assert ids_of(locations, FIRST) == [1]
