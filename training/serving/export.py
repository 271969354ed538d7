"""Writes an A-CTR as a folder that scores requests with torch only (`training/serving/scorer.py`).

What a release is bound to goes with it: the merged vectors of its CPM or the CPM itself, the encoder of its FG-BERT,
the newest vectors of BAHE.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from contracts.errors import BadInput
from contracts.features import (
    DWELL_BUCKETS,
    FEATURES,
    GAP_BUCKETS,
    HISTORY_DAYS,
    LOGS,
    SHORT_HISTORY_SECONDS,
    STATISTICS,
)
from contracts.periods import ONE_DAY
from lake.reader import LakeReader
from lake.run_folders import Run
from training.data.batches import LOG_COUNT_SCALE
from training.data.histories import HISTORY_FEATURES
from training.data.vectors import ID_COLUMN, VECTOR_ENTITIES
from training.recipes import body_of
from training.serving import scorer
from training.serving.program import RequestModel, exported, item_fields
from training.tasks.actr_build import Scorer
from training.tasks.actr_open import open_released
from training.tasks.actr_plan import FEATURE_SET
from training.tasks.actr_texts import texts_of
from training.tasks.session import Session

SCORER_FILE, PROGRAM_FILE, MODEL_FILE, WEIGHTS_FILE, EXAMPLE_FILE = (
    "scorer.py",
    "program.py",
    "model.json",
    "weights.pt",
    "example.json",
)
_LONG_SECONDS = HISTORY_DAYS * 86_400
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BEHAVIOUR_COLUMNS = ("event_ts", *HISTORY_FEATURES, "action", "dwell_seconds", "log")


def export(session: Session, run: Run, folder: Path) -> Path:
    """Writes the folder of a release; it must not be there.

    Raises:
        BadInput: the release is no A-CTR, or the folder is there.
    """
    if run.release.kind != "actr":
        raise BadInput("--release", "kind", expected="actr", found=run.release.kind)
    if folder.exists():
        raise BadInput(folder, "--out", expected="a folder that is not there yet", found="one that is")
    opened = open_released(session, run, texts=texts_of(session, run, run.release.period + ONE_DAY))
    if opened.model.texts is not None:
        opened.model.texts = opened.model.texts.newest()
    model = RequestModel(opened.model)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    temporary.mkdir(parents=True)
    try:
        (temporary / MODEL_FILE).write_text(json.dumps(_describe(session, run, opened, model), indent=1))
        program = exported(model)
        (temporary / PROGRAM_FILE).write_text(program.source)
        torch.save(program.weights | _ids_of(opened), temporary / WEIGHTS_FILE)
        shutil.copy(str(scorer.__file__), temporary / SCORER_FILE)
        example = next(requests(session.reader, run.release.period), None)
        if example:
            (temporary / EXAMPLE_FILE).write_text(json.dumps(example[1]))
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _describe(session: Session, run: Run, opened: Scorer, model: RequestModel) -> dict[str, Any]:
    """Returns what the scorer has to know of the program's inputs."""
    body, own = body_of(run.release), model.model
    described: dict[str, Any] = {
        "release": run.release.release_id,
        "day_timezone": session.deployment.day_timezone,
        "inputs": list(model.inputs(1, 1, 1)),
        "features": own.embeddings.names,
        "history_features": HISTORY_FEATURES,
        "behaviour_columns": _BEHAVIOUR_COLUMNS,
        "statistics": [s.columns for s in STATISTICS if s.impressions in opened.encoding.statistics],
        "rate_prior": opened.encoding.rate_prior,
        "log_count_scale": LOG_COUNT_SCALE,
        "histories": {
            "long": {"length": body.long_length, "seconds": _LONG_SECONDS},
            "short": {"length": body.short_length, "seconds": SHORT_HISTORY_SECONDS},
        },
        "transferred": {entity: ID_COLUMN[entity] if own.transfer.index else None for entity in VECTOR_ENTITIES},
        "texts": {entity: ID_COLUMN[entity] for entity in VECTOR_ENTITIES} if own.texts else {},
        "sequence": None,
    }
    if model.encoder is not None and opened.encoding.sequence is not None:
        described["sequence"] = {
            "fields": model.encoder.fields,
            "item_fields": item_fields(model.encoder),
            "dwell_buckets": DWELL_BUCKETS,
            "gap_buckets": GAP_BUCKETS,
            "logs": LOGS,
            "length": min(body.long_length, opened.encoding.sequence.length),
            "seconds": _LONG_SECONDS,
        }
    return described


