"""A user in run folders, scores and exports: taken out of all of them, while every other id keeps its row and its vector."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from lake_fixture import World, make_lake, publish_staged, train_quick

from contracts.locations import Locations
from contracts.releases import GATE, MANIFEST, MAPPING_FILE, MODEL_FILE, PREDICTIONS_FILE, REWRITTEN, VECTORS_FILE
from lake.run_folders import open_run, sha256_of
from training.data.mapping import IdMapping
from training.data.vectors import read_vectors
from training.engine.checkpoint import read_weights
from training.forget import forget
from training.modules.embedding import table_tensors
from training.recipes import recipe
from training.serving.export import export
from training.serving.score import score_day
from training.tasks.actr_open import open_released
from training.tasks.session import Session

pytestmark = pytest.mark.slow

USER = 43  # of the world's ids 1, 8, 15, ...; scored on both days
STRANGER = 5
CHAIN = (("tpm", (1, 4, 7)), ("cpm", (7,)), ("fg_bert", (7,)), ("actr", (9, 10)))


def session_of(home: Path) -> Session:
    return Session.open(home, recipe("default"), torch.device("cpu"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deployment of four kinds of model, with scores and an export of the last ad model."""
    home = tmp_path_factory.mktemp("trained")
    make_lake(home, World())
    for kind, days in CHAIN:
        for number in days:
            day = date(2026, 1, number)
            train_quick(home, kind, day)
            publish_staged(home, kind, day)
    session = session_of(home)
    row = session.reader.active("actr", "none", date(2026, 1, 10))
    assert row is not None
    run = session.open_release(row)
    score_day(session, run, date(2026, 1, 11))
    export(session, run, session.locations.exported(run.release.release_id))
    return home


