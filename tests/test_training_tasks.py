"""Training tasks from a tiny lake to run folders: parents, order of scoring and training, held-out rows, reruns."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from deltalake import DeltaTable
from lake_fixture import World, make_lake, publish_staged, train_quick, write_table
from safetensors.torch import load_file

import training.engine.board
import training.engine.loop
import training.tasks.actr
from contracts.errors import BadInput, ParentMissing
from contracts.features import features_of
from contracts.locations import Locations
from contracts.releases import HELD_OUT_FILE, MANIFEST, MAPPING_FILE, MODEL_FILE, PREDICTIONS_FILE, VECTORS_FILE
from contracts.settings import SETTINGS_FILE, Deployment
from lake.metrics import logloss
from lake.reader import LakeReader
from lake.run_folders import open_run, read_release
from training.cli import main
from training.data.vectors import read_vectors
from training.models.ctr import batch_norm_names
from training.recipes import RECIPES, quick
from training.tasks.actr_build import start_model
from training.tasks.actr_open import open_released
from training.tasks.actr_plan import AD_ONLY, plan_variant
from training.tasks.cpm import run_cpm
from training.tasks.session import Session
from training.tasks.tpm import run_tpm

MONTHS = [date(2026, 1, day) for day in (1, 4, 7)]
WEEKS = [date(2026, 1, day) for day in (7, 9)]
DAYS = [
    date(2026, 1, day) for day in (9, 10, 11)
]  # fresh; continues; starts again, from the CPM of the week of the 9th


def _go(home, kind, period, *more):
    train_quick(home, kind, period, *more)
    return publish_staged(home, kind, period)


def _session(home):
    return Session.open(home, quick(), torch.device("cpu"))


def _content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def world():
    return World()


@pytest.fixture(scope="module")
def chain(tmp_path_factory, world):
    """All kinds over several periods, published one after the other; what reached a training step is noted by row."""
    home = tmp_path_factory.mktemp("home")
    make_lake(home, world)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.engine.loop, "_train_step", _noting(training.engine.loop._train_step))
        runs = {("tpm", month): _go(home, "tpm", month) for month in MONTHS}
        runs |= {("cpm", week): _go(home, "cpm", week) for week in WEEKS}
        runs |= {("actr", day): _go(home, "actr", day) for day in DAYS}
    return home, runs


_batches: list[tuple[int, float]] = []


def _noting(step):
    def noted(model, batch, *more):
        _batches.append((len(batch.label_B), float(batch.label_B.sum())))
        return step(model, batch, *more)

    return noted


def _rows(home, table, days, *columns):
    return LakeReader(Locations(home)).read(table, columns=list(columns), where={"ds": list(days)})


def test_a_run_leaves_its_files_and_is_staged(chain):
    home, runs = chain
    for (kind, period), folders in runs.items():
        staged = json.loads(Locations(home).staged(kind, period).read_text())["runs"]
        assert staged == [str(folder.relative_to(home)) for folder in folders]
        assert len(folders) == (2 if kind == "actr" else 1)
        for folder in folders:
            release = open_run(folder).release
            assert {"model.safetensors", "mapping.parquet", "vectors.parquet", "metrics.parquet", HELD_OUT_FILE} <= set(
                release.files
            )
            assert (PREDICTIONS_FILE in release.files) == (kind == "actr")
            assert folder == Locations(home).run_of(kind, period, release.variant, release.release_id)
            assert set(f.name for f in features_of(kind)) <= set(release.feature_set)
            assert release.dims == {"user": 16, "item": 16}
    assert not list(home.rglob(".*"))


def test_parents_are_those_that_the_period_computes(chain):
    """Parents: the variant `none` has no CPM, and an absent snapshot is named."""
    home, runs = chain
    lineage, active = World().deployment().lineage, LakeReader(Locations(home)).active
    for (kind, period), folders in runs.items():
        for folder in folders:
            release = read_release(folder)
            expected = {}
            for parent in lineage.parents(kind, period):
                if parent.role in ("encoder", "texts") or (release.variant == "none" and parent.role == "pretrained"):
                    continue
                row = active(parent.kind, release.variant if parent.kind == "actr" else "default", parent.period)
                assert row is not None
                expected[f"{parent.role}/{parent.kind}/{parent.period}"] = row["release_id"]
            assert dict(release.parents) == expected
    (cpm,) = runs["cpm", WEEKS[0]]
    assert read_release(cpm).absent_parents == ("snapshot/tpm/2025-12-26", "snapshot/tpm/2025-12-29")


def test_inputs_are_the_days_that_were_trained_on_or_judged(chain):
    home, runs = chain
    lineage = World().deployment().lineage
    inputs = {read_release(folder).variant: set(read_release(folder).inputs) for folder in runs["actr", DAYS[2]]}

    def partitions(days):
        return {f"{table}/ds={day}" for table in ("ad_samples", "user_histories") for day in days}

    judged = [
        date(2026, 1, day) for day in range(7, 12)
    ]  # from the first day that the first A-CTR replayed: there are no 2,000 rows
    assert inputs["none"] == inputs["tpm+cpm"] == partitions(judged)
    session = replace(_session(home), judged_rows=1)
    plans = {variant: plan_variant(session, DAYS[2], variant) for variant in ("none", "tpm+cpm")}
    few = plans["none"].judged_days
    held_out = _rows(home, "ad_samples", few, "ds", "held_out").filter(pc.field("held_out"))["ds"].to_pylist()
    assert set(held_out) == {few[0]}, "as few days as give enough rows"
    assert set(plans["none"].release.inputs) == partitions({DAYS[2], *few})
    replayed = lineage.actr_training_days(DAYS[2], replay_days=3)
    assert set(plans["tpm+cpm"].release.inputs) == partitions({*replayed, *few})


def test_a_replay_begins_at_the_click_rate_of_its_rows(chain, tmp_path, monkeypatch):
    """The natural log is clicked far more often than the ads: what starts from its model would spend a whole replay on that difference."""
    home, runs = chain
    other = tmp_path / "other"
    shutil.copytree(home, other)
    begun = {}

    def noting(model, samples, phase, **others):
        begun[others["description"]] = training.engine.loop.score(model, samples).mean() / float(samples.label_N.mean())
        return training.engine.loop.train(model, samples, phase, **others)

    monkeypatch.setattr(training.tasks.actr, "train", noting)
    for folder in runs["actr", DAYS[0]]:
        shutil.rmtree(other / folder.relative_to(home))
    training.tasks.actr.run_actr(_session(other), DAYS[0])
    assert begun and list(begun.values()) == pytest.approx([1.0] * len(begun), abs=1e-3)


def test_the_gate_gets_held_out_rows_scored_by_both_models(chain):
    home, runs = chain
    for folder in runs["actr", DAYS[0]]:
        assert pq.read_table(folder / HELD_OUT_FILE)["score_before"].null_count > 0
    for folder in runs["actr", DAYS[2]]:
        release, rows = read_release(folder), pq.read_table(folder / HELD_OUT_FILE)
        lake = _rows(
            home,
            "ad_samples",
            [date(2026, 1, day) for day in range(7, 12)],
            "event_id",
            "user_id",
            "ds",
            "click",
            "held_out",
        )
        lake = lake.filter(lake["held_out"]).drop(["held_out"])
        assert rows.select(lake.column_names).sort_by("event_id") == lake.sort_by("event_id").cast(
            rows.select(lake.column_names).schema
        )
        before = {
            row["event_id"]: row["score_before"] for row in rows.filter(pc.equal(rows["ds"], DAYS[2])).to_pylist()
        }
        predicted = {row["event_id"]: row["score"] for row in pq.read_table(folder / PREDICTIONS_FILE).to_pylist()}
        assert before and before == pytest.approx({event: predicted[event] for event in before}, abs=1e-6)
        assert rows["score"] != rows["score_before"]
        assert release.metrics["held_out_logloss"] == pytest.approx(
            logloss(rows["score"].to_numpy(), rows["click"].to_numpy())
        )
    for folder in (*runs["tpm", MONTHS[0]], *runs["cpm", WEEKS[0]]):
        rows = pq.read_table(folder / HELD_OUT_FILE)
        assert rows.num_rows > 0 and rows["score_before"].null_count == rows.num_rows


def test_an_unbuilt_day_among_the_judged_is_named(chain, tmp_path):
    home, _ = chain
    other = tmp_path / "home"
    shutil.copytree(home, other)
    DeltaTable(str(Locations(other).table("builds"))).delete("table_name = 'ad_samples' AND owner = 'ds=2026-01-08'")
    with pytest.raises(ParentMissing, match="tributary spark_jobs build_samples --ds 2026-01-08"):
        main(["actr", "--ds", str(DAYS[1]), "--home", str(other), "--recipe", "quick"])


def test_held_out_rows_never_reach_a_training_step(chain):
    """Rows and clicks of all steps of all kinds, against the lake's rows that are not held out."""
    home, _ = chain
    deployment = World().deployment()
    lineage, expected = deployment.lineage, [0, 0]

    def add(table, days, times):
        rows = _rows(home, table, days, "held_out", "click")
        rows = rows.filter(pc.invert(rows["held_out"]))
        expected[0] += times * rows.num_rows
        expected[1] += times * pc.sum(rows["click"]).as_py()

    recipe = quick()
    for month in MONTHS:
        add("natural_samples", lineage.period("tpm", month).days(), recipe.tpm.train.epochs)
    for week in WEEKS:
        add("natural_samples", lineage.cpm_training_days(lineage.period("cpm", week)), recipe.cpm.train.epochs)
    for day, restarts in zip(DAYS, (2, 0, 1), strict=True):
        add("ad_samples", lineage.actr_training_days(day, replay_days=3), restarts * recipe.actr.restart.epochs)
        add("ad_samples", [day], (2 - restarts) * recipe.actr.daily.epochs)
    assert [sum(rows for rows, _ in _batches), sum(clicks for _, clicks in _batches)] == expected
    held_out = _rows(home, "ad_samples", DAYS, "held_out")["held_out"].to_pylist()
    assert any(held_out), "the fixture holds some rows out, or this test would show nothing"


