"""Audits a staged run before it is published: its parents, its vectors, its metrics, and the recall of its index."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contracts.errors import QualityFailed
from contracts.locations import Locations
from contracts.releases import (
    AUDIT,
    DEFAULT_VARIANT,
    MANIFEST,
    MAPPING_FILE,
    METRICS_FILE,
    PREDICTIONS_FILE,
    VECTORS_FILE,
    Release,
    of_role,
    parent_key,
)
from contracts.settings import Deployment
from lake.locks import hold
from lake.reader import LakeReader
from lake.registry import Registry
from lake.run_folders import changed_files, read_release, refuses, sha256_of, write_verdict
from publishing.checks import Check
from publishing.drift import check_drift
from publishing.index import Vectors, build_index, lengths_of

MIN_COVERAGE = 0.99  # Among the ids that a model knows, the least share that must have a vector.
MIN_RECALL = 0.95
MAX_VALUE = 1e4  # An embedding with a larger value has diverged.
FEWEST_ROWS = 2  # Batch norm needs two rows: a day with fewer keeps the weights of the day before.
NAMED = 5  # How many ids or metrics a message names at most.
ENTITIES = ("user", "item")


def audit(locations: Locations, deployment: Deployment, folder: Path) -> list[Check]:
    """Audits a run folder, builds its index if the other checks pass, and writes `audit.json` next to the manifest.

    A release without any item vector (a CPM whose week has no closed month in the history) has no index.

    Args:
        locations: the deployment's folders.
        deployment: the deployment's settings.
        folder: the run folder, staged by training.

    Returns:
        The checks, in the order in which they ran.

    Raises:
        QualityFailed: a check of severity `fail` did not pass; nothing that readers see has changed.
    """
    release = read_release(folder)
    with hold([locations.locks / "audit" / f"{release.release_id}.lock"]):
        checks, index = _judge(locations, deployment, folder, release)
        failed = list(filter(refuses, checks))
        write_verdict(folder / AUDIT, release, checks, index_sha256=index["sha256"] if index else None)
    if failed:
        raise QualityFailed(
            f"{release.release_id}: {failed[0].name}: expected {failed[0].expected}, found {failed[0].found}. "
            f"Nothing was published. Report: {folder / AUDIT}"
        )
    return checks


def _judge(
    locations: Locations, deployment: Deployment, folder: Path, release: Release
) -> tuple[list[Check], dict[str, Any] | None]:
    """Returns the checks, each of which may rely on those before it, and the manifest of the index if one was built."""
    reader = LakeReader(locations)
    registry = Registry.read(reader)
    checks = [
        *check_files(folder, release),
        check_immutable(folder, release, registry),
        check_parents(deployment, release, registry),
    ]
    if not all(check.passed for check in checks):
        return checks, None
    vectors = {entity: Vectors.read(folder / VECTORS_FILE, entity) for entity in ENTITIES}
    known = known_ids(locations, deployment, folder, release)
    checks.append(check_entities(folder))
    for entity, found in vectors.items():
        checks += check_vectors(entity, found, release, expect_some=len(known[entity]) > 0)
        checks.append(check_coverage(entity, found, known[entity]))
    checks += [*check_metrics(folder, release), *check_predictions(folder, release)]
    if all(check.passed for check in checks):
        checks += check_drift(reader, registry, release, vectors)
    if any(map(refuses, checks)) or not len(vectors["item"].ids):
        return checks, None
    index = build_index(locations.index(release.release_id), vectors["item"], release, sha256_of(folder / MANIFEST))
    recall = index["recall_at_10"]
    checks.append(
        Check(
            name="index_recall",
            passed=recall >= MIN_RECALL,
            expected=f"recall@10 >= {MIN_RECALL}",
            found=f"{recall:.3f}",
        )
    )
    return checks, index


def check_immutable(folder: Path, release: Release, registry: Registry) -> Check:
    """Checks that no other run was released under this id: a release's vectors and index never change."""
    row = registry.releases.get(release.release_id)
    digest = sha256_of(folder / MANIFEST)
    return Check(
        name="immutable",
        passed=row is None or row["sha256"] == digest,
        expected="a new release, or the run that was released",
        found="another run under the id of a release: put its own run folder back"
        if row and row["sha256"] != digest
        else "that",
    )


