"""Publishing is killed at random points, again and again, while somebody reads: what is current is whole at every moment."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from clients import Client
from deltalake import DeltaTable
from staged_fixture import DAYS, ITEMS, USERS, stage_cpm, stage_day, write_settings

from contracts.locations import Locations
from contracts.releases import MANIFEST, VECTORS_FILE
from lake import locks
from lake.reader import LakeReader
from lake.registry import Registry
from lake.run_folders import read_release, sha256_of
from publishing.index import Vectors, load_index

pytestmark = pytest.mark.spark

KILLS = int(os.environ.get("TRIBUTARY_KILLS", "2"))
VARIANT = "tpm+cpm"
TABLES = ("actr_embeddings", "predictions", "model_metrics", "releases", "activations", "builds")


def read_current(locations: Locations) -> str:
    """Reads the current release as an outsider does: row, artifact, vectors, metrics, predictions, index; all of one run, and whole."""
    reader = LakeReader(locations)
    row = reader.current("actr", VARIANT)
    assert row is not None, "nothing is current"
    release_id: str = row["release_id"]
    folder = locations.home / row["artifact"]
    assert sha256_of(folder / MANIFEST) == row["sha256"]
    vectors = reader.read("actr_embeddings", where={"release_id": release_id})
    staged = pq.read_table(folder / VECTORS_FILE)
    keys = [("entity", "ascending"), ("id", "ascending")]
    assert vectors.select(staged.column_names).sort_by(keys).to_pylist() == staged.sort_by(keys).to_pylist(), release_id
    assert reader.read("model_metrics", where={"release_id": release_id}).num_rows == 1, release_id
    assert reader.read("predictions", where={"release_id": release_id}).num_rows == 2, release_id
    index, manifest = load_index(locations.index(release_id))
    assert manifest["release_id"] == release_id
    assert manifest["run_manifest_sha256"] == row["sha256"]
    assert index.ntotal == ITEMS
    of_items = Vectors.of(vectors.filter(pc.equal(vectors["entity"], "item")))
    first = of_items.values[0] / np.linalg.norm(of_items.values[0])
    np.testing.assert_allclose(index.reconstruct(int(of_items.ids[0])), first, atol=1e-6)
    return release_id


class ReadingInALoop(threading.Thread):
    """Reads what is current until it has to stop, or something is wrong."""

    def __init__(self, locations: Locations) -> None:
        super().__init__(daemon=True)
        self.locations, self.reads = locations, 0
        self.wrong: BaseException | None = None
        self._stop_reading = threading.Event()

    def run(self) -> None:
        while not self._stop_reading.is_set() and self.wrong is None:
            try:
                read_current(self.locations)
                self.reads += 1
            except BaseException as error:
                self.wrong = error

    def __enter__(self) -> ReadingInALoop:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_reading.set()
        self.join()


def client(locations: Locations, folder: Path, address: str) -> Client:
    """Audits and publishes a run."""
    release = read_release(folder)
    options = ("--home", str(locations.home), "--kind", release.kind, "--period", str(release.period))
    return Client(
        ("publishing", "audit", *options),
        ("spark_jobs", "publish_release", *options),
        log=locations.home / "client.log",
        environment={"SPARK_REMOTE": address},
    )


def state_of(locations: Locations, folder: Path) -> str:
    """How far the publishing of a run has come."""
    reader, name = LakeReader(locations), folder.name
    if Registry.read(reader).serving(read_release(folder).served) == name:
        return "active"
    if name in reader.releases():
        return "released, not active"
    if reader.read("actr_embeddings", columns=["id"], where={"release_id": name}).num_rows:
        return "vectors committed"
    return "index built" if locations.index(name).exists() else "nothing"


def test_publishing_killed_at_random_points_is_never_seen(connect: str, tmp_path: Path) -> None:
    locations = write_settings(tmp_path / "home")

    def published(folder: Path) -> float:
        return client(locations, folder, connect).finish()

    cpm = stage_cpm(locations)
    published(cpm)
    first = stage_day(locations, 0, None, cpm)
    published(first)
    pending = stage_day(locations, 1, first, cpm, recipe={"number": 0}, seed=100)
    published(pending)
    seconds = published(stage_day(locations, 1, first, cpm, recipe={"number": 1}, seed=101))

    rng, killed, number = random.Random(0), Counter[str](), 2
    pending = stage_day(locations, 1, first, cpm, recipe={"number": number}, seed=100 + number)
    start = time.monotonic()
    with ReadingInALoop(locations) as reading:
        while sum(killed.values()) < KILLS and reading.wrong is None:
            tried = client(locations, pending, connect)
            if tried.kill(
                rng.uniform(0, 1.3 * seconds)
            ):  # a try after a kill replaces what was committed: it takes longer
                killed[state_of(locations, pending)] += 1
            else:
                tried.finish()
            if state_of(locations, pending) == "active":
                number += 1
                pending = stage_day(locations, 1, first, cpm, recipe={"number": number}, seed=100 + number)
        published(pending)
        assert read_current(locations) == pending.name
    if reading.wrong is not None:
        raise reading.wrong
    print(
        f"{KILLS} kills in {time.monotonic() - start:.0f} s, {seconds:.1f} s an undisturbed publishing; after them: {dict(killed)}; "
        f"{reading.reads} reads"
    )
    assert reading.reads >= KILLS
    assert_all_is_there_once(locations, number)


def assert_all_is_there_once(locations: Locations, number: int) -> None:
    """Every release of the day has all its rows, once; one serves; nothing is left behind, and nothing is written any more."""
    versions = {name: DeltaTable(str(locations.table(name))).version() for name in TABLES}
    reader = LakeReader(locations)
    names = [row["release_id"] for row in reader.read("releases", where={"kind": "actr"}).to_pylist()]
    assert len(names) == len(set(names)) == number + 2
    of_day = [name for name in names if str(DAYS[1]) in name]
    assert len(reader.read("activations", where={"kind": "actr"}).to_pylist()) == 2
    for table, expected in (("actr_embeddings", ITEMS + USERS), ("predictions", 2), ("model_metrics", 1)):
        rows = Counter(
            reader.read(table, columns=["release_id"], where={"release_id": of_day})["release_id"].to_pylist()
        )
        assert rows == dict.fromkeys(of_day, expected), table
    left = [path.name for path in locations.indexes.iterdir() if path.name not in names]
    assert left == []
    assert not any(locks.is_held(path) for path in locations.locks.rglob("*.lock") if path != locations.lake_lock)
    time.sleep(3)  # a query that was left running would commit now
    assert {name: DeltaTable(str(locations.table(name))).version() for name in TABLES} == versions
