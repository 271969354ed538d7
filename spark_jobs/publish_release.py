"""Publishes what gate and audit let through: vectors, metrics, predictions, then the release rows, their activations last.

The releases of a period, one for each variant, go together. Until its release row is there no reader sees anything of
one; the same release again changes nothing. A run that would replace a newer release by an older one is refused: for
that there is `activate_release`, on purpose. Where the gate refused a run, its fallback is published in its place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime
from functools import reduce
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from contracts import tables
from contracts.commands import stage, table_text
from contracts.errors import BadInput
from contracts.kinds import KINDS
from contracts.locations import Locations
from contracts.releases import (
    AUDIT,
    MANIFEST,
    METRICS_FILE,
    PREDICTIONS_FILE,
    VECTORS_FILE,
    Release,
    Served,
    training_command,
)
from contracts.settings import Deployment
from contracts.tables import owner_key
from lake.index_files import index_manifest
from lake.reader import LakeReader
from lake.registry import Registry
from lake.run_folders import failed_names, gated_runs, read_release, require_same_manifest, require_unchanged, sha256_of
from lake.session import writing_session
from lake.writing import Build, record_builds, write_partitions
from spark_jobs.id_strings import with_published


def command(locations: Locations, deployment: Deployment, kind: str, period: date) -> int:
    """Publishes the staged runs of a kind and period, and prints their release ids.

    Raises:
        BadInput: a run's audit has not passed, or it is no step forward; nothing of any run was committed.
    """
    deployment.lineage.period(kind, period)
    folders = gated_runs(locations, kind, period)
    releases = [audited(locations, folder) for folder in folders]
    locks = {"releases": [owner_key(kind=kind)], "activations": [owner_key(kind=kind, period=period)]}
    with (
        stage(f"publish_release {kind} {period}"),
        writing_session(locations, app="publish_release", partitions=locks) as spark,
    ):
        if gated_runs(locations, kind, period) != folders:
            raise BadInput(
                locations.staged(kind, period),
                "staged runs",
                expected="the same as when this command began",
                found="others: it was trained again meanwhile",
                hint="Audit them, and publish again.",
            )
        before = Registry.read(LakeReader(locations))
        for release in releases:
            refuse_unfit(LakeReader(locations), before, deployment, release)
        publish(
            spark,
            locations,
            deployment,
            {
                folder: release
                for folder, release in zip(folders, releases, strict=True)
                if release.release_id not in before.releases
            },
        )
        activate(spark, locations, {release.served: release.release_id for release in releases})
    after = Registry.read(LakeReader(locations))
    print(
        table_text(
            ("release", "variant", "", "vectors in", "current"),
            [
                (
                    r.release_id,
                    r.variant,
                    "was there already" if r.release_id in before.releases else "published",
                    KINDS[kind].vectors,
                    after.current(kind, r.variant),
                )
                for r in releases
            ],
        )
    )
    print(
        f"next: tributary publishing neighbours --table {KINDS[kind].vectors} --variant {releases[0].variant} --id ITEM"
    )
    return 0


def refuse_unfit(reader: LakeReader, registry: Registry, deployment: Deployment, release: Release) -> None:
    """Raises BadInput if a run's parents do not serve (any more), or it would replace a newer release by an older one."""
    wrong = registry.wrong_parents(deployment.lineage, release)
    if wrong:
        raise BadInput(
            release.release_id,
            "parents",
            expected="the releases that serve what its period computes",
            found="; ".join(wrong),
            hint=f"Train it again: {training_command(release.served)}",
        )
    back = registry.step_back(release, reader)
    if back and release.release_id in registry.releases:
        raise BadInput(
            release.release_id,
            "release",
            expected=f"one that is newer than what serves {release.served}",
            found=back,
            hint=f"To go back to it on purpose: tributary spark_jobs activate_release --release {release.release_id}",
        )
    if back:
        raise BadInput(
            release.release_id,
            "inputs",
            expected=f"none older than those of what serves {release.served}",
            found=back,
            hint=f"Train it again: {training_command(release.served)}",
        )


