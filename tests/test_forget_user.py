"""A user is forgotten: no file under the home folder knows the id any more, and everybody else's rows and vectors are what they were."""

from __future__ import annotations

import gzip
import json
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from landing_rows import csv_bytes, good_row, jsonl_bytes, write, write_parquet

from contracts.errors import BadInput, TributaryError
from contracts.features import LOGS
from contracts.locations import Locations
from contracts.periods import PeriodSettings
from contracts.releases import GATE, MANIFEST, MAPPING_FILE, MODEL_FILE, VECTORS_FILE
from contracts.settings import SETTINGS_FILE, Deployment
from contracts.steps import DAY_JOBS
from contracts.tables import TABLES, owner_key
from lake import writing
from lake.forgotten import User
from lake.reader import LakeReader
from lake.run_folders import sha256_of, staged_runs
from publishing.audit import audit
from spark_jobs import build_statistics, build_user_histories, forget_tables, forget_user, ingest_logs, publish_release
from spark_jobs.staleness import find_stale, stale_releases
from training.data.mapping import IdMapping
from training.data.vectors import read_vectors
from training.engine.checkpoint import read_weights
from training.recipes import quick
from training.tasks.session import Session
from training.tasks.tpm import run_tpm

pytestmark = pytest.mark.spark

USER = 731946285017
USERS = [
    USER,
    *(USER * 10 + n for n in range(7)),
    *(900_000_000_001 + 7 * n for n in range(8)),
]  # some begin with the same digits
START = date(2026, 1, 1)
DAYS = [START + timedelta(days=n) for n in range(3)]
DEPLOYMENT = Deployment(
    history_start=START, actr_start=DAYS[-1], periods=PeriodSettings(anchor=START, month_days=3, week_days=2)
)
RECIPE = quick()
AS_BYTES = struct.pack("<q", USER)
AS_TEXT = re.compile(rb"(?<![0-9])%d(?![0-9])" % USER)


