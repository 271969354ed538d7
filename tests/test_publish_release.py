"""Committing an audited run: visible at once and whole, the same release again a no-op, a failed audit changes nothing."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import faiss
import features_reference as reference
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from test_publishing import DEPLOYMENT, put_nan, stage_run

from contracts.errors import BadInput, QualityFailed
from contracts.locations import Locations
from contracts.releases import MANIFEST, METRICS_FILE, Release, sha256_of
from lake.reader import LakeReader
from publishing.audit import audit
from spark_jobs.publish_release import activate, audited, publish

pytestmark = pytest.mark.spark


def stage_with_days(locations: Locations, **arguments: Any) -> Path:
    """A staged run whose metrics carry their day, as training writes them."""
    folder = stage_run(locations, **arguments)
    rows = pa.table({"metric": ["train_loss"], "split": ["train"], "value": [0.4], "row_cnt": pa.array([10], pa.int64()),
                     "ds": [date(2026, 3, 31)]})
    pq.write_table(rows, folder / METRICS_FILE)
    release = Release.read(folder)
    files = {**release.files, METRICS_FILE: sha256_of(folder / METRICS_FILE)}
    (folder / MANIFEST).write_text(Release(**{**vars(release), "files": files}).to_json())
    return folder


def test_a_release_is_what_others_read(spark: Any, tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    folder = stage_with_days(locations)
    with pytest.raises(BadInput, match=r"audit: expected a passed audit, found none"):
        audited(folder)
    audit(locations, DEPLOYMENT, folder)
    release = audited(folder)
    publish(spark, locations, folder, release)
    assert LakeReader(locations).active("tpm", "default", release.period) is None, "visible before its activation"
    activate(spark, locations, release)

    row = LakeReader(locations).active("tpm", "default", release.period)
    assert row is not None
    assert row["release_id"] == release.release_id
    vectors = DeltaTable(str(locations.table("tpm_embeddings"))).to_pyarrow_table()
    assert set(vectors["release_id"].to_pylist()) == {release.release_id}
    assert vectors.num_rows == pq.read_metadata(folder / "vectors.parquet").num_rows
    index = faiss.read_index(str(locations.index(release.release_id) / "items.faiss"))
    assert index.ntotal == vectors["entity"].to_pylist().count("item")

    tables = ("tpm_embeddings", "model_metrics", "releases", "activations")
    before = {name: reference.content(locations, name) for name in tables}
    publish(spark, locations, folder, release)
    activate(spark, locations, release)
    assert {name: reference.content(locations, name) for name in tables} == before


def test_a_failed_audit_changes_nothing(spark: Any, tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    folder = stage_with_days(locations, change=put_nan)
    with pytest.raises(QualityFailed):
        audit(locations, DEPLOYMENT, folder)
    with pytest.raises(BadInput, match=r"expected a passed audit, found failed: item_finite"):
        audited(folder)
    assert LakeReader(locations).releases() == {}


def test_a_run_changed_after_its_audit_is_refused(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    folder = stage_with_days(locations)
    audit(locations, DEPLOYMENT, folder)
    pq.write_table(pa.table({"metric": ["train_loss"]}), folder / METRICS_FILE)
    with pytest.raises(BadInput, match=r"metrics.parquet: sha256"):
        audited(folder)
