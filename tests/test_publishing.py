"""Audits and indexes of staged runs; parents that a period waits for."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.errors import BadInput, QualityFailed
from contracts.locations import Locations
from contracts.releases import AUDIT, MANIFEST, MAPPING_FILE, METRICS_FILE, VECTORS_FILE, Release, sha256_of
from contracts.settings import Deployment
from lake.reader import LakeReader
from publishing.audit import audit
from publishing.index import Vectors, load_index, measured_recall, neighbours
from publishing.parents import missing_inputs

DEPLOYMENT = Deployment(history_start=date(2026, 1, 1), actr_start=date(2026, 4, 27))
DIM = 8
ITEMS = 300


def clustered(rng: np.random.Generator) -> np.ndarray:
    """Item vectors in ten clusters, N x D: item i lies in cluster i % 10."""
    centres = rng.normal(size=(10, DIM))
    return (centres[np.arange(ITEMS) % 10] + 0.1 * rng.normal(size=(ITEMS, DIM))).astype(np.float32)


def stage_run(locations: Locations, *, change: Callable[[dict[str, list[object]]], None] = lambda rows: None, loss: float | None = 0.4,
              dims: int = DIM, known_items: int = ITEMS) -> Path:
    """Writes a run folder as training leaves it, its vectors changed by `change` before they are written."""
    values = clustered(np.random.default_rng(5))
    rows: dict[str, list[object]] = {
        "entity": ["item"] * ITEMS + ["user"] * 2, "id": [*range(1000, 1000 + ITEMS), 1, 2],
        "vector": [*values.tolist(), *values[:2].tolist()], "dim": [DIM] * (ITEMS + 2)}
    change(rows)
    release = Release(kind="tpm", variant="default", period=date(2026, 3, 1), recipe={}, parents={}, inputs={}, feature_set=("item_id",))
    folder = locations.run_of("tpm", release.period, "default", release.release_id)
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"entity": rows["entity"], "id": pa.array(rows["id"], pa.int64()),
                             "vector": pa.array(rows["vector"], pa.list_(pa.float32())), "dim": pa.array(rows["dim"], pa.int32())}),
                   folder / VECTORS_FILE)
    known = [*range(1000, 1000 + known_items), 1, 2]
    fields = ["item_id"] * known_items + ["user_id"] * 2
    pq.write_table(pa.table({"field": fields, "id": known, "row": list(range(len(known)))}), folder / MAPPING_FILE)
    losses = pa.array([loss], pa.float64())
    pq.write_table(pa.table({"metric": ["train_loss"], "split": ["train"], "value": losses, "row_cnt": [10]}), folder / METRICS_FILE)
    files = {name: sha256_of(folder / name) for name in (VECTORS_FILE, MAPPING_FILE, METRICS_FILE)}
    release = Release(**{**vars(release), "files": files, "dims": {"item": dims, "user": dims}})
    (folder / MANIFEST).write_text(release.to_json())
    return folder


def test_a_sound_run_is_indexed(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    folder = stage_run(locations)
    assert all(check.passed for check in audit(locations, DEPLOYMENT, folder))
    release_id = Release.read(folder).release_id
    found, manifest = neighbours(locations.index(release_id), 1007, 20)
    assert manifest["release_id"] == release_id
    assert manifest["recall_at_10"] == 1.0
    assert {item % 10 for item, _ in found} == {7}
    assert 1007 not in {item for item, _ in found}
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)


def repeat_an_id(rows: dict[str, list[object]]) -> None:
    rows["id"][1] = rows["id"][0]


def put_nan(rows: dict[str, list[object]]) -> None:
    rows["vector"][3] = [float("nan")] * DIM


def shorten(rows: dict[str, list[object]]) -> None:
    rows["vector"][3] = [1.0] * (DIM - 1)


def drop_users(rows: dict[str, list[object]]) -> None:
    for values in rows.values():
        del values[ITEMS:]


@pytest.mark.parametrize(("arguments", "failed"), [
    ({"change": repeat_an_id}, "item_distinct_ids"), ({"change": put_nan}, "item_finite"), ({"change": shorten}, "item_dimension"),
    ({"change": drop_users}, "user_vectors"), ({"dims": 4}, "user_dimension"),
    ({"loss": float("nan")}, "train_loss"), ({"loss": None}, "train_loss"),
    ({"known_items": 2 * ITEMS}, "item_coverage"),
])
def test_an_unsound_run_is_refused_with_its_reason(tmp_path: Path, arguments: dict[str, object], failed: str) -> None:
    locations = Locations(tmp_path)
    folder = stage_run(locations, **arguments)
    with pytest.raises(QualityFailed, match=f"{failed}: expected .*Nothing was published"):
        audit(locations, DEPLOYMENT, folder)
    assert not json.loads((folder / AUDIT).read_text())["passed"]
    assert not locations.index(Release.read(folder).release_id).exists()


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    folder = stage_run(locations)
    (folder / VECTORS_FILE).write_bytes(b"PAR1")
    with pytest.raises(QualityFailed, match="files: expected the files of the manifest, unchanged"):
        audit(locations, DEPLOYMENT, folder)


def test_a_changed_index_is_refused_before_it_is_read(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    folder = stage_run(locations)
    audit(locations, DEPLOYMENT, folder)
    index = locations.index(Release.read(folder).release_id)
    (index / "items.faiss").write_bytes(b"garbage")
    with pytest.raises(BadInput, match="sha256"):
        load_index(index)
    with pytest.raises(BadInput, match="expected the index of a published release, found none"):
        load_index(tmp_path / "nowhere")


def test_an_item_without_a_vector_is_named(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    folder = stage_run(locations)
    audit(locations, DEPLOYMENT, folder)
    with pytest.raises(BadInput, match=r"item: expected an item with a vector in tpm-default-2026-03-01-.*, found 5"):
        neighbours(locations.index(Release.read(folder).release_id), 5, 3)


def test_recall_counts_what_an_index_misses(tmp_path: Path) -> None:
    vectors = Vectors.read(stage_run(Locations(tmp_path)) / VECTORS_FILE, "item")

    class Blind:
        """Finds each query's own cluster only half of the time."""

        def search(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
            return np.zeros((len(queries), count)), np.full((len(queries), count), -1)

    normalised = vectors.values / np.linalg.norm(vectors.values, axis=1, keepdims=True)
    assert measured_recall(Blind(), normalised, vectors.ids) == 0.0


def test_what_a_period_waits_for_is_named_with_its_command(tmp_path: Path) -> None:
    missing = missing_inputs(LakeReader(Locations(tmp_path)), DEPLOYMENT, "actr", date(2026, 4, 28))
    assert missing == [
        "the pretrained cpm of 2026-04-20: tributary dags backfill cpm_weekly --from 2026-04-20 --to 2026-04-20",
        "the predecessor actr (none) of 2026-04-27: tributary dags backfill ad_ctr_daily --from 2026-04-27 --to 2026-04-27",
        "the predecessor actr (tpm+cpm) of 2026-04-27: tributary dags backfill ad_ctr_daily --from 2026-04-27 --to 2026-04-27",
        "ad_samples of 1 days, the first 2026-04-28: tributary dags backfill features_daily --from 2026-04-28 --to 2026-04-28",
    ]
