"""FAISS indexes of item vectors: built from staged vectors, tuned and judged against exact search, verified before they are read.

Shapes: N vectors of width D, Q queries, K neighbours.
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

FLAT_LIMIT = (
    100_000  # Larger indexes are inverted files. Exhaustive search of 1e5 x 16 takes a millisecond a query on one core.
)
# Inverted files have sqrt(N) lists, from 64 vectors each in ten rounds of k-means. On a million vectors 4 sqrt(N) lists
# took ten times as long to build, for the same recall (docs/experiments.md).
TRAINING_PER_LIST = 64
TRAINING_ROUNDS = 10
RECALL_AT = 10
QUERIES = 256
# A search reads more lists until it is reached; it exceeds the audit's limit, which is judged by other queries.
TUNED_RECALL = 0.97
SAME = 1e-5  # Inner products in float32 that differ by less may be equal.
DECIMALS = 6  # Further decimals of a cosine of float32 unit vectors are rounding errors.
_NONE = -2.0  # A value below any cosine.
_AT_ONCE = 65_536  # How many vectors are in memory in double precision at once.


@dataclass(frozen=True)
class Vectors:
    """Vectors of one entity.

    Attributes:
        ids: N.
        values: N x D, float32; empty where the rows have different widths.
        dims: N; the width that each row declares, -1 where its vector has another.
    """

    ids: np.ndarray
    values: np.ndarray
    dims: np.ndarray

    @classmethod
    def read(cls, path: Path, entity: str) -> Vectors:
        """Reads an entity's rows of a vectors file."""
        return cls.of(pq.read_table(path, filters=[("entity", "=", entity)]))

    @classmethod
    def of(cls, rows: pa.Table) -> Vectors:
        """Takes rows (id, vector, dim) of one entity."""
        lengths = pc.fill_null(pc.list_value_length(rows["vector"]), -1).to_numpy()
        dims = np.where(lengths == pc.fill_null(rows["dim"], -2).to_numpy(), lengths, -1)
        flat = pc.list_flatten(rows["vector"].combine_chunks()).to_numpy(zero_copy_only=False).astype(np.float32)
        width = int(dims[0]) if len(dims) and (dims == dims[0]).all() and dims[0] > 0 else 0
        return cls(
            pc.fill_null(rows["id"], -1).to_numpy(),
            flat.reshape(-1, width) if width else np.zeros((0, 0), np.float32),
            dims,
        )


