"""Vectors of behaviour texts: only what is new, the same after a kill, under an encoder's own name; and into the table."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from lake_fixture import write_table

import training.tasks.text_vectors
from contracts.errors import BadInput
from contracts.locations import Locations
from contracts.releases import MANIFEST
from lake.reader import LakeReader
from training.models.language import encode_texts, load
from training.recipes import TextRecipe
from training.tasks.text_vectors import SCHEMA, encode_new_texts

RECIPE = TextRecipe(longest=12)
TEXTS = {hash_: f"Clicked the film number {hash_ % 7}" + " and more" * (hash_ % 5) for hash_ in range(100, 130)}


@pytest.fixture(scope="module")
def minilm():
    return load("minilm")


def _lake(home, texts):
    locations = Locations(home)
    write_table(
        locations,
        "behaviour_texts",
        pa.table({"text_hash": list(texts), "text": list(texts.values())}),
        mode="overwrite",
    )
    return locations


def _staged(folder):
    parts = [pq.read_table(path) for path in sorted(folder.glob("part-*.parquet"))]
    table = pa.concat_tables(parts)
    return dict(zip(table["text_hash"].to_pylist(), map(tuple, table["vector"].to_pylist()), strict=True))


@pytest.mark.slow
def test_texts_are_staged_once_by_their_hash(minilm, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training.tasks.text_vectors, "CHUNK", 8)
    locations = _lake(tmp_path / "home", TEXTS)
    folder = encode_new_texts(locations, LakeReader(locations), minilm, RECIPE)
    found = _staged(folder)
    assert list(found) == sorted(TEXTS) and (folder / MANIFEST).is_file() and len(list(folder.glob("part-*"))) == 4
    for hash_ in (100, 117):
        direct = encode_texts(minilm, [TEXTS[hash_]], longest=12).vectors[0]
        torch.testing.assert_close(torch.tensor(found[hash_]), direct, atol=1e-5, rtol=0)
    said = capsys.readouterr().out
    assert "30" in said and "texts a second" in said and "add_text_vectors" in said
    other = _lake(tmp_path / "other", dict(reversed(TEXTS.items())))
    assert _staged(encode_new_texts(other, LakeReader(other), minilm, RECIPE)) == found, "in whatever order they lie"


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_to_the_same_vectors(minilm, tmp_path, monkeypatch):
    monkeypatch.setattr(training.tasks.text_vectors, "CHUNK", 8)
    whole = _lake(tmp_path / "whole", TEXTS)
    expected = _staged(encode_new_texts(whole, LakeReader(whole), minilm, RECIPE))
    locations = _lake(tmp_path / "killed", TEXTS)
    written: list[Path] = []
    write = training.tasks.text_vectors._write_chunk

    def die_at_the_third(path, *rest):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        return write(path, *rest)

    monkeypatch.setattr(training.tasks.text_vectors, "_write_chunk", die_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        encode_new_texts(locations, LakeReader(locations), minilm, RECIPE)
    (folder,) = locations.text_vectors("").iterdir()
    assert not (folder / MANIFEST).exists() and len(list(folder.glob("part-*"))) == 2
    stamps = {path: path.stat().st_mtime_ns for path in folder.glob("part-*")}
    monkeypatch.setattr(training.tasks.text_vectors, "_write_chunk", write)
    assert _staged(encode_new_texts(locations, LakeReader(locations), minilm, RECIPE)) == expected
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items()), "what was there is not rebuilt"


@pytest.mark.slow
def test_known_texts_are_left_alone_and_another_encoder_knows_none(minilm, tmp_path):
    locations = _lake(tmp_path / "home", TEXTS)
    first = encode_new_texts(locations, LakeReader(locations), minilm, RECIPE)
    known = pa.concat_tables([pq.read_table(path) for path in sorted(first.glob("part-*.parquet"))]).slice(0, 25)
    write_table(locations, "behaviour_text_vectors", known)
    again = encode_new_texts(locations, LakeReader(locations), minilm, RECIPE)
    assert again == first and sorted(_staged(again)) == sorted(TEXTS)[25:]
    other = encode_new_texts(locations, LakeReader(locations), minilm, TextRecipe(longest=12, pooling="last"))
    assert other != first and len(_staged(other)) == 30
    write_table(
        locations,
        "behaviour_text_vectors",
        pa.concat_tables([pq.read_table(path) for path in other.glob("part-*.parquet")]),
    )
    assert (
        json.loads(
            (
                encode_new_texts(locations, LakeReader(locations), minilm, TextRecipe(longest=12, pooling="last"))
                / MANIFEST
            ).read_text()
        )["text_cnt"]
        == 0
    )


def _stage(locations, name, rows, *, dim=3, said=None):
    folder = locations.text_vectors(name)
    folder.mkdir(parents=True)
    table = pa.table(
        {
            "encoder_id": [name] * len(rows),
            "text_hash": list(rows),
            "vector": list(rows.values()),
            "dim": [dim] * len(rows),
        }
    ).cast(SCHEMA)
    pq.write_table(table, folder / "part-00000.parquet")
    (folder / MANIFEST).write_text(
        json.dumps({"encoder_id": name, "text_cnt": len(rows) if said is None else said, "dim": dim})
    )
    return folder


@pytest.mark.spark
def test_staged_vectors_are_added_once(spark, tmp_path):
    from spark_jobs import add_text_vectors

    locations = Locations(tmp_path)
    given = [
        ("a", {1: [1.0, 2.0, 3.0], 2: [4.0, 5.0, 6.0]}),
        ("a", {2: [9.0] * 3, 3: [7.0, 8.0, 9.0]}),
        ("b", {1: [0.0] * 3}),
    ]
    for name, rows in given:
        folder = _stage(locations, name, rows)
        assert add_text_vectors.staged(locations) == [folder]
        add_text_vectors.check(folder)
        assert add_text_vectors.add(spark, locations, folder) == len(rows) and not folder.exists()
    stored = LakeReader(locations).read("behaviour_text_vectors").to_pylist()
    found = {(row["encoder_id"], row["text_hash"]): row["vector"] for row in stored}
    assert found == {("a", 1): [1, 2, 3], ("a", 2): [4, 5, 6], ("a", 3): [7, 8, 9], ("b", 1): [0, 0, 0]}, (
        "what is there stays"
    )
    empty = _stage(locations, "c", {})
    assert add_text_vectors.add(spark, locations, empty) == 0


@pytest.mark.parametrize(
    ("rows", "said", "message"),
    [
        ({1: [1.0, 2.0, 3.0]}, 2, "text_cnt: expected 2 of a, found 1"),
        ({1: [1.0, np.nan, 3.0]}, 1, "vector: expected 3 finite numbers"),
        ({1: [1.0, 2.0]}, 1, "vector: expected 3 finite numbers"),
    ],
)
def test_what_was_damaged_is_not_added(tmp_path, rows, said, message):
    from spark_jobs import add_text_vectors

    with pytest.raises(BadInput, match=message):
        add_text_vectors.check(_stage(Locations(tmp_path), "a", rows, said=said))
