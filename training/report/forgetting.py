"""What a model still knows of older days: the released model of day d scores the ad rows of d, d-7, d-14 and d-28.

This is an evaluation, and no part of a model: it reads released run folders and changes no release. A model has trained
on most of those rows, itself or through its predecessors, so its figures on them are too good. Held-out requests are in no
training of any model, so the main curve is that of the held-out rows. The curve of all rows is shown next to it, under
that name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from contracts.errors import TributaryError
from contracts.tables import owner_key
from lake.progress import each
from training.compare import Scored, joined_scores
from training.data.samples import Samples, read_day
from training.engine.loop import prepare_process, score
from training.tasks.actr_build import Scorer
from training.tasks.actr_open import columns_of, open_released
from training.tasks.session import Session

AGES = (0, 7, 14, 28)


@dataclass(frozen=True, kw_only=True)
class Remembered:
    """Rows that are `age` days older than the models that scored them.

    Attributes:
        age: how many days older.
        scored: the rows of all models together; a row is scored by one model of each setting.
        held_out: whether each row is in no training, N.
        models: the days whose models scored the rows.
    """

    age: int
    scored: Scored
    held_out: NDArray[np.bool_]
    models: int


@dataclass(frozen=True, kw_only=True)
class Forgetting:
    """The curve, youngest rows first, and why models are not in it."""

    ages: tuple[Remembered, ...]
    left_out: tuple[str, ...]


def score_older_days(
    session: Session,
    active: Mapping[tuple[str, date], Mapping[str, Any]],
    variants: Sequence[str],
    days: Sequence[date],
) -> Forgetting:
    """Scores older days with the models of these days, all settings on the same rows; an older day that was not built is left out."""
    prepare_process(session.threads)
    earliest = session.deployment.ad_start or session.deployment.history_start
    wanted = sorted({older for day in days for older in _older(day) if older >= earliest})
    built = [
        set(session.reader.builds(table, [owner_key(ds=day) for day in wanted]))
        for table in ("ad_samples", "user_histories")
    ]
    there = {day for day in wanted if all(owner_key(ds=day) in owners for owners in built)}
    parts: dict[int, list[pa.Table]] = {age: [] for age in AGES}
    left_out: list[str] = []
    samples: dict[tuple[date, tuple[int, int]], Samples] = {}
    for day in each(days, description="score older days", unit="model day"):
        try:
            scorers = {
                variant: open_released(
                    session, session.open_release(dict(active[variant, day])), rows_from=_older(day)[-1]
                )
                for variant in variants
            }
        except KeyError as absent:
            left_out.append(f"{day}: no active release of {absent.args[0][0]}")
            continue
        except TributaryError as error:  # its files are gone, or another version of the code made them
            left_out.append(f"{day}: {error}")
            continue
        for age, older in zip(AGES, _older(day), strict=True):
            if older in there:
                parts[age].append(_score(session, older, scorers, samples))
        for key in [key for key in samples if key[0] < day - timedelta(days=max(AGES))]:
            del samples[key]
    return Forgetting(
        ages=tuple(_remembered(session, age, tables) for age, tables in parts.items() if tables),
        left_out=tuple(left_out),
    )


def _older(day: date) -> list[date]:
    return [day - timedelta(days=age) for age in AGES]


def _score(
    session: Session, day: date, scorers: Mapping[str, Scorer], read: dict[tuple[date, tuple[int, int]], Samples]
) -> pa.Table:
    """One older day, scored by the models of one day."""
    columns: dict[str, Any] = {}
    encoded = any(scorer.encoding.sequence for scorer in scorers.values())
    for variant, scorer in scorers.items():
        lengths = scorer.lengths
        if (day, lengths) not in read:
            read[day, lengths] = read_day(session.reader, day, columns_of(session, "ad", lengths, encoded=encoded))
        columns[variant] = score(scorer.model, scorer.encode(session, read[day, lengths]))
    rows = read[day, lengths]
    return pa.table(
        {
            "ds": pa.array([day] * len(rows), pa.date32()),
            "event_id": rows.event_id,
            "user_id": rows.user_id,
            "click": rows.click,
            "held_out": rows.held_out,
            **columns,
        }
    )


def _remembered(session: Session, age: int, tables: Sequence[pa.Table]) -> Remembered:
    rows = pa.concat_tables(tables)
    days = sorted(set(rows["ds"].to_pylist()))
    held_out = set(rows.filter(rows["held_out"])["event_id"].to_pylist())
    names = [name for name in rows.column_names if name not in ("ds", "event_id", "user_id", "click", "held_out")]
    scored = joined_scores(session.locations, rows.drop_columns(["held_out"]), names, days)
    return Remembered(
        age=age,
        scored=scored,
        held_out=np.array([event in held_out for event in scored.event_ids.tolist()], bool),
        models=len(tables),
    )
