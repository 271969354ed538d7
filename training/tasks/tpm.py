"""Trains TPM on one closed month, continuing from the month before; its user and item tables are the month's snapshot."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from contracts.errors import BadInput
from contracts.features import TPM, features_of
from contracts.periods import Period
from contracts.releases import HELD_OUT_FILE, MAPPING_FILE, MODEL_FILE, VECTORS_FILE, Release
from lake.run_folders import Run
from training.data.batches import Encoding
from training.data.mapping import IdMapping
from training.data.samples import Columns, Samples, read_days
from training.data.vectors import own_vectors, write_vectors
from training.engine.checkpoint import read_weights, save_weights
from training.engine.loop import score, train
from training.engine.runs import write_run
from training.models.build import build_tpm
from training.models.ctr import load_weights
from training.recipes import as_json
from training.tasks.continued import Continued, run_continued
from training.tasks.session import HeldOut, Session, train_metrics

FEATURE_SET = tuple(feature.name for feature in features_of(TPM))


def run_tpm(session: Session, start: date) -> Run:
    """Trains and stages the TPM of the month that begins on `start`.

    Raises:
        ParentMissing: the month before was not published, or a day's samples were not built.
    """

    def make(continued: Continued) -> Run:
        samples = Samples.concat(
            list(read_days(session.reader, continued.days, Columns(log="natural", names=FEATURE_SET)).values())
        )
        return _train(session, continued.release, continued.period, samples, continued.predecessor)

    return run_continued(
        session,
        TPM,
        start,
        recipe=as_json(session.recipe.tpm),
        tables=["natural_samples"],
        feature_set=FEATURE_SET,
        make=make,
    )


def _train(session: Session, release: Release, period: Period, samples: Samples, predecessor: Run | None) -> Run:
    rows = samples.trainable()
    if len(rows) < 2:
        raise BadInput("natural_samples", str(period), expected="at least two rows to train on", found=len(rows))
    recipe = session.recipe.tpm
    before = (
        IdMapping.load(predecessor.folder / MAPPING_FILE, FEATURE_SET) if predecessor else IdMapping.empty(FEATURE_SET)
    )
    mapping, carried = before.grown(rows.seen(FEATURE_SET), FEATURE_SET, recipe.admission)
    model = build_tpm(recipe, mapping, session.device)
    if predecessor:
        load_weights(model, read_weights(predecessor.folder / MODEL_FILE), carried=carried)
    encoding = Encoding(mapping=mapping, transfer={})
    with session.supervised(release) as supervision:
        fitted = train(
            model,
            encoding.encode(rows, session.device),
            recipe.train,
            seed=f"{recipe.seed}/{release.period}",
            description=f"tpm {release.period}",
            supervision=supervision,
        )
    held_out = samples.select(samples.held_out)
    judged = HeldOut(samples=held_out, scores=score(model, encoding.encode(held_out, session.device)))
    metrics = train_metrics(fitted) + judged.metrics
    state = model.state_dict()

    def fill(folder: Path) -> dict[str, int]:
        save_weights(state, folder / MODEL_FILE)
        mapping.save(folder / MAPPING_FILE)
        judged.write(folder / HELD_OUT_FILE)
        return write_vectors(folder / VECTORS_FILE, own_vectors(mapping, state))

    return write_run(session.locations, release, metrics, fill)