def test_the_day_before_scores_every_row_of_the_day(chain):
    home, runs = chain
    assert all(pq.read_table(folder / PREDICTIONS_FILE).num_rows == 0 for folder in runs["actr", DAYS[0]])
    before = {read_release(f).variant: read_release(f).release_id for f in runs["actr", DAYS[0]]}
    for folder in runs["actr", DAYS[1]]:
        release, rows = read_release(folder), pq.read_table(folder / PREDICTIONS_FILE)
        expected = _rows(home, "ad_samples", [DAYS[1]], "event_id", "user_id", "click")
        assert rows.select(["event_id", "user_id", "click"]).sort_by("event_id") == expected.sort_by("event_id").cast(
            rows.schema.remove(5).remove(4).remove(2)
        )
        assert set(rows["scored_by"].to_pylist()) == {before[release.variant]} and set(rows["ds"].to_pylist()) == {
            DAYS[1]
        }
        metrics = {(m["metric"], m["split"]): m for m in pq.read_table(folder / "metrics.parquet").to_pylist()}
        assert metrics["gauc", "next_day"]["row_cnt"] == rows.num_rows
        assert metrics["auc", "next_day"]["value"] == pytest.approx(release.metrics["next_day_auc"])


def test_an_ad_model_reads_the_merged_table_of_its_own_cpm(chain):
    """The day that starts again still scores with its predecessor, bound to the CPM of the week before."""
    home, runs = chain
    session = _session(home)
    plan = plan_variant(session, DAYS[2], "tpm+cpm")
    assert plan.restart and plan.cpm is not None and plan.cpm.folder == runs["cpm", WEEKS[1]][0]
    assert plan.predecessor is not None
    scorer = open_released(session, plan.predecessor)
    own = read_vectors(runs["cpm", WEEKS[0]][0] / VECTORS_FILE, {"user": 16, "item": 16})
    assert scorer.encoding.transfer["user"].ids.tolist() == own["user"].ids.tolist()
    assert np.array_equal(scorer.model.transfer.get_buffer("user")[1:].numpy(), own["user"].vectors)
    assert len(own["user"].ids) > 0


