"""Committing an audited run: visible at once and whole, the same release again a no-op, a failed audit changes nothing, no step back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faiss
import features_reference as reference
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from staged_fixture import DAYS, DEPLOYMENT, MONTH, name_staged, stage_cpm, stage_day, stage_run
from test_publishing import put_nan

from contracts.errors import BadInput, QualityFailed
from contracts.locations import Locations
from contracts.releases import METRICS_FILE, VECTORS_FILE, Served
from lake.reader import LakeReader
from lake.registry import Registry
from lake.run_folders import read_release
from publishing.audit import audit
from spark_jobs import activate_release, publish_release
from spark_jobs.publish_release import activate, audited, publish

pytestmark = pytest.mark.spark

TPM = Served(kind="tpm", variant="default", period=MONTH)


@pytest.fixture
def shared_session(spark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands write through the tests' own session."""

    @contextmanager
    def session(*_: Any, **__: Any) -> Iterator[Any]:
        yield spark

    for module in (publish_release, activate_release):
        monkeypatch.setattr(module, "writing_session", session)


def publish_run(locations: Locations, folder: Path) -> Path:
    """Audits and publishes a run by the commands' own functions."""
    release = read_release(folder)
    name_staged(locations, [folder])
    audit(locations, DEPLOYMENT, folder)
    publish_release.command(locations, DEPLOYMENT, release.kind, release.period)
    return folder


def serving(locations: Locations, served: Served) -> str | None:
    return Registry.read(LakeReader(locations)).serving(served)


