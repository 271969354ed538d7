"""Commits what an audited training run has staged: vectors, predictions, metrics, then the release row, its activation last.

Until the release row is there no reader sees anything of it; the same release again changes nothing.
"""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from contracts import tables
from contracts.commands import stage, table_text
from contracts.errors import BadInput
from contracts.locations import Locations
from contracts.releases import (
    AUDIT,
    MANIFEST,
    METRICS_FILE,
    PREDICTIONS_FILE,
    VECTOR_TABLES,
    VECTORS_FILE,
    Release,
    sha256_of,
    staged_runs,
)
from contracts.settings import Deployment
from contracts.tables import owner_key
from lake.reader import LakeReader
from lake.session import writing_session
from lake.writing import Build, record_builds, write_partitions


def command(locations: Locations, deployment: Deployment, kind: str, period: date) -> int:
    """Publishes the staged runs of a kind and period, and prints their release ids."""
    deployment.lineage.period(kind, period)
    folders = staged_runs(locations, kind, period)
    releases = [audited(folder) for folder in folders]
    published = LakeReader(locations).releases()
    locks = {"releases": [owner_key(kind=kind)], "activations": [owner_key(kind=kind, period=period)]}
    with stage(f"publish_release {kind} {period}"), writing_session(locations, app="publish_release", partitions=locks) as spark:
        for folder, release in zip(folders, releases, strict=True):
            if release.release_id not in published:
                publish(spark, locations, folder, release)
            activate(spark, locations, release)
    print(table_text(("release", "variant", "", "vectors in"),
                     [(r.release_id, r.variant, "was there already" if r.release_id in published else "published", VECTOR_TABLES[kind])
                      for r in releases]))
    print(f"next: tributary publishing neighbours --kind {kind} --variant {releases[0].variant} --item ID")
    return 0


def audited(folder: Path) -> Release:
    """The release of a run folder whose audit passed.

    Raises:
        BadInput: it was not audited, its audit failed, or the run was changed since.
    """
    release, path = Release.read(folder), folder / AUDIT
    again = f"Run: tributary publishing audit --kind {release.kind} --period {release.period}"
    if not path.is_file():
        raise BadInput(path, "audit", expected="a passed audit", found="none", hint=again)
    audit: dict[str, Any] = json.loads(path.read_text())
    if not audit["passed"]:
        failed = [check["name"] for check in audit["checks"] if not check["passed"]]
        raise BadInput(path, "audit", expected="a passed audit", found=f"failed: {', '.join(failed)}")
    if audit["manifest_sha256"] != sha256_of(folder / MANIFEST):
        raise BadInput(path, "manifest_sha256", expected=audit["manifest_sha256"], found="another manifest", hint=again)
    for name, digest in release.files.items():
        if sha256_of(folder / name) != digest:
            raise BadInput(folder / name, "sha256", expected=digest, found="another file", hint=again)
    return release


def publish(spark: SparkSession, locations: Locations, folder: Path, release: Release) -> None:
    """Commits a run's files to their tables, and the release row after them."""
    builds = _publish_vectors(spark, locations, folder, release)
    metrics = spark.read.parquet(str(folder / METRICS_FILE)).withColumns(
        {"kind": F.lit(release.kind), "variant": F.lit(release.variant), "release_id": F.lit(release.release_id)})
    builds += _publish_days(spark, locations, "model_metrics", metrics, release)
    if (folder / PREDICTIONS_FILE).is_file():
        predictions = spark.read.parquet(str(folder / PREDICTIONS_FILE)).withColumns(
            {"variant": F.lit(release.variant), "release_id": F.lit(release.release_id)})
        builds += _publish_days(spark, locations, "predictions", predictions, release)
    record_builds(spark, locations, builds)
    row = (release.release_id, release.kind, release.variant, release.period, json.dumps(dict(release.recipe), sort_keys=True),
           dict(release.parents), list(release.absent_parents), dict(release.inputs), release.model_version,
           str(folder.relative_to(locations.home)), sha256_of(folder / MANIFEST), list(release.feature_set), dict(release.metrics), _now())
    df = spark.createDataFrame([row], schema=tables.TABLES["releases"].ddl)
    write_partitions(spark, locations, "releases", df, owners=[{"kind": release.kind, "release_id": release.release_id}])


def activate(spark: SparkSession, locations: Locations, release: Release) -> None:
    """Makes a release the one that serves its kind, variant and period, unless it is that already."""
    active = LakeReader(locations).active(release.kind, release.variant, release.period)
    if active is not None and active["release_id"] == release.release_id:
        return
    row = (release.kind, release.variant, release.period, release.release_id, _now())
    df = spark.createDataFrame([row], schema=tables.TABLES["activations"].ddl)
    write_partitions(spark, locations, "activations", df,
                     owners=[{"kind": release.kind, "variant": release.variant, "period": release.period}])


def _publish_vectors(spark: SparkSession, locations: Locations, folder: Path, release: Release) -> list[Build]:
    vectors = spark.read.parquet(str(folder / VECTORS_FILE)).withColumn("release_id", F.lit(release.release_id))
    return write_partitions(spark, locations, VECTOR_TABLES[release.kind], vectors, owners=[{"release_id": release.release_id}],
                            inputs={owner_key(release_id=release.release_id): dict(release.inputs)})


def _publish_days(spark: SparkSession, locations: Locations, name: str, rows: DataFrame, release: Release) -> list[Build]:
    owners = [{"ds": row["ds"], "release_id": release.release_id} for row in rows.select("ds").distinct().orderBy("ds").collect()]
    return write_partitions(spark, locations, name, rows, owners=owners) if owners else []


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
