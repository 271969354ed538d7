"""Finds the releases and samples that a period needs and that are not there yet."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from contracts.awaited import Awaited
from contracts.kinds import KINDS
from contracts.periods import Parent
from contracts.releases import DEFAULT_VARIANT
from contracts.settings import Deployment
from contracts.steps import awaited_table, maker
from contracts.tables import owner_key
from contracts.transfer import cpm_variants, reads
from lake.reader import LakeReader


def missing_inputs(reader: LakeReader, deployment: Deployment, kind: str, period: date) -> list[Awaited]:
    """Lists what a period's training still waits for; empty if nothing is missing.

    Args:
        reader: reads the tables of the deployment.
        deployment: the deployment's settings.
        kind: the kind of model.
        period: the first day of the period.
    """
    lineage = deployment.lineage
    missing = [
        _awaited(parent, variant)
        for parent in lineage.parents(kind, period)
        for variant in _variants(kind, parent, deployment)
        if reader.active(parent.kind, variant, parent.period) is None
    ]
    table = awaited_table(KINDS[kind])
    days = lineage.certain_days(kind, period, replay_days=deployment.replay_days)
    built = reader.builds(table, [owner_key(ds=day) for day in days])
    absent = [day for day in days if owner_key(ds=day) not in built]
    if absent:
        dag = maker(table).dag
        assert dag, table
        missing.append(
            Awaited(what=f"{table} of {len(absent)} days, the first {absent[0]}", dag=dag, periods=tuple(absent))
        )
    return missing


def _variants(kind: str, parent: Parent, deployment: Deployment) -> Sequence[str]:
    if parent.kind == "actr":
        return deployment.variants
    if kind == "actr" and not reads(parent.role, deployment.variants):
        return ()
    return cpm_variants(deployment.variants) if parent.kind == "cpm" else (DEFAULT_VARIANT,)


def _awaited(parent: Parent, variant: str) -> Awaited:
    name = parent.kind if variant == DEFAULT_VARIANT else f"{parent.kind} ({variant})"
    return Awaited(
        what=f"the {parent.role} {name} of {parent.period}", dag=KINDS[parent.kind].dag, periods=(parent.period,)
    )