def check_parents(deployment: Deployment, release: Release, registry: Registry) -> Check:
    """Checks that the run was made from the releases that its period requires, and that these are served."""
    wrong = registry.wrong_parents(deployment.lineage, release)
    return Check(
        name="parents",
        passed=not wrong,
        expected="the releases that serve what its period computes",
        found="; ".join(wrong) if wrong else f"{len(release.parents)} of them",
    )


def check_files(folder: Path, release: Release) -> list[Check]:
    """Checks that every file of the manifest is there and is the one that training wrote."""
    bad = list(changed_files(folder, release))
    absent = [name for name in (VECTORS_FILE, METRICS_FILE, MAPPING_FILE) if name not in release.files]
    return [
        Check(
            name="files",
            passed=not bad and not absent,
            expected="the files of the manifest, unchanged",
            found="those" if not bad + absent else f"changed or missing: {', '.join(bad + absent)}",
        )
    ]


def check_entities(folder: Path) -> Check:
    """Checks that all vectors belong to users or items."""
    found = pc.unique(pq.read_table(folder / VECTORS_FILE, columns=["entity"])["entity"]).to_pylist()
    return Check(
        name="entities",
        passed=set(found) <= set(ENTITIES),
        expected=f"vectors of {', '.join(ENTITIES)}",
        found=", ".join(sorted(map(str, found))) or "none",
    )


def check_vectors(entity: str, vectors: Vectors, release: Release, *, expect_some: bool) -> list[Check]:
    """Checks the dimension, the finiteness, the norms and the distinct ids of an entity's vectors.

    No vector may consist of zeros: new rows are drawn at random, an id that shares its row with others has no vector of
    its own, and a forgotten user's row is removed. A zero vector therefore means that a training went wrong; it has no
    cosine with any other.

    Args:
        entity: `user` or `item`.
        vectors: the run's vectors of that entity.
        release: the run's manifest.
        expect_some: whether the model knows ids of that entity, so that there must be a vector.
    """
    dims, expected = set(vectors.dims.tolist()), release.dims.get(entity)
    checks = [
        Check(
            name=f"{entity}_vectors",
            passed=len(vectors.ids) > 0 or not expect_some,
            expected="at least one vector",
            found=f"{len(vectors.ids)} vectors",
        ),
        Check(
            name=f"{entity}_dimension",
            passed=dims <= {expected},
            expected=f"dimension {expected}",
            found=f"dimensions {sorted(dims)}",
        ),
        Check(
            name=f"{entity}_ids",
            passed=bool((vectors.ids >= 0).all()),
            expected="ids >= 0",
            found=f"{int((vectors.ids < 0).sum())} others",
        ),
        Check(
            name=f"{entity}_distinct_ids",
            passed=len(np.unique(vectors.ids)) == len(vectors.ids),
            expected="each id once",
            found=f"{len(vectors.ids) - len(np.unique(vectors.ids))} repeated",
        ),
    ]
    if not all(check.passed for check in checks) or not len(vectors.ids):
        return checks
    not_finite = vectors.ids[~np.isfinite(vectors.values).all(axis=1)]
    checks.append(
        Check(
            name=f"{entity}_finite",
            passed=not len(not_finite),
            expected="finite values",
            found=_with_ids(entity, not_finite, "vectors with NaN or infinity"),
        )
    )
    if not len(not_finite):
        largest = float(np.abs(vectors.values).max())
        zero = vectors.ids[lengths_of(vectors.values) == 0]
        checks += [
            Check(
                name=f"{entity}_norm",
                passed=largest < MAX_VALUE,
                expected=f"values below {MAX_VALUE:.0f}",
                found=f"largest {largest:.3g}",
            ),
            Check(
                name=f"{entity}_zero",
                passed=not len(zero),
                expected="no vector of length zero, which has no cosine with any other",
                found=_with_ids(entity, zero, "vectors of length zero"),
            ),
        ]
    return checks


def _with_ids(entity: str, ids: np.ndarray, what: str) -> str:
    """Returns how many ids there are, of what, and the lowest of them."""
    return f"{len(ids)} {what}" + (f": {entity} {_first(np.sort(ids).tolist())}" if len(ids) else "")


def _first(names: Sequence[object]) -> str:
    """Returns the first names, and an ellipsis if there are more."""
    return ", ".join(map(str, names[:NAMED])) + (", ..." if len(names) > NAMED else "")


