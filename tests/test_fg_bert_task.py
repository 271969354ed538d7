"""FG-BERT week by week on a small lake: what it reads, what it carries on, what it leaves."""

import shutil
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from lake_fixture import World, make_lake, publish_staged

import training.tasks.fg_bert
from contracts.errors import BadInput, ParentMissing
from contracts.features import LOGS
from contracts.locations import Locations
from contracts.periods import Parent
from contracts.releases import HELD_OUT_FILE, MAPPING_FILE, MODEL_FILE, VECTORS_FILE
from lake.reader import LakeReader
from lake.run_folders import gated_runs, open_run
from publishing.audit import audit
from publishing.index import Vectors
from publishing.parents import missing_inputs
from training.cli import main
from training.data.behaviours import Behaviours, read_newest
from training.data.mapping import IdMapping
from training.data.sequences import ID_FIELDS, EncodedSequences
from training.engine.checkpoint import read_weights
from training.recipes import quick
from training.tasks.fg_bert import Sequences, _encoded, _judge, open_fg_bert, run_fg_bert
from training.tasks.fg_bert_users import run_fg_bert_users
from training.tasks.session import Session
from validation.gate_command import gate

WEEKS = [date(2026, 1, 7), date(2026, 1, 9), date(2026, 1, 11)]  # the first is the one that the first A-CTR reads


def _session(home):
    return Session.open(home, quick(), torch.device("cpu"))


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    make_lake(home, World(items=300))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.tasks.fg_bert, "HELD_OUT_ONE_IN", 4)
        runs = []
        for week in WEEKS:
            assert main(["fg_bert", "--period", str(week), "--home", str(home), "--recipe", "quick"]) == 0
            publish_staged(home, "fg_bert", week)
            runs.append(_session(home).parent("a test", *_served(week)))
        yield home, runs


def _served(week):
    return Parent(role="predecessor", kind="fg_bert", period=week), "default"


def _period(week):
    return World().deployment().lineage.period("fg_bert", week)


def test_behaviours_are_those_at_the_end_of_the_week(chain):
    home, _ = chain
    days = [date(2026, 1, 9), date(2026, 1, 10)]
    reader = LakeReader(Locations(home))
    found = read_newest(reader, days, "Asia/Shanghai")
    newest = {}
    for day in days:
        for row in reader.read("user_histories", columns=["user_id", "behaviours"], where={"ds": day}).to_pylist():
            newest[row["user_id"]] = row["behaviours"]
    assert found.user_ids.tolist() == sorted(newest)
    for number, user in enumerate(found.user_ids):
        part = slice(found.offsets[number], found.offsets[number + 1])
        expected = newest[int(user)]
        assert found.event_ids[part].tolist() == [b["event_id"] for b in expected]
        for name in ID_FIELDS:
            assert found.columns[name][part].tolist() == [b[name] for b in expected]
        assert found.columns["hour"][part].tolist() == [(b["event_ts"].hour + 8) % 24 for b in expected]
        assert found.columns["log"][part].tolist() == [LOGS.index(b["log"]) for b in expected]
        assert len(expected) == 0 or found.columns["gap"][part][0] == 0


def test_a_release_names_what_it_was_made_from_and_of(chain):
    _, runs = chain
    for week, run in zip(WEEKS, runs, strict=True):
        assert set(run.release.inputs) == {f"user_histories/ds={day}" for day in _period(week).days()}
        assert run.release.dims == {"item": 64}
        assert np.isfinite(run.release.metrics["train_loss"])
        mapping = IdMapping.load(run.folder / MAPPING_FILE, ID_FIELDS)
        vectors = pq.read_table(run.folder / VECTORS_FILE)
        assert set(vectors["entity"].to_pylist()) == {"item"}
        assert sorted(mapping.fields["item_id"].ids) == vectors["id"].to_pylist()
        weight = read_weights(run.folder / MODEL_FILE)["embeddings.item_id.weight"].numpy()
        rows = mapping.fields["item_id"].rows(vectors["id"].to_numpy())
        assert np.array_equal(weight[rows], np.array(vectors["vector"].to_pylist(), np.float32))
    assert dict(runs[1].release.parents) == {"predecessor/fg_bert/2026-01-07": runs[0].release.release_id}


