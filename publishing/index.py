"""FAISS indexes of item vectors: built from staged vectors, tuned and judged against exact search, verified before they are read.

N vectors of width D, Q queries, K neighbours.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contracts.errors import BadInput
from contracts.releases import Release
from lake.index_files import INDEX_FILE, INDEX_MANIFEST, index_manifest
from lake.run_folders import sha256_of

FLAT_LIMIT = 100_000  # above it an inverted file: exhaustive search of 1e5 x 16 takes a millisecond a query on one core
# Inverted files have sqrt(N) lists, from 64 vectors each in ten rounds of k-means. On a million vectors 4 sqrt(N) lists took ten
# times as long to build, for the same recall (docs/experiments.md).
TRAINING_PER_LIST = 64
TRAINING_ROUNDS = 10
RECALL_AT = 10
QUERIES = 256
TUNED_RECALL = 0.97  # lists are added to a search until it is reached: above the audit's floor, which judges by other queries
SAME = 1e-5  # float32 inner products that differ by less may be equal
DECIMALS = 6  # of a cosine of unit vectors in float32: what differs further behind is rounding
_NONE = -2.0  # below any cosine
_AT_ONCE = 65_536  # vectors in double precision in memory


@dataclass(frozen=True)
class Vectors:
    """Vectors of one entity: `ids` (N), `values` (N x D, float32), `dims` (N), the width that each row claims, -1 if it has another."""

    ids: np.ndarray
    values: np.ndarray
    dims: np.ndarray

    @classmethod
    def read(cls, path: Path, entity: str) -> Vectors:
        """Reads an entity's rows of a vectors file; `values` is empty where the rows have different widths."""
        return cls.of(pq.read_table(path, filters=[("entity", "=", entity)]))

    @classmethod
    def of(cls, rows: pa.Table) -> Vectors:
        """From rows id, vector, dim of one entity."""
        lengths = pc.fill_null(pc.list_value_length(rows["vector"]), -1).to_numpy()
        dims = np.where(lengths == pc.fill_null(rows["dim"], -2).to_numpy(), lengths, -1)
        flat = pc.list_flatten(rows["vector"].combine_chunks()).to_numpy(zero_copy_only=False).astype(np.float32)
        width = int(dims[0]) if len(dims) and (dims == dims[0]).all() and dims[0] > 0 else 0
        return cls(pc.fill_null(rows["id"], -1).to_numpy(), flat.reshape(-1, width) if width else np.zeros((0, 0), np.float32), dims)