def test_a_restart_begins_with_the_weights_of_its_cpm(chain):
    """Before the first step, all but batch-norm and ad-only tables are the CPM's."""
    home, runs = chain
    session = _session(home)
    plan = plan_variant(session, DAYS[2], "tpm+cpm")
    rows = training.tasks.actr.Days(session)(plan.days).trainable()
    model = start_model(session, plan, rows).model
    assert plan.cpm is not None
    source, norms = load_file(plan.cpm.folder / MODEL_FILE), batch_norm_names(model)
    compared = 0
    for name, tensor in model.state_dict().items():
        if name in norms:
            assert (tensor == (1 if name.endswith(("weight", "running_var")) else 0)).all(), name
        elif name.endswith(".square"):
            assert (tensor == 0).all(), name
        elif name not in {f"embeddings.{ad_only}.weight" for ad_only in AD_ONLY}:
            assert torch.equal(
                tensor[: len(source[name])] if name.startswith("embeddings.") else tensor, source[name]
            ), name
            compared += 1
    assert compared > 20
    # The CPM's mapping is a prefix of the A-CTR's.
    old, new = (
        pq.read_table(folder / MAPPING_FILE, filters=[("row", ">", 0)]).select(["field", "id", "row"]).to_pylist()
        for folder in (plan.cpm.folder, runs["actr", DAYS[2]][1])
    )
    assert {tuple(row.values()) for row in old} < {tuple(row.values()) for row in new}


