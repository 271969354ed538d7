"""FAISS indexes of item vectors: built from staged vectors, checked for recall, verified before they are loaded."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contracts.errors import BadInput
from contracts.releases import Release, sha256_of

INDEX_FILE = "items.faiss"
INDEX_MANIFEST = "manifest.json"
FLAT_LIMIT = 100_000  # above it an inverted file: the sizes of the FAISS wiki's guidelines
RECALL_AT = 10
RECALL_QUERIES = 256


@dataclass(frozen=True)
class Vectors:
    """Vectors of one entity: `ids` (N), `values` (N x D, float32), `dims` (N), the width that each row claims."""

    ids: np.ndarray
    values: np.ndarray
    dims: np.ndarray

    @classmethod
    def read(cls, path: Path, entity: str) -> Vectors:
        """Reads an entity's rows of a vectors file; `values` is empty where the rows have different widths."""
        rows = pq.read_table(path)
        rows = rows.filter(pc.equal(rows["entity"], entity))
        lengths = pc.list_value_length(rows["vector"]).to_numpy()
        dims = np.where(lengths == rows["dim"].to_numpy(), lengths, -1)
        flat = pc.list_flatten(rows["vector"].combine_chunks()).to_numpy(zero_copy_only=False).astype(np.float32)
        width = int(dims[0]) if len(dims) and len(set(dims.tolist())) == 1 and dims[0] > 0 else 0
        return cls(rows["id"].to_numpy(), flat.reshape(-1, width) if width else np.zeros((0, 0), np.float32), dims)


def build_index(folder: Path, vectors: Vectors, release: Release, manifest_sha256: str) -> float:
    """Builds the index of a release and puts it in place at once, whole.

    Cosine similarity: vectors are normalised, the metric is the inner product.

    Args:
        folder: where the index goes.
        vectors: item vectors, N x D.
        release: what they belong to.
        manifest_sha256: of the run's manifest, so that an index is tied to one run.

    Returns:
        Recall at 10 against an exhaustive search, over up to 256 of the vectors.
    """
    normalised = _normalised(vectors.values)
    factory = "IDMap2,Flat" if len(vectors.ids) <= FLAT_LIMIT else f"IVF{int(4 * np.sqrt(len(vectors.ids)))},Flat"
    index = faiss.index_factory(vectors.values.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    index.train(normalised)
    index.add_with_ids(normalised, vectors.ids.astype(np.int64))
    recall = measured_recall(index, normalised, vectors.ids)
    temporary = folder.with_name(f".tmp-{uuid.uuid4()}")
    temporary.mkdir(parents=True)
    faiss.write_index(index, str(temporary / INDEX_FILE))
    manifest = {"release_id": release.release_id, "kind": release.kind, "variant": release.variant, "period": str(release.period),
                "entity": "item", "rows": len(vectors.ids), "dim": int(vectors.values.shape[1]), "metric": "cosine", "factory": factory,
                "faiss_version": faiss.__version__, "recall_at_10": recall, "sha256": sha256_of(temporary / INDEX_FILE),
                "run_manifest_sha256": manifest_sha256}
    (temporary / INDEX_MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(temporary, folder)
    return recall


def load_index(folder: Path) -> tuple[Any, dict[str, Any]]:
    """An index and its manifest, the file verified before FAISS parses it.

    Raises:
        BadInput: there is none, or its file is not the one that was built.
    """
    if not (folder / INDEX_MANIFEST).is_file():
        raise BadInput(folder, "index", expected="the index of a published release", found="none")
    manifest = json.loads((folder / INDEX_MANIFEST).read_text())
    found = sha256_of(folder / INDEX_FILE)
    if found != manifest["sha256"]:
        raise BadInput(folder / INDEX_FILE, "sha256", expected=manifest["sha256"], found=found)
    return faiss.read_index(str(folder / INDEX_FILE)), manifest


def neighbours(folder: Path, item_id: int, count: int) -> tuple[list[tuple[int, float]], dict[str, Any]]:
    """The items nearest to an item by cosine, itself left out, and the index's manifest.

    Raises:
        BadInput: the item has no vector in this release.
    """
    index, manifest = load_index(folder)
    try:
        query = index.reconstruct(item_id)
    except RuntimeError:
        raise BadInput(folder, "item", expected=f"an item with a vector in {manifest['release_id']}", found=item_id) from None
    scores, ids = index.search(query[None], count + 1)
    found = [(int(i), float(s)) for i, s in zip(ids[0], scores[0], strict=True) if i >= 0 and i != item_id]
    return found[:count], manifest


def measured_recall(index: Any, normalised: np.ndarray, ids: np.ndarray) -> float:
    """Share of each query's ten nearest, by exhaustive search, that the index returns; ties count as found."""
    queries = normalised[:: max(1, len(normalised) // RECALL_QUERIES)]
    count = min(RECALL_AT, len(normalised))
    exact = queries @ normalised.T
    floor = np.partition(exact, -count, axis=1)[:, -count]
    row_of = {int(i): row for row, i in enumerate(ids)}
    _, found = index.search(queries, count)
    hits = [sum(exact[q, row_of[int(i)]] >= floor[q] - 1e-5 for i in row if i >= 0) for q, row in enumerate(found)]
    return float(np.mean(hits) / count)


def _normalised(values: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return np.ascontiguousarray(values / np.where(norms > 0, norms, 1), dtype=np.float32)
