"""Writes an A-CTR as a folder that scores requests with torch alone (`training/serving/scorer.py`).

What a release is bound to goes with it: the merged vectors of its CPM, the encoder of its FG-BERT, the newest vectors of BAHE.
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
from contracts.features import DWELL_BUCKETS, FEATURES, GAP_BUCKETS, HISTORY_DAYS, LOGS, SHORT_HISTORY_SECONDS, STATISTICS
from contracts.periods import ONE_DAY
from lake.reader import LakeReader
from lake.run_folders import Run
from training.data.batches import LOG_COUNT_SCALE
from training.data.histories import HISTORY_FEATURES
from training.data.mapping import IdMapping
from training.data.sequences import FIELDS_OF_SIDE
from training.data.vectors import ID_COLUMN, VECTOR_ENTITIES
from training.models.adapted import AdaptedCtrModel
from training.models.srp4ctr import Bridge
from training.modules.interaction import BatchNorm
from training.modules.transfer import MergedTable
from training.recipes import body_of
from training.serving import scorer
from training.tasks.actr_build import Scorer
from training.tasks.actr_open import open_released
from training.tasks.actr_plan import FEATURE_SET
from training.tasks.actr_texts import texts_of
from training.tasks.session import Session

SCORER_FILE, MODEL_FILE, WEIGHTS_FILE, EXAMPLE_FILE = "scorer.py", "model.json", "weights.pt", "example.json"
_LONG_SECONDS = HISTORY_DAYS * 86_400
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BEHAVIOUR_COLUMNS = ("event_ts", *HISTORY_FEATURES, "action", "dwell_seconds", "log")


def export(session: Session, run: Run, folder: Path) -> Path:
    """Writes the folder of a release; it must not be there.

    Raises:
        BadInput: the release is no A-CTR, its setting keeps a second network beside it, or the folder is there.
    """
    if run.release.kind != "actr":
        raise BadInput("--release", "kind", expected="actr", found=run.release.kind)
    if folder.exists():
        raise BadInput(folder, "--out", expected="a folder that is not there yet", found="one that is")
    opened = open_released(session, run, texts=texts_of(session, run, run.release.period + ONE_DAY))
    if isinstance(opened.model, AdaptedCtrModel):
        raise BadInput("--release", "variant", expected="a setting without adapters", found=run.release.variant,
                       hint="Its source model would have to be served beside it.")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    temporary.mkdir(parents=True)
    try:
        description, weights = _describe(session, run, opened)
        (temporary / MODEL_FILE).write_text(json.dumps(description, indent=1))
        torch.save(weights, temporary / WEIGHTS_FILE)
        shutil.copy(str(scorer.__file__), temporary / SCORER_FILE)
        example = next(requests(session.reader, run.release.period), None)
        if example:
            (temporary / EXAMPLE_FILE).write_text(json.dumps(example[1]))
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _describe(session: Session, run: Run, opened: Scorer) -> tuple[dict[str, Any], dict[str, Tensor]]:
    model, body = opened.model.eval(), body_of(run.release)
    names = sorted(model.embeddings.names, key=lambda name: model.embeddings.columns(name).start)
    statistics = [s.columns for s in STATISTICS if s.impressions in opened.encoding.statistics]
    weights = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()
               if not name.startswith("bridge.encoder.") and not name.endswith((".square", "num_batches_tracked"))}
    weights |= _ids(opened.encoding.mapping, "")
    transferred = {}
    if isinstance(model.transfer, MergedTable):
        for entity in VECTOR_ENTITIES:
            transferred[entity] = ID_COLUMN[entity]
            weights[f"transfer.{entity}"] = model.transfer.get_buffer(entity).cpu()
            weights[f"ids.transfer.{entity}"] = torch.from_numpy(model.transfer.index[entity].ids)
    if model.texts is not None:
        for entity, dated in model.texts.vectors.items():
            newest = dated.newest()
            weights[f"texts.{entity}"] = model.texts.read(newest.vectors)
            weights[f"ids.texts.{entity}"] = torch.from_numpy(newest.ids)
    norms = {module.eps for module in model.mlp if isinstance(module, BatchNorm)}
    assert len(norms) == 1, "one epsilon"
    description = {
        "release": run.release.release_id, "day_timezone": session.deployment.day_timezone, "features": names,
        "history_features": HISTORY_FEATURES, "behaviour_columns": _BEHAVIOUR_COLUMNS, "statistics": statistics,
        "rate_prior": opened.encoding.rate_prior, "log_count_scale": LOG_COUNT_SCALE,
        "histories": {"long": {"length": body.long_length, "seconds": _LONG_SECONDS},
                      "short": {"length": body.short_length, "seconds": SHORT_HISTORY_SECONDS}},
        "attention_layers": len(body.attention_hidden), "cross_layers": body.cross_layers, "hidden_layers": len(body.hidden),
        "batch_norm_epsilon": norms.pop(), "transferred": transferred, "transfer_width": model.transfer.width, "bridge": None,
        "texts": {entity: ID_COLUMN[entity] for entity in VECTOR_ENTITIES} if model.texts is not None else {},
    }
    if model.bridge is not None and opened.encoding.sequence is not None:
        described, of_encoder = _bridge(model.bridge, opened.encoding.sequence.mapping)
        description["bridge"] = described | {"length": min(body.long_length, opened.encoding.sequence.length), "seconds": _LONG_SECONDS}
        weights |= of_encoder
    return description, weights


def _bridge(bridge: Bridge, mapping: IdMapping) -> tuple[dict[str, Any], dict[str, Tensor]]:
    encoder, recipe = bridge.network, bridge.network.recipe
    weights = {f"encoder.{name}": tensor.detach().cpu().clone() for name, tensor in encoder.state_dict().items()
               if not name.startswith(("heads.", "biases.", "masked."))}
    described = {"layers": recipe.layers, "heads": recipe.heads, "causal": recipe.objective == "sasrec",
                 "queries": 0 if bridge.querying is None else len(bridge.querying.queries),
                 **{f"{side}_fields": [name for name in names if name in recipe.fields] for side, names in FIELDS_OF_SIDE.items()},
                 "dwell_buckets": DWELL_BUCKETS, "gap_buckets": GAP_BUCKETS, "logs": LOGS}
    return described, weights | _ids(mapping, "encoder.")


def _ids(mapping: IdMapping, prefix: str) -> dict[str, Tensor]:
    """Ids by the order of their rows; the first has the row after the shared one."""
    return {f"ids.{prefix}{name}": torch.tensor(field.ids) for name, field in mapping.fields.items()}


def requests(reader: LakeReader, day: date) -> Iterator[tuple[list[int], dict[str, Any]]]:
    """The requests of a day's ad samples as a scorer takes them, each with its candidates' event ids, in order of time."""
    names = [feature.name for feature in FEATURES if feature.name in FEATURE_SET]
    counts = [name for name in FEATURE_SET if name not in names]
    rows = reader.read("ad_samples", columns=["event_id", "sample_ts", "history_end", *names, *counts],
                       where={"ds": day})
    rows = rows.sort_by([("sample_ts", "ascending"), ("user_id", "ascending"), ("event_id", "ascending")])
    sample_us = pc.cast(pc.cast(rows["sample_ts"], pa.timestamp("us", "UTC")), pa.int64()).to_numpy()
    user, end = rows["user_id"].to_numpy(), rows["history_end"].to_numpy()
    first = np.flatnonzero((np.diff(sample_us, prepend=-1) != 0) | (np.diff(user, prepend=-1) != 0) | (np.diff(end, prepend=-1) != 0))
    histories = {of["user_id"]: of["behaviours"] for of in
                 reader.read("user_histories", columns=["user_id", "behaviours"], where={"ds": day}).to_pylist()}
    for begin, stop in zip(first, np.append(first[1:], len(rows)), strict=True):
        candidates = rows.slice(begin, stop - begin).to_pylist()
        seen = (histories.get(int(user[begin])) or [])[:int(end[begin])]
        yield [one["event_id"] for one in candidates], {
            "request_ts": _text(_EPOCH + timedelta(microseconds=int(sample_us[begin]))),
            "context": {"user_id": int(user[begin])},
            "behaviours": [{name: _text(of[name]) if name == "event_ts" else of[name] for name in _BEHAVIOUR_COLUMNS} for of in seen],
            "candidates": [{name: one[name] for name in [*names, *counts] if name != "user_id"} for one in candidates],
        }


def _text(time: datetime) -> str:
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).isoformat()


def latencies(folder: Path, request: Mapping[str, Any], *, counts: tuple[int, ...] = (1, 10, 100), repeat: int = 30) -> dict[int, float]:
    """Median milliseconds of a request with so many candidates, the request's own over and over; one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        opened = scorer.Scorer(folder)
        own = request["candidates"]
        return {count: scorer.milliseconds(opened, {**request, "candidates": (own * count)[:count]}, repeat) for count in counts}
    finally:
        torch.set_num_threads(threads)
