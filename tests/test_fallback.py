"""A refused day: its fallback serves and records what it carries, and the days after continue from it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from lake_fixture import World, make_lake, publish, train_quick

from contracts.errors import BadInput, QualityFailed
from contracts.locations import Locations
from contracts.releases import (
    GATE,
    HELD_OUT_FILE,
    MANIFEST,
    MAPPING_FILE,
    METRICS_FILE,
    MODEL_FILE,
    PREDICTIONS_FILE,
    VECTORS_FILE,
    Release,
    of_role,
)
from lake.reader import LakeReader
from lake.run_folders import gated_runs, open_run, read_release, sha256_of, staged_runs
from publishing.audit import audit
from publishing.cli import main as publishing
from training.compare import Scored, _day_row
from training.recipes import quick
from training.tasks.actr_open import open_released
from training.tasks.actr_plan import plan_variant
from training.tasks.session import Session
from validation.cli import main as validation
from validation.gate_command import read_held_out

MONTHS, WEEKS = [date(2026, 1, day) for day in (1, 4, 7)], [date(2026, 1, day) for day in (7, 9)]
DAYS = [date(2026, 1, day) for day in (9, 10, 11, 12)]  # fresh; continues; a new CPM; continues


def judge(home: Path, kind: str, period: date) -> list[Path]:
    validation(["gate", "--kind", kind, "--period", str(period), "--home", str(home)])
    return gated_runs(Locations(home), kind, period)


def go(home: Path, kind: str, period: date) -> list[Path]:
    train_quick(home, kind, period)
    folders = judge(home, kind, period)
    publish(home, folders)
    return folders


def spoil(folder: Path) -> None:
    """As if the training had diverged: weights and held-out scores are no numbers."""
    rows = pq.read_table(folder / HELD_OUT_FILE)
    at = rows.schema.get_field_index("score")
    pq.write_table(rows.set_column(at, "score", pa.array(np.full(rows.num_rows, np.nan))), folder / HELD_OUT_FILE)
    (folder / MODEL_FILE).write_bytes(b"diverged")
    release = read_release(folder)
    files = {name: sha256_of(folder / name) for name in release.files}
    (folder / MANIFEST).write_text(Release(**{**vars(release), "files": files}).to_json())


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Published up to the first day; the second day is trained."""
    home = tmp_path_factory.mktemp("home")
    make_lake(home, World())
    for kind, periods in (("tpm", MONTHS), ("cpm", WEEKS), ("actr", DAYS[:1])):
        for period in periods:
            go(home, kind, period)
    train_quick(home, "actr", DAYS[1])
    return home