def known_ids(locations: Locations, deployment: Deployment, folder: Path, release: Release) -> dict[str, np.ndarray]:
    """Returns the ids that should have a vector, by entity: those of the model's mapping; for a CPM, those of the snapshots it merges."""
    if release.kind != "cpm":
        mapping = pq.read_table(folder / MAPPING_FILE, columns=["field", "id"], filters=[("row", ">", 0)])
        return {
            entity: mapping.filter(pc.equal(mapping["field"], f"{entity}_id"))["id"].to_numpy() for entity in ENTITIES
        }
    months = deployment.lineage.snapshots_of_day(release.period)
    merged = [
        key
        for month in months
        if month is not None and (key := parent_key("snapshot", "tpm", month)) in release.parents
    ]
    known: dict[str, list[np.ndarray]] = {entity: [np.zeros(0, np.int64)] for entity in ENTITIES}
    for key in merged:
        snapshot = locations.run_of(
            "tpm", date.fromisoformat(key.rsplit("/", 1)[1]), DEFAULT_VARIANT, release.parents[key]
        )
        rows = pq.read_table(snapshot / VECTORS_FILE, columns=["entity", "id"])
        for entity, ids in known.items():
            ids.append(rows.filter(pc.equal(rows["entity"], entity))["id"].to_numpy())
    return {entity: np.unique(np.concatenate(ids)) for entity, ids in known.items()}


def check_coverage(entity: str, vectors: Vectors, known: np.ndarray) -> Check:
    """Checks that a share of `MIN_COVERAGE` of the ids that should have a vector has one."""
    share = float(np.isin(known, vectors.ids).mean()) if len(known) else 1.0
    return Check(
        name=f"{entity}_coverage",
        passed=share >= MIN_COVERAGE,
        expected=f"a vector for {MIN_COVERAGE:.0%} of the known ids",
        found=f"{share:.1%} of {len(known)}",
    )


def check_metrics(folder: Path, release: Release) -> list[Check]:
    """Checks that no metric is NaN or infinite, so that a model that diverged is not published.

    A metric that is not defined on its rows is null. The training loss may be null only on a day with too few rows to
    train on.
    """
    rows = pq.read_table(folder / METRICS_FILE).to_pylist()
    value, row_cnt = next(
        ((row["value"], row["row_cnt"]) for row in rows if row["metric"] == "train_loss"), (None, None)
    )
    ok = math.isfinite(value) if value is not None else row_cnt is not None and row_cnt < FEWEST_ROWS
    bad = [
        f"{row['split']} {row['metric']}"
        for row in rows
        if row["value"] is not None and not math.isfinite(row["value"])
    ]
    return [
        Check(name="train_loss", passed=ok, expected="a finite figure", found=f"{value} over {row_cnt} rows"),
        Check(
            name="metrics",
            passed=not bad,
            expected="finite figures",
            found=f"{len(bad)} that are NaN or infinite: {_first(bad)}" if bad else f"{len(rows)} figures",
        ),
    ]


def check_predictions(folder: Path, release: Release) -> list[Check]:
    """Checks the scores of the period's day by the model of the period before: probabilities, and each impression once."""
    if not (folder / PREDICTIONS_FILE).is_file():
        return []
    rows = pq.read_table(folder / PREDICTIONS_FILE)
    predecessors = set(of_role(release.parents, "predecessor").values())
    by, days = set(rows["scored_by"].unique().to_pylist()), set(rows["ds"].unique().to_pylist())
    scores, events = pc.fill_null(rows["score"], math.nan).to_numpy(), rows["event_id"].to_numpy()
    bad = int((~((scores >= 0) & (scores <= 1))).sum())
    return [
        Check(
            name="scored_by",
            passed=by <= predecessors and days <= {release.period},
            expected=f"{release.period}, by {', '.join(predecessors) or 'nobody'}",
            found=f"{', '.join(map(str, sorted(days))) or 'no day'}, by {', '.join(map(str, by)) or 'nobody'}",
        ),
        Check(name="scores", passed=bad == 0, expected="probabilities", found=f"{bad} others"),
        Check(
            name="scored_once",
            passed=len(np.unique(events)) == len(events),
            expected="each impression once",
            found=f"{len(events) - len(np.unique(events))} repeated",
        ),
    ]
