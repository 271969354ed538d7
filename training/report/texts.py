"""The BAHEs behind the ad models of a report: how well each predicts ads by itself, and how many texts it could read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from contracts.releases import of_role
from training.tasks.session import Session


@dataclass(frozen=True, kw_only=True)
class TextDay:
    """A BAHE whose vectors an ad model of these days reads.

    Attributes:
        period: its day.
        auc, gauc, logloss: on the day's ads before it was trained on them; None of the first one.
        with_vector: share of the texts that it met which the table had a vector of.
        unknown: texts that it could not read.
    """

    period: date
    release_id: str
    auc: float | None
    gauc: float | None
    logloss: float | None
    with_vector: float | None
    unknown: float | None


def texts_of_days(
    session: Session,
    active: Mapping[tuple[str, date], Mapping[str, Any]],
    variants: Sequence[str],
    days: Sequence[date],
) -> tuple[TextDay, ...]:
    """Oldest first; none where no setting reads one."""
    bound = {
        name
        for day in days
        for variant in variants
        if (row := active.get((variant, day)))
        for name in of_role(row["parents"], "texts").values()
    }
    releases = session.reader.releases() if bound else {}
    found = []
    for name in sorted(bound, key=lambda name: releases[name]["period"]):
        metrics = dict(releases[name]["metrics"])
        found.append(
            TextDay(
                period=releases[name]["period"],
                release_id=name,
                auc=metrics.get("next_day_auc"),
                gauc=metrics.get("next_day_gauc"),
                logloss=metrics.get("next_day_logloss"),
                with_vector=metrics.get("texts_with_vector"),
                unknown=metrics.get("texts_unknown"),
            )
        )
    return tuple(found)
