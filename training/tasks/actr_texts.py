"""The vectors of behaviour texts that an A-CTR reads: those of a BAHE and of its predecessors."""

from __future__ import annotations

from datetime import date, timedelta

from contracts.periods import ONE_DAY
from contracts.releases import DEFAULT_VARIANT, VECTORS_FILE, Release
from contracts.transfer import TEXT_VECTOR_DAYS, TRANSFER_SETTINGS
from lake.run_folders import Run
from training.data.vectors import VECTOR_ENTITIES, DatedVectors, read_vectors
from training.modules.transfer import TextVectors
from training.tasks.bahe import BAHE, chain
from training.tasks.session import Session


def text_vectors(session: Session, release: Release, newest: Run | None, rows_from: date) -> TextVectors | None:
    """Reads the user and item vectors of a BAHE and its predecessors, as far back as rows from a day on may look.

    None where the release's setting reads no texts; no vector at all where there is no BAHE yet.
    """
    if not TRANSFER_SETTINGS[release.variant].texts:
        return None
    runs = chain(session, newest, rows_from - timedelta(days=TEXT_VECTOR_DAYS)) if newest else []
    found = {run.release.period.toordinal(): read_vectors(run.folder / VECTORS_FILE, run.release.dims) for run in runs}
    dim = newest.release.dims["user"] if newest else session.recipe.bahe.dims
    return TextVectors(
        {
            entity: DatedVectors.stack({day: vectors[entity] for day, vectors in found.items()}, dim)
            for entity in VECTOR_ENTITIES
        }
    )


def texts_of(session: Session, run: Run, day: date) -> Run | None:
    """The BAHE whose vectors an A-CTR reads when it scores a day: the one that serves the day before; None where that is not there."""
    if not TRANSFER_SETTINGS[run.release.variant].texts:
        return None
    row = session.reader.active(BAHE, DEFAULT_VARIANT, day - ONE_DAY)
    return session.open_release(row) if row else None
