"""One arm of the comparison of BAHE with LLM-CTR on MovieLens-1M: its requests, its training, its scores of the test requests.

Shapes: G requests, B rows, P clicks.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from benchmarks.our_arm import EMBEDDING_RATE, read
from benchmarks.rivals.common import BATCH, DIM, HISTORY, LEARNING_RATE, MARK
from contracts.features import BEHAVIOUR_TEXTS, CANDIDATE_ACTION
from lake.metrics import auc
from lake.progress import progress
from training.data.batches import EncodedSamples, Encoding
from training.data.mapping import IdMapping
from training.data.samples import Samples
from training.data.vectors import DatedVectors, Entity
from training.engine.checkpoint import read_weights, save_weights
from training.engine.loop import Compute, Supervision, fill_batch_norm, forward_in_bf16, prepare_process, score, train
from training.models.bahe import Bahe, FullTextCtr, TextBatch, VectorBatch
from training.models.ctr import CtrModel
from training.models.language import LanguageModel, encode_texts, load, padded, with_lora
from training.modules.embedding import IdEmbeddings
from training.modules.transfer import TextVectors, TransferSource
from training.recipes import Admission, Body, CosinePhase, Phase, Pooling

TOKENS, LONGEST, REQUESTS_OF_A_BATCH = 512, 24, 16
LORA_RANK, RATE = 64, 5e-4
CLICKS_OF_A_USER_VECTOR = 8
BODY = Body()  # A-CTR's


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One training.

    Attributes:
        name: `bahe`, `llm_ctr` or `downstream`.
        seed: the seed of fresh weights and of the order of requests.
        requests: how many requests it trains on.
        epochs: how many times it passes over them.
        source, low_layers, pooling: the settings of the language model, as in `TextRecipe`.
        texts: for `downstream`: whether it reads Q_u and Q_i.
    """

    name: str
    seed: int
    requests: int
    epochs: int
    source: str = "minilm"
    low_layers: int = 3
    pooling: Pooling = "mean"
    texts: bool = False

    @property
    def key(self) -> str:
        parts = (
            self.name,
            self.source,
            self.low_layers,
            self.pooling,
            self.requests,
            self.epochs,
            self.seed,
            int(self.texts),
        )
        return "-".join(map(str, parts))


