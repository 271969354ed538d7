"""BAHE's data (the store of vectors, sequences by log), its daily task on a small real language model, and A-CTR's reading of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from lake_fixture import World, make_lake, publish_staged, text_hash, write_table, write_texts
from opened_tables import assert_as_declared, opened_tables
from safetensors.torch import load_file

from contracts.errors import BadInput
from contracts.features import LOGS
from contracts.locations import Locations
from contracts.releases import HELD_OUT_FILE, MODEL_FILE, VECTORS_FILE
from contracts.steps import step
from lake.reader import LakeReader
from training.data.text_store import TextStore
from training.data.texts import TextHistories, TextSamples, read_text_samples
from training.data.vectors import DatedVectors, EntityVectors, read_vectors
from training.recipes import quick
from training.report.gather import NO_ROWS, Gathered
from training.report.page import render
from training.report.texts import texts_of_days
from training.tasks.bahe import chain, run_bahe
from training.tasks.session import Session

RNG = np.random.default_rng(5)
DAYS = [date(2026, 1, day) for day in (8, 9, 10, 11)]  # the first and the last have held-out ad rows


def _add(locations, hashes, values, *, encoder="e", dim=None):
    width = dim or len(values[0])
    write_table(
        locations,
        "behaviour_text_vectors",
        pa.table(
            {
                "encoder_id": [encoder] * len(hashes),
                "text_hash": pa.array(hashes, pa.int64()),
                "vector": pa.array([list(map(float, value)) for value in values], pa.list_(pa.float32())),
                "dim": pa.array([width] * len(hashes), pa.int32()),
            }
        ),
    )


def _open(locations, **more):
    return TextStore.open(locations, LakeReader(locations), "e", **more)


class TestTextStore:
    def test_holds_an_encoders_vectors_and_no_other(self, tmp_path):
        locations = Locations(tmp_path)
        assert len(_open(locations)) == 0
        assert _open(locations).rows_of(np.array([3])).tolist() == [-1]
        _add(locations, [7, 3], [[1, 2], [3, 4]])
        _add(locations, [3, 9], [[9, 9], [9, 9]], encoder="other")
        store = _open(locations)
        rows = store.rows_of(np.array([3, 7, 9, 3]))
        assert rows[2] == -1 and len(store) == 2 and store.width == 2
        assert store.vectors(torch.from_numpy(rows[[0, 1, 3]])).tolist() == [[3, 4], [1, 2], [3, 4]]

    def test_a_newer_version_adds_what_is_new_and_reads_no_old_file(self, tmp_path, monkeypatch):
        import training.data.text_store as module

        locations, read = Locations(tmp_path), []
        batches = module._batches

        def noting(fragment, encoder):
            read.append(fragment.path)
            return batches(fragment, encoder)

        monkeypatch.setattr(module, "_batches", noting)
        _add(locations, [1, 2], [[1, 1], [2, 2]])
        before = _open(locations)
        _add(locations, [3], [[3, 3]])
        after = _open(locations)
        assert len(read) == 2 and len(set(read)) == 2, "each file once"
        assert len(_open(locations)) == 3 and len(read) == 2
        for store, hashes in ((before, [1, 2]), (after, [1, 2, 3])):
            assert store.vectors(torch.from_numpy(store.rows_of(np.array(hashes))))[:, 0].tolist() == hashes

    def test_what_a_killed_process_left_is_written_over(self, tmp_path):
        locations = Locations(tmp_path)
        _add(locations, [1, 2], [[1, 1], [2, 2]])
        _open(locations)
        folder = locations.text_store("e")
        for name in ("hashes.i64", "vectors.f32"):
            with (folder / name).open("ab") as file:
                file.write(b"half a row")
        _add(locations, [3], [[3, 3]])
        store = _open(locations)
        assert store.hashes.tolist() == [1, 2, 3] and store.vectors(torch.tensor([0, 1, 2]))[:, 1].tolist() == [1, 2, 3]

    def test_files_that_were_rewritten_bring_nothing_twice(self, tmp_path):
        locations = Locations(tmp_path)
        for number in range(3):
            _add(locations, [number], [[number, number]])
        _open(locations)
        whole = LakeReader(locations).read("behaviour_text_vectors")
        write_table(locations, "behaviour_text_vectors", whole, mode="overwrite")
        assert sorted(_open(locations).hashes.tolist()) == [0, 1, 2]

    def test_a_file_beyond_the_bound_is_read_and_not_mapped(self, tmp_path):
        locations = Locations(tmp_path)
        values = RNG.normal(size=(200, 64)).astype(np.float32)
        _add(locations, list(range(200)), values)

        def is_mapped() -> bool:
            return str(locations.text_store("e")) in Path("/proc/self/maps").read_text()

        bounded = _open(locations, resident_bytes=values.nbytes - 1)
        assert not is_mapped()
        free = _open(locations, resident_bytes=values.nbytes)
        assert is_mapped()
        for _ in range(5):
            hashes = RNG.integers(0, 200, 50)  # some more than once
            for store in (bounded, free):
                assert torch.equal(
                    store.vectors(torch.from_numpy(store.rows_of(hashes))), torch.from_numpy(values[hashes])
                )
        with pytest.raises(OSError, match=r"expected 256 bytes of vector 200"):
            bounded.vectors(torch.tensor([200]))

    def test_vectors_in_memory_follow_those_of_the_table(self, tmp_path):
        locations = Locations(tmp_path)
        _add(locations, [1, 2], [[1, 1], [2, 2]])
        for store, known in ((_open(locations), 2), (TextStore.open(locations, LakeReader(locations), "none"), 0)):
            more = store.with_more(np.array([8, 5]), torch.tensor([[8.0, 8.0], [5.0, 5.0]]))
            rows = more.rows_of(np.array([5, 8, 6]))
            assert rows.tolist() == [known + 1, known, -1]
            assert more.vectors(torch.from_numpy(rows[:2])).tolist() == [[5, 5], [8, 8]]

    def test_two_widths_under_one_encoder_are_refused(self, tmp_path):
        locations = Locations(tmp_path)
        _add(locations, [1], [[1, 1]])
        _add(locations, [2], [[1, 1, 1]])
        with pytest.raises(BadInput, match=r"dim: expected \d numbers for each text of e, found"):
            _open(locations)


@pytest.mark.parametrize("oldest", [1, 3, 30])
def test_a_row_finds_the_newest_vector_of_the_days_before_its_own(oldest):
    of_days = {}
    for day in (10, 11, 14, 15):
        ids = np.unique(RNG.integers(0, 12, 8))
        of_days[day] = EntityVectors(
            ids=ids, vectors=np.stack([np.full(2, 100 * day + one, np.float32) for one in ids])
        )
    dated = DatedVectors.stack(of_days, 2)
    ids, days = RNG.integers(0, 14, 300), RNG.integers(9, 20, 300)
    found = dated.positions(ids, days, oldest=oldest)
    for one, day, at in zip(ids, days, found, strict=True):
        known = [d for d, vectors in of_days.items() if one in vectors.ids and day - oldest <= d < day]
        assert (at == 0) == (not known)
        if known:
            assert dated.vectors[at - 1][0] == 100 * max(known) + one
    assert (found > 0).any() and (found == 0).any()
    newest = dated.newest()
    assert all(
        vector[0] == 100 * max(d for d, of in of_days.items() if one in of.ids) + one
        for one, vector in zip(newest.ids, newest.vectors, strict=True)
    )


def test_without_any_vector_no_row_finds_one():
    assert DatedVectors.stack({}, 3).positions(np.array([1, 2]), np.array([5, 6]), oldest=9).tolist() == [0, 0]


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    home = tmp_path_factory.mktemp("lake")
    make_lake(home, World())
    return home


@pytest.mark.parametrize("length", [3, 200])
def test_a_request_sees_the_newest_texts_of_each_log_before_it(lake, length):
    reader, day = LakeReader(Locations(lake)), date(2026, 1, 10)
    samples = read_text_samples(reader, "ad", day, length=length)
    rows = {row["event_id"]: row for row in reader.read("ad_samples", where={"ds": day}).to_pylist()}
    histories = {
        row["user_id"]: row["behaviours"] for row in reader.read("user_histories", where={"ds": day}).to_pylist()
    }
    assert len(samples) == len(rows) == 80 and samples.num_requests == 20
    lengths = set()
    for number in range(len(samples)):
        row, request = rows[samples.event_id[number]], samples.of_request[number]
        assert (row["user_id"], row["click"], row["item_id"]) == (
            samples.user_id[number],
            samples.click[number],
            samples.item_id[number],
        )
        assert samples.hashes[number] == text_hash(row["item_id"])
        seen = (histories.get(row["user_id"]) or [])[: row["history_end"]]
        for log in LOGS:
            expected = [one["text_hash"] for one in seen if one["log"] == log][-length:]
            start, end = (of[log][request] for of in (samples.histories.start, samples.histories.end))
            assert samples.histories.hashes[log][start:end].tolist() == expected
            lengths.add(len(expected))
    assert len(lengths) > 2


def test_some_requests_of_a_day_are_the_same_whenever_they_are_asked_for(lake):
    reader, day = LakeReader(Locations(lake)), date(2026, 1, 10)
    everything = read_text_samples(reader, "natural", day, length=5)
    few, again = (read_text_samples(reader, "natural", day, length=5, at_most=7) for _ in range(2))
    assert few.num_requests == 7 and len(few) == 28 and few.event_id.tolist() == again.event_id.tolist()
    fewer = read_text_samples(reader, "natural", day, length=5, at_most=3)
    assert set(fewer.event_id) < set(few.event_id) < set(everything.event_id)


def test_held_out_requests_and_the_others_are_all(lake):
    reader = LakeReader(Locations(lake))
    both = TextSamples.concat([read_text_samples(reader, log, date(2026, 1, 10), length=5) for log in LOGS])
    kept, held_out = both.split()
    assert held_out.held_out.all() and not kept.held_out.any() and len(held_out) > 0
    assert sorted([*kept.event_id, *held_out.event_id]) == sorted(both.event_id)
    for part in (kept, held_out):
        of_event = dict(zip(both.event_id, both.of_request, strict=True))
        for number in range(0, len(part), 5):
            request, before = part.of_request[number], of_event[part.event_id[number]]
            for log in LOGS:
                ranges = [
                    (of.hashes[log][of.start[log][at] : of.end[log][at]]).tolist()
                    for of, at in ((part.histories, request), (both.histories, before))
                ]
                assert ranges[0] == ranges[1]


def test_a_day_of_nobody_has_no_history(tmp_path):
    found = TextHistories.read(LakeReader(Locations(tmp_path)), date(2026, 1, 1))
    assert found.slices(np.array([4]), np.array([0]), 5).end["ad"].tolist() == [0]


RECIPE = replace(quick(), bahe=replace(quick().bahe, natural_requests=30, length=8, first_days=2, lora_rank=4))


def _session(home, recipe=RECIPE):
    return Session.open(home, recipe, torch.device("cpu"))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("bahe")
    make_lake(home, World())
    write_texts(Locations(home), World())
    return home


@pytest.fixture(scope="module")
def runs(home):
    """Four days, texts encoded on demand."""
    found, read = [], set()
    for day in DAYS:
        with opened_tables() as opened:
            found.append(run_bahe(_session(home), day))
        read |= opened
        publish_staged(home, "bahe", day)
    assert_as_declared(step("training", "bahe"), read)
    return found


@pytest.mark.slow
class TestTask:
    """On MiniLM, which a package carries."""

    def test_leaves_vectors_of_the_days_users_and_items(self, home, runs):
        reader = LakeReader(Locations(home))
        for run, day in zip(runs, DAYS, strict=True):
            vectors = read_vectors(run.folder / VECTORS_FILE, run.release.dims)
            histories = reader.read("user_histories", where={"ds": day})
            behaved = {row["user_id"] for row in histories.to_pylist() if row["behaviours"]}
            samples = [reader.read(f"{log}_samples", columns=["item_id"], where={"ds": day}) for log in LOGS]
            shown = {item for rows in samples for item in rows["item_id"].to_pylist()}
            assert set(vectors["user"].ids) == behaved and set(vectors["item"].ids) == shown
            assert vectors["user"].vectors.shape[1] == vectors["item"].vectors.shape[1] == RECIPE.bahe.dims

    def test_goes_on_from_the_day_before(self, home, runs):
        first, second = runs[2:]
        assert list(second.release.parents.values()) == [first.release.release_id]
        weights = [load_file(run.folder / MODEL_FILE) for run in (first, second)]
        scale = {"mean_E", "deviation_E"}
        assert weights[0].keys() == weights[1].keys() and scale < weights[0].keys()
        assert all("lora" in name or name.startswith("head.") for name in weights[0].keys() - scale)
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in scale), (
            "the scale is that of the first days' texts"
        )
        assert weights[0]["mean_E"].abs().min() > 0
        moved = [float((weights[1][name] - weights[0][name]).abs().max()) for name in weights[0]]
        assert max(moved) > 1e-4 and max(moved) < 0.2, "near the day before, and not equal to it"
        assert {"next_day_logloss", "held_out_logloss", "texts_with_vector"} <= set(second.release.metrics)
        assert "next_day_logloss" not in runs[0].release.metrics
        held_out = pq.read_table(second.folder / HELD_OUT_FILE)
        assert len(held_out) == 4 and not pc.any(pc.is_null(held_out["score_before"])).as_py()
        assert [run.release.period for run in chain(_session(home), second, DAYS[0] - timedelta(days=9))] == DAYS[::-1]

    def test_is_made_once(self, home, runs, capsys):
        again = run_bahe(_session(home), DAYS[1])
        assert again.folder == runs[1].folder and "is there already" in capsys.readouterr().out

    def test_vectors_of_the_table_and_texts_encoded_on_demand_are_the_same(self, home, runs, tmp_path, capsys):
        from training.models.language import load
        from training.tasks.text_vectors import encode_new_texts

        make_lake(tmp_path, World())
        locations = Locations(tmp_path)
        write_texts(locations, World())
        folder = encode_new_texts(locations, LakeReader(locations), load("minilm"), RECIPE.texts)
        write_table(
            locations,
            "behaviour_text_vectors",
            pa.concat_tables([pq.read_table(path) for path in folder.glob("part-*")]),
        )
        run = run_bahe(_session(tmp_path), DAYS[0])
        said = capsys.readouterr().out
        assert run.release.metrics["texts_with_vector"] == 1.0 and runs[0].release.metrics["texts_with_vector"] == 0.0
        assert "encoded on demand" in said
        ours, theirs = (read_vectors(one.folder / VECTORS_FILE, one.release.dims) for one in (run, runs[0]))
        for entity in ("user", "item"):
            assert np.array_equal(ours[entity].ids, theirs[entity].ids)
            assert np.abs(ours[entity].vectors - theirs[entity].vectors).max() < 1e-4

    def test_unknown_texts_are_counted_and_leave_no_vector(self, tmp_path):
        make_lake(tmp_path, World())
        unknown = replace(RECIPE, bahe=replace(RECIPE.bahe, unseen="unknown"))
        run = run_bahe(_session(tmp_path, unknown), DAYS[0])
        assert run.release.metrics["texts_unknown"] > 20
        assert all(not len(of.ids) for of in read_vectors(run.folder / VECTORS_FILE, run.release.dims).values())

    def test_another_split_is_another_language_model(self, home, runs):
        other = replace(RECIPE, texts=replace(RECIPE.texts, low_layers=2))
        with pytest.raises(BadInput, match=r"language: expected .*found"):
            run_bahe(_session(home, other), DAYS[1])

    def test_training_that_was_killed_goes_on_to_the_same_weights(self, home, runs, tmp_path, monkeypatch):
        import training.engine.loop as loop

        make_lake(tmp_path, World())
        write_texts(Locations(tmp_path), World())
        step, left = loop._train_step, [3]

        def killed(*arguments):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return step(*arguments)

        monkeypatch.setattr(loop, "_train_step", killed)
        with pytest.raises(KeyboardInterrupt):
            run_bahe(replace(_session(tmp_path), checkpoint_seconds=0.0), DAYS[0])
        monkeypatch.setattr(loop, "_train_step", step)
        again = load_file(run_bahe(_session(tmp_path), DAYS[0]).folder / MODEL_FILE)
        assert all(torch.equal(again[name], value) for name, value in load_file(runs[0].folder / MODEL_FILE).items())


@pytest.mark.slow
def test_the_report_says_what_bahe_predicts_and_how_many_texts_it_read(chain):
    session, _, actrs = chain
    active = session.reader.active_releases("actr")
    found = texts_of_days(session, active, ["none", "bahe"], sorted(actrs))
    assert [one.period for one in found] == [day - timedelta(days=1) for day in sorted(actrs)]
    known = replace(found[0], auc=0.6543, with_vector=0.975, unknown=1234.0)
    page = render(
        Gathered(
            source="made",
            days=tuple(sorted(actrs)),
            variants=("none", "bahe"),
            silent=(),
            scored=NO_ROWS,
            missing=(),
            served=(),
            slices={},
            moved=(),
            forgetting=None,
            texts=(known,),
        )
    )
    assert all(part in page for part in ("Behaviour texts", "0.6543", "97.5%", "1,234", known.release_id))
    assert texts_of_days(session, active, ["none", "tpm+cpm"], sorted(actrs)) == ()


def test_ad_models_read_the_days_before_alone(chain):
    """A row's vectors are of the newest day before its own; the release names the BAHE of that day."""
    _, _, actrs = chain
    for day, of_day in actrs.items():
        for name in ("bahe", "tpm+cpm+bahe"):
            parents = [key for key in of_day[name].release.parents if key.startswith("texts/")]
            assert parents == [f"texts/bahe/{day - timedelta(days=1)}"]
        assert not [key for key in of_day["tpm+cpm"].release.parents if key.startswith("texts/")]
