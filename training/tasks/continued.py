"""Kinds of model whose periods each continue from the one before: TPM by month, FG-BERT by week, BAHE by day."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from contracts.periods import Period
from contracts.releases import DEFAULT_VARIANT, Release, parent_key
from lake.run_folders import Run, finished
from training.tasks.session import Session, say_finished


@dataclass(frozen=True, kw_only=True)
class Continued:
    """One period to train.

    Attributes:
        release: the draft of the manifest.
        period: the period to train.
        days: the days whose data the model reads.
        predecessor: the run of the period before; None for the first period.
    """

    release: Release
    period: Period
    days: Sequence[date]
    predecessor: Run | None


def run_continued(
    session: Session,
    kind: str,
    start: date,
    *,
    recipe: Mapping[str, Any],
    tables: Sequence[str],
    feature_set: tuple[str, ...],
    make: Callable[[Continued], Run],
    days: Sequence[date] | None = None,
) -> Run:
    """Trains and stages the model of the period that begins on `start`, unless it is there.

    Args:
        session: the training session that opens tables and run folders.
        kind: the kind of model, whose only parent is its predecessor.
        start: the first day of the period.
        recipe: the settings of the model, as JSON values.
        tables: the tables whose days the model reads.
        feature_set: the features that the model reads.
        make: trains the model and writes its run folder.
        days: the days that the model reads; by default those of the period that have logs.

    Raises:
        ParentMissing: the period before was not published, or a day of the table was not built.
    """
    period = session.period(kind, start)
    with session.training(kind, period):
        parents = session.deployment.lineage.parents(kind, start)
        predecessor = session.parent(f"{kind} {start}", parents[0], DEFAULT_VARIANT) if parents else None
        read = days if days is not None else [day for day in period.days() if day >= session.deployment.history_start]
        release = Release(
            kind=kind,
            variant=DEFAULT_VARIANT,
            period=start,
            recipe=recipe,
            parents={parent_key("predecessor", kind, parents[0].period): predecessor.release.release_id}
            if predecessor
            else {},
            inputs=session.inputs(tables, read),
            feature_set=feature_set,
        )
        run = finished(session.locations, release)
        if run:
            say_finished(run)
        run = run or make(Continued(release=release, period=period, days=read, predecessor=predecessor))
        session.stage(kind, period, [run])
        return run
