"""Trains CPM on the last month of the natural log, with the aggregator of the TPM snapshots, and merges the snapshots.

In training, each row reads the snapshots of the three months that had closed before its own day, since the snapshot of its
own month was trained on its label. The merged table is of the three months that had closed before the week began. If a
transfer setting of the deployment reads a CPM without snapshots, a second CPM is trained without them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path

import torch

from contracts.errors import BadInput
from contracts.features import CPM, STATISTIC_COLUMNS, features_of
from contracts.periods import TPM_SNAPSHOTS, Period
from contracts.releases import (
    DEFAULT_VARIANT,
    HELD_OUT_FILE,
    MAPPING_FILE,
    MODEL_FILE,
    VECTORS_FILE,
    Release,
    parent_key,
)
from contracts.transfer import WITHOUT_SNAPSHOTS, CpmVariant, cpm_variants
from lake.run_folders import Run, finished
from training.data.batches import Encoding
from training.data.mapping import IdMapping
from training.data.samples import Columns, Samples, read_days
from training.data.vectors import VECTOR_ENTITIES, Entity, EntityVectors, Snapshots, read_vectors, write_vectors
from training.engine.checkpoint import save_weights
from training.engine.loop import fill_batch_norm, score, train
from training.engine.runs import write_run
from training.models.build import TRANSFER_DIMS, CtrParts, build_ctr
from training.modules.transfer import AggregatedSnapshots, TransferSource
from training.recipes import as_json
from training.tasks.session import HeldOut, Session, say_finished, train_metrics

CATEGORICAL = tuple(feature.name for feature in features_of(CPM))
FEATURE_SET = CATEGORICAL + STATISTIC_COLUMNS


@dataclass(frozen=True, kw_only=True)
class SnapshotPlan:
    """The months of TPM snapshots that a CPM reads.

    Attributes:
        months: the months that exist, ascending.
        absent: the months that are needed but precede `history_start`, ascending.
        months_of_day: for each training day, three positions in `months`, newest first; -1 where a month is absent.
        merged: three such positions for the merged table.
    """

    months: tuple[date, ...]
    absent: tuple[date, ...]
    months_of_day: tuple[tuple[int, ...], ...]
    merged: tuple[int, ...]

    @classmethod
    def of(cls, session: Session, period: Period, days: Sequence[date]) -> SnapshotPlan:
        """Plans which snapshots the days of a period read.

        Args:
            session: the training session, which knows the lineage and the recipe.
            period: the period of the CPM.
            days: the days whose samples it trains on.
        """
        lineage = session.deployment.lineage
        of_rows = days if session.recipe.cpm.snapshots_by_day else [period.start] * len(days)
        needed = [lineage.snapshots_of_day(day) for day in [*of_rows, period.start]]
        months = sorted({month for three in needed for month in three if month is not None})
        named = [lineage.settings.last_closed("month", day, TPM_SNAPSHOTS) for day in [*of_rows, period.start]]
        absent = sorted({month.start for three in named for month in three if not lineage.exists(month)})
        positions = [tuple(-1 if month is None else months.index(month) for month in three) for three in needed]
        return cls(
            months=tuple(months), absent=tuple(absent), months_of_day=tuple(positions[:-1]), merged=positions[-1]
        )


def run_cpm(session: Session, start: date) -> list[Run]:
    """Trains and stages the CPM of the week that begins on `start`, in each variant that the deployment's settings need.

    Raises:
        ParentMissing: a month's TPM was not published, or a day's samples or histories were not built.
    """
    period = session.period(CPM, start)
    with session.training(CPM, period):
        days = session.deployment.lineage.cpm_training_days(period)
        samples = _Samples(session, days)
        runs = [
            _run_variant(session, period, variant, samples) for variant in cpm_variants(session.deployment.variants)
        ]
        session.stage(CPM, period, runs)
        return runs


class _Samples:
    """Natural samples of the training days, read when a variant first needs them."""

    def __init__(self, session: Session, days: Sequence[date]) -> None:
        body = session.recipe.cpm.body
        self.days = days
        self._reader = session.reader
        self._columns = Columns(log="natural", names=FEATURE_SET, histories=(body.long_length, body.short_length))

    @cached_property
    def rows(self) -> Samples:
        return Samples.concat(list(read_days(self._reader, self.days, self._columns).values()))


def _run_variant(session: Session, period: Period, variant: CpmVariant, samples: _Samples) -> Run:
    lineage, start = session.deployment.lineage, period.start
    snapshots: dict[date, Run] = {}
    plan = None
    if variant != WITHOUT_SNAPSHOTS:
        plan = SnapshotPlan.of(session, period, samples.days)
        parents = {parent.period: parent for parent in lineage.parents(CPM, start)}
        assert set(plan.months) <= set(parents), "the parents are the months that the rows and the merged table need"
        snapshots = {month: session.parent(f"cpm {start}", parents[month], DEFAULT_VARIANT) for month in plan.months}
    release = Release(
        kind=CPM,
        variant=variant,
        period=start,
        recipe=as_json(session.recipe.cpm),
        parents={parent_key("snapshot", "tpm", month): run.release.release_id for month, run in snapshots.items()},
        absent_parents=tuple(parent_key("snapshot", "tpm", month) for month in plan.absent) if plan else (),
        inputs=session.inputs(["natural_samples", "user_histories"], samples.days),
        feature_set=FEATURE_SET,
    )
    if run := finished(session.locations, release):
        say_finished(run)
        return run
    return _train(session, release, samples.rows, plan, list(snapshots.values()))


def _train(
    session: Session, release: Release, samples: Samples, plan: SnapshotPlan | None, months: Sequence[Run]
) -> Run:
    recipe = session.recipe.cpm
    rows = samples.trainable()
    if len(rows) < 2:
        raise BadInput(
            "natural_samples", f"cpm {release.period}", expected="at least two rows to train on", found=len(rows)
        )
    mapping, _ = IdMapping.empty(CATEGORICAL).grown(rows.seen(CATEGORICAL), CATEGORICAL, recipe.admission)
    torch.manual_seed(recipe.seed)
    aggregated = AggregatedSnapshots(_stack(months), plan.months_of_day, TRANSFER_DIMS) if plan else None
    transfer = aggregated or TransferSource(TRANSFER_DIMS)
    parts = CtrParts(body=recipe.body, mapping=mapping, num_dense=len(STATISTIC_COLUMNS), transfer=transfer)
    model = build_ctr(parts, seed=recipe.seed, device=session.device)
    first_day = date.fromordinal(int(samples.day.min()))
    encoding = Encoding(
        mapping=mapping,
        statistics=STATISTIC_COLUMNS,
        rate_prior=recipe.body.rate_prior,
        transfer=transfer.index,
        first_day=first_day,
    )
    encoded = encoding.encode(rows, session.device)
    with session.supervised(release) as supervision:
        fitted = train(
            model,
            encoded,
            recipe.train,
            seed=f"{recipe.seed}/{release.period}",
            description=f"cpm {release.period} {release.variant}",
            supervision=supervision,
        )
    fill_batch_norm(model, encoded)
    held_out = samples.select(samples.held_out)
    judged = HeldOut(samples=held_out, scores=score(model, encoding.encode(held_out, session.device)))
    metrics = train_metrics(fitted) + judged.metrics
    state = model.state_dict()

    def fill(folder: Path) -> dict[str, int]:
        save_weights(state, folder / MODEL_FILE)
        mapping.save(folder / MAPPING_FILE)
        judged.write(folder / HELD_OUT_FILE)
        merged = (
            aggregated.merge(plan.merged)
            if aggregated and plan
            else {e: EntityVectors.none(d) for e, d in TRANSFER_DIMS.items()}
        )
        return write_vectors(folder / VECTORS_FILE, merged)

    return write_run(session.locations, release, metrics, fill)


def _stack(months: Sequence[Run]) -> Mapping[Entity, Snapshots]:
    vectors = [read_vectors(run.folder / VECTORS_FILE, run.release.dims) for run in months]
    return {
        entity: Snapshots.stack([month[entity] for month in vectors], TRANSFER_DIMS[entity])
        for entity in VECTOR_ENTITIES
    }
