"""Encodes the behaviour texts that have no vector yet under an encoder: BAHE's atomic behaviour encoding (arXiv 2403.19347), day by day.

New texts are an anti-join on hash and encoder. They are encoded in chunks, in the order of their hashes; a chunk is a
file that is there whole or not at all, so that a run that was killed goes on where it was, with the same result.
`spark_jobs add_text_vectors` adds what is staged to the table. Another encoder, split, pooling or cut is another
encoder id, and never mixes with this one's vectors.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contracts.commands import table_text
from contracts.locations import Locations
from contracts.releases import MANIFEST
from lake.locks import hold
from lake.progress import progress
from lake.reader import LakeReader
from training.models.language import LanguageModel, encode_texts, encoder_id
from training.recipes import TextRecipe

PLAN = ".plan.json"  # It becomes the manifest when all chunks are there.
CHUNK = 2048  # Texts of a file.
SCHEMA = pa.schema(
    [("encoder_id", pa.string()), ("text_hash", pa.int64()), ("vector", pa.list_(pa.float32())), ("dim", pa.int32())]
)


def encode_new_texts(locations: Locations, reader: LakeReader, model: LanguageModel, recipe: TextRecipe) -> Path:
    """Stages vectors of all texts that have none under this encoder; prints their number and the speed.

    Returns:
        The staging folder: chunks, and a manifest that gets its name last. Empty of chunks where there is nothing new.

    Raises:
        BadInput: the model has fewer positions than the recipe reads of a text.
    """
    model.require_positions("longest", recipe.longest)
    name = encoder_id(model, pooling=recipe.pooling, longest=recipe.longest)
    folder = locations.text_vectors(name)
    with hold([locations.locks / "text_vectors" / f"{name}.lock"]):
        texts = reader.read("behaviour_texts", columns=["text_hash", "text"]).sort_by("text_hash")
        known = reader.read("behaviour_text_vectors", columns=["text_hash"], where={"encoder_id": name})["text_hash"]
        new = texts.filter(pc.invert(pc.is_in(texts["text_hash"], known.combine_chunks())))
        wanted = {
            "encoder_id": name,
            "text_cnt": len(new),
            "dim": model.width,
            "pooling": recipe.pooling,
            "longest": recipe.longest,
            "low_layers": len(model.low.layers),
            "digest": hashlib.sha256(new["text_hash"].to_numpy().tobytes()).hexdigest(),
        }
        _begin(folder, wanted)
        began, encoded, cut = time.perf_counter(), 0, 0
        with progress(total=len(new), description="encode texts", unit="text") as bar:
            for number, start in enumerate(range(0, len(new), CHUNK)):
                part = new.slice(start, CHUNK)
                path = folder / f"part-{number:05d}.parquet"
                if not path.is_file():
                    cut += _write_chunk(path, part, model, name, recipe)
                    encoded += len(part)
                bar.update(len(part))
        seconds = time.perf_counter() - began
        (folder / PLAN).replace(folder / MANIFEST)
    hits = len(texts) - len(new)
    print(
        table_text(
            ("figure", "value"),
            [
                ("encoder", name),
                ("distinct texts", f"{len(texts):,}"),
                ("known before", f"{hits:,} ({hits / max(len(texts), 1):.1%})"),
                ("encoded", f"{encoded:,}"),
                ("texts a second", f"{encoded / seconds:,.0f}" if encoded else "-"),
                (f"longer than {recipe.longest} tokens, cut", f"{cut:,}"),
            ],
        )
    )
    print(f"wrote {folder.relative_to(locations.home)}")
    print("next: tributary spark_jobs add_text_vectors")
    return folder


def _begin(folder: Path, wanted: dict[str, Any]) -> None:
    """Keeps the chunks of an unfinished run over the same texts, and drops all others."""
    plan = folder / PLAN
    for there in (plan, folder / MANIFEST):
        if there.is_file() and json.loads(there.read_text()) == wanted:
            there.replace(plan)
            return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    plan.write_text(json.dumps(wanted))


def _write_chunk(path: Path, part: pa.Table, model: LanguageModel, name: str, recipe: TextRecipe) -> int:
    found = encode_texts(model, part["text"].to_pylist(), pooling=recipe.pooling, longest=recipe.longest)
    values = found.vectors.numpy()
    offsets = pa.array(np.arange(len(values) + 1, dtype=np.int32) * model.width)
    columns = [
        pa.array([name] * len(part)),
        part["text_hash"].combine_chunks(),
        pa.ListArray.from_arrays(offsets, pa.array(values.reshape(-1))),
        pa.array([model.width] * len(part), pa.int32()),
    ]
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    pq.write_table(pa.Table.from_arrays(columns, schema=SCHEMA), temporary)
    temporary.replace(path)
    return found.cut_cnt