@pytest.fixture
def home(healthy: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "home"
    shutil.copytree(healthy, copy)
    return copy


def fall_back(home: Path, day: date) -> dict[str, Path]:
    """The fallbacks of a day on which all variants diverged, by variant."""
    for folder in staged_runs(Locations(home), "actr", day):
        spoil(folder)
    return {read_release(folder).variant: folder for folder in judge(home, "actr", day)}


def active(home: Path, variant: str, day: date) -> dict[str, Any]:
    row = LakeReader(Locations(home)).active("actr", variant, day)
    assert row is not None
    return row


def test_a_passed_day_is_released_as_it_is(home: Path) -> None:
    staged = staged_runs(Locations(home), "actr", DAYS[1])
    assert judge(home, "actr", DAYS[1]) == staged
    assert all(read_release(folder).carries is None for folder in staged)


def test_a_fallback_is_yesterdays_model_with_todays_predictions(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused = {read_release(folder).variant: folder for folder in staged_runs(Locations(home), "actr", DAYS[1])}
    fallbacks = fall_back(home, DAYS[1])
    said = capsys.readouterr().out
    for variant, folder in fallbacks.items():
        run, before = open_run(folder), active(home, variant, DAYS[0])
        assert run.release.carries == before["release_id"]
        assert run.release.release_id.startswith(f"actr-{variant}-{DAYS[1]}-fallback-")
        assert f"fallback: {run.release.release_id} is released instead; it carries {before['release_id']}" in said
        for name in (MODEL_FILE, MAPPING_FILE, VECTORS_FILE):
            assert (folder / name).read_bytes() == (home / before["artifact"] / name).read_bytes()
        assert (folder / PREDICTIONS_FILE).read_bytes() == (refused[variant] / PREDICTIONS_FILE).read_bytes()
        assert pq.read_table(folder / PREDICTIONS_FILE).num_rows == 80
        assert {name.split("_")[0] for name in run.release.metrics} == {"next"}
        splits = set(pq.read_table(folder / METRICS_FILE)["split"].to_pylist())
        assert "next_day" in splits and not any(split.startswith("held_out") for split in splits)
        assert all(check.passed for check in audit(Locations(home), World().deployment(), folder))


def test_a_figure_that_is_not_a_number_is_refused_though_the_held_out_scores_are_sound(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, other = staged_runs(Locations(home), "actr", DAYS[1])
    release = read_release(folder)
    (folder / MANIFEST).write_text(replace(release, metrics={**release.metrics, "train_loss": float("nan")}).to_json())
    judged = judge(home, "actr", DAYS[1])
    assert read_release(judged[0]).carries and judged[1] == other
    said = capsys.readouterr().out
    assert f"{release.release_id}: REFUSED" in said and "not a number: train_loss" in said


def test_the_same_gate_again_changes_nothing_and_a_torn_fallback_is_made_again(home: Path) -> None:
    folders = fall_back(home, DAYS[1])
    content = {path: path.read_bytes() for folder in folders.values() for path in folder.iterdir()}
    stamps = {path: path.stat().st_mtime_ns for path in content}
    assert judge(home, "actr", DAYS[1]) == list(folders.values())
    assert {path: path.stat().st_mtime_ns for path in content} == stamps
    (folders["none"] / MANIFEST).write_text("{")
    judge(home, "actr", DAYS[1])
    assert {path: path.read_bytes() for folder in folders.values() for path in folder.iterdir()} == content


def test_the_days_after_go_on_from_the_model_that_is_carried(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two days fall back. The second is the first with a new CPM: the fallback stays bound to the old one, and the next day restarts."""
    first = {variant: active(home, variant, DAYS[0])["release_id"] for variant in ("none", "tpm+cpm")}
    publish(home, list(fall_back(home, DAYS[1]).values()))
    train_quick(home, "actr", DAYS[2])
    second = fall_back(home, DAYS[2])
    publish(home, list(second.values()))
    assert {variant: read_release(folder).carries for variant, folder in second.items()} == first, (
        "carried twice, named once"
    )
    lineage, cpms = (
        World().deployment().lineage,
        [LakeReader(Locations(home)).active("cpm", "default", week) for week in WEEKS],
    )
    assert cpms[0] is not None and cpms[1] is not None
    parents = read_release(second["tpm+cpm"]).parents
    assert parents == {
        f"pretrained/cpm/{WEEKS[0]}": cpms[0]["release_id"],
        f"predecessor/actr/{DAYS[1]}": active(home, "tpm+cpm", DAYS[1])["release_id"],
    }
    assert f"pretrained/cpm/{WEEKS[0]}" not in [
        f"{p.role}/{p.kind}/{p.period}" for p in lineage.parents("actr", DAYS[2])
    ]

    session = Session.open(home, quick(), torch.device("cpu"))
    plans = {variant: plan_variant(session, DAYS[3], variant) for variant in ("none", "tpm+cpm")}
    assert not plans["none"].restart and plans["none"].days == (DAYS[3],)
    assert plans["tpm+cpm"].restart and plans["tpm+cpm"].cpm is not None
    assert plans["tpm+cpm"].predecessor is not None
    assert of_role(plans["tpm+cpm"].predecessor.release.parents, "pretrained").popitem()[1] == cpms[0]["release_id"]
    carried = open_released(session, plans["tpm+cpm"].predecessor).model.state_dict()
    original = open_released(session, session.release(first["tpm+cpm"])).model.state_dict()
    assert all(torch.equal(tensor, original[name]) for name, tensor in carried.items())

    last = {read_release(folder).variant: folder for folder in go(home, "actr", DAYS[3])}
    assert all(read_release(folder).carries is None for folder in last.values())
    assert set(pq.read_table(last["none"] / PREDICTIONS_FILE)["scored_by"].to_pylist()) == {
        active(home, "none", DAYS[2])["release_id"]
    }
    capsys.readouterr()
    none = np.zeros(0, np.int64)
    unscored = Scored(days=none.astype("datetime64[D]"), event_ids=none, user_ids=none, clicks=none, scores={})
    compared = [_day_row(LakeReader(Locations(home)), World().deployment(), unscored, [], day)[-1] for day in DAYS]
    assert compared == ["-", "none, tpm+cpm", "none, tpm+cpm", "-"]
    publishing(["releases", "--home", str(home)])
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if " actr " in line]
    assert {tuple(line[:3]): [word for word in line[4:] if word.startswith("actr-")] for line in lines} == {
        (str(day), "actr", variant): [first[variant]] if day in DAYS[1:3] else [] for day in DAYS for variant in first
    }


def test_training_again_with_the_same_inputs_gives_the_same_fallback_and_better_ones_a_release(home: Path) -> None:
    fallbacks = fall_back(home, DAYS[1])
    for folder in staged_runs(Locations(home), "actr", DAYS[1]):
        shutil.rmtree(folder)
    train_quick(home, "actr", DAYS[1])  # what diverged does so no more
    with pytest.raises(BadInput, match="gate: expected a verdict of the gate, found none"):
        gated_runs(Locations(home), "actr", DAYS[1])
    released = judge(home, "actr", DAYS[1])
    assert all(read_release(folder).carries is None for folder in released)
    assert {folder.name for folder in released}.isdisjoint(folder.name for folder in fallbacks.values())


def test_nothing_stands_in_on_the_first_day(home: Path) -> None:
    fold = staged_runs(Locations(home), "actr", DAYS[0])
    spoil(fold[0])
    with pytest.raises(QualityFailed, match=r"finite: expected each score a number.*Nothing can stand in for it"):
        judge(home, "actr", DAYS[0])
    with pytest.raises(BadInput, match="expected a passed gate, or a fallback, found failed: finite"):
        gated_runs(Locations(home), "actr", DAYS[0])


def test_a_verdict_on_another_run_is_refused(home: Path) -> None:
    (folder, *_) = judge(home, "actr", DAYS[1])
    (folder / MANIFEST).write_text((folder / MANIFEST).read_text() + " ")
    with pytest.raises(
        BadInput, match=r"gate.json: manifest_sha256: .*tributary validation gate --kind actr --period 2026-01-10"
    ):
        gated_runs(Locations(home), "actr", DAYS[1])


def test_changed_held_out_rows_are_refused(home: Path) -> None:
    (folder, *_) = staged_runs(Locations(home), "actr", DAYS[1])
    (folder / HELD_OUT_FILE).write_bytes(b"PAR1")
    with pytest.raises(BadInput, match=r"held_out\.parquet: sha256"):
        judge(home, "actr", DAYS[1])


def test_a_damaged_model_of_the_day_before_is_not_carried(home: Path) -> None:
    before = home / active(home, "none", DAYS[0])["artifact"]
    (before / MODEL_FILE).write_bytes(b"torn")
    with pytest.raises(BadInput, match="was damaged"):
        fall_back(home, DAYS[1])


def test_the_verdict_says_why(home: Path) -> None:
    fall_back(home, DAYS[1])
    (folder, *_) = staged_runs(Locations(home), "actr", DAYS[1])
    verdict = json.loads((folder / GATE).read_text())
    assert not verdict["passed"] and verdict["fallback"].startswith(
        "runs/actr/2026-01-10/none/actr-none-2026-01-10-fallback-"
    )
    assert [check["name"] for check in verdict["checks"] if check["severity"] == "fail" and not check["passed"]] == [
        "finite"
    ]
    assert read_held_out(folder, read_release(folder)).before is not None
