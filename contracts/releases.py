"""What a release is, and the id that its content gives it.

The lake is the registry: a model or a vector table is visible once its row stands in `releases`, and serves once
`activations` names it. The id hashes everything that the result depends on, so making the same release again is a
no-op.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any, Final

from contracts.errors import BadInput
from contracts.kinds import BOUND_KINDS, KINDS

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
        kind: its kind of model, a key of `contracts.kinds.KINDS`.
        variant: its transfer setting; `default` for a kind that has only one variant.
        period: first day of its period.
        recipe: its settings (JSON values).
        parents: release id of each parent, by `role/kind/period`.
        absent_parents: snapshots that are masked because they precede `history_start`.
        inputs: content digest of each partition read, by `table/owner`.
        feature_set: features that it reads.
        metrics: its headline metrics.
        files: sha256 of each file of the run folder.
        dims: width of its vectors, by entity.
        carries: for a fallback, the release whose model it carries because the gate refused the day's own; otherwise
            None.
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
        """The kind, variant and period that the release is made for."""
        return Served(kind=self.kind, variant=self.variant, period=self.period)

    @property
    def model_version(self) -> int:
        """Version of the model's code."""
        return KINDS[self.kind].model_version

    @property
    def release_id(self) -> str:
        """Kind, variant, period and a hash of recipe, parents, inputs, code version and what it carries; a fallback's has that word."""
        content = json.dumps(
            [
                self.kind,
                self.variant,
                str(self.period),
                self.recipe,
                dict(self.parents),
                list(self.absent_parents),
                dict(self.inputs),
                self.feature_set,
                self.model_version,
                *([self.carries] if self.carries else []),
            ],
            sort_keys=True,
        )
        mark = "fallback-" if self.carries else ""
        return f"{self.kind}-{self.variant}-{self.period}-{mark}{hashlib.sha256(content.encode()).hexdigest()[:12]}"

    def to_json(self) -> str:
        """The manifest of the run folder, which `from_json` reads."""
        values = asdict(self) | {
            "period": str(self.period),
            "release_id": self.release_id,
            "model_version": self.model_version,
        }
        return json.dumps(values, indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str, *, where: object) -> Release:
        """Reads what `to_json` wrote.

        Args:
            text: the manifest, as JSON.
            where: the manifest's path, for error messages.

        Raises:
            BadInput: the text is not JSON, or its id is not the one that its content gives.
        """
        try:
            values = json.loads(text)
        except ValueError:
            raise BadInput(where, "manifest", expected="a finished run", found="half a manifest") from None
        claimed = values.pop("release_id")
        values.pop("model_version")
        values["period"] = date.fromisoformat(values["period"])
        for name in ("absent_parents", "feature_set"):
            values[name] = tuple(values[name])
        release = cls(**values)
        if release.release_id != claimed:
            raise BadInput(
                where,
                "release_id",
                expected=release.release_id,
                found=claimed,
                hint="The manifest was changed, or another version of the code made it.",
            )
        return release


def parent_key(role: str, kind: str, period: date) -> str:
    """The key of a parent in `Release.parents`."""
    return f"{role}/{kind}/{period}"


def of_role(parents: Mapping[str, str], role: str) -> dict[str, str]:
    """The parents of a release that have this role."""
    return {key: release_id for key, release_id in parents.items() if key.startswith(f"{role}/")}


def continues(parents: Mapping[str, str], predecessor: Mapping[str, Any] | None) -> bool:
    """Whether a release went on from its predecessor: both rest on the same pre-trained models, or on none.

    Args:
        parents: the release's parents, as `Release.parents` holds them.
        predecessor: the predecessor's row of `releases`; None if there is no predecessor.
    """
    if predecessor is None:
        return False
    return all(
        set(of_role(parents, role).values()) == set(of_role(predecessor["parents"], role).values())
        for role in BOUND_KINDS
    )


def training_command(served: Served) -> str:
    """The command that trains all variants of a period's model."""
    return f"tributary training {served.kind} {KINDS[served.kind].period_option} {served.period}"
