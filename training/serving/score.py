"""Scores a day's ad samples with any released A-CTR: what `tributary training actr` does with that of the day before."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

from contracts.commands import table_text
from contracts.errors import BadInput
from lake.metrics import evaluate, figure_text
from lake.run_folders import Run
from training.data.samples import read_day
from training.engine.loop import prepare_process, score
from training.engine.runs import write_predictions
from training.tasks.actr import predictions_of
from training.tasks.actr_open import columns_of, open_released
from training.tasks.actr_texts import texts_of
from training.tasks.session import Session


def score_day(session: Session, run: Run, day: date) -> Path:
    """Writes the scores of a day and prints their metrics; samples that see the same behaviours share one encoded sequence.

    Raises:
        BadInput: the release is no A-CTR.
        ParentMissing: the day's samples or histories were not built.
    """
    if run.release.kind != "actr":
        raise BadInput("--release", "kind", expected="actr", found=run.release.kind)
    if day <= run.release.period:
        print(
            f"{run.release.release_id} was trained on days up to {run.release.period}: its scores of {day} are not of unseen rows"
        )
    session.inputs(["ad_samples", "user_histories"], [day])
    prepare_process(session.threads)
    opened = open_released(session, run, rows_from=day, texts=texts_of(session, run, day))
    samples = read_day(
        session.reader, day, columns_of(session, "ad", opened.lengths, encoded=opened.encoding.sequence is not None)
    )
    scores = score(opened.model, opened.encode(session, samples))
    path = session.locations.scores(day, run.release.release_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}")
    write_predictions(temporary, predictions_of(samples, scores, scored_by=run.release.release_id, day=day))
    temporary.replace(path)
    found = evaluate(scores, samples.click, samples.user_id)
    print(
        table_text(
            ("figure", "value"),
            [
                ("rows", str(len(samples))),
                *((name, figure_text(value, ".5f")) for name, value in sorted(found.items()) if value is not None),
            ],
        )
    )
    return path