def land(locations: Locations) -> None:
    """Days of CSV, packed JSON lines and Parquet; among them bad rows of the user, and lines of it that cannot be read."""
    rng = np.random.default_rng(3)
    for log in LOGS:
        for number, day in enumerate(DAYS):
            rows = []
            for n in range(80):
                click = int(rng.random() < 0.5)
                rows.append(
                    good_row(
                        1000 * number + 10 + n,
                        day=day,
                        log=log,
                        user_id=USERS[(n // 5 + number) % len(USERS)],
                        request_id=1000 * number + n // 5,
                        item_id=int(rng.integers(0, 12)),
                        click=click,
                        action=click,
                    )
                )
            bad = [
                rows[0] | {"user_id": str(USER), "click": "7", "event_id": "5"},
                rows[0] | {"event_id": "6", "position": "-1"},
            ]
            folder = locations.landing_day(log, day)
            lines = csv_bytes(bad).splitlines(True)
            write(folder / "bad.csv", b"".join([*lines, lines[1][:-1] + b",one more\n", b"hello\n"]))
            if number % 3 == 0:
                write(folder / "a.csv", csv_bytes(rows))
            elif number % 3 == 1:
                write(folder / "a.jsonl.gz", jsonl_bytes(rows) + b'{"user_id": %d, "eve\n' % USER)
            else:
                write_parquet(folder / "a.parquet", rows)
    (locations.truth).mkdir()
    pq.write_table(
        pa.table({"event_id": list(range(100)), "log": ["ad"] * 100, "probability": [0.5] * 100}),
        locations.truth / "x.parquet",
    )


def holding(home: Path) -> set[str]:
    """Files under a folder that know the user: as a number or as text, packed or not, in any column of a Parquet file."""
    return {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file() and _holds(path)}


def _holds(path: Path) -> bool:
    content = path.read_bytes()
    if path.suffix == ".parquet":  # compressed pages are read below; a number that begins with the id may be cut there
        content = content[-8 - int.from_bytes(content[-8:-4], "little") :]
    content = gzip.decompress(content) if path.suffix == ".gz" else content
    if AS_BYTES in content or AS_TEXT.search(content):
        return True
    return path.suffix == ".parquet" and any(
        _in_column(column) for column in pq.read_table(path, partitioning=None).itercolumns()
    )


def _in_column(column: pa.ChunkedArray) -> bool:
    kind = column.type
    if pa.types.is_integer(kind):
        return bool(pc.any(pc.equal(column.cast(pa.int64()), USER)).as_py())
    return AS_TEXT.search(str(column.to_pylist()).encode()) is not None if not pa.types.is_floating(kind) else False


def publish(locations: Locations, kind: str, period: date) -> None:
    for folder in staged_runs(locations, kind, period):
        (folder / GATE).write_text(
            json.dumps(
                {"manifest_sha256": sha256_of(folder / MANIFEST), "passed": True, "fallback": None, "checks": []}
            )
        )
        audit(locations, DEPLOYMENT, folder)
    publish_release.command(locations, DEPLOYMENT, kind, period)


def session_of(locations: Locations) -> Session:
    return Session.open(locations.home, RECIPE, torch.device("cpu"))


def others_of(locations: Locations, name: str) -> list[str]:
    """A table's rows that are not the user's."""
    where, rows = (
        TABLES[name].rows_of_user(USER),
        LakeReader(locations).read(name, columns=TABLES[name].stable_columns).to_pylist(),
    )
    if name == "quarantine":
        return sorted(str(row) for row in rows if not AS_TEXT.search(row["raw"].encode()))
    return sorted(str(row) for row in rows if where is None or any(row[key] != value for key, value in where.items()))


def vectors_of(folder: Path) -> dict[str, dict[int, list[float]]]:
    """Each id's own row of the model's tables, and its published vector."""
    weights, found = read_weights(folder / MODEL_FILE), {}
    for name in ("user_id", "item_id"):
        mapping = IdMapping.load(folder / MAPPING_FILE, (name,)).fields[name]
        rows = torch.cat([weights[f"embeddings.{name}.weight"], weights[f"embeddings.{name}.square"][:, None]], dim=1)
        assert len(rows) == mapping.row_cnt
        found[name] = dict(
            zip(mapping.ids.tolist(), rows[torch.from_numpy(mapping.rows(mapping.ids))].tolist(), strict=True)
        )
        found[name] |= {-1: rows[0].tolist()}
    for entity, of_entity in read_vectors(
        folder / VECTORS_FILE, {"user": 0, "item": 0} | json.loads((folder / MANIFEST).read_text())["dims"]
    ).items():
        found[entity] = dict(zip(of_entity.ids.tolist(), of_entity.vectors.tolist(), strict=True))
    return found


@pytest.fixture(scope="module")
def shared(spark: Any) -> Iterator[Any]:
    """The commands write through the tests' own session."""

    @contextmanager
    def session(*_: Any, **__: Any) -> Iterator[Any]:
        yield spark

    with pytest.MonkeyPatch.context() as patch:
        for module in (publish_release, forget_user):
            patch.setattr(module, "writing_session", session)
        yield spark


@pytest.fixture(scope="module")
def made(shared: Any, tmp_path_factory: pytest.TempPathFactory) -> Locations:
    """A deployment with all tables of features, a released model, and a day that was ingested twice."""
    locations = Locations(tmp_path_factory.mktemp("forget"))
    (locations.home / SETTINGS_FILE).write_text(DEPLOYMENT.to_toml())
    land(locations)
    with pytest.MonkeyPatch.context() as patch:
        for module in (
            "contracts.periods",
            *(f"spark_jobs.{job}" for job in ("build_checkpoints", "build_statistics", "build_user_histories")),
        ):
            patch.setattr(f"{module}.CHECKPOINT_DAYS", 1)
        for name in DAY_JOBS:
            import_module(f"spark_jobs.{name}").run(shared, locations, DEPLOYMENT, DAYS)
        for job in (build_user_histories, build_statistics):
            job.run(shared, locations, DEPLOYMENT, DAYS[-1:])
    corrected = locations.landing_day("ad", DAYS[0]) / "a.csv"
    corrected.write_bytes(
        b"".join(corrected.read_bytes().splitlines(True)[:-1])
    )  # so an old version of the table is another
    ingest_logs.run(shared, locations, DEPLOYMENT, DAYS[:1])
    scored = [(event, user, 0.5, 1, "a", "none", "b", DAYS[1]) for event, user in enumerate(USERS)]
    writing.replace_partitions(
        shared,
        locations,
        "predictions",
        shared.createDataFrame(scored, TABLES["predictions"].ddl),
        owners=[{"ds": DAYS[1], "release_id": "b"}],
    )
    run_tpm(session_of(locations), START)
    publish(locations, "tpm", START)
    return locations


@pytest.fixture(scope="module")
def forgotten(made: Locations) -> dict[str, Any]:
    """The deployment after the command, and what it was before."""
    folders = [made.home / row["artifact"] for row in LakeReader(made).releases().values()]
    before = {
        "files": holding(made.home),
        "tables": {name: others_of(made, name) for name in TABLES if made.table(name).exists()},
        "vectors": {folder: vectors_of(folder) for folder in folders},
        "stale": find_stale(made),
        "landing": {path: path.read_bytes() for path in made.landing.rglob("*.*")},
    }
    with pytest.MonkeyPatch.context() as patch:  # killed after the tables were written and before the journal was
        patch.setattr(forget_tables, "record", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            forget_user.command(made, DEPLOYMENT, str(USER), dry_run=False)
    assert forget_user.command(made, DEPLOYMENT, str(USER), dry_run=False) == 0
    return before


def test_a_dry_run_says_what_there_is_and_changes_nothing(made: Locations, capfd: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.home.rglob("*") if path.is_file()}
    assert forget_user.command(made, DEPLOYMENT, str(USER), dry_run=True) == 0
    assert {path: path.stat().st_mtime_ns for path in made.home.rglob("*") if path.is_file()} == before
    said = re.sub(" +", " ", capfd.readouterr().out)
    for line in (
        "landing/natural 6 files",
        "quarantine 6 partitions 16",
        "user_histories 3 partitions",
        "tpm_embeddings 1 partitions 1",
        "predictions 1 partitions 1",
        "truth 1 files",
        f"{VECTORS_FILE}, {MAPPING_FILE}, {MODEL_FILE}",
    ):
        assert line in said, (line, said)


def test_no_file_knows_the_user(made: Locations, forgotten: dict[str, Any]) -> None:
    places = {file.split("/")[0] for file in forgotten["files"]}
    assert places == {"landing", "lake", "runs"}
    named = {file.split("/")[1] for file in forgotten["files"] if file.startswith("lake/")}
    assert named == {
        table.name
        for table in forget_tables.tables_with_users(User.of(str(USER), DEPLOYMENT))
        if made.table(table.name).exists()
    }
    assert holding(made.home) == set()
    assert not made.forgetting.exists()


def test_everybody_else_is_what_they_were(made: Locations, forgotten: dict[str, Any]) -> None:
    kept = {name for name in forgotten["tables"] if name not in ("builds", "releases", "forgotten")}
    assert {name: others_of(made, name) for name in kept} == {name: forgotten["tables"][name] for name in kept}
    assert len(kept) > 15 and all(forgotten["tables"][name] for name in kept - {"activations"})
    for folder, before in forgotten["vectors"].items():
        for of in before.values():
            of.pop(USER, None)
        assert vectors_of(folder) == before
    assert any(USER * 10 in before["user_id"] for before in forgotten["vectors"].values())
    for path, content in forgotten["landing"].items():
        if path.suffix == ".csv":
            assert path.read_bytes() == b"".join(line for line in content.splitlines(True) if not AS_TEXT.search(line))
    probabilities = pq.read_table(made.truth / "x.parquet")
    assert 0 < len(probabilities) < 100


def test_nothing_became_stale_and_releases_still_open(made: Locations, forgotten: dict[str, Any]) -> None:
    assert forgotten["stale"] == find_stale(made)
    builds = LakeReader(made).builds("natural_log")
    reader = LakeReader(made)
    for day in DAYS:
        build = builds[owner_key(ds=day)]
        counts = build["counts"]
        assert (
            build["row_cnt"] == counts["kept"] == reader.read("natural_log", columns=["ds"], where={"ds": day}).num_rows
        )
        assert (
            counts["read"] == counts["kept"] + counts["quarantined"] + counts["duplicates"] + counts["forgotten"]
            and counts["forgotten"]
        )
    session = session_of(made)
    (row,) = session.reader.releases().values()
    run = session.open_release(row)
    assert [name for name, _ in stale_releases(made)] == [row["release_id"]]  # its weights have learnt from the rows
    publish_release.audited(made, run.folder)
    assert audit(made, DEPLOYMENT, run.folder)


def test_old_landing_files_do_not_bring_the_user_back(shared: Any, made: Locations, forgotten: dict[str, Any]) -> None:
    day = DAYS[1]
    before = {name: others_of(made, name) for name in ("natural_log", "ad_log", "quarantine")}
    for path, content in forgotten["landing"].items():
        if path.parent.name == str(day):
            path.write_bytes(content)
    ingest_logs.run(shared, made, DEPLOYMENT, [day])
    assert {name: others_of(made, name) for name in before} == before
    for name in before:
        assert not LakeReader(made).read(name, where={"user_id": USER}).num_rows if name != "quarantine" else True
    assert not any(AS_TEXT.search(row["raw"].encode()) for row in LakeReader(made).read("quarantine").to_pylist())
    counts = LakeReader(made).builds("natural_log")[owner_key(ds=day)]["counts"]
    assert counts["forgotten"] == 5 + 3 and counts["read"] == 80 + 4 + 1  # rows, and one bad, two that cannot be read
    made.forgotten_salt.rename(made.home / "elsewhere")
    with pytest.raises(BadInput, match="salt: expected the file that the ids"):
        ingest_logs.run(shared, made, DEPLOYMENT, [day])
    (made.home / "elsewhere").rename(made.forgotten_salt)


def test_a_user_who_comes_back_later_is_a_new_one(shared: Any, tmp_path: Path) -> None:
    locations, strings = Locations(tmp_path), replace(DEPLOYMENT, string_ids=("user_id",))
    user = User.of("ann e", strings)
    forget_user.remember(shared, locations, strings, user)
    today = LakeReader(locations).read("forgotten")["forgotten_on"].to_pylist()[0]
    for log in LOGS:
        for day in (today, today + timedelta(days=1)):
            rows = [
                good_row(n + day.day * 10, day=day, log=log, user_id=name) for n, name in enumerate((" ann e ", "anne"))
            ]
            write(locations.landing_day(log, day) / "a.csv", csv_bytes(rows))
    deployment = replace(strings, history_start=today, actr_start=today)
    ingest_logs.run(shared, locations, deployment, [today, today + timedelta(days=1)])
    found = LakeReader(locations).read("ad_log", columns=["ds", "user_id"]).to_pylist()
    assert sorted(row["ds"] for row in found) == [today, today + timedelta(days=1), today + timedelta(days=1)]
    assert [row["ds"] for row in found if row["user_id"] == user.user_id] == [
        today + timedelta(days=1)
    ]  # hashed as Spark does it


def test_a_part_that_fails_says_so(made: Locations, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIBUTARY_PYTHON_TRAINING", "/bin/false")
    with pytest.raises(TributaryError, match=r"training forget_user: exit code 1\. Nothing was lost"):
        forget_user.command(made, DEPLOYMENT, str(USER), dry_run=True)
