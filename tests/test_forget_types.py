"""Whoever ingestion takes for a user, forgetting finds: in every type in which Parquet files deliver ids."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from landing_rows import DAY, good_row, write_parquet

from contracts.locations import Locations
from contracts.periods import ONE_DAY
from contracts.settings import Deployment
from lake.forgotten import User
from lake.reader import LakeReader
from spark_jobs import forget_landing, ingest_logs

TYPES = {
    "bytes": pa.binary(),
    "double": pa.float64(),
    "float": pa.float32(),
    "uint32": pa.uint32(),
    "int8": pa.int8(),
    "decimal": pa.decimal128(20, 0),
    "text": pa.string(),
}


@pytest.mark.spark
@pytest.mark.parametrize("string_ids", [(), ("user_id",)], ids=["integers", "strings"])
def test_users_that_ingestion_takes_are_found_and_come_in_no_more(
    spark: Any, tmp_path: Path, string_ids: tuple[str, ...]
) -> None:
    locations = Locations(tmp_path)
    deployment = Deployment(history_start=DAY, actr_start=DAY + ONE_DAY, ad_start=DAY + ONE_DAY, string_ids=string_ids)
    user, paths = User.of("42", deployment), {}
    for number, (name, kind) in enumerate(TYPES.items()):
        rows = [good_row(10 * number + n, user_id=text) for n, text in enumerate(("42", "4", "42", "24"))]
        path = write_parquet(locations.landing_day("natural", DAY) / f"{name}.parquet", rows)
        table = pq.read_table(path)
        ids = (
            table["user_id"].cast(pa.string()).cast(kind)
            if kind in (pa.binary(), pa.string())
            else table["user_id"].cast(kind)
        )
        pq.write_table(table.set_column(table.schema.get_field_index("user_id"), "user_id", ids), path)
        paths[name] = path
    ingest_logs.run(spark, locations, deployment, [DAY])
    taken = Counter(
        list(TYPES)[row["event_id"] // 10]
        for row in LakeReader(locations).read("natural_log").to_pylist()
        if row["user_id"] == user.user_id
    )
    assert set(taken.values()) == {2} and {"text", "uint32", "int8"} <= set(taken)
    assert {name: forget_landing.count_rows(path, user) for name, path in paths.items()} == dict.fromkeys(TYPES, 2)
    for path in paths.values():
        forget_landing.remove_rows(path, user)
    ingest_logs.run(spark, locations, deployment, [DAY])
    left = LakeReader(locations).read("natural_log").to_pylist()
    assert left and user.user_id not in {row["user_id"] for row in left}
