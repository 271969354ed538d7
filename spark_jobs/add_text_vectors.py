"""Adds vectors of texts that training has staged to `behaviour_text_vectors`, by an insert-only MERGE on encoder and hash."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from contracts.commands import stage, table_text
from contracts.errors import BadInput
from contracts.locations import Locations
from contracts.releases import MANIFEST
from lake.session import writing_session
from lake.writing import insert_new

TABLE = "behaviour_text_vectors"


def command(locations: Locations) -> int:
    """Adds everything that is staged and complete, and removes it from the staging folder.

    Raises:
        BadInput: a staged chunk is missing, is not of its encoder, or has vectors of another width or that are no
            numbers.
    """
    folders = staged(locations)
    for folder in folders:
        check(folder)
    with (
        stage("add_text_vectors"),
        writing_session(locations, app="add_text_vectors", partitions={TABLE: ["all"]}) as spark,
    ):
        rows = [(folder.name, str(add(spark, locations, folder))) for folder in folders]
    print(table_text(("encoder", "texts"), rows) if rows else "nothing is staged: tributary training encode_texts")
    return 0


def staged(locations: Locations) -> list[Path]:
    """Staging folders that were finished."""
    return sorted(path.parent for path in locations.text_vectors("").glob(f"*/{MANIFEST}"))


def check(folder: Path) -> None:
    """Raises BadInput unless the chunks are all there, of this encoder, each hash once, each vector of finite numbers of its width."""
    manifest = json.loads((folder / MANIFEST).read_text())
    parts = [pq.read_table(path) for path in sorted(folder.glob("part-*.parquet"))]
    count = sum(map(len, parts))
    if count != manifest["text_cnt"] or folder.name != manifest["encoder_id"]:
        raise BadInput(
            folder,
            "text_cnt",
            expected=f"{manifest['text_cnt']} of {manifest['encoder_id']}",
            found=count,
            hint="Stage them again: tributary training encode_texts",
        )
    hashes: set[int] = set()
    for part in parts:
        hashes.update(part["text_hash"].to_pylist())
        values = part["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        right = set(part["dim"].to_pylist()) == {manifest["dim"]} and len(values) == len(part) * manifest["dim"]
        if (
            not right
            or set(part["encoder_id"].to_pylist()) != {folder.name}
            or not bool((abs(values) < float("inf")).all())
        ):
            raise BadInput(
                folder,
                "vector",
                expected=f"{manifest['dim']} finite numbers each, of {folder.name}",
                found="others",
                hint="Stage them again: tributary training encode_texts",
            )
    if len(hashes) != count:
        raise BadInput(folder, "text_hash", expected="each once", found=f"{count - len(hashes)} repeated")


def add(spark: SparkSession, locations: Locations, folder: Path) -> int:
    """Rows staged in a folder, which is deleted afterwards."""
    count = int(json.loads((folder / MANIFEST).read_text())["text_cnt"])
    if count:
        rows = spark.read.parquet(*(str(path) for path in sorted(folder.glob("part-*.parquet"))))
        insert_new(spark, locations, TABLE, rows, by="encoder_id")
    shutil.rmtree(folder)
    return count
