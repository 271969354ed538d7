"""How far a day's published vectors have moved from those of the day before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.periods import ONE_DAY
from contracts.releases import continues, of_role
from lake.progress import each
from lake.reader import LakeReader

ENTITIES = ("user", "item")
Vectors = tuple[NDArray[np.int64], NDArray[np.float32]]  # ids ascending, and their vectors


@dataclass(frozen=True, kw_only=True)
class Moved:
    """A variant's vectors of one entity on a day, compared with those of the day before.

    Attributes:
        cosine: the mean cosine over the ids that both days have; None if there is no such id.
        shared: how many ids both days have.
        new: the share of the day's ids that the day before does not have.
        lost: the share of the day before's ids that the day does not have.
        restarted: whether the day's model started again instead of continuing.
    """

    day: date
    variant: str
    entity: str
    cosine: float | None
    shared: int
    new: float
    lost: float
    restarted: bool


def drift_of(
    reader: LakeReader,
    active: Mapping[tuple[str, date], Mapping[str, Any]],
    variants: Sequence[str],
    days: Sequence[date],
) -> list[Moved]:
    """The drift of each setting and day whose release, and that of the day before, are there."""
    found, releases = [], reader.releases()
    for variant in each(variants, description="embedding drift", unit="setting"):
        kept: tuple[str, dict[str, Vectors]] | None = None  # each release's vectors are read once
        for day in days:
            release, before = active.get((variant, day)), active.get((variant, day - ONE_DAY))
            if release is None or before is None:
                continue
            old = kept[1] if kept and kept[0] == before["release_id"] else _read(reader, before["release_id"])
            new = _read(reader, release["release_id"])
            kept = (release["release_id"], new)
            found += [
                _moved(day, variant, entity, new[entity], old[entity], restarted(release, releases))
                for entity in ENTITIES
            ]
    return found


def restarted(release: Mapping[str, Any], releases: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a release started again and replayed."""
    predecessor = next(iter(of_role(release["parents"], "predecessor").values()), "")
    return not continues(release["parents"], releases.get(predecessor))


def _moved(day: date, variant: str, entity: str, new: Vectors, old: Vectors, restarted: bool) -> Moved:
    shared, at_new, at_old = np.intersect1d(new[0], old[0], assume_unique=True, return_indices=True)
    return Moved(
        day=day,
        variant=variant,
        entity=entity,
        cosine=_mean_cosine(new[1][at_new], old[1][at_old]),
        shared=len(shared),
        new=1 - len(shared) / max(len(new[0]), 1),
        lost=1 - len(shared) / max(len(old[0]), 1),
        restarted=restarted,
    )


def _mean_cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float | None:
    """Mean cosine of rows; a row of zeros has no direction and is left out."""
    if a.shape[1:] != b.shape[1:]:
        return None
    lengths = np.linalg.norm(a, axis=1).astype(np.float64) * np.linalg.norm(b, axis=1)
    known = lengths > 0
    return float((np.einsum("nd,nd->n", a[known], b[known]) / lengths[known]).mean()) if known.any() else None


def _read(reader: LakeReader, release_id: str) -> dict[str, Vectors]:
    rows = reader.read("actr_embeddings", columns=["entity", "id", "vector"], where={"release_id": release_id})
    entities = np.array(rows["entity"].to_pylist(), dtype=object)
    ids = rows["id"].to_numpy()
    found = {}
    for entity in ENTITIES:
        at = np.flatnonzero(entities == entity)
        at = at[np.argsort(ids[at])]
        vectors = rows["vector"].take(at).combine_chunks().flatten().to_numpy(zero_copy_only=False)
        found[entity] = (ids[at], vectors.reshape(len(at), -1) if len(at) else np.zeros((0, 0), np.float32))
    return found
