"""Opens a finished A-CTR with the models that its release names, and the columns of samples that it reads."""

from __future__ import annotations

from datetime import date

from contracts.features import Log
from contracts.kinds import BOUND_KINDS
from contracts.periods import ONE_DAY
from contracts.releases import MAPPING_FILE, MODEL_FILE
from lake.run_folders import Run
from training.data.mapping import IdMapping
from training.data.samples import Columns
from training.engine.checkpoint import read_weights
from training.models.ctr import load_weights
from training.tasks.actr_build import Scorer, build_scorer
from training.tasks.actr_plan import FEATURE_SET, bound_to, categorical_of
from training.tasks.actr_texts import text_vectors
from training.tasks.session import Session


def open_released(session: Session, run: Run, *, rows_from: date | None = None, texts: Run | None = None) -> Scorer:
    """A finished A-CTR, with the models that its release names.

    Args:
        session: the training session that opens tables and run folders.
        run: the run of the A-CTR.
        rows_from: the first day whose rows it is to score; by default the day after its own.
        texts: the BAHE whose vectors it reads; by default the one that it was trained with.
    """
    mapping = IdMapping.load(run.folder / MAPPING_FILE, categorical_of(run.release))
    cpm, encoder, own = (
        session.release(name) if name else None for name in (bound_to(run, role) for role in (*BOUND_KINDS, "texts"))
    )
    vectors = text_vectors(session, run.release, texts or own, rows_from or run.release.period + ONE_DAY)
    scorer = build_scorer(session, run.release, mapping, cpm, encoder, vectors)
    load_weights(scorer.model, read_weights(run.folder / MODEL_FILE))
    return scorer


def columns_of(session: Session, log: Log, lengths: tuple[int, int], *, encoded: bool) -> Columns:
    """What an ad model reads of samples: histories of these lengths, with all that a sequence encoder reads of them if there is one."""
    return Columns(
        log=log, names=FEATURE_SET, histories=lengths, zone=session.deployment.day_timezone if encoded else None
    )