def build_index(folder: Path, vectors: Vectors, release: Release, manifest_sha256: str) -> dict[str, Any]:
    """Builds the index of a release and puts it in place at once, whole. One of this very run that is there and whole is kept.

    So no reader ever finds a gap: what is replaced is damaged, or was never published. The caller holds the lock of the
    period's audit. Cosine similarity: vectors are normalised, the metric is the inner product.

    Args:
        folder: where the index goes.
        vectors: item vectors, N x D.
        release: what they belong to.
        manifest_sha256: of the run's manifest, so that an index is tied to one run.

    Returns:
        The index's manifest: among others `recall_at_10`, measured on the file as it was read back.
    """
    for left_behind in folder.parent.glob(f".{folder.name}.*"):  # by a build that was killed
        shutil.rmtree(left_behind)
    try:
        manifest = index_manifest(folder)
        if manifest["run_manifest_sha256"] == manifest_sha256:
            return manifest
    except (BadInput, ValueError, KeyError):
        pass  # none, half of one, or a changed one
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    temporary.mkdir(parents=True)
    normalised = _normalised(vectors.values)
    index, factory = make_index(normalised, vectors.ids)
    faiss.write_index(index, str(temporary / INDEX_FILE))
    written = faiss.read_index(str(temporary / INDEX_FILE))
    recall = measured_recall(written, normalised, vectors.ids, _sample(len(normalised), offset=1))
    manifest = {"release_id": release.release_id, "kind": release.kind, "variant": release.variant, "period": str(release.period),
                "entity": "item", "rows": len(vectors.ids), "dim": int(vectors.values.shape[1]), "metric": "cosine", "factory": factory,
                "nprobe": nprobe_of(written), "faiss_version": faiss.__version__, "recall_at_10": recall,
                "sha256": sha256_of(temporary / INDEX_FILE), "run_manifest_sha256": manifest_sha256}
    (temporary / INDEX_MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    for path in (temporary / INDEX_FILE, temporary / INDEX_MANIFEST):
        _sync(path)
    if folder.exists():
        folder.rename(folder.with_name(f".{folder.name}.replaced"))
    temporary.rename(folder)
    shutil.rmtree(folder.with_name(f".{folder.name}.replaced"), ignore_errors=True)
    return manifest


def make_index(normalised: np.ndarray, ids: np.ndarray) -> tuple[Any, str]:
    """An index of unit vectors (N x D) under their ids (N), and its factory string; equal vectors give an equal index.

    `nprobe`, how many lists a search reads, is chosen by measurement and travels with the file.
    """
    num_lists = int(np.sqrt(len(ids)))
    factory = "IDMap2,Flat" if len(ids) <= FLAT_LIMIT else f"IDMap2,IVF{num_lists},Flat"
    index = faiss.index_factory(normalised.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    inverted = _inverted(index)
    if inverted is not None:
        inverted.cp.max_points_per_centroid, inverted.cp.niter = TRAINING_PER_LIST, TRAINING_ROUNDS  # its seed is a constant of FAISS
        if faiss.get_num_gpus() > 0:  # faiss-gpu on a machine with GPUs: k-means looks for the nearest centres there. Never run on one.
            inverted.clustering_index = faiss.index_cpu_to_all_gpus(faiss.IndexFlatIP(normalised.shape[1]))
    index.train(normalised)
    index.add_with_ids(normalised, ids.astype(np.int64))
    if inverted is not None:
        inverted.clustering_index = None
        _tune(index, inverted, normalised, ids)
    return index, factory


def nprobe_of(index: Any) -> int | None:
    """How many lists a search of this index reads; None if it is exhaustive."""
    inverted = _inverted(index)
    return None if inverted is None else int(inverted.nprobe)


def load_index(folder: Path) -> tuple[Any, dict[str, Any]]:
    """An index and its manifest, the file verified before FAISS parses it.

    Raises:
        BadInput: there is none, or its file is not the one that was built.
    """
    manifest = index_manifest(folder)
    index = faiss.read_index(str(folder / INDEX_FILE))
    inverted = _inverted(index)
    if inverted is not None:
        inverted.make_direct_map()  # from ids to vectors: FAISS builds it on request only
    return index, manifest


def nearest(folder: Path, item_id: int, count: int) -> list[tuple[int, float]]:
    """The items nearest to an item by cosine, itself left out: id and cosine, nearest first, equal ones by ascending id.

    FAISS only chooses the candidates: it lists equal inner products in an order of its own, keeps any of them where they do not all fit
    in `count`, and rounds otherwise in another batch. So all that could be among the first `count` are asked for, and their cosines
    are computed again, one by one.

    Raises:
        BadInput: the item has no vector in this release, or one of length zero.
    """
    index, manifest = load_index(folder)
    try:
        query = index.reconstruct(item_id)
    except RuntimeError:
        raise BadInput(folder, "item", expected=f"an item with a vector in {manifest['release_id']}", found=item_id) from None
    found, _ = index.search(query[None], min(count + 1, index.ntotal))  # itself is among them
    at_least = float(found[0, -1]) if found[0, -1] > _NONE else _NONE  # fewer than asked for were within reach: take all
    _, _, ids = index.range_search(query[None], at_least - SAME)
    return _ranked(folder, item_id, query, ids, index.reconstruct_batch(ids))[:count]


def nearest_exactly(vectors: Vectors, entity_id: int, count: int) -> list[tuple[int, float]]:
    """As `nearest`, by exhaustive search over vectors that have no index.

    Raises:
        BadInput: the id has no vector, or one of length zero.
    """
    at = np.flatnonzero(vectors.ids == entity_id)
    if len(at) == 0:
        raise BadInput("vectors", "id", expected="an id with a vector in this release", found=entity_id)
    normalised = _normalised(vectors.values)
    return _ranked("vectors", entity_id, normalised[at[0]], vectors.ids, normalised)[:count]


def _ranked(source: object, entity_id: int, query: np.ndarray, ids: np.ndarray, normalised: np.ndarray) -> list[tuple[int, float]]:
    """The other entities, nearest first, equal cosines by ascending id; a vector of length zero is near to nothing.

    Cosines are sums in double precision, each of its own row alone, rounded to what unit vectors in single precision know of them: so
    neither what else is compared nor the order of the vectors decides which of them are equal.

    Args:
        source: where the vectors are from, for an error.
        entity_id: whose neighbours are asked for.
        query: its unit vector, D.
        ids: N.
        normalised: their unit vectors, N x D.
    """
    if not query.any():
        raise BadInput(source, "vector", expected="a vector with a direction", found=f"one of zeros, of {entity_id}")
    wide = query.astype(np.float64)
    cosines = np.concatenate([np.zeros(0), *((normalised[at:at + _AT_ONCE].astype(np.float64) * wide).sum(axis=1)
                                             for at in range(0, len(ids), _AT_ONCE))]).round(DECIMALS)
    others = np.flatnonzero((ids != entity_id) & normalised.any(axis=1))
    order = others[np.lexsort((ids[others], -cosines[others]))]
    return list(zip(ids[order].tolist(), cosines[order].tolist(), strict=True))


def measured_recall(index: Any, normalised: np.ndarray, ids: np.ndarray, queries: np.ndarray) -> float:
    """Share of each query's ten nearest, by exhaustive search, that the index returns; ties count as found.

    Args:
        index: what is judged.
        normalised: the unit vectors that are in it, N x D.
        ids: theirs, N.
        queries: rows of `normalised` to ask for, Q.
    """
    count = min(RECALL_AT, len(normalised))
    exact, _ = faiss.knn(normalised[queries], normalised, count, metric=faiss.METRIC_INNER_PRODUCT)  # in blocks: never Q x N at once
    _, found = index.search(normalised[queries], count)
    order = np.argsort(ids, kind="stable")
    hits = 0
    for query, row, cosines in zip(queries, found, exact, strict=True):
        legal = np.unique(row[row >= 0])
        at = order[np.minimum(np.searchsorted(ids, legal, sorter=order), len(ids) - 1)]
        at = at[ids[at] == legal]
        hits += int((normalised[at] @ normalised[query] >= cosines[-1] - SAME).sum())
    return hits / (count * len(queries))


def _tune(index: Any, inverted: Any, normalised: np.ndarray, ids: np.ndarray) -> None:
    """Doubles `nprobe` until recall suffices; with all lists read a search is exhaustive."""
    inverted.nprobe = 1
    queries = _sample(len(normalised), offset=0)
    while measured_recall(index, normalised, ids, queries) < TUNED_RECALL and inverted.nprobe < inverted.nlist:
        inverted.nprobe = min(2 * inverted.nprobe, inverted.nlist)


def _sample(count: int, *, offset: int) -> np.ndarray:
    """Rows to ask for, evenly spread: those of one offset are not those of another where there are enough."""
    step = max(1, count // (2 * QUERIES))
    return np.arange(offset * step, count, 2 * step)[:QUERIES] if count > 2 * QUERIES else np.arange(count)[:QUERIES]


def _inverted(index: Any) -> Any | None:
    return faiss.try_extract_index_ivf(index)


def lengths_of(values: np.ndarray) -> np.ndarray:
    """Norms of vectors (N x D): N; 0 as well where the squares are too small for single precision."""
    lengths: np.ndarray = np.linalg.norm(values, axis=1)
    return lengths


def _normalised(values: np.ndarray) -> np.ndarray:
    norms = lengths_of(values)[:, None]
    return np.ascontiguousarray(values / np.where(norms > 0, norms, 1), dtype=np.float32)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
