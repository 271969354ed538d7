"""One arm of the comparison on MovieLens-1M: a CTR model on rows of requests, with or without a pre-trained sequence encoder.

All arms share rows, order, features, id embeddings, MLP, batches and epochs; they differ in what they read of the
history. A batch holds whole requests (ratings of one user in one second share their history), so that a sequence is
encoded once for all its candidates.

Shapes: R rows of a batch, G requests, E width, L behaviours of the longest history.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.our_arm import EMBEDDING_RATE, Din, read
from benchmarks.rivals.common import DIM, HISTORY, LEARNING_RATE, MLP, TEST_OF
from lake.metrics import auc
from training.data.batches import Batch, EncodedSamples, Encoding
from training.data.codes import gap_codes
from training.data.mapping import Coded, IdMapping, Seen
from training.data.ranges import ranges
from training.data.samples import Samples
from training.data.sequences import FIELDS_OF_SIDE, ID_FIELDS, EncodedSequences, SequenceInput, sequence_batch
from training.engine.checkpoint import read_weights, save_weights
from training.engine.loop import Rows, Supervision, prepare_process, train
from training.models.fg_bert import FgBert, masks_of
from training.models.srp4ctr import Bridge
from training.modules.embedding import IdEmbeddings
from training.modules.interaction import relu_mlp
from training.modules.segments import Segments
from training.modules.trainable import Trainable
from training.modules.transformer import EncoderLayer, Width
from training.recipes import Admission, DecayingPhase, FgBertRecipe, Phase

FIELDS = ("item_id", "category_id", "action", "gap", "hour")
ID_ONLY = ("item_id",)
PRETRAINING = {
    name: FgBertRecipe(
        objective=name,
        fields=FIELDS if name == "fg_bert" else ID_ONLY,
        length=HISTORY,
        train=DecayingPhase(epochs=12, batch_size=64, learning_rate=3e-3),
    )
    for name in ("fg_bert", "bert4rec", "sasrec")
}
TAIL_SHARE = 0.2  # of the items, those with the fewest training rows
REQUESTS = 1354  # of a batch: with three rows each, about the 4,096 rows of the other libraries


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What an arm reads of the history.

    Attributes:
        pretrained: the objective by which its encoder was trained; None if it has no encoder.
        learned, cross, queries: the settings of its `Bridge`.
        embedding_rate: the learning rate of the id embeddings, chosen on `valid` by AUC after three epochs (docs/experiments.md).
    """

    pretrained: str | None = None
    learned: bool = True
    cross: bool = False
    queries: int = 0
    embedding_rate: float = EMBEDDING_RATE["dnn"]  # where the id embeddings are not those of the history


SRP4CTR = Setting(pretrained="fg_bert", cross=True, queries=8)
SETTINGS: dict[str, Setting] = {
    "din": Setting(embedding_rate=EMBEDDING_RATE["din"]),
    "bst": Setting(),
    "sasrec": Setting(pretrained="sasrec"),
    "bert4rec": Setting(pretrained="bert4rec"),
    "fg_bert": Setting(pretrained="fg_bert"),
    "srp4ctr": SRP4CTR,
    "without_cross_attention": replace(SRP4CTR, cross=False),
    "without_querying": replace(SRP4CTR, queries=0),
    "frozen": replace(SRP4CTR, learned=False),
}


@dataclass(frozen=True, kw_only=True)
class RequestBatch:
    """Rows of some requests, and the requests' histories."""

    rows: Batch
    history: SequenceInput

    @property
    def label_B(self) -> Tensor:
        return self.rows.label_B


@dataclass(frozen=True, kw_only=True)
class Requests:
    """What the engine trains on: requests, each with all its rows.

    Attributes:
        rows: all rows, those of a request next to each other.
        first: G + 1, of the rows.
        start_G, end_G: ranges of the histories.
        behaviours: rows by field, P.
        candidate: rows by item-side field, as the encoder maps them.
    """

    rows: EncodedSamples
    first: Tensor
    start_G: Tensor
    end_G: Tensor
    behaviours: Mapping[str, Tensor]
    candidate: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self.start_G)

    @property
    def device(self) -> torch.device:
        return self.start_G.device

    @property
    def day_N(self) -> Tensor:
        return torch.zeros(len(self), dtype=torch.int64)

    def at_epoch(self, epoch: int) -> Rows:
        return self

    def batch(self, index: Tensor) -> RequestBatch:
        """The requests of an index."""
        at_R, offsets = ranges(self.first[index], self.first[index + 1])
        of_R = torch.repeat_interleave(torch.arange(len(index)), offsets.diff(), output_size=len(at_R))
        behaviours, of_behaviours = ranges(self.start_G[index], self.end_G[index])
        return RequestBatch(
            rows=self.rows.batch(at_R),
            history=SequenceInput(
                sequences=sequence_batch(self.behaviours, behaviours, of_behaviours),
                of_B=of_R,
                candidate={name: values[at_R] for name, values in self.candidate.items()},
            ),
        )


