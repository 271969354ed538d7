"""What a release is, and the id that its content gives it.

The lake is the registry: a model or a vector table is visible once its row stands in `releases`, and serves once
`activations` names it. The id hashes everything that the result depends on, so making the same release again is a no-op.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Final

from contracts.errors import BadInput
from contracts.kinds import BOUND_KINDS, KINDS
from contracts.locations import Locations

DEFAULT_VARIANT: Final = "default"
MANIFEST = "manifest.json"
AUDIT = "audit.json"
GATE = "gate.json"

VECTORS_FILE = "vectors.parquet"  # entity, id, vector, dim
PREDICTIONS_FILE = "predictions.parquet"  # event_id, user_id, score, click, scored_by, ds; A-CTR only
METRICS_FILE = "metrics.parquet"  # metric, split, value, row_cnt, ds
HELD_OUT_FILE = "held_out.parquet"  # event_id, user_id, ds, click, score, score_before: what the gate judges
MODEL_FILE = "model.safetensors"
MAPPING_FILE = "mapping.parquet"  # field, id, row, cnt, last_day
REWRITTEN = "rewritten.json"  # where a user was forgotten: sha256 of the manifests that the folder had before


@dataclass(frozen=True, kw_only=True, order=True)
class Served:
    """What one release at a time serves: the key of `activations`."""

    kind: str
    variant: str
    period: date

    def __str__(self) -> str:
        return f"{self.kind} ({self.variant}) {self.period}"


@dataclass(frozen=True, kw_only=True)
class Release:
    """A trained model of one kind, variant and period, in its run folder.

    Attributes:
        kind: of `contracts.kinds`.
        variant: transfer setting, `default` where there is one only.
        period: first day of its period.
        recipe: its settings (JSON values).
        parents: release id of each parent, by `role/kind/period`.
        absent_parents: snapshots that are masked since they precede `history_start`.
        inputs: content digest of each partition read, by `table/owner`.
        feature_set: features that it reads.
        metrics: headline figures.
        files: sha256 of each file of the run folder.
        dims: width of the vectors of each entity.
        carries: of a fallback, the release whose model it carries, as the gate refused the day's own; None of all others.
    """

    kind: str
    variant: str
    period: date
    recipe: Mapping[str, Any]
    parents: Mapping[str, str]
    inputs: Mapping[str, str]
    feature_set: tuple[str, ...]
    absent_parents: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    dims: Mapping[str, int] = field(default_factory=dict)
    carries: str | None = None

    @property
    def served(self) -> Served:
        return Served(kind=self.kind, variant=self.variant, period=self.period)

    @property
    def model_version(self) -> int:
        return KINDS[self.kind].model_version

    @property
    def release_id(self) -> str:
        """Kind, variant, period and a hash of recipe, parents, inputs, code version and what it carries; a fallback's says so."""
        content = json.dumps(
            [self.kind, self.variant, str(self.period), self.recipe, dict(self.parents), list(self.absent_parents),
             dict(self.inputs), self.feature_set, self.model_version, *([self.carries] if self.carries else [])],
            sort_keys=True,
        )
        mark = "fallback-" if self.carries else ""
        return f"{self.kind}-{self.variant}-{self.period}-{mark}{hashlib.sha256(content.encode()).hexdigest()[:12]}"

    def to_json(self) -> str:
        values = asdict(self) | {"period": str(self.period), "release_id": self.release_id, "model_version": self.model_version}
        return json.dumps(values, indent=2, sort_keys=True) + "\n"

    @classmethod
    def read(cls, folder: Path) -> Release:
        """Reads a run folder's manifest.

        Raises:
            BadInput: no manifest, or its id is not the one that its content gives.
        """
        path = folder / MANIFEST
        if not path.is_file():
            raise BadInput(path, "manifest", expected="a finished run", found="no such file")
        try:
            values = json.loads(path.read_text())
        except ValueError:
            raise BadInput(path, "manifest", expected="a finished run", found="half a manifest") from None
        claimed = values.pop("release_id")
        values.pop("model_version")
        values["period"] = date.fromisoformat(values["period"])
        for name in ("absent_parents", "feature_set"):
            values[name] = tuple(values[name])
        release = cls(**values)
        if release.release_id != claimed:
            raise BadInput(path, "release_id", expected=release.release_id, found=claimed,
                           hint="The manifest was changed, or another version of the code made it.")
        return release