def _ids_of(opened: Scorer) -> dict[str, Tensor]:
    """Returns the ids of each of the program's tables in the order of their rows; the first has the row after the shared one."""
    encoding, model = opened.encoding, opened.model
    found: dict[str, Any] = {name: field.ids for name, field in encoding.mapping.fields.items()}
    found |= {f"transferred.{entity}": index.ids for entity, index in model.transfer.index.items()}
    if model.texts is not None:
        found |= {f"texts.{entity}": dated.ids for entity, dated in model.texts.vectors.items()}
    if encoding.sequence is not None:
        found |= {f"encoder.{name}": field.ids for name, field in encoding.sequence.mapping.fields.items()}
    return {f"ids.{name}": torch.from_numpy(ids) for name, ids in found.items()}


def requests(reader: LakeReader, day: date) -> Iterator[tuple[list[int], dict[str, Any]]]:
    """The requests of a day's ad samples as a scorer takes them, each with its candidates' event ids, in order of time."""
    names = [feature.name for feature in FEATURES if feature.name in FEATURE_SET]
    counts = [name for name in FEATURE_SET if name not in names]
    rows = reader.read(
        "ad_samples", columns=["event_id", "sample_ts", "history_end", *names, *counts], where={"ds": day}
    )
    rows = rows.sort_by([("sample_ts", "ascending"), ("user_id", "ascending"), ("event_id", "ascending")])
    sample_us = pc.cast(pc.cast(rows["sample_ts"], pa.timestamp("us", "UTC")), pa.int64()).to_numpy()
    user, end = rows["user_id"].to_numpy(), rows["history_end"].to_numpy()
    first = np.flatnonzero(
        (np.diff(sample_us, prepend=-1) != 0) | (np.diff(user, prepend=-1) != 0) | (np.diff(end, prepend=-1) != 0)
    )
    histories = {
        of["user_id"]: of["behaviours"]
        for of in reader.read("user_histories", columns=["user_id", "behaviours"], where={"ds": day}).to_pylist()
    }
    for begin, stop in zip(first, np.append(first[1:], len(rows)), strict=True):
        candidates = rows.slice(begin, stop - begin).to_pylist()
        seen = (histories.get(int(user[begin])) or [])[: int(end[begin])]
        yield (
            [one["event_id"] for one in candidates],
            {
                "request_ts": _text(_EPOCH + timedelta(microseconds=int(sample_us[begin]))),
                "context": {"user_id": int(user[begin])},
                "behaviours": [
                    {name: _text(of[name]) if name == "event_ts" else of[name] for name in _BEHAVIOUR_COLUMNS}
                    for of in seen
                ],
                "candidates": [
                    {name: one[name] for name in [*names, *counts] if name != "user_id"} for one in candidates
                ],
            },
        )


def _text(time: datetime) -> str:
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).isoformat()


def latencies(
    folder: Path, request: Mapping[str, Any], *, counts: tuple[int, ...] = (1, 10, 100), repeat: int = 30
) -> dict[int, float]:
    """Returns the median milliseconds of a request with so many candidates, repeated from its own, in one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        opened = scorer.Scorer(folder)
        own = request["candidates"]
        return {
            count: scorer.milliseconds(opened, {**request, "candidates": (own * count)[:count]}, repeat)
            for count in counts
        }
    finally:
        torch.set_num_threads(threads)
