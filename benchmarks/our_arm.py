"""Tributary's engine on the rows of the comparison: the loop, the encoding and the modules that the tasks use."""

import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.rivals.common import (
    ATTENTION,
    BATCH,
    DIM,
    FLAT,
    ID_ROWS,
    LEARNING_RATE,
    MLP,
    TEST_OF,
    THREADS,
    Recorder,
    options,
    random_ids,
)
from training import native
from training.data.batches import Batch, Encoding
from training.data.histories import HISTORY_FEATURES, HistorySlices
from training.data.mapping import IdMapping
from training.data.samples import Samples
from training.engine.loop import Supervision, prepare_process, score, train
from training.models.tpm import TpmModel
from training.modules.attention import TargetAttention
from training.modules.embedding import IdEmbeddings
from training.modules.interaction import relu_mlp
from training.modules.trainable import Trainable
from training.recipes import Admission, Phase

# Chosen by AUC after one and three epochs on the last tenth of the training rows (split `fit` against `valid`);
# docs/experiments.md.
EMBEDDING_RATE = {"dnn": 0.8, "din": 0.2, "ids": 0.1}
NAMES = tuple({"genre": "category_id"}.get(name, name) for name in FLAT)


class Din(Trainable):
    """DIN (arXiv 1706.06978) and nothing else: features, one history, an MLP."""

    def __init__(self, embeddings: IdEmbeddings) -> None:
        super().__init__()
        self.embeddings = embeddings
        self._token = [embeddings.columns(name) for name in HISTORY_FEATURES]
        self.attention = TargetAttention(2 * DIM, ATTENTION)
        self.mlp = relu_mlp(embeddings.width + 2 * DIM, MLP)

    def forward(self, batch: Batch) -> Tensor:
        """Logits, B."""
        assert batch.long is not None
        own_BD, parts = self.embeddings(batch.rows_BF, [(name, batch.long.rows[name]) for name in HISTORY_FEATURES])
        query_BE = torch.cat([own_BD[:, columns] for columns in self._token], dim=1)
        logits_B1: Tensor = self.mlp(torch.cat([own_BD, self.attention(query_BE, parts, batch.long.offsets)], dim=1))
        return logits_B1.squeeze(1)

    def loss(self, logits_B: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {"logloss": functional.binary_cross_entropy_with_logits(logits_B, batch.label_B)}


def samples_of(features: dict[str, np.ndarray], labels: np.ndarray, histories: HistorySlices | None = None) -> Samples:
    """Rows as the lake would give them; every row its own event and user (only the mapping's features are read)."""
    place = np.arange(len(labels))
    return Samples(
        day=np.ones(len(labels), np.int64),
        event_id=place,
        user_id=place,
        click=labels.astype(np.int64),
        held_out=np.zeros(len(labels), bool),
        features=features,
        statistics={},
        histories=histories,
    )


def read(folder: Path, split: str, *, with_histories: bool) -> Samples:
    """A split, its histories as ranges of the users' behaviours."""
    table = pq.read_table(
        folder / f"{split}.parquet", columns=["label", *FLAT, *(["start", "end"] if with_histories else [])]
    )
    features = {name: table[column].to_numpy().astype(np.int64) for name, column in zip(NAMES, FLAT, strict=True)}
    histories = None
    if with_histories:
        behaviours = pq.read_table(folder / "behaviours.parquet")
        items, categories = (behaviours[name].to_numpy().astype(np.int64) for name in ("item_id", "genre"))
        start, end = (table[name].to_numpy() for name in ("start", "end"))
        histories = HistorySlices(item_ids=items, category_ids=categories, long_start=start, short_start=start, end=end)
    return samples_of(features, table["label"].to_numpy(), histories)


def run(kind: str, folder: Path, split: str, *, epochs: int, seed: int, rate: float) -> Recorder:
    """Trains a model; a recorder with the seconds of each epoch, the making of its batches included, and the AUC after it."""
    if kind == "ids":
        columns, labels = random_ids(seed, ID_ROWS[split])
        began = time.perf_counter()  # the mapping of random ids is part of their epoch
        rows, held = samples_of(dict(columns), labels), None
    else:
        rows, held = (read(folder, name, with_histories=kind == "din") for name in (split, TEST_OF[split]))
        began = time.perf_counter()
    names = tuple(rows.features)
    mapping, _ = IdMapping.empty(names).grown(rows.seen(names), names, Admission(sightings=1))
    encoding = Encoding(mapping=mapping, transfer={}, histories=("long",))
    encoded = encoding.encode(rows)
    encoded_held = None if held is None else encoding.encode(held)
    mapping_seconds = time.perf_counter() - began
    torch.manual_seed(seed)
    embeddings = IdEmbeddings(mapping.row_cnts(), dict.fromkeys(names, DIM), seed=seed)
    model = Din(embeddings) if kind == "din" else TpmModel(embeddings, MLP)
    recorder = Recorder(len(rows), mapping_seconds=mapping_seconds, vectors=native.vectors())
    clock = [time.perf_counter() - (mapping_seconds if kind == "ids" else 0.0)]

    def after_epoch() -> None:
        seconds = time.perf_counter() - clock[0]
        recorder.epoch(
            seconds,
            *((held.click, score(model, encoded_held)) if held is not None and encoded_held is not None else ()),
        )
        clock[0] = time.perf_counter()

    phase = Phase(epochs=epochs, batch_size=BATCH, learning_rate=LEARNING_RATE, embedding_learning_rate=rate)
    train(model, encoded, phase, seed=seed, description=kind, supervision=Supervision(after_epoch=after_epoch))
    return recorder


if __name__ == "__main__":
    asked = options()
    prepare_process(THREADS)
    run(
        asked.model, asked.data, asked.split, epochs=asked.epochs, seed=asked.seed, rate=EMBEDDING_RATE[asked.model]
    ).done()
