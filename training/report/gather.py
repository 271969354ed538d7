"""What the report is of: scored rows, the releases behind them, and the days that are missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import numpy as np

from contracts.periods import ONE_DAY
from contracts.releases import of_role
from training.compare import Scored, read_scored
from training.report.drift import Moved, drift_of, restarted
from training.report.encoder import Encoders, encoders_of
from training.report.figures import Mask, slice_masks
from training.report.forgetting import Forgetting, score_older_days
from training.report.texts import TextDay, texts_of_days
from training.tasks.session import Session

NO_ROWS = Scored(
    days=np.zeros(0, "datetime64[D]"),
    event_ids=np.zeros(0, np.int64),
    user_ids=np.zeros(0, np.int64),
    clicks=np.zeros(0, np.int64),
    scores={},
)


@dataclass(frozen=True, kw_only=True)
class Served:
    """An active release, and who scored its day.

    Attributes:
        cpm: id of the CPM that it is bound to; None without one.
        scored_by: id of the model of the day before; None where the day was not scored.
        row_cnt: rows scored.
    """

    day: date
    variant: str
    release_id: str
    cpm: str | None
    restarted: bool
    scored_by: str | None
    row_cnt: int


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """All that the page shows, before a figure is taken.

    Attributes:
        source: where the logs come from.
        days: those asked for.
        variants: settings that scored rows; one that scored none on any day is in `silent`.
        scored: rows that all of `variants` scored.
        missing: days without scored rows, and why.
        slices: masks of the scored rows.
        forgetting: None where it was not asked for.
        encoders: the FG-BERTs that settings read; None where none does.
        texts: the BAHEs that settings read.
    """

    source: str
    days: tuple[date, ...]
    variants: tuple[str, ...]
    silent: tuple[str, ...]
    scored: Scored
    missing: tuple[tuple[date, str], ...]
    served: tuple[Served, ...]
    slices: Mapping[str, Mask]
    moved: tuple[Moved, ...]
    forgetting: Forgetting | None
    encoders: Encoders | None = None
    texts: tuple[TextDay, ...] = ()


def gather(session: Session, days: Sequence[date], *, forgetting_days: int) -> Gathered:
    """Reads the lake, and lets the models of the last `forgetting_days` days score older days."""
    reader, deployment = session.reader, session.deployment
    active = reader.active_releases("actr")
    served = _served(session, active, days)
    variants = tuple(name for name in deployment.variants if any(one.variant == name and one.row_cnt for one in served))
    scored = (
        read_scored(session.locations, reader, replace(deployment, variants=variants), days) if variants else NO_ROWS
    )
    released = tuple(name for name in deployment.variants if any(one.variant == name for one in served))
    of_models = (
        [day for day in days if any(one.day == day for one in served)][-forgetting_days:] if forgetting_days else []
    )
    return Gathered(
        source=deployment.source,
        days=tuple(days),
        variants=variants,
        silent=tuple(name for name in deployment.variants if name not in variants),
        scored=scored,
        missing=tuple(
            (day, _why_missing(session, variants, served, day)) for day in days if not len(scored.on(day).clicks)
        ),
        served=served,
        slices=slice_masks(reader, scored, days),
        moved=tuple(drift_of(reader, active, released, days)),
        forgetting=score_older_days(session, active, variants or released, of_models) if of_models else None,
        encoders=encoders_of(session, active, released, days),
        texts=texts_of_days(session, active, released, days),
    )


def _served(
    session: Session, active: Mapping[tuple[str, date], Mapping[str, Any]], days: Sequence[date]
) -> tuple[Served, ...]:
    rows = session.reader.read("predictions", columns=["ds", "release_id", "scored_by"], where={"ds": list(days)})
    groups = rows.group_by(["ds", "release_id", "scored_by"]).aggregate([([], "count_all")]).to_pylist()
    counts = {(row["ds"], row["release_id"]): (row["scored_by"], row["count_all"]) for row in groups}
    found, releases = [], session.reader.releases()
    for day in days:
        for variant in session.deployment.variants:
            if (row := active.get((variant, day))) is not None:
                cpm = next(iter(of_role(row["parents"], "pretrained").values()), None)
                scored_by, row_cnt = counts.get((day, row["release_id"]), (None, 0))
                found.append(
                    Served(
                        day=day,
                        variant=variant,
                        release_id=row["release_id"],
                        cpm=cpm,
                        restarted=restarted(row, releases),
                        scored_by=scored_by,
                        row_cnt=row_cnt,
                    )
                )
    return tuple(found)


def _why_missing(session: Session, variants: Sequence[str], served: Sequence[Served], day: date) -> str:
    of_day = {one.variant: one for one in served if one.day == day}
    absent = [name for name in (variants or session.deployment.variants) if name not in of_day]
    if absent:
        return f"no active release of {', '.join(absent)}"
    if day == session.deployment.actr_start:
        return f"the first day of the ad models: there is no model of {day - ONE_DAY} to score it"
    empty = [name for name in (variants or session.deployment.variants) if not of_day[name].row_cnt]
    return f"released, and {', '.join(empty)} scored no row" if empty else "no row that all settings scored"