class HistoryCtr(Trainable):
    """`MLP([features, history])`; SRP4CTR's head where the history is a `Bridge`.

    The history's columns of the first layer begin at zero: the model begins as one of only the features.
    """

    def __init__(self, embeddings: IdEmbeddings, history: nn.Module, width: int) -> None:
        super().__init__()
        self.embeddings, self.history = embeddings, history
        self.mlp = relu_mlp(embeddings.width, MLP)
        self.of_history = nn.Linear(width, MLP[0], bias=False)
        nn.init.zeros_(self.of_history.weight)

    def forward(self, batch: RequestBatch) -> Tensor:
        own_RD, _ = self.embeddings(batch.rows.rows_BF)
        logits_R1: Tensor = self.mlp[1:](self.mlp[0](own_RD) + self.of_history(self.history(batch.history)))
        return logits_R1.squeeze(1)

    def loss(self, logits_R: Tensor, batch: RequestBatch) -> dict[str, Tensor]:
        return {"logloss": functional.binary_cross_entropy_with_logits(logits_R, batch.label_B)}


class RequestDin(Trainable):
    """DIN on the rows of requests."""

    def __init__(self, embeddings: IdEmbeddings) -> None:
        super().__init__()
        self.din = Din(embeddings)

    def forward(self, batch: RequestBatch) -> Tensor:
        logits_R: Tensor = self.din(batch.rows)
        return logits_R

    def loss(self, logits_R: Tensor, batch: RequestBatch) -> dict[str, Tensor]:
        return self.din.loss(logits_R, batch.rows)


class Bst(nn.Module):
    """BST (arXiv 1905.06874): one transformer layer over the history and the candidate at its end, from scratch; mean over its tokens."""

    def __init__(self, row_cnts: Mapping[str, int], seed: int) -> None:
        super().__init__()
        self.width = 2 * DIM
        torch.manual_seed(seed)
        self.tables = nn.ModuleDict({name: nn.Embedding(row_cnts[name], DIM) for name in ID_FIELDS})
        self.position = nn.Embedding(HISTORY + 1, self.width)
        self.layer = EncoderLayer(Width(width=self.width, heads=2, inner=4 * self.width))

    def forward(self, given: SequenceInput) -> Tensor:
        """R x (2 x DIM): every row's history with its own candidate."""
        sequences = given.sequences
        assert sequences.offsets is not None and given.of_B is not None
        lengths = sequences.offsets.diff()[given.of_B]
        at_P, before = ranges(sequences.offsets[:-1][given.of_B], sequences.offsets[1:][given.of_B])
        offsets = before + torch.arange(len(before))
        of_P = torch.repeat_interleave(torch.arange(len(lengths)), lengths, output_size=len(at_P))
        places = torch.arange(len(at_P)) + of_P
        past = torch.cat([self.tables[name](sequences.rows[name][at_P]) for name in ID_FIELDS], dim=1)
        now = torch.cat([self.tables[name](given.candidate[name]) for name in ID_FIELDS], dim=1)
        tokens = torch.zeros(int(offsets[-1]), self.width).index_copy(
            0, places, past + self.position(sequences.position_P[at_P] + 1)
        )
        tokens = tokens.index_copy(0, offsets[1:] - 1, now + self.position(torch.zeros_like(given.of_B)))
        hidden = self.layer(tokens, self.layer.keys_and_values(tokens), Segments.within(offsets))
        row = torch.repeat_interleave(torch.arange(len(lengths)), lengths + 1, output_size=len(hidden))
        return torch.zeros(len(lengths), self.width).index_add(0, row, hidden) / (lengths + 1)[:, None]