def audited(locations: Locations, folder: Path) -> Release:
    """The release of a run folder whose audit passed, its files and its index those that were judged.

    Raises:
        BadInput: it was not audited, its audit failed, or the run or its index was changed since.
    """
    release, path = read_release(folder), folder / AUDIT
    again = f"Run: tributary publishing audit --kind {release.kind} --period {release.period}"
    if not path.is_file():
        raise BadInput(path, "audit", expected="a passed audit", found="none", hint=again)
    audit: dict[str, Any] = json.loads(path.read_text())
    if "index_sha256" not in audit:
        raise BadInput(
            path,
            "index_sha256",
            expected="the index that the audit judged",
            found="an audit by an older version",
            hint=again,
        )
    if not audit["passed"]:
        raise BadInput(path, "audit", expected="a passed audit", found=f"failed: {failed_names(audit)}")
    require_same_manifest(path, audit, hint=again)
    require_unchanged(folder, release, hint=again)
    if audit["index_sha256"] is not None:
        index = index_manifest(locations.index(release.release_id))
        if index["sha256"] != audit["index_sha256"]:
            raise BadInput(
                locations.index(release.release_id),
                "sha256",
                expected=audit["index_sha256"],
                found=index["sha256"],
                hint=again,
            )
    return release


def publish(
    spark: SparkSession, locations: Locations, deployment: Deployment, releases: Mapping[Path, Release]
) -> None:
    """Commits the files of runs of one kind to their tables, and the rows of their releases after them.

    There is one commit per table, however many releases: a commit takes a second, and a day of A-CTR has one release
    per transfer setting.

    Args:
        spark: the session.
        locations: the deployment's paths.
        deployment: the deployment's settings, of which this takes `published_strings`.
        releases: the releases by run folder; none of them is published yet.
    """
    if not releases:
        return
    kind = next(iter(releases.values())).kind
    inputs = {owner_key(release_id=release.release_id): dict(release.inputs) for release in releases.values()}
    builds = write_partitions(
        spark,
        locations,
        KINDS[kind].vectors,
        with_published(spark, locations, deployment, _files(spark, releases, VECTORS_FILE)),
        inputs=inputs,
        owners=[{"release_id": release.release_id} for release in releases.values()],
    )
    builds += _publish_days(
        spark, locations, "model_metrics", _files(spark, releases, METRICS_FILE).withColumn("kind", F.lit(kind))
    )
    scored = {folder: release for folder, release in releases.items() if (folder / PREDICTIONS_FILE).is_file()}
    if scored:
        builds += _publish_days(spark, locations, "predictions", _files(spark, scored, PREDICTIONS_FILE))
    record_builds(spark, locations, builds)
    rows = [
        (
            release.release_id,
            release.kind,
            release.variant,
            release.period,
            json.dumps(dict(release.recipe), sort_keys=True),
            dict(release.parents),
            list(release.absent_parents),
            dict(release.inputs),
            release.model_version,
            str(folder.relative_to(locations.home)),
            sha256_of(folder / MANIFEST),
            list(release.feature_set),
            dict(release.metrics),
            release.carries,
            _now(),
        )
        for folder, release in releases.items()
    ]
    df = spark.createDataFrame(rows, schema=tables.TABLES["releases"].ddl)
    write_partitions(
        spark,
        locations,
        "releases",
        df,
        owners=[{"kind": release.kind, "release_id": release.release_id} for release in releases.values()],
    )


def activate(spark: SparkSession, locations: Locations, releases: Mapping[Served, str]) -> None:
    """Makes each release the one that serves its kind, variant and period, in one commit; those that do already stay."""
    registry = Registry.read(LakeReader(locations))
    others = {served: release_id for served, release_id in releases.items() if registry.serving(served) != release_id}
    if not others:
        return
    rows = [(served.kind, served.variant, served.period, release_id, _now()) for served, release_id in others.items()]
    df = spark.createDataFrame(rows, schema=tables.TABLES["activations"].ddl)
    write_partitions(
        spark,
        locations,
        "activations",
        df,
        owners=[{"kind": served.kind, "variant": served.variant, "period": served.period} for served in others],
    )


def _files(spark: SparkSession, releases: Mapping[Path, Release], name: str) -> DataFrame:
    """The rows of one file of each run, with `variant` and `release_id`."""
    parts = [
        spark.read.parquet(str(folder / name)).withColumns(
            {"variant": F.lit(release.variant), "release_id": F.lit(release.release_id)}
        )
        for folder, release in releases.items()
    ]
    return reduce(DataFrame.unionByName, parts)


def _publish_days(spark: SparkSession, locations: Locations, name: str, rows: DataFrame) -> list[Build]:
    days = rows.select("ds", "release_id").distinct().orderBy("ds", "release_id").collect()
    owners = [{"ds": row["ds"], "release_id": row["release_id"]} for row in days]
    return write_partitions(spark, locations, name, rows, owners=owners) if owners else []


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
