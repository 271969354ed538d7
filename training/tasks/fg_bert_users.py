"""Vectors of the users who were active on a day, by the FG-BERT of the last closed week: inference only.

A user's vector is the mean of the encoder's output over the last behaviours up to the end of the day (ours). What A-CTR
reads of the encoder it encodes itself, at each request; these are for what looks users up: retrieval, segments,
neighbours.

Shapes: S users, P behaviours, E width.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from contracts.releases import (
    DEFAULT_VARIANT,
    HELD_OUT_FILE,
    MAPPING_FILE,
    MODEL_FILE,
    VECTORS_FILE,
    Release,
    parent_key,
)
from lake.progress import progress
from lake.run_folders import Run, finished
from training.data.batches import in_order
from training.data.behaviours import read_newest
from training.data.mapping import IdMapping
from training.data.sequences import EncodedSequences
from training.data.vectors import EntityVectors, write_vectors
from training.engine.checkpoint import save_weights
from training.engine.runs import Metric, write_held_out, write_run
from training.models.fg_bert import FgBert
from training.models.srp4ctr import mean_by_sequence
from training.tasks.fg_bert import open_fg_bert
from training.tasks.session import Session, say_finished

FG_BERT_USERS = "fg_bert_users"
_BATCH = 512  # How many users are encoded at a time.


def run_fg_bert_users(session: Session, day: date) -> Run:
    """Encodes and stages the users of a day.

    Raises:
        ParentMissing: the week's FG-BERT was not published, or the day's histories were not built.
    """
    period = session.period(FG_BERT_USERS, day)
    with session.training(FG_BERT_USERS, period):
        (parent,) = session.deployment.lineage.parents(FG_BERT_USERS, day)
        source = session.parent(f"{FG_BERT_USERS} {day}", parent, DEFAULT_VARIANT)
        release = Release(
            kind=FG_BERT_USERS,
            variant=DEFAULT_VARIANT,
            period=day,
            recipe={},
            feature_set=source.release.feature_set,
            parents={parent_key(parent.role, parent.kind, parent.period): source.release.release_id},
            inputs=session.inputs(["user_histories"], [day]),
        )
        run = finished(session.locations, release)
        if run:
            say_finished(run)
        run = run or _encode(session, release, source)
        session.stage(FG_BERT_USERS, period, [run])
        return run


def _encode(session: Session, release: Release, source: Run) -> Run:
    encoder, mapping = open_fg_bert(source)
    encoder.to(session.device).eval()
    behaviours = read_newest(session.reader, [release.period], session.deployment.day_timezone)
    begin, end = behaviours.offsets[:-1], behaviours.offsets[1:]
    used = end > begin
    columns = {name: behaviours.columns[name] for name in encoder.recipe.fields}
    sequences = EncodedSequences.of(
        columns, np.maximum(begin, end - encoder.recipe.length)[used], end[used], mapping=mapping, device=session.device
    )
    vectors = user_vectors(encoder, sequences).cpu().numpy()
    user_ids = behaviours.user_ids[used]

    def fill(folder: Path) -> dict[str, int]:
        save_weights({}, folder / MODEL_FILE)  # The encoder's weights belong to its own release.
        IdMapping.of_ids({"user_id": user_ids}).save(folder / MAPPING_FILE)
        write_held_out(folder / HELD_OUT_FILE, {})
        return write_vectors(folder / VECTORS_FILE, {"user": EntityVectors(ids=user_ids, vectors=vectors)})

    metrics = [
        Metric(metric="train_loss", split="train", value=None, row_cnt=0),
        Metric(metric="users", split="encoded", value=float(len(user_ids)), row_cnt=len(user_ids)),
        Metric(
            metric="behaviours_mean",
            split="encoded",
            row_cnt=len(user_ids),
            value=float((sequences.end_S - sequences.start_S).double().mean()) if len(user_ids) else None,
        ),
    ]
    return write_run(session.locations, release, metrics, fill)


@torch.no_grad()
def user_vectors(encoder: FgBert, sequences: EncodedSequences) -> Tensor:
    """Returns the mean of the encoder's output over each sequence, S x E."""
    parts = [torch.zeros(0, encoder.recipe.width, device=sequences.device)]
    with progress(total=len(sequences), description="encode users", unit="user") as bar:
        for index in in_order(len(sequences), _BATCH, sequences.device):
            parts.append(mean_by_sequence(encoder.encode(sequences.batch(index))))
            bar.update(len(index))
    return torch.cat(parts)