@dataclass(frozen=True, kw_only=True)
class World:
    """What every arm reads.

    Attributes:
        columns: the raw ids and codes of the behaviours, P for each field.
        user: the user of each behaviour, P.
        is_known: whether each behaviour is among the training rows, P.
        mapping: from the encoder's ids to its table rows, fitted on the behaviours that are known.
    """

    columns: Mapping[str, Any]
    user: Any
    is_known: Any
    mapping: IdMapping

    @classmethod
    def read(cls, folder: Path, split: str) -> World:
        table = pq.read_table(folder / "behaviours.parquet")
        user, stamp = (table[name].to_numpy().astype(np.int64) for name in ("user_id", "time"))
        begins = np.flatnonzero(np.diff(user, prepend=-1))
        columns = {
            "item_id": table["item_id"].to_numpy().astype(np.int64),
            "category_id": table["genre"].to_numpy().astype(np.int64),
            "action": np.where(table["rating"].to_numpy() == 5, 2, 1),
            "hour": stamp // 3600 % 24,
            "gap": gap_codes(stamp * 1_000_000, np.append(begins, len(user))),
        }
        is_known = ~table["is_test"].to_numpy(zero_copy_only=False)
        if split == "fit":  # the last tenth of each user's training rows is for choosing
            number = np.searchsorted(begins, np.arange(len(user)), "right") - 1
            is_known &= np.arange(len(user)) < _first_held_back(folder, len(user))[number]
        seen = {
            name: Seen.of(Coded.of(columns[name][is_known]), np.zeros(int(is_known.sum()), np.int64))
            for name in ID_FIELDS
        }
        mapping, _ = IdMapping.empty(ID_FIELDS).grown(seen, ID_FIELDS, Admission(sightings=1))
        return cls(columns=columns, user=user, is_known=is_known, mapping=mapping)

    def sequences(self, recipe: FgBertRecipe, *, only_users_below: int | None = None) -> EncodedSequences:
        """Training behaviours of every user, cut into pieces of `recipe.length` from the newest back."""
        begins = np.append(np.flatnonzero(np.diff(self.user, prepend=-1)), len(self.user))
        start, end = [], []
        for number, (first, last) in enumerate(pairwise(begins)):
            if only_users_below is not None and number >= only_users_below:
                break
            stop = first + int(self.is_known[first:last].sum())  # they come before the test's
            while stop - first >= 2:
                start.append(max(first, stop - recipe.length))
                end.append(stop)
                stop = start[-1]
        columns = {name: self.columns[name] for name in recipe.fields}
        return EncodedSequences.of(
            columns, np.array(start), np.array(end), mapping=self.mapping, masks=masks_of(recipe)
        )


def _first_held_back(folder: Path, count: int) -> Any:
    """Of each user the first behaviour (by place) that `fit` does not know."""
    valid = pq.read_table(folder / "valid.parquet", columns=["user_id", "end"])
    user, end = valid["user_id"].to_numpy(), valid["end"].to_numpy()
    users = pq.read_table(folder / "behaviours.parquet", columns=["user_id"])["user_id"].to_numpy()
    first = np.full(int(max(user.max(), users.max())) + 1, count)
    np.minimum.at(first, user, end)
    return first[users[np.flatnonzero(np.diff(users, prepend=-1))]]


def requests_of(rows: Samples, encoding: Encoding, world: World, fields: tuple[str, ...]) -> tuple[Requests, Any]:
    """Rows as requests, and which of the rows given each of theirs is."""
    assert rows.histories is not None
    order = np.lexsort((rows.histories.end, rows.features["user_id"]))
    rows = rows.select(order)
    assert rows.histories is not None
    end, user = rows.histories.end, rows.features["user_id"]
    first = np.flatnonzero((np.diff(end, prepend=-1) != 0) | (np.diff(user, prepend=-1) != 0))
    behaviours = EncodedSequences.of(
        {name: world.columns[name] for name in fields}, first[:0], first[:0], mapping=world.mapping
    ).rows
    candidate = {
        name: torch.from_numpy(world.mapping.fields[name].rows_of(Coded.of(rows.features[name])))
        for name in FIELDS_OF_SIDE["item"]
        if name in fields
    }
    return Requests(
        rows=encoding.encode(rows),
        first=torch.from_numpy(np.append(first, len(order))),
        start_G=torch.from_numpy(rows.histories.long_start[first]),
        end_G=torch.from_numpy(end[first]),
        behaviours=behaviours,
        candidate=candidate,
    ), order


@torch.no_grad()
def score_rows(model: nn.Module, requests: Requests) -> Any:
    model.eval()
    parts = [torch.sigmoid(model(requests.batch(index))) for index in torch.arange(len(requests)).split(2 * REQUESTS)]
    return torch.cat(parts).double().numpy()


