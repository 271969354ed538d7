"""Run folders: complete or not there at all, known again by their content, replaced where they are damaged."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import pytest

from contracts.errors import BadInput
from contracts.locations import Locations
from contracts.releases import GATE, MANIFEST, Release
from lake.run_folders import (
    finished,
    folder_of,
    gated_runs,
    link,
    make_run,
    open_released,
    open_run,
    replace_text,
    sha256_of,
    stage_runs,
    staged_runs,
    write_verdict,
)

DAY = date(2026, 1, 5)
DRAFT = Release(kind="actr", variant="none", period=DAY, recipe={}, parents={}, inputs={}, feature_set=("item_id",))


@dataclass(frozen=True)
class Check:
    name: str
    passed: bool
    severity: str


def fill(folder: Path) -> Release:
    (folder / "one.parquet").write_text("one")
    (folder / "two.parquet").write_text("two")
    return replace(DRAFT, metrics={"train_loss": 0.5}, dims={"item": 4})


def killed(folder: Path) -> Release:
    (folder / "one.parquet").write_text("half")
    raise KeyboardInterrupt


def test_a_run_is_known_again_by_what_was_to_be_made(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    assert finished(locations, DRAFT) is None
    made = make_run(locations, DRAFT, fill)
    assert finished(locations, DRAFT) == made == open_run(folder_of(locations, DRAFT))
    assert made.release.release_id == DRAFT.release_id and set(made.release.files) == {"one.parquet", "two.parquet"}


def test_a_training_that_was_killed_leaves_no_run_and_the_next_one_cleans_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locations = Locations(tmp_path)
    with monkeypatch.context() as another, pytest.raises(KeyboardInterrupt):
        another.setattr(os, "getpid", lambda: 0)
        make_run(locations, DRAFT, killed)
    (left,) = folder_of(locations, DRAFT).parent.iterdir()
    assert left.name.startswith(".") and finished(locations, DRAFT) is None
    made = make_run(locations, DRAFT, fill)
    assert list(made.folder.parent.iterdir()) == [made.folder]


def torn(folder: Path) -> None:
    (folder / MANIFEST).write_text("{")


def without_a_file(folder: Path) -> None:
    (folder / "two.parquet").unlink()


def changed(folder: Path) -> None:
    (folder / "one.parquet").write_text("two")


@pytest.mark.parametrize("damage", [torn, without_a_file, changed])
def test_a_damaged_run_is_refused_and_replaced(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    locations = Locations(tmp_path)
    made = make_run(locations, DRAFT, fill)
    damage(made.folder)
    assert finished(locations, DRAFT) is None
    with pytest.raises(BadInput):
        open_run(made.folder)
    assert make_run(locations, DRAFT, fill) == made == open_run(made.folder)
    assert list(made.folder.parent.iterdir()) == [made.folder]


def test_another_manifest_than_the_released_one_is_refused(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    made = make_run(locations, DRAFT, fill)
    row = {
        "artifact": str(made.folder.relative_to(tmp_path)),
        "sha256": sha256_of(made.folder / MANIFEST),
        "release_id": made.release.release_id,
    }
    assert open_released(locations, row) == made
    (made.folder / MANIFEST).write_text(replace(made.release, metrics={}).to_json())
    with pytest.raises(
        BadInput, match=rf"sha256: expected {row['sha256']}, found [0-9a-f]+\. The folder is not what actr-none"
    ):
        open_released(locations, row)
    (made.folder / MANIFEST).unlink()
    with pytest.raises(BadInput, match="found no such file"):
        open_released(locations, row)


def test_a_file_that_is_replaced_stays_under_its_second_name(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("before")
    link(tmp_path / "one", tmp_path / "two")
    replace_text(tmp_path / "one", "after")
    assert ((tmp_path / "one").read_text(), (tmp_path / "two").read_text()) == ("after", "before")


def test_where_a_file_system_has_no_links_a_file_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError

    (tmp_path / "one").write_text("content")
    monkeypatch.setattr(os, "link", refuse)
    link(tmp_path / "one", tmp_path / "two")
    assert (tmp_path / "two").read_text() == "content"


def test_the_gate_lets_through_what_it_judged_as_it_is_now(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    made = make_run(locations, DRAFT, fill)
    stage_runs(locations, "actr", DAY, [made])
    assert staged_runs(locations, "actr", DAY) == [made.folder]
    checks = [Check("rows", False, "warn"), Check("finite", True, "fail")]
    write_verdict(made.folder / GATE, made.release, checks, fallback=None)
    assert gated_runs(locations, "actr", DAY) == [made.folder]
    write_verdict(made.folder / GATE, made.release, [*checks, Check("auc", False, "fail")], fallback=None)
    with pytest.raises(BadInput, match="expected a passed gate, or a fallback, found failed: auc"):
        gated_runs(locations, "actr", DAY)
    write_verdict(made.folder / GATE, made.release, [*checks, Check("auc", False, "fail")], fallback="runs/other")
    assert gated_runs(locations, "actr", DAY) == [tmp_path / "runs" / "other"]
    (made.folder / MANIFEST).write_text(replace(made.release, metrics={}).to_json())
    with pytest.raises(BadInput, match="another manifest"):
        gated_runs(locations, "actr", DAY)