@dataclass(frozen=True, kw_only=True)
class World:
    """Requests of MovieLens-1M.

    Attributes:
        texts: the distinct behaviour texts.
        tokens: the tokens of each text, without those by which the model marks the beginning and the end.
        behaviour: for each click, P, the number of its text.
        lengths: the length of each text when several are read in a row: its tokens, and the mark that ends it.
        candidate: for each item, the number of its text as a candidate.
    """

    texts: Sequence[str]
    tokens: Sequence[Sequence[int]]
    lengths: np.ndarray
    behaviour: np.ndarray
    candidate: np.ndarray

    @classmethod
    def read(cls, folder: Path, model: LanguageModel) -> World:
        items, clicks = pq.read_table(folder / "items.parquet"), pq.read_table(folder / "behaviours.parquet")
        titles = ["an unknown movie", "an unknown movie", *items["title"].to_pylist()]
        templates = {1: BEHAVIOUR_TEXTS[CANDIDATE_ACTION], 2: BEHAVIOUR_TEXTS[2]}
        texts = [template.format(text=title) for template in templates.values() for title in titles]
        tokens = [model.tokenizer(text, add_special_tokens=False)["input_ids"][:LONGEST] for text in texts]
        liked = clicks["rating"].to_numpy() == 5
        behaviour = clicks["item_id"].to_numpy().astype(np.int64) + liked * len(titles)
        return cls(
            texts=texts,
            tokens=tokens,
            lengths=np.array([len(of) + 1 for of in tokens]),
            behaviour=behaviour,
            candidate=np.arange(len(titles)),
        )

    def newest(self, start: int, end: int) -> np.ndarray:
        """Texts of the newest behaviours of a range that fit into the tokens, oldest first."""
        of = self.behaviour[max(start, end - TOKENS // 2) : end]  # a text has a token at least, and its mark
        return of[np.cumsum(self.lengths[of][::-1])[::-1] <= TOKENS - 1]


@dataclass(frozen=True, kw_only=True)
class Requests:
    """Requests with their rows, for the engine.

    Attributes:
        world: the texts.
        start, end: where the history of each request begins and ends, G each.
        first: where the rows of each request begin, G + 1.
        item, label: the item and the label of each row.
        user: the user of each request.
        vectors: the vector of each text, for BAHE; None for LLM-CTR.
        marks: the tokens that begin and end a text of the model.
        filler: token of padding.
    """

    world: World
    start: np.ndarray
    end: np.ndarray
    first: np.ndarray
    item: np.ndarray
    label: np.ndarray
    user: np.ndarray
    vectors: Tensor | None
    marks: tuple[Sequence[int], Sequence[int]]
    filler: int

    @classmethod
    def of(cls, folder: Path, split: str, world: World, vectors: Tensor | None, model: LanguageModel) -> Requests:
        rows = read(folder, split, with_histories=True)
        assert rows.histories is not None
        order = np.lexsort((rows.histories.end, rows.features["user_id"]))
        end, user = rows.histories.end[order], rows.features["user_id"][order]
        first = np.flatnonzero((np.diff(end, prepend=-1) != 0) | (np.diff(user, prepend=-1) != 0))
        begin, stop = _marks(model)
        return cls(
            world=world,
            start=rows.histories.long_start[order][first],
            end=end[first],
            first=np.append(first, len(order)),
            item=rows.features["item_id"][order],
            label=rows.click[order].astype(np.float32),
            user=user[first],
            vectors=vectors,
            marks=(begin, stop),
            filler=int(model.tokenizer.pad_token_id),
        )

    def some(self, count: int, seed: int) -> Requests:
        """A sample of those that have a history."""
        with_history = np.flatnonzero(self.end > self.start)
        picked = np.sort(np.random.default_rng(seed).permutation(with_history)[:count])
        rows = np.concatenate([np.arange(self.first[one], self.first[one + 1]) for one in picked])
        counts = self.first[picked + 1] - self.first[picked]
        return replace(
            self,
            start=self.start[picked],
            end=self.end[picked],
            first=np.append(0, np.cumsum(counts)),
            item=self.item[rows],
            label=self.label[rows],
            user=self.user[picked],
        )

    def __len__(self) -> int:
        return len(self.start)

    @property
    def day_N(self) -> Tensor:
        return torch.zeros(len(self), dtype=torch.int64)

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def at_epoch(self, epoch: int) -> Requests:
        return self

    def row_users(self) -> np.ndarray:
        return np.repeat(self.user, np.diff(self.first))

    def batch(self, index: Tensor) -> VectorBatch | TextBatch:
        """The requests of an index."""
        places = index.tolist()
        rows = np.concatenate([np.arange(self.first[one], self.first[one + 1]) for one in places])
        of_B = torch.repeat_interleave(
            torch.arange(len(places)), torch.tensor([self.first[one + 1] - self.first[one] for one in places])
        )
        histories = [self.world.newest(self.start[one], self.end[one]) for one in places]
        candidates = self.world.candidate[self.item[rows]]
        common = {
            "of_B": of_B,
            "log_B": torch.zeros(len(rows), dtype=torch.int64),
            "label_B": torch.from_numpy(self.label[rows]),
        }
        if self.vectors is not None:
            at, mask = padded([list(of) for of in histories], 0)
            own = self.vectors[torch.from_numpy(candidates)]
            return VectorBatch(behaviours=[self.vectors[at]], masks=[mask], candidate_BE=own, **common)
        begin, stop = self.marks
        tokens = [[*begin, *(token for one in of for token in (*self.world.tokens[one], *stop))] for of in histories]
        ids, mask = padded(tokens, self.filler)
        own, own_mask = padded([[*begin, *self.world.tokens[one], *stop] for one in candidates], self.filler)
        return TextBatch(token_ids_GT=ids, mask_GT=mask, candidate_ids_BT=own, candidate_mask_BT=own_mask, **common)


def _marks(model: LanguageModel) -> tuple[Sequence[int], Sequence[int]]:
    """What the tokenizer puts before and behind a text; a line's end where it puts nothing behind."""
    whole, bare = (model.tokenizer("film", add_special_tokens=special)["input_ids"] for special in (True, False))
    before = whole.index(bare[0])
    return whole[:before], whole[before + len(bare) :] or model.tokenizer("\n", add_special_tokens=False)["input_ids"][
        :1
    ]


def adapted(arm: Arm, folder: Path) -> tuple[LanguageModel, World]:
    """An arm's language model, its high half with adapters, and the requests' texts in its tokens."""
    torch.manual_seed(arm.seed)
    language = load(arm.source, low_layers=arm.low_layers)
    with_lora(language.high, rank=LORA_RANK)
    return language, World.read(folder, language)


def fresh_bahe(arm: Arm, language: LanguageModel, world: World) -> tuple[Bahe, Tensor]:
    """BAHE before any training, and the vectors of the texts."""
    vectors = encode_texts(language, world.texts, pooling=arm.pooling, longest=LONGEST + 2).vectors
    torch.manual_seed(arm.seed)
    model = Bahe(language.high, language.width, pooling=arm.pooling)
    model.standardise(vectors)
    return model, vectors


def run(arm: Arm, folder: Path, work: Path, *, test_requests: int) -> dict[str, Any]:
    """Trains an arm's model on a sample of requests; writes its test scores; its seconds of training."""
    language, world = adapted(arm, folder)
    vectors, encoding = None, 0.0
    model: Any
    if arm.name == "llm_ctr":
        torch.manual_seed(arm.seed)
        model = FullTextCtr(language, pooling=arm.pooling)
    else:
        began = time.perf_counter()
        model, vectors = fresh_bahe(arm, language, world)
        encoding = time.perf_counter() - began
    everything = Requests.of(folder, "full", world, vectors, language)
    rows, held = (
        everything.some(arm.requests, 100 + arm.seed),
        Requests.of(folder, "test", world, vectors, language).some(test_requests, 7),
    )
    phase = CosinePhase(epochs=arm.epochs, batch_size=REQUESTS_OF_A_BATCH, learning_rate=RATE)
    began = time.perf_counter()
    fitted = train(
        model, rows, phase, seed=arm.seed, description=arm.key, supervision=Supervision(compute=Compute(bf16=True))
    )
    seconds = time.perf_counter() - began
    scores = score_requests(model, held)
    write(work, arm, held.row_users(), held.label, scores)
    if arm.name == "bahe":
        save_weights(model.trained_weights(), weights_of(work, arm))
    return {
        "seconds": seconds,
        "encoding_seconds": encoding,
        "rows": len(rows.label),
        "requests": len(rows),
        "loss": fitted.losses["logloss"],
        "auc": auc(scores, held.label.astype(np.int64)),
        "test_rows": len(held.label),
    }


def run_downstream(arm: Arm, folder: Path, work: Path) -> dict[str, Any]:
    """A-CTR on all rows; with Q_u of each row's user, as of clicks before it, and Q_i of its item, or without.

    Its rates and batch are those that DIN was given on these rows.
    """
    rows, held = (with_short(read(folder, split, with_histories=True)) for split in ("full", "test"))
    names = tuple(rows.features)
    mapping, _ = IdMapping.empty(names).grown(rows.seen(names), names, Admission(sightings=1))
    encoding = Encoding(mapping=mapping, transfer={})
    encoded, encoded_held = encoding.encode(rows), encoding.encode(held)
    texts = None
    if arm.texts:
        (encoded, encoded_held), texts = with_texts(arm, folder, work, (rows, held), (encoded, encoded_held))
    torch.manual_seed(arm.seed)
    embeddings = IdEmbeddings(mapping.row_cnts(), dict.fromkeys(names, DIM), seed=arm.seed)
    model = CtrModel(BODY, embeddings, 0, TransferSource({}), texts=texts)
    phase = Phase(
        epochs=2, batch_size=BATCH, learning_rate=LEARNING_RATE, embedding_learning_rate=EMBEDDING_RATE["din"]
    )
    began = time.perf_counter()
    train(model, encoded, phase, seed=arm.seed, description=arm.key)
    fill_batch_norm(model, encoded)
    seconds = time.perf_counter() - began
    scores = score(model, encoded_held)
    write(work, arm, held.features["user_id"], held.click, scores)
    return {"seconds": seconds, "auc": auc(scores, held.click), "rows": len(rows)}


def with_short(samples: Samples) -> Samples:
    """The short history: the newest of the long one."""
    histories = samples.histories
    assert histories is not None
    short_start = np.maximum(histories.long_start, histories.end - BODY.short_length)
    return replace(samples, histories=replace(histories, short_start=short_start))


def with_texts(
    arm: Arm, folder: Path, work: Path, samples: Sequence[Samples], encoded: Sequence[EncodedSamples]
) -> tuple[list[EncodedSamples], TextVectors]:
    """Both splits with the places of their rows' vectors, and the vectors by the arm's BAHE."""
    source = replace(arm, name="bahe", texts=False)
    language, world = adapted(arm, folder)
    model, vectors = fresh_bahe(arm, language, world)
    model.load_state_dict(read_weights(weights_of(work, source)), strict=False)
    model.eval()
    states = States.of(samples)
    found = [
        replace(rows, texts={"user": torch.from_numpy(place), "item": torch.from_numpy(one.features["item_id"] + 1)})
        for rows, one, place in zip(encoded, samples, states.place, strict=True)
    ]
    with torch.no_grad():
        items = torch.cat([model.item(part) for part in vectors[torch.from_numpy(world.candidate)].split(256)]).numpy()
    of_entities: dict[Entity, np.ndarray] = {"user": user_vectors(model, world, vectors, states), "item": items}
    tables: dict[Entity, DatedVectors] = {
        entity: DatedVectors(ids=np.arange(len(of)), days=np.zeros(len(of), np.int64), vectors=of)
        for entity, of in of_entities.items()
    }
    return found, TextVectors(tables)


@dataclass(frozen=True, kw_only=True)
class States:
    """Users as they were after some of their clicks.

    Attributes:
        start, end: where the history of each state begins and ends.
        place: for each row of each split, one more than the number of the state that it sees; 0 for a user without any.
    """

    start: np.ndarray
    end: np.ndarray
    place: Sequence[np.ndarray]

    @classmethod
    def of(cls, samples: Sequence[Samples]) -> States:
        """A user's vector is recomputed after a fixed number of clicks, since a daily one is not recomputed for each request either."""
        histories = [one.histories for one in samples if one.histories]
        user = np.concatenate([one.features["user_id"] for one in samples])
        start, end = np.concatenate([of.long_start for of in histories]), np.concatenate([of.end for of in histories])
        first_click = np.full(user.max() + 1, end.max())
        np.minimum.at(first_click, user, start)
        seen = end // CLICKS_OF_A_USER_VECTOR * CLICKS_OF_A_USER_VECTOR
        there = seen > first_click[user]
        distinct, of_row = np.unique(np.stack([user, seen])[:, there], axis=1, return_inverse=True)
        place = np.zeros(len(user), np.int64)
        place[there] = of_row.reshape(-1) + 1
        return cls(
            start=np.maximum(first_click[distinct[0]], distinct[1] - HISTORY),
            end=distinct[1],
            place=np.split(place, np.cumsum([len(one) for one in samples])[:-1]),
        )


@torch.no_grad()
def user_vectors(model: Bahe, world: World, vectors: Tensor, states: States) -> np.ndarray:
    parts = []
    with progress(total=len(states.end), description="Q_u", unit="user") as bar, torch.autocast("cpu", torch.bfloat16):
        for index in np.array_split(np.arange(len(states.end)), len(states.end) // 64 + 1):
            at, mask = padded([list(world.newest(states.start[one], states.end[one])) for one in index], 0)
            parts.append(model.user([vectors[at]], [mask]).float())
            bar.update(len(index))
    return torch.cat(parts).numpy()


@torch.no_grad()
def score_requests(model: Any, requests: Requests) -> np.ndarray:
    model.eval()
    scores = []
    with progress(total=len(requests), description="scores", unit="request") as bar:
        for index in torch.arange(len(requests)).split(32):
            scores.append(torch.sigmoid(forward_in_bf16(model, requests.batch(index))))
            bar.update(len(index))
    return torch.cat(scores).double().numpy()


def weights_of(work: Path, arm: Arm) -> Path:
    return work / "scores" / f"{arm.key}.safetensors"


def write(work: Path, arm: Arm, user: np.ndarray, label: np.ndarray, scores: np.ndarray) -> None:
    path = work / "scores" / f"{arm.key}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"user": user, "click": label.astype(np.int64), "score": scores}), path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--arm", type=json.loads, required=True, help="JSON: an Arm")
    parser.add_argument("--test-requests", type=int, required=True)
    asked = parser.parse_args()
    prepare_process()
    arm, rows = Arm(**asked.arm), asked.work / "rows"
    found = (
        run_downstream(arm, rows, asked.work)
        if arm.name == "downstream"
        else run(arm, rows, asked.work, test_requests=asked.test_requests)
    )
    print(MARK + json.dumps(found))


if __name__ == "__main__":
    main()