@pytest.fixture
def home(trained: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "home"
    shutil.copytree(trained, copy)
    for folder in run_folders(copy):
        (folder / GATE).write_text(json.dumps({"manifest_sha256": sha256_of(folder / MANIFEST), "passed": True}))
    unfinished = Locations(copy).unfinished("x")
    unfinished.parent.mkdir()
    unfinished.write_bytes(b"state")
    return copy


def run_folders(home: Path) -> list[Path]:
    return sorted(path.parent for path in (home / "runs").glob(f"*/*/*/*/{MANIFEST}"))


def own_rows(folder: Path) -> dict[str, dict[int, list[float]]]:
    """By feature or entity: each id's row of the model's tables, with Adagrad's sum; its vector; -1 is the shared row."""
    found: dict[str, dict[int, list[float]]] = {}
    weights = read_weights(folder / MODEL_FILE)
    for name in ("user_id", "item_id", "category_id"):
        if f"embeddings.{name}.weight" in weights:
            tensors = [
                weights[key].reshape(len(weights[key]), -1) for key in sorted(table_tensors(name) & set(weights))
            ]
            table = torch.cat(tensors, dim=1)
            mapping = IdMapping.load(folder / MAPPING_FILE, (name,)).fields[name]
            assert mapping.row_cnt == len(table)
            found[name] = dict(
                zip(mapping.ids.tolist(), table[torch.from_numpy(mapping.rows(mapping.ids))].tolist(), strict=True)
            )
            found[name][-1] = table[0].tolist()
    vectors = read_vectors(
        folder / VECTORS_FILE, {"user": 0, "item": 0} | json.loads((folder / MANIFEST).read_text())["dims"]
    )
    return found | {name: dict(zip(of.ids.tolist(), of.vectors.tolist(), strict=True)) for name, of in vectors.items()}


def users_of(home: Path) -> Iterator[tuple[Path, set[int]]]:
    """Users that each Parquet file outside of the lake names."""
    for path in sorted(path for folder in ("runs", "scores") for path in (home / folder).rglob("*.parquet")):
        rows = pq.read_table(path, partitioning=None)
        if "user_id" in rows.column_names:
            yield path, set(rows["user_id"].to_pylist())
        elif "id" in rows.column_names:
            kind = rows["entity" if "entity" in rows.column_names else "field"]
            yield path, set(rows.filter(pc.is_in(kind, value_set=pa.array(["user", "user_id"])))["id"].to_pylist())


def test_the_user_is_gone_and_everybody_else_keeps_what_was_theirs(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders, before_users = run_folders(home), dict(users_of(home))
    before = {folder: own_rows(folder) for folder in folders}
    manifests = {folder: sha256_of(folder / MANIFEST) for folder in folders}
    held = {path.name for path, users in before_users.items() if USER in users}
    assert held >= {VECTORS_FILE, MAPPING_FILE, PREDICTIONS_FILE}
    assert any(path.parts[-3] == "scores" for path, users in before_users.items() if USER in users)

    assert forget(Locations(home), USER, dry_run=False) == 0
    assert dict(users_of(home)) == {path: users - {USER} for path, users in before_users.items()}
    for folder in folders:
        with_user = {
            name: rows.pop(USER)
            for name, rows in before[folder].items()
            if name in ("user_id", "user") and USER in rows
        }
        assert own_rows(folder) == before[folder]
        assert ("fg_bert" in folder.parts) == (not with_user)
        open_run(folder)
        rows = pq.read_table(folder / MAPPING_FILE, filters=[("field", "=", "user_id"), ("row", ">", 0)])[
            "row"
        ].to_pylist()
        assert sorted(rows) == list(range(1, len(rows) + 1))
        if with_user:
            assert json.loads((folder / REWRITTEN).read_text()) == {"before": [manifests[folder]]}
            assert (
                json.loads((folder / GATE).read_text())["manifest_sha256"]
                == sha256_of(folder / MANIFEST)
                != manifests[folder]
            )
        else:
            assert sha256_of(folder / MANIFEST) == manifests[folder] and not (folder / REWRITTEN).exists()
    assert not list((home / "exported").iterdir()) and not Locations(home).unfinished("x").exists()
    said = capsys.readouterr().out
    assert (
        "removed whole" in said and "export it again: tributary training export --release actr-none-2026-01-10" in said
    )


def test_the_forgotten_user_scores_as_a_stranger(home: Path) -> None:
    release = session_of(home).reader.active("actr", "none", date(2026, 1, 10))
    assert release is not None
    forget(Locations(home), USER, dry_run=False)
    session = session_of(home)
    opened = open_released(session, open_run(home / release["artifact"]))
    rows = opened.encoding.mapping.fields["user_id"].rows(np.array([USER, STRANGER, 15]))
    assert rows[0] == rows[1] == 0 < rows[2]


def test_twice_is_once_and_a_dry_run_is_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def state() -> dict[str, bytes]:
        return {
            str(path): path.read_bytes() for path in home.rglob("*") if path.is_file() and "locks" not in path.parts
        }

    before = state()
    forget(Locations(home), USER, dry_run=True)
    assert state() == before
    said = capsys.readouterr().out
    assert "would change" in said and "scores/2026-01-11/actr-none" in said and "exported/actr-none" in said
    forget(Locations(home), USER, dry_run=False)
    once = state()
    assert once != before
    forget(Locations(home), USER, dry_run=False)
    assert state() == once
    assert "no model and no score holds this user" in capsys.readouterr().out


@pytest.mark.parametrize("moment", ["old_moved", "new_in_place"])
def test_a_kill_in_the_middle_of_a_replacement_is_repaired(
    home: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    rename, folders = Path.rename, run_folders(home)
    with monkeypatch.context() as patch:
        if moment == "old_moved":
            patch.setattr(
                Path, "rename", lambda path, to: killed() if path.name.endswith(".without") else rename(path, to)
            )
        else:
            patch.setattr(
                "training.forget.shutil.rmtree", lambda path, **_: killed() if str(path).endswith(".before") else None
            )
        with pytest.raises(KeyboardInterrupt):
            forget(Locations(home), USER, dry_run=False)
    forget(Locations(home), USER, dry_run=False)
    assert run_folders(home) == folders and not any(path.name.startswith(".") for path in (home / "runs").rglob("*"))
    assert not any(USER in users for _, users in users_of(home))
    for folder in folders:
        open_run(folder)


def test_no_exported_tensor_knows_a_user_who_was_forgotten_before(trained: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(trained, home)
    forget(Locations(home), USER, dry_run=False)
    session = session_of(home)
    row = session.reader.releases()[session.reader.active("actr", "none", date(2026, 1, 10))["release_id"]]  # type: ignore[index]
    folder = export(session, open_run(home / row["artifact"]), tmp_path / "again")
    ids = torch.load(folder / "weights.pt", weights_only=True)["ids.user_id"]
    assert USER not in ids.tolist() and 15 in ids.tolist()