def build_index(folder: Path, vectors: Vectors, release: Release, manifest_sha256: str) -> dict[str, Any]:
    """Builds the index of a release and moves it into place as a whole; an undamaged index of the same run is kept.

    Readers therefore always find an index: only one that is damaged or was never published is replaced. The caller
    holds the lock of the release's audit. The similarity is the cosine: vectors are normalised, and the metric is the
    inner product.

    Args:
        folder: the folder of the index.
        vectors: item vectors, N x D.
        release: the manifest of the run that the vectors belong to.
        manifest_sha256: the digest of the run's manifest, which ties the index to one run.

    Returns:
        The manifest of the index; its `recall_at_10` is measured on the file as it was read back.
    """
    for left_behind in folder.parent.glob(f".{folder.name}.*"):  # A build that was killed leaves such folders.
        shutil.rmtree(left_behind)
    try:
        manifest = index_manifest(folder)
        if manifest["run_manifest_sha256"] == manifest_sha256:
            return manifest
    except (BadInput, ValueError, KeyError):
        pass  # There is no index, or it is incomplete or damaged: it is built below.
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    temporary.mkdir(parents=True)
    normalised = _normalised(vectors.values)
    index, factory = make_index(normalised, vectors.ids)
    faiss.write_index(index, str(temporary / INDEX_FILE))
    written = faiss.read_index(str(temporary / INDEX_FILE))
    recall = measured_recall(written, normalised, vectors.ids, _sample(len(normalised), offset=1))
    manifest = {
        "release_id": release.release_id,
        "kind": release.kind,
        "variant": release.variant,
        "period": str(release.period),
        "entity": "item",
        "rows": len(vectors.ids),
        "dim": int(vectors.values.shape[1]),
        "metric": "cosine",
        "factory": factory,
        "nprobe": nprobe_of(written),
        "faiss_version": faiss.__version__,
        "recall_at_10": recall,
        "sha256": sha256_of(temporary / INDEX_FILE),
        "run_manifest_sha256": manifest_sha256,
    }
    (temporary / INDEX_MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    for path in (temporary / INDEX_FILE, temporary / INDEX_MANIFEST):
        _sync(path)
    if folder.exists():
        folder.rename(folder.with_name(f".{folder.name}.replaced"))
    temporary.rename(folder)
    shutil.rmtree(folder.with_name(f".{folder.name}.replaced"), ignore_errors=True)
    return manifest


def make_index(normalised: np.ndarray, ids: np.ndarray) -> tuple[Any, str]:
    """Returns an index of unit vectors (N x D) with their ids (N), and its factory string; equal vectors give an equal index.

    `nprobe`, the number of lists that a search reads, is chosen by measurement and stored in the file.
    """
    num_lists = int(np.sqrt(len(ids)))
    factory = "IDMap2,Flat" if len(ids) <= FLAT_LIMIT else f"IDMap2,IVF{num_lists},Flat"
    index = faiss.index_factory(normalised.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    inverted = _inverted(index)
    if inverted is not None:
        inverted.cp.max_points_per_centroid, inverted.cp.niter = (
            TRAINING_PER_LIST,
            TRAINING_ROUNDS,
        )  # FAISS fixes the seed.
        if (
            faiss.get_num_gpus() > 0
        ):  # With faiss-gpu, k-means searches the nearest centres on the GPUs. This has never run on one.
            inverted.clustering_index = faiss.index_cpu_to_all_gpus(faiss.IndexFlatIP(normalised.shape[1]))
    index.train(normalised)
    index.add_with_ids(normalised, ids.astype(np.int64))
    if inverted is not None:
        inverted.clustering_index = None
        _tune(index, inverted, normalised, ids)
    return index, factory


def nprobe_of(index: Any) -> int | None:
    """Returns the number of lists that a search of this index reads; None if the search is exhaustive."""
    inverted = _inverted(index)
    return None if inverted is None else int(inverted.nprobe)


def load_index(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Reads an index and its manifest; the file is verified before FAISS parses it.

    Raises:
        BadInput: there is none, or its file is not the one that was built.
    """
    manifest = index_manifest(folder)
    index = faiss.read_index(str(folder / INDEX_FILE))
    inverted = _inverted(index)
    if inverted is not None:
        inverted.make_direct_map()  # FAISS builds the map from ids to vectors only on request.
    return index, manifest


def nearest(folder: Path, item_id: int, count: int) -> list[tuple[int, float]]:
    """Returns the items nearest to an item by cosine, without the item itself: ids and cosines, nearest first, ties by ascending id.

    FAISS only chooses the candidates. It lists equal inner products in an order of its own, keeps any of them where
    they do not all fit in `count`, and rounds differently in another batch. So the search returns all items that could
    be among the first `count`, and their cosines are computed again, each from its own row.

    Args:
        folder: the folder of the index.
        item_id: the item whose neighbours are wanted.
        count: how many to return at most.

    Raises:
        BadInput: the item has no vector in this release, or one of length zero.
    """
    index, manifest = load_index(folder)
    try:
        query = index.reconstruct(item_id)
    except RuntimeError:
        raise BadInput(
            folder, "item", expected=f"an item with a vector in {manifest['release_id']}", found=item_id
        ) from None
    cosines, _ = index.search(query[None], min(count + 1, index.ntotal))  # The item itself is among them.
    at_least = (
        float(cosines[0, -1]) if cosines[0, -1] > _NONE else _NONE
    )  # The search reached fewer items than asked for: take all.
    _, _, ids = index.range_search(query[None], at_least - SAME)
    return _ranked(folder, item_id, query, ids, index.reconstruct_batch(ids))[:count]


def nearest_exactly(vectors: Vectors, entity_id: int, count: int) -> list[tuple[int, float]]:
    """Returns the same as `nearest`, by exhaustive search over vectors that have no index.

    Args:
        vectors: the vectors of all entities of the release.
        entity_id: the entity whose neighbours are wanted.
        count: how many to return at most.

    Raises:
        BadInput: the id has no vector, or one of length zero.
    """
    at = np.flatnonzero(vectors.ids == entity_id)
    if len(at) == 0:
        raise BadInput("vectors", "id", expected="an id with a vector in this release", found=entity_id)
    normalised = _normalised(vectors.values)
    return _ranked("vectors", entity_id, normalised[at[0]], vectors.ids, normalised)[:count]


def _ranked(
    source: object, entity_id: int, query: np.ndarray, ids: np.ndarray, normalised: np.ndarray
) -> list[tuple[int, float]]:
    """Ranks the other entities, nearest first, ties by ascending id; vectors of length zero are left out.

    Each cosine is a sum in double precision over its own row, rounded to the precision of single-precision unit
    vectors. So neither the other rows nor the order of the vectors decides which cosines are equal.

    Args:
        source: where the vectors come from, for an error message.
        entity_id: the entity whose neighbours are wanted.
        query: the unit vector of that entity, D.
        ids: the ids of all entities, N.
        normalised: the unit vectors of all entities, N x D.
    """
    if not query.any():
        raise BadInput(source, "vector", expected="a vector with a direction", found=f"one of zeros, of {entity_id}")
    wide = query.astype(np.float64)
    cosines = np.concatenate(
        [
            np.zeros(0),
            *(
                (normalised[at : at + _AT_ONCE].astype(np.float64) * wide).sum(axis=1)
                for at in range(0, len(ids), _AT_ONCE)
            ),
        ]
    ).round(DECIMALS)
    others = np.flatnonzero((ids != entity_id) & normalised.any(axis=1))
    order = others[np.lexsort((ids[others], -cosines[others]))]
    return list(zip(ids[order].tolist(), cosines[order].tolist(), strict=True))


def measured_recall(index: Any, normalised: np.ndarray, ids: np.ndarray, queries: np.ndarray) -> float:
    """Returns the recall@10: the share of each query's ten exact nearest that the index returns; ties count as returned.

    Args:
        index: the index to judge.
        normalised: the unit vectors that it holds, N x D.
        ids: the ids of these vectors, N.
        queries: the rows of `normalised` that serve as queries, Q.
    """
    count = min(RECALL_AT, len(normalised))
    exact, _ = faiss.knn(
        normalised[queries], normalised, count, metric=faiss.METRIC_INNER_PRODUCT
    )  # In blocks, never Q x N at once.
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
    """Doubles `nprobe` until the recall suffices; a search that reads all lists is exhaustive."""
    inverted.nprobe = 1
    queries = _sample(len(normalised), offset=0)
    while measured_recall(index, normalised, ids, queries) < TUNED_RECALL and inverted.nprobe < inverted.nlist:
        inverted.nprobe = min(2 * inverted.nprobe, inverted.nlist)


def _sample(count: int, *, offset: int) -> np.ndarray:
    """Returns rows that serve as queries, evenly spread; the rows of two offsets differ where there are enough."""
    step = max(1, count // (2 * QUERIES))
    return np.arange(offset * step, count, 2 * step)[:QUERIES] if count > 2 * QUERIES else np.arange(count)[:QUERIES]


def _inverted(index: Any) -> Any | None:
    return faiss.try_extract_index_ivf(index)


def lengths_of(values: np.ndarray) -> np.ndarray:
    """Returns the norms (N) of vectors (N x D); 0 also where the squares are too small for single precision."""
    lengths: np.ndarray = np.linalg.norm(values, axis=1)
    return lengths


def _normalised(values: np.ndarray) -> np.ndarray:
    norms = lengths_of(values)[:, None]
    return np.ascontiguousarray(values / np.where(norms > 0, norms, 1), dtype=np.float32)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