def test_a_release_is_what_others_read(spark: Any, tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    folder = stage_run(locations)
    with pytest.raises(BadInput, match=r"audit: expected a passed audit, found none"):
        audited(locations, folder)
    audit(locations, DEPLOYMENT, folder)
    release = audited(locations, folder)
    publish(spark, locations, DEPLOYMENT, {folder: release})
    assert LakeReader(locations).active("tpm", "default", release.period) is None, "visible before its activation"
    activate(spark, locations, {release.served: release.release_id})

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
    publish(spark, locations, DEPLOYMENT, {folder: release})
    activate(spark, locations, {release.served: release.release_id})
    assert {name: reference.content(locations, name) for name in tables} == before


def test_a_failed_audit_changes_nothing(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    folder = stage_run(locations, change=put_nan)
    with pytest.raises(QualityFailed):
        audit(locations, DEPLOYMENT, folder)
    with pytest.raises(BadInput, match=r"expected a passed audit, found failed: item_finite"):
        audited(locations, folder)
    assert LakeReader(locations).releases() == {}


def test_a_run_or_an_index_that_was_changed_after_its_audit_is_refused(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    folder = stage_run(locations)
    audit(locations, DEPLOYMENT, folder)
    index = locations.index(folder.name)
    index.rename(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match="expected the index of a published release, found none"):
        audited(locations, folder)
    (tmp_path / "elsewhere").rename(index)
    audited(locations, folder)
    pq.write_table(pa.table({"metric": ["train_loss"]}), folder / METRICS_FILE)
    with pytest.raises(BadInput, match=r"metrics.parquet: sha256"):
        audited(locations, folder)


def test_a_replaced_release_comes_back_on_purpose_alone(
    shared_session: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    locations = Locations(tmp_path)
    old = publish_run(locations, stage_run(locations))
    new = publish_run(locations, stage_run(locations, recipe={"lr": 2}, seed=1))
    assert serving(locations, TPM) == new.name
    with pytest.raises(
        BadInput, match=rf"{new.name} replaced it on .* tributary spark_jobs activate_release --release {old.name}"
    ):
        publish_run(locations, old)
    assert serving(locations, TPM) == new.name
    with pytest.raises(BadInput, match="--release: expected the id of a release that was published, found tpm-default"):
        activate_release.command(locations, "tpm-default")
    capsys.readouterr()
    activate_release.command(locations, old.name)
    assert serving(locations, TPM) == old.name
    said = capsys.readouterr().out
    assert said.splitlines()[2].split() == [str(MONTH), "tpm", "default", new.name, old.name, old.name]
    assert "no release is stale" in said
    with pytest.raises(
        BadInput, match="activate_release --release"
    ):  # the way back is not undone by a task that runs again
        publish_run(locations, new)
    (locations.index(new.name) / "items.faiss").write_bytes(b"garbage")
    with pytest.raises(BadInput, match="sha256"):
        activate_release.command(locations, new.name)
    assert serving(locations, TPM) == old.name


def test_a_day_published_late_serves_its_own_and_a_stale_child_is_named(
    shared_session: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    locations = Locations(tmp_path)
    cpm = publish_run(locations, stage_cpm(locations))
    first = publish_run(locations, stage_day(locations, 0, None, cpm))
    second = publish_run(locations, stage_day(locations, 1, first, cpm, seed=1))
    again = publish_run(
        locations, stage_day(locations, 0, None, cpm, recipe={"lr": 2}, seed=2)
    )  # a backfill of the older day
    day = [Served(kind="actr", variant="tpm+cpm", period=period) for period in DAYS]
    assert serving(locations, day[0]) == again.name
    current = LakeReader(locations).current("actr", "tpm+cpm")
    assert current is not None
    assert current["release_id"] == second.name
    retrained = stage_day(locations, 1, first, cpm, recipe={"lr": 2}, seed=3)
    with pytest.raises(QualityFailed, match=f"parents: .* and {re.escape(again.name)} serves"):
        publish_run(locations, retrained)
    capsys.readouterr()
    activate_release.command(locations, first.name)
    assert "no release is stale" in capsys.readouterr().out
    audit(locations, DEPLOYMENT, retrained)
    activate_release.command(locations, again.name)
    said = capsys.readouterr().out
    assert f"{second.name}  made from {first.name}, which no longer serves" in said
    assert (
        said.splitlines()[-1]
        == f"  tributary dags backfill ad_ctr_daily --from {DAYS[1]} --to {DAYS[1]} --reprocess completed"
    )
    with pytest.raises(BadInput, match=r"parents: expected .* Train it again: tributary training actr --ds 2026-01-13"):
        publish_release.command(locations, DEPLOYMENT, "actr", DAYS[1])  # its parent was replaced after its audit
    assert serving(locations, day[1]) == second.name


def test_the_variants_of_a_day_take_one_commit_a_table_together(shared_session: None, tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    cpm = publish_run(locations, stage_cpm(locations))
    variants = ("tpm+cpm", "batch_norm_kept")
    folders = [
        stage_day(locations, 0, None, cpm, variant=variant, seed=number) for number, variant in enumerate(variants)
    ]
    name_staged(locations, folders)
    for folder in folders:
        audit(locations, DEPLOYMENT, folder)
    tables = ("model_metrics", "releases", "activations", "builds")
    before = {name: DeltaTable(str(locations.table(name))).version() for name in tables}
    publish_release.command(locations, DEPLOYMENT, "actr", DAYS[0])
    assert {name: DeltaTable(str(locations.table(name))).version() - before[name] for name in tables} == dict.fromkeys(
        tables, 1
    )
    for variant, folder in zip(variants, folders, strict=True):
        assert serving(locations, Served(kind="actr", variant=variant, period=DAYS[0])) == folder.name
        vectors = LakeReader(locations).read("actr_embeddings", where={"release_id": folder.name})
        staged = pq.read_table(folder / VECTORS_FILE)
        keys = [("entity", "ascending"), ("id", "ascending")]
        assert vectors.select(staged.column_names).sort_by(keys).to_pylist() == staged.sort_by(keys).to_pylist()
        metrics = LakeReader(locations).read("model_metrics", where={"release_id": folder.name})
        assert (metrics["variant"].to_pylist(), metrics["kind"].to_pylist()) == ([variant], ["actr"])
