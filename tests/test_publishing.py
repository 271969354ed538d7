"""Audits and indexes of staged runs; parents that a period waits for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from staged_fixture import (
    DAYS,
    DEPLOYMENT,
    DIM,
    ITEMS,
    MONTH,
    Rows,
    name_staged,
    released,
    stage_cpm,
    stage_day,
    stage_run,
    write_manifest,
)

from contracts.errors import BadInput, QualityFailed
from contracts.locations import Locations
from contracts.releases import AUDIT, METRICS_FILE, VECTORS_FILE, parent_key
from contracts.settings import Deployment
from lake.reader import LakeReader
from lake.run_folders import read_release, staged_runs
from publishing import index as index_module
from publishing.audit import audit
from publishing.index import Vectors, load_index, make_index, measured_recall, nearest, nearest_exactly, nprobe_of
from publishing.parents import missing_inputs

PARENTS_OF_APRIL = Deployment(history_start=date(2026, 1, 1), actr_start=date(2026, 4, 27))


def test_a_sound_run_is_indexed(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    folder = stage_run(locations)
    assert all(check.passed for check in audit(locations, DEPLOYMENT, folder))
    index = locations.index(folder.name)
    found = nearest(index, 1007, 20)
    assert load_index(index)[1]["release_id"] == folder.name
    assert load_index(index)[1]["recall_at_10"] == 1.0
    assert {item % 10 for item, _ in found} == {7}
    assert 1007 not in {item for item, _ in found}
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
    exact = nearest_exactly(Vectors.read(folder / VECTORS_FILE, "item"), 1007, 20)
    assert [item for item, _ in exact] == [item for item, _ in found]


def repeat_an_id(rows: Rows) -> None:
    rows["id"][1] = rows["id"][0]


def take_an_id_away(rows: Rows) -> None:
    rows["id"][1] = None


def put_nan(rows: Rows) -> None:
    rows["vector"][3] = [float("nan")] * DIM


def put_zeros(rows: Rows) -> None:
    rows["vector"] = [[0.0] * DIM for _ in rows["vector"]]


def put_a_zero(rows: Rows) -> None:
    rows["vector"][3] = [0.0] * DIM


def put_one_whose_squares_vanish(rows: Rows) -> None:
    rows["vector"][3] = [1e-30] * DIM


def put_huge(rows: Rows) -> None:
    rows["vector"][3] = [1e6] * DIM


def shorten(rows: Rows) -> None:
    rows["vector"][3] = [1.0] * (DIM - 1)


def claim_another_width(rows: Rows) -> None:
    rows["dim"][3] = DIM + 1


def drop_users(rows: Rows) -> None:
    for values in rows.values():
        del values[ITEMS:]


def put_a_category(rows: Rows) -> None:
    rows["entity"][3] = "category"


@pytest.mark.parametrize(
    ("arguments", "failed"),
    [
        ({"change": repeat_an_id}, "item_distinct_ids"),
        ({"change": take_an_id_away}, "item_ids"),
        ({"change": put_nan}, "item_finite"),
        ({"change": put_zeros}, "user_zero"),
        ({"change": put_a_zero}, "item_zero"),
        ({"change": put_one_whose_squares_vanish}, "item_zero"),
        ({"change": put_huge}, "item_norm"),
        ({"change": shorten}, "item_dimension"),
        ({"change": claim_another_width}, "item_dimension"),
        ({"change": drop_users}, "user_vectors"),
        ({"dims": 4}, "user_dimension"),
        ({"change": put_a_category}, "entities"),
        ({"loss": float("nan")}, "train_loss"),
        ({"loss": None}, "train_loss"),
        ({"known_items": 2 * ITEMS}, "item_coverage"),
    ],
)
def test_an_unsound_run_is_refused_with_its_reason(tmp_path: Path, arguments: dict[str, object], failed: str) -> None:
    locations = Locations(tmp_path)
    folder = stage_run(locations, **arguments)
    with pytest.raises(QualityFailed, match=f"{failed}: expected .*Nothing was published"):
        audit(locations, DEPLOYMENT, folder)
    assert not json.loads((folder / AUDIT).read_text())["passed"]
    assert not locations.index(folder.name).exists()


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (
            0.0,
            "item_zero: expected no vector of length zero, which has no cosine with any other, "
            "found 7 vectors of length zero: item 1002, 1003, 1005, 1007, 1011, ...",
        ),
        (
            float("inf"),
            "item_finite: expected finite values, found 7 vectors with NaN or infinity: item 1002, 1003, 1005, 1007, 1011, ...",
        ),
    ],
)
def test_vectors_without_a_direction_are_counted_and_named(tmp_path: Path, value: float, found: str) -> None:
    def spoil(rows: Rows) -> None:
        for at in (17, 13, 11, 7, 5, 3, 2):
            rows["vector"][at] = [value] * DIM

    locations = Locations(tmp_path)
    with pytest.raises(QualityFailed, match=re.escape(found)):
        audit(locations, DEPLOYMENT, stage_run(locations, change=spoil))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_figure_that_is_not_a_number_is_not_published(tmp_path: Path, value: float) -> None:
    locations = Locations(tmp_path)
    folder = stage_run(locations)
    rows = pq.read_table(folder / METRICS_FILE).to_pylist()
    more = {"auc": value, "gauc": None}
    rows += [
        rows[0] | {"metric": name, "split": "held_out/new_items", "value": figure} for name, figure in more.items()
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / METRICS_FILE)
    write_manifest(folder, read_release(folder))
    with pytest.raises(
        QualityFailed,
        match="metrics: expected finite figures, found 1 that are NaN or infinite: held_out/new_items auc",
    ):
        audit(locations, DEPLOYMENT, folder)


@pytest.fixture
def chain(tmp_path: Path) -> tuple[Locations, Path, Path]:
    """A CPM and the first A-CTR day, released."""
    locations = Locations(tmp_path)
    cpm = released(locations, stage_cpm(locations))
    return locations, cpm, released(locations, stage_day(locations, 0, None, cpm))


def test_a_run_of_the_right_parents_passes(chain: tuple[Locations, Path, Path]) -> None:
    locations, cpm, first = chain
    checks = {check.name: check for check in audit(locations, DEPLOYMENT, stage_day(locations, 1, first, cpm, seed=1))}
    assert all(check.passed for check in checks.values())
    assert checks["item_drift"].found.endswith(f"of {ITEMS} ids")
    without = stage_run(locations, kind="actr", variant="none", period=DAYS[0])
    assert {check.name: check.passed for check in audit(locations, DEPLOYMENT, without)}["parents"], (
        "no CPM is a parent of `none`"
    )


def of_another_week(locations: Locations, cpm: Path, first: Path) -> Path:
    del first
    return stage_run(
        locations,
        kind="actr",
        variant="tpm+cpm",
        period=DAYS[0],
        parents={parent_key("pretrained", "cpm", date(2025, 12, 29)): cpm.name},
    )


def without_its_cpm(locations: Locations, cpm: Path, first: Path) -> Path:
    del cpm
    return stage_run(
        locations,
        kind="actr",
        variant="tpm+cpm",
        period=DAYS[1],
        parents={parent_key("predecessor", "actr", DAYS[0]): first.name},
    )


def of_a_cpm_that_nobody_released(locations: Locations, cpm: Path, first: Path) -> Path:
    del cpm
    return stage_day(locations, 1, first, locations.home / "cpm-default-2026-01-05-000000000000")


def of_a_cpm_that_was_replaced(locations: Locations, cpm: Path, first: Path) -> Path:
    released(locations, stage_cpm(locations, recipe={"lr": 2}))
    return stage_day(locations, 1, first, cpm)


def a_cpm_of_a_month_too_many(locations: Locations, cpm: Path, first: Path) -> Path:
    del cpm, first
    month = released(locations, stage_run(locations))
    return stage_cpm(locations, parents={parent_key("snapshot", "tpm", MONTH): month.name})


@pytest.mark.parametrize(
    ("stage", "found"),
    [
        (of_another_week, r"pretrained/cpm/2025-12-29 is not a parent of the period"),
        (without_its_cpm, r"pretrained/cpm/2026-01-05 is a parent of the period, and the run was made without it"),
        (
            of_a_cpm_that_nobody_released,
            r"pretrained/cpm/2026-01-05: cpm-default-2026-01-05-000000000000 was never released",
        ),
        (of_a_cpm_that_was_replaced, r"pretrained/cpm/2026-01-05: the run was made from cpm-\S+, and cpm-\S+ serves"),
        (a_cpm_of_a_month_too_many, r"snapshot/tpm/2026-01-01 is not a parent of the period"),
    ],
)
def test_a_run_bound_to_a_wrong_release_is_refused(
    chain: tuple[Locations, Path, Path], found: str, stage: Callable[[Locations, Path, Path], Path]
) -> None:
    locations, cpm, first = chain
    with pytest.raises(
        QualityFailed, match=f"parents: expected the releases that serve what its period computes, found .*{found}"
    ):
        audit(locations, DEPLOYMENT, stage(locations, cpm, first))


def test_vectors_that_went_to_other_ids_are_refused(chain: tuple[Locations, Path, Path]) -> None:
    locations, cpm, first = chain

    def shuffle(rows: Rows) -> None:
        rows["id"][:ITEMS] = rows["id"][1:ITEMS] + rows["id"][:1]

    with pytest.raises(
        QualityFailed, match=rf"item_drift: expected mean cosine >= 0.4 with {re.escape(first.name)}, found -?0\.\d+ of"
    ):
        audit(locations, DEPLOYMENT, stage_day(locations, 1, first, cpm, change=shuffle))


def test_a_model_that_started_again_is_not_compared(chain: tuple[Locations, Path, Path]) -> None:
    locations, _, first = chain
    newer = released(locations, stage_cpm(locations, recipe={"lr": 2}))

    def mirror(rows: Rows) -> None:
        rows["vector"] = [[-value for value in vector] for vector in rows["vector"]]

    checks = {
        check.name: check
        for check in audit(locations, DEPLOYMENT, stage_day(locations, 1, first, newer, change=mirror))
    }
    assert checks["drift"].found == f"it started again, unlike {first.name}: not compared"


@pytest.mark.parametrize(
    ("column", "value", "failed"),
    [
        ("scored_by", "actr-none-2026-01-12-000000000000", "scored_by"),
        ("ds", DAYS[0], "scored_by"),
        ("score", float("nan"), "scores"),
        ("score", 1.5, "scores"),
        ("event_id", 1, "scored_once"),
    ],
)
def test_predictions_of_another_model_or_day_are_refused(
    chain: tuple[Locations, Path, Path], column: str, value: object, failed: str
) -> None:
    locations, cpm, first = chain
    scored: dict[str, list[Any]] = {
        "event_id": [1, 2],
        "user_id": [1, 2],
        "score": [0.2, 0.7],
        "click": [0, 1],
        "scored_by": [first.name] * 2,
        "ds": [DAYS[1]] * 2,
    }
    scored[column] = [scored[column][0], value]
    with pytest.raises(QualityFailed, match=f"{failed}: expected"):
        audit(locations, DEPLOYMENT, stage_day(locations, 1, first, cpm, scored=scored))


def test_another_run_under_the_id_of_a_release_is_refused(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    released(locations, stage_run(locations))
    with pytest.raises(QualityFailed, match=r"immutable: expected .* found another run under the id of a release"):
        audit(locations, DEPLOYMENT, stage_run(locations, seed=1))


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    folder = stage_run(locations)
    (folder / VECTORS_FILE).write_bytes(b"PAR1")
    with pytest.raises(QualityFailed, match="files: expected the files of the manifest, unchanged"):
        audit(locations, DEPLOYMENT, folder)


def test_half_a_stage_is_refused(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    folder = stage_run(locations)
    assert staged_runs(locations, "tpm", MONTH) == [folder]
    temporary = folder.rename(folder.with_name(f".{folder.name}.123"))
    with pytest.raises(BadInput, match="manifest: expected a finished run, found no such file"):
        staged_runs(locations, "tpm", MONTH)
    name_staged(locations, [temporary])
    with pytest.raises(
        BadInput, match=r"expected finished runs of tpm 2026-01-01, such as .*, found runs.*/\.tpm-.*\.123"
    ):
        staged_runs(locations, "tpm", MONTH)
    temporary.rename(folder)
    name_staged(locations, [folder, folder])
    with pytest.raises(BadInput, match="expected one run a variant"):
        staged_runs(locations, "tpm", MONTH)
    locations.staged("tpm", MONTH).write_text('{"runs": [')
    with pytest.raises(BadInput, match="Run: tributary training tpm --period 2026-01-01"):
        staged_runs(locations, "tpm", MONTH)
    (folder / "manifest.json").write_text((folder / "manifest.json").read_text()[:50])
    with pytest.raises(BadInput, match="found half a manifest"):
        read_release(folder)


def test_an_index_that_is_whole_is_kept(tmp_path: Path) -> None:
    """A reader of a release that is audited again finds its index at every moment: nothing is written."""
    locations = Locations(tmp_path)
    folder = stage_run(locations)
    audit(locations, DEPLOYMENT, folder)
    index = locations.index(folder.name) / "items.faiss"
    before = index.stat()
    (locations.indexes / f".{folder.name}.999").mkdir()  # a build that was killed
    audit(locations, DEPLOYMENT, folder)
    assert (index.stat().st_ino, index.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert [path.name for path in locations.indexes.iterdir()] == [folder.name]


def test_a_changed_index_is_refused_before_it_is_read_and_repaired_by_an_audit(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    folder = stage_run(locations)
    audit(locations, DEPLOYMENT, folder)
    index = locations.index(folder.name)
    (index / "items.faiss").write_bytes(b"garbage")
    with pytest.raises(BadInput, match="sha256"):
        load_index(index)
    with pytest.raises(BadInput, match="expected the index of a published release, found none"):
        load_index(tmp_path / "nowhere")
    audit(locations, DEPLOYMENT, folder)
    assert load_index(index)[0].ntotal == ITEMS


def test_an_item_without_a_vector_is_named(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    folder = stage_run(locations)
    audit(locations, DEPLOYMENT, folder)
    with pytest.raises(BadInput, match=r"item: expected an item with a vector in tpm-default-2026-01-01-.*, found 5"):
        nearest(locations.index(folder.name), 5, 3)


EQUAL = 150  # items of the first vector, some of them longer: their cosines are equal


def make_equal(rows: Rows) -> None:
    """Half of the items lie in one direction, and all are in no order."""
    rng = np.random.default_rng(8)
    for at in range(1, EQUAL):
        rows["vector"][at] = [value * (1, 2, 3, 0.7)[at % 4] for value in rows["vector"][0]]
    order = rng.permutation(ITEMS)
    for values in rows.values():
        values[:ITEMS] = [values[at] for at in order]


@pytest.mark.parametrize("flat_limit", [ITEMS, ITEMS - 1])
def test_equal_similarities_are_in_the_order_of_ids_whatever_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flat_limit: int
) -> None:
    monkeypatch.setattr(index_module, "FLAT_LIMIT", flat_limit)
    locations = Locations(tmp_path)
    folder = stage_run(locations, change=make_equal)
    audit(locations, DEPLOYMENT, folder)
    index = locations.index(folder.name)
    assert load_index(index)[1]["factory"] == (
        "IDMap2,Flat" if flat_limit == ITEMS else f"IDMap2,IVF{int(ITEMS**0.5)},Flat"
    )
    equal = range(1000, 1000 + EQUAL)
    for asked in (1000, 1077, 1149):
        found = nearest(index, asked, EQUAL + 10)
        assert [item for item, _ in found[: EQUAL - 1]] == [item for item in equal if item != asked]
        assert {cosine for _, cosine in found[: EQUAL - 1]} == {1.0} and found[EQUAL - 1][1] < 1
        for count in (0, 1, 2, 19, 20, 21, 100, EQUAL - 2, EQUAL - 1, EQUAL):
            assert nearest(index, asked, count) == found[:count], count
    far = nearest(index, 1200, ITEMS + 5)  # those of one direction are in the middle of the list, or at the cut
    assert [nearest(index, 1200, count) for count in range(1, ITEMS, 7)] == [
        far[:count] for count in range(1, ITEMS, 7)
    ]
    assert far == sorted(far, key=lambda pair: (-pair[1], pair[0]))
    vectors = Vectors.read(folder / VECTORS_FILE, "item")
    order = np.random.default_rng(9).permutation(ITEMS)
    turned = Vectors(ids=vectors.ids[order], values=vectors.values[order], dims=vectors.dims)
    for exact in (vectors, turned):
        assert nearest_exactly(exact, 1077, EQUAL - 1) == nearest(index, 1077, EQUAL - 1)
        assert nearest_exactly(exact, 1200, ITEMS + 5)[:50] == nearest_exactly(vectors, 1200, 50)


def test_cosines_do_not_depend_on_what_else_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither on the other vectors, nor on where a block of them ends."""
    rng = np.random.default_rng(10)
    vectors = Vectors(ids=np.arange(500), values=rng.normal(size=(500, 33)).astype(np.float32), dims=np.full(500, 33))
    whole = dict(nearest_exactly(vectors, 3, 500))
    for block in (1, 7, 64):
        monkeypatch.setattr(index_module, "_AT_ONCE", block)
        assert dict(nearest_exactly(vectors, 3, 500)) == whole
    few = Vectors(ids=vectors.ids[:21], values=vectors.values[:21], dims=vectors.dims[:21])
    assert dict(nearest_exactly(few, 3, 500)).items() <= whole.items()