def test_a_week_goes_on_from_the_one_before(chain, monkeypatch):
    home, runs = chain
    begun = {}

    def noting(model, samples, phase, **others):
        begun.update({name: value.clone() for name, value in model.state_dict().items()})
        raise KeyboardInterrupt

    monkeypatch.setattr(training.tasks.fg_bert, "train", noting)
    shutil.move(runs[1].folder, runs[1].folder.with_name("aside"))
    try:
        with pytest.raises(KeyboardInterrupt):
            run_fg_bert(_session(home), WEEKS[1])
    finally:
        shutil.move(runs[1].folder.with_name("aside"), runs[1].folder)
    before = read_weights(runs[0].folder / MODEL_FILE)
    old, new = (IdMapping.load(run.folder / MAPPING_FILE, ID_FIELDS).fields["item_id"] for run in runs[:2])
    assert np.isin(old.ids, new.ids).all() and len(new.ids) > len(old.ids), (
        "the later week knows more items, or this shows nothing"
    )
    for name in ("embeddings.item_id.weight", "biases.item_id"):
        assert torch.equal(begun[name][new.rows(old.ids)], before[name][old.rows(old.ids)])
    assert torch.equal(begun["layers.0.key.weight"], before["layers.0.key.weight"])


def test_held_out_users_reach_no_training_step_and_are_judged(chain, monkeypatch):
    home, runs = chain
    seen: list[tuple[int, int]] = []

    def noting(model, samples, phase, **others):
        seen.extend(zip(samples.start_S.tolist(), samples.end_S.tolist(), strict=True))
        raise KeyboardInterrupt

    monkeypatch.setattr(training.tasks.fg_bert, "train", noting)
    folder = runs[2].folder
    shutil.move(folder, folder.with_name("aside"))
    try:
        with pytest.raises(KeyboardInterrupt):
            run_fg_bert(_session(home), WEEKS[2])
    finally:
        shutil.move(folder.with_name("aside"), folder)
    behaviours = read_newest(LakeReader(Locations(home)), _period(WEEKS[2]).days(), "UTC")
    sequences = Sequences.of(behaviours, 50)
    held_out = set(sequences.user_ids[sequences.held_out].tolist())
    assert 0 < len(held_out) < len(sequences.user_ids) / 2
    assert set(seen) == set(zip(sequences.start[~sequences.held_out], sequences.end[~sequences.held_out], strict=True))
    rows = pq.read_table(folder / HELD_OUT_FILE).to_pandas()
    assert set(rows["user_id"]) == held_out and len(rows) == 2 * len(held_out)
    assert rows.groupby("user_id")["click"].sum().tolist() == [1] * len(held_out)
    assert rows.groupby("user_id")["score"].sum().tolist() == pytest.approx([1.0] * len(held_out))
    assert rows["score_before"].notna().all() and not np.allclose(rows["score"], rows["score_before"])
    last = behaviours.event_ids[sequences.end - 1][sequences.held_out]
    assert set(rows["event_id"]) == set(last.tolist())


def test_a_model_that_gives_no_numbers_has_figures_that_are_none(chain):
    """Nothing is greater than NaN, so that each item would be a hit."""
    home, runs = chain
    behaviours = read_newest(LakeReader(Locations(home)), _period(WEEKS[2]).days(), "UTC")
    sequences = Sequences.of(behaviours, 50)
    model, own = open_fg_bert(runs[2])
    rows = _encoded(_session(home), behaviours, sequences, own)
    assert all(
        metric.value is not None and np.isfinite(metric.value)
        for metric in _judge(model, rows, behaviours, sequences).metrics
    )
    with torch.no_grad():
        next(iter(model.parameters())).fill_(np.nan)
    assert all(
        metric.value is not None and np.isnan(metric.value)
        for metric in _judge(model, rows, behaviours, sequences).metrics
    )