def test_the_same_again_is_skipped_and_a_damaged_run_is_made_again(chain, capsys):
    home, runs = chain
    before = [_content(folder) for folder in runs["actr", DAYS[2]]]
    stamps = [(folder / MODEL_FILE).stat().st_mtime_ns for folder in runs["actr", DAYS[2]]]
    main(["actr", "--ds", str(DAYS[2]), "--home", str(home), "--recipe", "quick"])
    assert capsys.readouterr().out.count("is there already") == 2
    assert [(folder / MODEL_FILE).stat().st_mtime_ns for folder in runs["actr", DAYS[2]]] == stamps
    for damage in ("remove", "change"):
        torch.manual_seed(987)
        victim = runs["actr", DAYS[2]][1]
        if damage == "remove":
            shutil.rmtree(victim)
        else:
            (victim / MODEL_FILE).write_bytes(b"torn")
        main(["actr", "--ds", str(DAYS[2]), "--home", str(home), "--recipe", "quick"])
        assert [_content(folder) for folder in runs["actr", DAYS[2]]] == before, "training again gives the same bytes"


@pytest.mark.parametrize(("kind", "period"), [("tpm", MONTHS[1]), ("cpm", WEEKS[0])])
def test_training_again_gives_the_same_bytes(chain, kind, period):
    home, runs = chain
    (folder,) = runs[kind, period]
    before = _content(folder)
    shutil.rmtree(folder)
    torch.manual_seed(987)  # nothing may draw from the generator as it finds it
    main([kind, "--period", str(period), "--home", str(home), "--recipe", "quick"])
    assert _content(folder) == before


KILLED_IN_A_STEP = """
import os, signal, sys
import test_training_tasks
import training.engine.loop as loop
from training import recipes
from training.cli import main

step, left = loop._train_step, [int(sys.argv[1])]

def killed(*arguments):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(*arguments)

recipes.RECIPES["quick"] = test_training_tasks.small_batches
loop._train_step = killed
main(sys.argv[2:])
"""


def small_batches():
    """Several steps an epoch."""
    base = quick()
    return replace(base, cpm=replace(base.cpm, train=replace(base.cpm.train, batch_size=128)))


