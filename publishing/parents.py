"""Which releases and samples a period needs, and which of them are not there yet."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from contracts.awaited import Awaited
from contracts.kinds import KINDS
from contracts.periods import Parent
from contracts.releases import DEFAULT_VARIANT
from contracts.settings import Deployment
from contracts.tables import owner_key
from contracts.transfer import cpm_variants, reads
from lake.reader import LakeReader

# Of the kinds that do not read natural samples, or not them alone.
_READ_BY = {"actr": "ad_samples", "bahe": "ad_samples", "fg_bert": "user_histories", "fg_bert_users": "user_histories"}


def missing_inputs(reader: LakeReader, deployment: Deployment, kind: str, period: date) -> list[Awaited]:
    """What a period's training still waits for; [] if nothing."""
    lineage = deployment.lineage
    missing = [_awaited(parent, variant) for parent in lineage.parents(kind, period) for variant in _variants(kind, parent, deployment)
               if reader.active(parent.kind, variant, parent.period) is None]
    table = _READ_BY.get(kind, "natural_samples")
    days = sample_days(deployment, kind, period)
    built = reader.builds(table, [owner_key(ds=day) for day in days])
    absent = [day for day in days if owner_key(ds=day) not in built]
    if absent:
        missing.append(Awaited(what=f"{table} of {len(absent)} days, the first {absent[0]}", dag="features_daily", periods=tuple(absent)))
    return missing


def sample_days(deployment: Deployment, kind: str, period: date) -> Sequence[date]:
    """Days whose samples, or histories, the training of a period reads for certain."""
    lineage = deployment.lineage
    whole = lineage.period(kind, period)
    if kind == "cpm":
        return lineage.cpm_training_days(whole)
    if kind == "actr":
        return lineage.actr_training_days(period, replay_days=deployment.replay_days) if period == deployment.actr_start else [period]
    if kind == "bahe":
        return lineage.bahe_training_days(period, first_days=1)
    return [day for day in whole.days() if day >= deployment.history_start]


def _variants(kind: str, parent: Parent, deployment: Deployment) -> Sequence[str]:
    if parent.kind == "actr":
        return deployment.variants
    if kind == "actr" and not reads(parent.role, deployment.variants):
        return ()
    return cpm_variants(deployment.variants) if parent.kind == "cpm" else (DEFAULT_VARIANT,)


def _awaited(parent: Parent, variant: str) -> Awaited:
    name = parent.kind if variant == DEFAULT_VARIANT else f"{parent.kind} ({variant})"
    return Awaited(what=f"the {parent.role} {name} of {parent.period}", dag=KINDS[parent.kind].dag, periods=(parent.period,))