def test_the_gate_and_the_audit_let_it_through(chain):
    home, runs = chain
    gate(Locations(home), "fg_bert", WEEKS[2])
    assert gated_runs(Locations(home), "fg_bert", WEEKS[2]) == [runs[2].folder]
    checks = audit(Locations(home), World().deployment(), runs[2].folder)
    assert {check.name for check in checks if check.name.startswith("index")} == {"index_recall"}


def test_the_same_week_again_is_there_already(chain, capsys):
    home, runs = chain
    run = run_fg_bert(_session(home), WEEKS[1])
    assert run.folder == runs[1].folder and "nothing to train" in capsys.readouterr().out
    assert open_run(run.folder).release == runs[1].release


def test_what_is_missing_is_said(chain, tmp_path):
    other = tmp_path / "other"
    make_lake(other, World())
    with pytest.raises(ParentMissing, match=r"tributary training fg_bert --period 2026-01-09"):
        run_fg_bert(_session(other), WEEKS[2])
    empty = pa.table(
        {
            "user_id": pa.array([5], pa.int64()),
            "behaviours": LakeReader(Locations(other))
            .read("user_histories", columns=["behaviours"], where={"ds": WEEKS[0]})
            .slice(0, 1)["behaviours"],
        }
    )
    lonely = Behaviours.from_arrow(empty, "UTC")
    with pytest.raises(BadInput, match="at least two users"):
        training.tasks.fg_bert._train(_session(other), chain[1][0].release, _period(WEEKS[0]), lonely, None)


def test_a_days_users_get_the_mean_of_what_the_encoder_gives(chain):
    home, runs = chain
    session, day = _session(home), WEEKS[2]  # the day after the last of the week before
    run = run_fg_bert_users(session, day)
    assert run.release.parents == {f"encoder/fg_bert/{WEEKS[1]}": runs[1].release.release_id}
    encoder, mapping = open_fg_bert(runs[1])
    encoder.eval()
    found = Vectors.read(run.folder / VECTORS_FILE, "user")
    behaviours = read_newest(session.reader, [day], "UTC")
    lengths = np.diff(behaviours.offsets)
    assert found.ids.tolist() == behaviours.user_ids[lengths > 0].tolist() and len(found.ids) > 5
    for place in (0, len(found.ids) - 1):
        number = int(np.flatnonzero(behaviours.user_ids == found.ids[place])[0])
        end = behaviours.offsets[number + 1]
        start = max(behaviours.offsets[number], end - encoder.recipe.length)
        alone = EncodedSequences.of(
            {name: behaviours.columns[name] for name in encoder.recipe.fields},
            np.array([start]),
            np.array([end]),
            mapping=mapping,
        )
        with torch.no_grad():
            expected = encoder(alone.batch(torch.tensor([0]))).mean(dim=0)
        np.testing.assert_allclose(found.values[place], expected.numpy(), atol=1e-5)
    gate(Locations(home), "fg_bert_users", day)
    checks = audit(Locations(home), World().deployment(), run.folder)
    assert all(check.passed for check in checks if check.severity == "fail")
    assert {check.name for check in checks} >= {"user_coverage", "user_distinct_ids"}


def test_users_wait_for_the_encoder_and_the_histories_alone(chain):
    home, _ = chain
    reader, deployment = LakeReader(Locations(home)), World().deployment()  # none of its settings reads an encoder
    day = WEEKS[2]
    assert missing_inputs(reader, deployment, "fg_bert_users", day) == []
    later = missing_inputs(reader, deployment, "fg_bert_users", day + timedelta(days=9))
    assert [text.split(":")[0].split(" of ")[0] for text in map(str, later)] == [
        "the encoder fg_bert",
        "user_histories",
    ]
    with pytest.raises(ParentMissing, match="tributary training fg_bert --period"):
        run_fg_bert_users(_session(home), day + timedelta(days=9))