def parent_key(role: str, kind: str, period: date) -> str:
    """The key of a parent in `Release.parents`."""
    return f"{role}/{kind}/{period}"


def of_role(parents: Mapping[str, str], role: str) -> dict[str, str]:
    """Those of a release's parents that have this role."""
    return {key: release_id for key, release_id in parents.items() if key.startswith(f"{role}/")}


def continues(parents: Mapping[str, str], predecessor: Mapping[str, Any] | None) -> bool:
    """Whether a release went on from its predecessor: both rest on the same pre-trained models, or on none.

    Args:
        parents: of the release.
        predecessor: its row of `releases`; None where it has none.
    """
    if predecessor is None:
        return False
    return all(set(of_role(parents, role).values()) == set(of_role(predecessor["parents"], role).values())
               for role in BOUND_KINDS)


def training_command(served: Served) -> str:
    """The command that trains a period's model, all variants together."""
    return f"tributary training {served.kind} {KINDS[served.kind].period_option} {served.period}"


def staged_runs(locations: Locations, kind: str, period: date) -> list[Path]:
    """Run folders that the last training of a kind and period has left, one a variant.

    Raises:
        BadInput: nothing was staged, or half of it: a folder that is not there, not finished, or of another period.
    """
    path = locations.staged(kind, period)
    again = f"Run: {training_command(Served(kind=kind, variant=DEFAULT_VARIANT, period=period))}"
    if not path.is_file():
        raise BadInput(path, "staged runs", expected=f"a finished training of {kind} {period}", found="none", hint=again)
    try:
        folders = [locations.home / folder for folder in json.loads(path.read_text())["runs"]]
    except (ValueError, KeyError, TypeError):
        raise BadInput(path, "staged runs", expected='{"runs": [...]}', found="something else", hint=again) from None
    releases = [Release.read(folder) for folder in folders]
    for folder, release in zip(folders, releases, strict=True):
        place = locations.run_of(kind, period, release.variant, release.release_id)
        if folder != place:  # a temporary folder, or a run of another kind or period
            raise BadInput(path, "staged runs", expected=f"finished runs of {kind} {period}, such as {place.relative_to(locations.home)}",
                           found=folder.relative_to(locations.home), hint=again)
    variants = [release.variant for release in releases]
    if not variants or len(set(variants)) < len(variants):
        raise BadInput(path, "staged runs", expected="one run a variant", found=variants or "none", hint=again)
    return folders


def gated_runs(locations: Locations, kind: str, period: date) -> list[Path]:
    """Run folders that the gate lets through, one a variant: what training staged, or the fallback in its place.

    Raises:
        BadInput: nothing was staged, the gate has not judged a run as it is now, or refused one that nothing can stand in for.
    """
    return [_let_through(locations, folder) for folder in staged_runs(locations, kind, period)]


def _let_through(locations: Locations, folder: Path) -> Path:
    release, path = Release.read(folder), folder / GATE
    again = f"Run: tributary validation gate --kind {release.kind} --period {release.period}"
    if not path.is_file():
        raise BadInput(path, "gate", expected="a verdict of the gate", found="none", hint=again)
    verdict: dict[str, Any] = json.loads(path.read_text())
    if verdict["manifest_sha256"] != sha256_of(folder / MANIFEST):
        raise BadInput(path, "manifest_sha256", expected=verdict["manifest_sha256"], found="another manifest", hint=again)
    if verdict["passed"]:
        return folder
    if verdict["fallback"] is None:
        failed = [check["name"] for check in verdict["checks"] if not check["passed"] and check["severity"] == "fail"]
        raise BadInput(path, "gate", expected="a passed gate, or a fallback", found=f"failed: {', '.join(failed)}")
    return locations.home / verdict["fallback"]


def changed_files(folder: Path, release: Release) -> dict[str, str]:
    """Files of a release that are not those of its manifest, with the digest that was found instead, or that there is none."""
    found = {name: sha256_of(folder / name) if (folder / name).is_file() else "no such file" for name in release.files}
    return {name: digest for name, digest in found.items() if digest != release.files[name]}


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
