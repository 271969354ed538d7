"""The sequence encoder behind the ad models of a report: what it has learned, week by week, and what reading it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from contracts.releases import of_role
from training.flops import Flops, flops_of
from training.tasks.actr_open import open_released
from training.tasks.fg_bert import HIT_AT
from training.tasks.session import Session

HIT, AUC = f"held_out_hit_rate_{HIT_AT}", "held_out_auc"


@dataclass(frozen=True, kw_only=True)
class Week:
    """An FG-BERT that an ad model of these days is bound to.

    Attributes:
        hit_rate: the share of held-out users whose newest item is among the ten items that the model scores highest.
        auc: the AUC of that item's scores against those of an item drawn by frequency.
        loss: its training loss over all fields together.
    """

    period: date
    release_id: str
    hit_rate: float | None
    auc: float | None
    loss: float | None


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The FLOPs of a request under one setting, for a user whose histories are full.

    Attributes:
        variant: the transfer setting.
        flops: the FLOPs of the parts of a request.
        lengths: how many behaviours the long and the short history then have.
    """

    variant: str
    flops: Flops
    lengths: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Encoders:
    """The encoders that the models of some days are bound to.

    Attributes:
        weeks: the encoders, oldest week first.
        costs: what a request costs under each setting by which the days were served.
    """

    weeks: tuple[Week, ...]
    costs: tuple[Cost, ...]


def encoders_of(
    session: Session,
    active: Mapping[tuple[str, date], Mapping[str, Any]],
    variants: Sequence[str],
    days: Sequence[date],
) -> Encoders | None:
    """Gathers the encoders that the active models of some days are bound to; None if no setting reads one."""
    bound = {
        name
        for day in days
        for variant in variants
        if (row := active.get((variant, day)))
        for name in of_role(row["parents"], "encoder").values()
    }
    if not bound:
        return None
    releases = session.reader.releases()
    weeks = []
    for name in sorted(bound, key=lambda name: releases[name]["period"]):
        metrics = dict(releases[name]["metrics"])
        weeks.append(
            Week(
                period=releases[name]["period"],
                release_id=name,
                hit_rate=metrics.get(HIT),
                auc=metrics.get(AUC),
                loss=metrics.get("train_loss"),
            )
        )
    newest = {variant: active[variant, day] for day in sorted(days) for variant in variants if (variant, day) in active}
    return Encoders(weeks=tuple(weeks), costs=tuple(_cost(session, row) for row in newest.values()))


def _cost(session: Session, row: Mapping[str, Any]) -> Cost:
    scorer = open_released(session, session.open_release(dict(row)))
    long, short = scorer.lengths
    return Cost(
        variant=row["variant"], flops=flops_of(scorer.model.eval(), long=long, short=short), lengths=scorer.lengths
    )