@pytest.mark.slow
@pytest.mark.parametrize("steps", [2, 9])  # in the first epoch and in the second
def test_a_training_that_was_killed_goes_on_in_the_middle_to_the_same_bytes(chain, tmp_path, monkeypatch, steps):
    """kill -9 in a step, then the same command: the steps that were done are not done again, and the files are the same."""
    home, _ = chain
    other = tmp_path / "home"
    shutil.copytree(home, other)
    monkeypatch.setitem(RECIPES, "quick", small_batches)
    monkeypatch.setattr(training.engine.loop, "_train_step", _noting(training.engine.loop._train_step))
    command = ["cpm", "--period", str(WEEKS[0]), "--home", str(other), "--recipe", "quick", "--checkpoint-seconds", "0"]
    before = len(_batches)
    main(command)
    undisturbed = _batches[before:]
    folder = open_run(other / json.loads(Locations(other).staged("cpm", WEEKS[0]).read_text())["runs"][0]).folder
    files = _content(folder)
    shutil.rmtree(folder)
    died = subprocess.run(
        [sys.executable, "-c", KILLED_IN_A_STEP, str(steps), *command],
        check=False,
        cwd=Path(__file__).parent,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert died.returncode == -signal.SIGKILL
    assert len(list((other / "runs" / "unfinished").iterdir())) == 1
    middle = len(_batches)
    main(command)
    resumed = _batches[middle:]
    del _batches[before:]
    assert len(undisturbed) > steps and resumed == undisturbed[steps:]
    assert _content(folder) == files
    assert not list((other / "runs" / "unfinished").iterdir())


def test_labels_of_a_day_do_not_change_its_scores(chain, tmp_path):
    """Scored first, trained after: with all labels of the day turned round, the model differs and its scores of the day do not."""
    home, runs = chain
    other = tmp_path / "home"
    shutil.copytree(home, other)
    rows = _rows(other, "ad_samples", [DAYS[1]])
    flipped = rows.set_column(
        rows.schema.get_field_index("click"), "click", pc.cast(pc.subtract(1, rows["click"]), pa.int32())
    )
    write_table(Locations(other), "ad_samples", flipped, mode="overwrite", predicate=f"ds = '{DAYS[1]}'")
    for folder in runs["actr", DAYS[1]]:
        shutil.rmtree(other / folder.relative_to(home))
    main(["actr", "--ds", str(DAYS[1]), "--home", str(other), "--recipe", "quick"])
    for folder in runs["actr", DAYS[1]]:
        again = other / folder.relative_to(home)
        ours, theirs = (pq.read_table(f / PREDICTIONS_FILE) for f in (folder, again))
        assert ours.drop(["click"]) == theirs.drop(["click"]) and ours["click"] != theirs["click"]
        assert (folder / MODEL_FILE).read_bytes() != (again / MODEL_FILE).read_bytes()


def test_a_missing_parent_is_named_with_the_command_that_makes_it(tmp_path, world):
    make_lake(tmp_path, world)
    for kind, option, period, command in (
        ("tpm", "--period", MONTHS[1], "tributary training tpm --period 2026-01-01"),
        ("cpm", "--period", WEEKS[0], "tributary training tpm --period 2026-01-01"),
        ("actr", "--ds", DAYS[0], "tributary training cpm --period 2026-01-07"),
        ("actr", "--ds", DAYS[1], "tributary training actr --ds 2026-01-09"),
    ):
        with pytest.raises(ParentMissing) as error:
            main([kind, option, str(period), "--home", str(tmp_path), "--recipe", "quick"])
        assert str(error.value).endswith(command)


def test_missing_samples_are_named_with_the_command_that_builds_them(tmp_path):
    make_lake(tmp_path, World(num_days=2))
    with pytest.raises(ParentMissing, match=r"natural_samples: .*tributary spark_jobs build_samples --ds 2026-01-03$"):
        run_tpm(_session(tmp_path), MONTHS[0])


def test_bad_periods_are_refused(chain):
    home, _ = chain
    with pytest.raises(BadInput, match="expected the first day of a month, found 2026-01-02"):
        run_tpm(_session(home), date(2026, 1, 2))
    with pytest.raises(BadInput, match="expected a day that has ended"):
        run_cpm(_session(home), date(2199, 1, 4))


@pytest.mark.parametrize("name", [MODEL_FILE, MANIFEST])
def test_a_changed_artifact_is_refused(chain, tmp_path, name):
    """The model against its manifest, the manifest against the row of `releases`."""
    home, runs = chain
    other = tmp_path / "home"
    shutil.copytree(home, other)
    changed = other / runs["tpm", MONTHS[0]][0].relative_to(home) / name
    changed.write_bytes(changed.read_bytes() + b" ")
    with pytest.raises(BadInput, match="sha256"):
        run_tpm(_session(other), MONTHS[1])


def test_another_recipe_than_the_cpms_is_refused(chain):
    home, _ = chain
    with pytest.raises(BadInput, match="Train the chain of models with the same --recipe"):
        main(["actr", "--ds", str(DAYS[0]), "--home", str(home), "--recipe", "default"])


def test_the_deployments_recipe_is_taken_where_none_is_named(chain, tmp_path, capsys):
    home, _ = chain
    other = tmp_path / "home"
    shutil.copytree(home, other)
    (other / SETTINGS_FILE).write_text(replace(Deployment.load(other), recipe="quick").to_toml())
    main(["actr", "--ds", str(DAYS[2]), "--home", str(other)])
    assert capsys.readouterr().out.count("is there already") == 2


def test_one_transfer_setting_alone_is_what_it_is_among_all(chain, tmp_path):
    home, runs = chain
    other = tmp_path / "home"
    shutil.copytree(home, other)
    for folder in runs["actr", DAYS[2]]:
        shutil.rmtree(other / folder.relative_to(home))
    arguments = ["actr", "--ds", str(DAYS[2]), "--home", str(other), "--recipe", "quick", "--transfer"]
    main([*arguments, "tpm+cpm"])
    (kept,) = [folder for folder in runs["actr", DAYS[2]] if read_release(folder).variant == "tpm+cpm"]
    staged = json.loads(Locations(other).staged("actr", DAYS[2]).read_text())["runs"]
    assert staged == [str(kept.relative_to(home))] and _content(other / staged[0]) == _content(kept)
    assert not any((other / folder.relative_to(home)).exists() for folder in runs["actr", DAYS[2]] if folder != kept)
    with pytest.raises(BadInput, match="variants: expected adapters among them, found none, tpm"):
        main([*arguments, "adapters"])


def test_a_day_without_ad_rows_keeps_the_predecessors_weights(chain, tmp_path):
    home, runs = chain
    other = tmp_path / "home"
    shutil.copytree(home, other)
    rows = _rows(other, "ad_samples", [DAYS[1]])
    write_table(Locations(other), "ad_samples", rows.slice(0, 0), mode="overwrite", predicate=f"ds = '{DAYS[1]}'")
    for folder in runs["actr", DAYS[1]]:
        shutil.rmtree(other / folder.relative_to(home))
    main(["actr", "--ds", str(DAYS[1]), "--home", str(other), "--recipe", "quick"])
    for folder, before in zip(runs["actr", DAYS[1]], runs["actr", DAYS[0]], strict=True):
        again = other / folder.relative_to(home)
        assert (again / MODEL_FILE).read_bytes() == (before / MODEL_FILE).read_bytes()
        assert {name.split("_")[0] for name in read_release(again).metrics} == {"held"}, (
            "no loss, and no figure of the day"
        )


def _scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: [(event.step, event.value, event.wall_time) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def test_tensorboard_looks_on_and_changes_nothing(chain, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    home, runs = chain
    copy = tmp_path / "copy"
    shutil.copytree(home, copy)
    (run,) = runs["tpm", MONTHS[1]]
    shutil.rmtree(copy / run.relative_to(home))
    recipe, days = quick().tpm.train, World().deployment().lineage.period("tpm", MONTHS[1]).days()
    rows = pc.sum(pc.invert(_rows(home, "natural_samples", days, "held_out")["held_out"])).as_py()
    steps = -(-rows // recipe.batch_size)
    monkeypatch.setattr(training.engine.board, "EVERY_STEPS", steps)  # a mean of each epoch
    _go(copy, "tpm", MONTHS[1], "--tensorboard")
    assert _content(copy / run.relative_to(home)) == _content(run)  # to the bit
    release = read_release(run)
    found = _scalars(Locations(copy).tensorboard("tpm", "default", release.release_id))
    assert [step for step, *_ in found["train/logloss"]] == [steps * (epoch + 1) for epoch in range(recipe.epochs)]
    assert found["train/logloss"][-1][1] == pytest.approx(release.metrics["train_loss"], rel=1e-5)
    assert found["train/samples_per_second"][-1][1] > 0
    assert {name: found[f"figures/{name}"][0][1] for name in release.metrics} == pytest.approx(
        dict(release.metrics), rel=1e-6
    )
    assert {found[f"figures/{name}"][0][2] for name in release.metrics} == {1767484800.0}  # midnight of 2026-01-04
    assert not (home / "tensorboard").exists()


def test_tensorboard_that_is_not_there_is_said_before_training(chain, monkeypatch):
    home, _ = chain
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(BadInput, match=r"--tensorboard: package: expected tensorboard, found .*Install the extra"):
        _go(home, "tpm", MONTHS[1], "--tensorboard")


def test_a_board_has_the_mean_of_every_fifty_steps_and_of_the_rest(tmp_path):
    pytest.importorskip("tensorboard")
    from training.engine.board import Board

    losses, sizes = np.arange(105.0), np.r_[np.full(104, 4), 2]
    with Board(tmp_path) as board:
        for step in range(105):
            board(step + 1, {"logloss": torch.tensor(losses[step])}, int(sizes[step]))
    expected = [
        np.average(losses[part], weights=sizes[part]) for part in (slice(0, 50), slice(50, 100), slice(100, 105))
    ]
    found = _scalars(tmp_path)["train/logloss"]
    assert [step for step, _, _ in found] == [50, 100, 105]
    assert [value for _, value, _ in found] == pytest.approx(expected, rel=1e-6)