def test_a_vector_of_zeros_has_no_neighbours_and_is_nobodys() -> None:
    values = np.array([[1, 0], [0, 0], [-1, 0], [0, 1]], np.float32)
    vectors = Vectors(ids=np.arange(4), values=values, dims=np.full(4, 2))
    assert nearest_exactly(vectors, 0, 9) == [(3, 0.0), (2, -1.0)]
    with pytest.raises(BadInput, match="vector: expected a vector with a direction, found one of zeros, of 1"):
        nearest_exactly(vectors, 1, 9)


class Blind:
    """Finds nothing."""

    def search(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((len(queries), count)), np.full((len(queries), count), -1)


class Repeating:
    """Finds each query's nearest, ten times."""

    def __init__(self, index: faiss.Index) -> None:
        self.index = index

    def search(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        cosines, ids = self.index.search(queries, 1)
        return np.repeat(cosines, count, axis=1), np.repeat(ids, count, axis=1)


def test_recall_counts_what_an_index_misses() -> None:
    rng = np.random.default_rng(3)
    unit, ids, some = random_units(rng, 500), rng.permutation(500) * 7, np.arange(0, 500, 9)
    index, factory = make_index(unit, ids)
    assert factory == "IDMap2,Flat"
    assert measured_recall(index, unit, ids, some) == 1.0
    assert measured_recall(Blind(), unit, ids, some) == 0.0
    assert measured_recall(Repeating(index), unit, ids, some) == pytest.approx(0.1)
    wrong, _ = make_index(unit, np.roll(ids, 1))
    assert measured_recall(wrong, unit, ids, some) < 0.3


def random_units(rng: np.random.Generator, count: int) -> np.ndarray:
    values = rng.normal(size=(count, DIM)).astype(np.float32)
    unit: np.ndarray = values / np.linalg.norm(values, axis=1, keepdims=True)
    return unit


def test_an_inverted_file_reads_as_many_lists_as_recall_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On vectors without clusters, which need the most; the number travels with the file; equal vectors give equal files."""
    monkeypatch.setattr(index_module, "FLAT_LIMIT", 1000)
    rng = np.random.default_rng(4)
    unit, ids = random_units(rng, 6000), rng.permutation(6000)
    index, factory = make_index(unit, ids)
    assert factory == "IDMap2,IVF77,Flat"
    faiss.write_index(index, str(tmp_path / "a"))
    faiss.write_index(make_index(unit, ids)[0], str(tmp_path / "b"))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    read = faiss.read_index(str(tmp_path / "a"))
    assert nprobe_of(read) == nprobe_of(index)
    read_lists = nprobe_of(read)
    assert read_lists is not None and 1 < read_lists < 77
    others = np.arange(5, 6000, 31)
    assert measured_recall(read, unit, ids, others) >= 0.95
    faiss.extract_index_ivf(read).nprobe = 1
    assert measured_recall(read, unit, ids, others) < 0.9, "one list would have done, so nothing is shown"


def test_recall_below_the_floor_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "FLAT_LIMIT", 100)
    monkeypatch.setattr(index_module, "TUNED_RECALL", 0.0)  # so that one list is read

    def scatter(rows: Rows) -> None:
        rows["vector"] = random_units(np.random.default_rng(1), len(rows["vector"])).tolist()

    locations = Locations(tmp_path)
    with pytest.raises(QualityFailed, match=r"index_recall: expected recall@10 >= 0.95, found 0\.\d+"):
        audit(locations, DEPLOYMENT, stage_run(locations, change=scatter))


def test_what_a_period_waits_for_is_named_with_its_command(tmp_path: Path) -> None:
    missing = missing_inputs(LakeReader(Locations(tmp_path)), PARENTS_OF_APRIL, "actr", date(2026, 4, 28))
    assert [str(one) for one in missing] == [
        "the pretrained cpm of 2026-04-20: tributary dags backfill cpm_weekly --from 2026-04-20 --to 2026-04-20",
        "the predecessor actr (none) of 2026-04-27: tributary dags backfill ad_ctr_daily --from 2026-04-27 --to 2026-04-27",
        "the predecessor actr (tpm+cpm) of 2026-04-27: tributary dags backfill ad_ctr_daily --from 2026-04-27 --to 2026-04-27",
        "ad_samples of 1 days, the first 2026-04-28: tributary dags backfill features_daily --from 2026-04-28 --to 2026-04-28",
    ]