def pretrain(world: World, recipe: FgBertRecipe, path: Path, seed: int, *, quick: bool) -> FgBert:
    """An encoder that has been pre-trained on the training rows' behaviours; read back where it is there."""
    torch.manual_seed(seed)
    recipe = replace(recipe, seed=seed, train=replace(recipe.train, epochs=1) if quick else recipe.train)
    encoder = FgBert(recipe, world.mapping.row_cnts())
    if path.is_file():
        encoder.load_state_dict(read_weights(path))
        return encoder
    sequences = world.sequences(recipe, only_users_below=300 if quick else None)
    began = time.perf_counter()
    fitted = train(encoder, sequences, recipe.train, seed=seed, description=recipe.objective)
    behaviours = int((sequences.end_S - sequences.start_S).sum()) * recipe.train.epochs
    print(
        f"{recipe.objective}: {behaviours / (time.perf_counter() - began):,.0f} behaviours/s,",
        ", ".join(f"{name} {value:.3f}" for name, value in fitted.losses.items()),
        flush=True,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    save_weights(encoder.state_dict(), path)
    return encoder


def make_model(name: str, embeddings: IdEmbeddings, encoder: FgBert | None, world: World, seed: int) -> Trainable:
    setting = SETTINGS[name]
    if name == "din":
        return RequestDin(embeddings)
    if name == "bst":
        bst = Bst(world.mapping.row_cnts(), seed)
        return HistoryCtr(embeddings, bst, bst.width)
    assert encoder is not None
    bridge = Bridge(encoder, learned=setting.learned, cross=setting.cross, queries=setting.queries)
    return HistoryCtr(embeddings, bridge, bridge.of_candidate + bridge.of_user)


def run(
    name: str,
    folder: Path,
    out: Path,
    split: str,
    *,
    seed: int,
    epochs: int,
    embedding_rate: float,
    learning_rate: float,
) -> None:
    """Trains the arm's model; writes the test rows' scores after each epoch."""
    quick, setting = split == "quick", SETTINGS[name]
    world = World.read(folder, split)
    recipe = PRETRAINING[setting.pretrained or "fg_bert"]
    encoder = (
        pretrain(world, recipe, out / "encoders" / f"{recipe.objective}-{seed}-{split}.safetensors", seed, quick=quick)
        if setting.pretrained
        else None
    )
    rows, test = (read(folder, of, with_histories=True) for of in (split, TEST_OF[split]))
    names = tuple(rows.features)
    mapping, _ = IdMapping.empty(names).grown(rows.seen(names), names, Admission(sightings=1))
    encoding = Encoding(mapping=mapping, transfer={}, histories=("long",))
    fields = recipe.fields if setting.pretrained else ID_FIELDS
    (requests, _), (held, order) = (requests_of(part, encoding, world, fields) for part in (rows, test))
    torch.manual_seed(seed)
    model = make_model(
        name, IdEmbeddings(mapping.row_cnts(), dict.fromkeys(names, DIM), seed=seed), encoder, world, seed
    )
    scores: list[Any] = []
    seconds = [time.perf_counter()]

    def after_epoch() -> None:
        seconds.append(time.perf_counter())
        scores.append(np.empty(len(test)))
        scores[-1][order] = score_rows(model, held)
        area = auc(scores[-1], test.click) or 0.0
        print(f"{name} seed {seed} epoch {len(scores)}: AUC {area:.4f}, {seconds[-1] - seconds[-2]:.0f} s", flush=True)
        seconds[-1] = time.perf_counter()

    phase = Phase(
        epochs=epochs, batch_size=REQUESTS, learning_rate=learning_rate, embedding_learning_rate=embedding_rate
    )
    train(model, requests, phase, seed=seed, description=name, supervision=Supervision(after_epoch=after_epoch))
    counts = np.bincount(rows.features["item_id"], minlength=int(test.features["item_id"].max()) + 1)
    is_tail = counts[test.features["item_id"]] <= np.quantile(counts[counts > 0], TAIL_SHARE)
    columns = {"user": test.features["user_id"], "click": test.click, "is_tail": is_tail}
    path = out / "scores" / f"{name}-{seed}-{split}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({**columns, **{f"epoch_{number}": of for number, of in enumerate(scores, 1)}}), path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--arm", choices=tuple(SETTINGS), required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--split", default="full")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--embedding-rate", type=float, help="default: what was chosen for the arm")
    parser.add_argument("--learning-rate", type=float, default=LEARNING_RATE)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pretraining", type=json.loads, default={}, help="JSON: values of the pre-training's phase")
    parser.add_argument("--encoder", type=json.loads, default={}, help="JSON: values of the encoder's recipe")
    asked = parser.parse_args()
    prepare_process(asked.threads)
    for name, recipe in PRETRAINING.items():
        PRETRAINING[name] = replace(recipe, train=replace(recipe.train, **asked.pretraining), **asked.encoder)
    run(
        asked.arm,
        asked.rows,
        asked.out,
        asked.split,
        seed=asked.seed,
        epochs=asked.epochs,
        embedding_rate=asked.embedding_rate or SETTINGS[asked.arm].embedding_rate,
        learning_rate=asked.learning_rate,
    )


if __name__ == "__main__":
    main()
