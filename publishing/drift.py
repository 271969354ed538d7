"""Compares the vectors of a release with those of the release before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from contracts.kinds import KINDS
from contracts.releases import Release, continues, of_role
from lake.reader import LakeReader
from lake.registry import Registry
from publishing.checks import Check
from publishing.index import Vectors

# Mean cosine of an id's vector in two releases in a row. A day of an A-CTR left .997 and more, a month of TPM .67 to
# .88, the merged tables of two weeks .95; vectors that were given to other ids .00 to .13 (simulator, KuaiRand;
# docs/experiments.md).
MIN_COSINE = 0.4


def check_drift(
    reader: LakeReader, registry: Registry, release: Release, vectors: Mapping[str, Vectors]
) -> list[Check]:
    """Checks the mean cosine between a release and the one before it, over the ids that both have.

    A model that continues its predecessor fails below `MIN_COSINE`: the rows of one period do not turn most vectors
    away, but a mapping that was mixed up does. A CPM's merged table is trained from the start each week, so its vectors
    may turn together, and the check only warns. A model that started again from another CPM is not compared, since its
    vectors have another origin.

    Args:
        reader: reads the tables of the deployment.
        registry: the releases and what they serve.
        release: the manifest of the run that is audited.
        vectors: the run's vectors, by entity.
    """
    previous = previous_release(registry, release)
    if previous is None:
        return []
    if release.kind != "cpm" and not continues(release.parents, previous):
        return [
            Check(
                name="drift",
                passed=True,
                severity="warn",
                expected="to be compared where it continues a model",
                found=f"it started again, unlike {previous['release_id']}: not compared",
            )
        ]
    checks = []
    for entity, new in vectors.items():
        rows = reader.read(
            KINDS[release.kind].vectors,
            columns=["id", "vector", "dim"],
            where={"release_id": previous["release_id"], "entity": entity},
        )
        cosine, shared = mean_cosine(Vectors.of(rows), new) if rows.num_rows else (1.0, 0)
        checks.append(
            Check(
                name=f"{entity}_drift",
                passed=cosine >= MIN_COSINE,
                severity="warn" if release.kind == "cpm" else "fail",
                expected=f"mean cosine >= {MIN_COSINE} with {previous['release_id']}",
                found=f"{cosine:.3f} of {shared} ids",
            )
        )
    return checks


def previous_release(registry: Registry, release: Release) -> Mapping[str, Any] | None:
    """Returns the predecessor that a run names; else the serving release of the last period before its own, or None."""
    for name in of_role(release.parents, "predecessor").values():
        return registry.releases[name]
    earlier = [
        served
        for served in registry.activations
        if (served.kind, served.variant) == (release.kind, release.variant) and served.period < release.period
    ]
    return registry.releases[registry.activations[max(earlier)]["release_id"]] if earlier else None


def mean_cosine(old: Vectors, new: Vectors) -> tuple[float, int]:
    """Returns the mean cosine over the ids that both have, and their number; 1 where there is none, -1 where the widths differ."""
    shared, at_old, at_new = np.intersect1d(old.ids, new.ids, return_indices=True)
    if len(shared) == 0:
        return 1.0, 0
    if old.values.shape[1] != new.values.shape[1]:
        return -1.0, len(shared)
    a, b = old.values[at_old], new.values[at_new]
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    some = norms > 0  # A vector of zeros has no direction.
    return float(((a * b).sum(axis=1)[some] / norms[some]).mean()) if some.any() else 1.0, len(shared)
