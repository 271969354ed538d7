"""Trains BAHE on a day's requests, continuing from the day before; publishes Q_u of the day's users and Q_i of its items.

It trains on requests of both logs, each log with a bias of its own (our choice: ads by themselves are sparse). Behaviour
texts are read as vectors of the offline table. A text without a vector is encoded on demand or read as unknown, which the
recipe decides, and is counted. A release keeps what was trained (adapters and head), and the scale on which vectors are
read, that of the first days' texts. The language model is read from the source that the recipe names, and is refused if it
has changed.

Shapes: B rows of G requests, N sequences, M behaviours, E width of the language model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from contracts.commands import table_text
from contracts.errors import BadInput
from contracts.features import LOGS
from contracts.periods import ONE_DAY
from contracts.releases import HELD_OUT_FILE, MAPPING_FILE, MODEL_FILE, VECTORS_FILE, Release, parent_key
from lake.metrics import evaluate
from lake.progress import progress
from lake.run_folders import Run
from training import processes
from training.data.codes import Ints
from training.data.mapping import IdMapping
from training.data.ranges import ranges
from training.data.text_store import UNKNOWN, TextStore
from training.data.texts import NO_TEXT, SequenceRows, TextHistories, TextSamples, read_text_samples
from training.data.vectors import ID_COLUMN, Entity, EntityVectors, write_vectors
from training.engine.checkpoint import read_weights, save_weights
from training.engine.loop import train
from training.engine.runs import Metric, metrics_of, write_held_out, write_run
from training.models.bahe import Bahe, VectorBatch, build_bahe
from training.models.language import LanguageModel, encode_texts, encoder_id, load, with_lora
from training.models.language_pattern import digest_of
from training.recipes import BaheRecipe, TextRecipe, as_json
from training.tasks.continued import Continued, run_continued
from training.tasks.session import Session, train_metrics

BAHE = "bahe"
READS = ("item_text", "behaviours")
_SCORING_BATCH = 64  # How many requests, users or items are scored at a time.
_TEXTS_OF_A_SCALE = 1 << 16


def run_bahe(session: Session, day: date) -> Run:
    """Trains and stages the BAHE of a day.

    Raises:
        ParentMissing: the day before was not published, or a day's samples or histories were not built.
        BadInput: the language model is not the one that the predecessor was trained on.
    """
    session.period(BAHE, day)  # A wrong day is refused before the language model is read.
    recipe = session.recipe.bahe
    language = Language.load(session.recipe.texts, recipe)

    def make(continued: Continued) -> Run:
        return _train(session, continued.release, language, continued.days, continued.predecessor)

    return run_continued(
        session,
        BAHE,
        day,
        recipe=as_json(recipe) | {"language": language.describe()},
        feature_set=READS,
        make=make,
        tables=[*(f"{log}_samples" for log in LOGS), "user_histories"],
        days=session.deployment.lineage.bahe_training_days(day, first_days=recipe.first_days),
    )


@dataclass(frozen=True, kw_only=True)
class Language:
    """The language model, with adapters in its high half, and its ids.

    Attributes:
        model: the split model.
        texts: how texts become vectors.
        encoder_id: the id of the low half, under which the table holds vectors.
        high_id: a hash of the high half's weights.
    """

    model: LanguageModel
    texts: TextRecipe
    encoder_id: str
    high_id: str

    @classmethod
    def load(cls, texts: TextRecipe, recipe: BaheRecipe) -> Language:
        """Reads and splits the language model that the recipes name.

        Raises:
            BadInput: there is no such model, or it has too few positions for the recipes.
        """
        model = load(texts.source, low_layers=texts.low_layers)
        model.require_positions("longest", texts.longest)
        model.require_positions("length", recipe.length + 1)  # After the token that begins a text.
        digest = hashlib.sha256(digest_of(model.high.patterns))
        for name, tensor in sorted(model.high.state_dict().items()):
            digest.update(name.encode() + tensor.detach().contiguous().numpy().tobytes())
        named = encoder_id(model, pooling=texts.pooling, longest=texts.longest)
        torch.manual_seed(recipe.seed)
        with_lora(model.high, rank=recipe.lora_rank)
        return cls(model=model, texts=texts, encoder_id=named, high_id=digest.hexdigest()[:16])

    def describe(self) -> dict[str, str]:
        """What a release records of the language model."""
        return {"encoder_id": self.encoder_id, "high_id": self.high_id, "pooling": self.texts.pooling}


def start_model(language: Language, recipe: BaheRecipe, source: Run | None = None) -> Bahe:
    """Builds the model with fresh adapters and head, or with those of a finished run.

    Raises:
        BadInput: the run was trained on another language model.
    """
    model = build_bahe(language.model, recipe, language.texts.pooling)
    if source is None:
        return model
    if source.release.recipe["language"] != language.describe():
        raise BadInput(
            source.folder,
            "language",
            expected=language.describe(),
            found=source.release.recipe["language"],
            hint="A chain has one language model, split and pooling: train with those that it began with.",
        )
    weights, own = read_weights(source.folder / MODEL_FILE), model.trained_weights()
    shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
    if {name: tuple(tensor.shape) for name, tensor in weights.items()} != shapes:
        raise BadInput(
            source.folder,
            "recipe",
            expected=f"that of this BAHE, {recipe}",
            found="weights of other shapes",
            hint="Train the chain of models with the same --recipe.",
        )
    model.load_state_dict(weights, strict=False)
    return model


@torch.no_grad()
def begin_at_click_rates(model: Bahe, rows: TextSamples) -> None:
    """Sets the bias of each log to its click rate, so that the first steps need not learn it."""
    for number, log in enumerate(LOGS):
        clicks = rows.click[rows.is_ad == (log == "ad")]
        rate = (clicks.sum() + 1) / (len(clicks) + 2)
        model.head.of_log[number] = float(np.log(rate / (1 - rate)))


@dataclass(frozen=True, kw_only=True)
class RequestRows:
    """Requests with all their rows, as the engine trains on them.

    Attributes:
        sequences: the behaviours of the requests.
        first: G + 1, of the rows.
        candidate: B, rows of the store; -1 of an unknown text.
        log: B, a position in `LOGS`.
        label: B.
        day_N: G, the days' numbers.
        store: the vectors.
    """

    sequences: SequenceRows
    first: Tensor
    candidate: Tensor
    log: Tensor
    label: Tensor
    day_N: Tensor
    store: TextStore
    device: torch.device

    @classmethod
    def of(cls, samples: TextSamples, store: TextStore, device: torch.device) -> RequestRows:
        """Looks up the texts of samples in a store; batches are made on the device."""
        first = np.append(np.flatnonzero(np.diff(samples.of_request, prepend=-1)), len(samples))
        return cls(
            sequences=SequenceRows.of(samples.histories, store),
            first=torch.from_numpy(first),
            store=store,
            device=device,
            candidate=torch.from_numpy(store.rows_of(samples.hashes)),
            log=torch.from_numpy(np.where(samples.is_ad, LOGS.index("ad"), LOGS.index("natural"))),
            label=torch.from_numpy(samples.click.astype(np.float32)),
            day_N=torch.from_numpy(samples.day[first[:-1]]),
        )

    def __len__(self) -> int:
        return len(self.day_N)

    def at_epoch(self, epoch: int) -> RequestRows:
        """Returns the requests unchanged: they are the same in every epoch."""
        return self

    def batch(self, index: Tensor) -> VectorBatch:
        """Selects the requests of an index, on the device."""
        index = index.cpu()
        at_B, offsets = ranges(self.first[index], self.first[index + 1])
        of_B = torch.repeat_interleave(torch.arange(len(index)), offsets.diff(), output_size=len(at_B))
        candidate, _ = gathered(self.store, self.candidate[at_B])
        behaviours, masks = sequences_of(self.store, self.sequences, index, self.device)
        rows = {"candidate_BE": candidate, "of_B": of_B, "log_B": self.log[at_B], "label_B": self.label[at_B]}
        return VectorBatch(
            behaviours=behaviours, masks=masks, **{name: tensor.to(self.device) for name, tensor in rows.items()}
        )


def sequences_of(
    store: TextStore, sequences: SequenceRows, index: Tensor, device: torch.device
) -> tuple[list[Tensor], list[Tensor]]:
    """Returns vectors and masks of the sequences of some requests, on a device."""
    found = [gathered(store, rows) for rows in sequences.padded(index)]
    return [vectors.to(device) for vectors, _ in found], [mask.to(device) for _, mask in found]


def gathered(store: TextStore, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the vectors of rows of any shape, zeros where a row is -1, and a mask of the rows that are not."""
    known = rows != UNKNOWN
    found = torch.zeros(*rows.shape, store.width)
    if known.any():
        found[known] = store.vectors(rows[known])
    return found, known


def open_store(
    session: Session, language: Language, hashes: Ints, recipe: BaheRecipe
) -> tuple[TextStore, list[Metric]]:
    """Opens the vectors of the table, adds those of texts that it lacks if the recipe encodes them, and prints their number."""
    store = TextStore.open(session.locations, session.reader, language.encoder_id)
    store.width = language.model.width  # An empty store has no width of its own.
    wanted = np.unique(hashes[hashes != NO_TEXT])
    lacking = wanted[store.rows_of(wanted) == UNKNOWN]
    encoded = 0
    if len(lacking) and recipe.unseen == "encode":
        texts = session.reader.read("behaviour_texts", columns=["text_hash", "text"])
        texts = texts.filter(pc.is_in(texts["text_hash"], pa.array(lacking))).sort_by("text_hash")
        encoded = len(texts)
        if encoded:
            found = encode_texts(
                language.model,
                texts["text"].to_pylist(),
                pooling=language.texts.pooling,
                longest=language.texts.longest,
            )
            store = store.with_more(texts["text_hash"].to_numpy(), found.vectors)
    if processes.is_first():
        print(
            table_text(
                ("texts of the day", "number"),
                [
                    ("distinct", f"{len(wanted):,}"),
                    ("with a vector", f"{len(wanted) - len(lacking):,}"),
                    ("encoded on demand", f"{encoded:,}"),
                    ("unknown", f"{len(lacking) - encoded:,}"),
                ],
            ),
            flush=True,
        )
    share = None if not len(wanted) else 1 - len(lacking) / len(wanted)
    return store, [
        Metric(metric="with_vector", split="texts", value=share, row_cnt=len(wanted)),
        Metric(metric="unknown", split="texts", value=float(len(lacking) - encoded), row_cnt=len(wanted)),
    ]


def some_vectors(store: TextStore, hashes: Ints) -> Tensor:
    """Vectors of the distinct texts among some that have one, N x E; of many, those of the least hashes, which are as good as drawn."""
    rows = store.rows_of(np.unique(hashes))
    return store.vectors(torch.from_numpy(rows[rows != UNKNOWN][:_TEXTS_OF_A_SCALE]))


def _train(
    session: Session, release: Release, language: Language, days: Sequence[date], predecessor: Run | None
) -> Run:
    recipe = session.recipe.bahe
    parts = []
    for day in days:
        for log, at_most in zip(LOGS, (recipe.natural_requests, recipe.ad_requests), strict=True):
            parts.append(read_text_samples(session.reader, log, day, length=recipe.length, at_most=at_most))
    trainable, held_out = TextSamples.concat(parts).split()
    users = TextHistories.read(session.reader, release.period)
    of_users = users.slices(users.user_ids, None, recipe.length)
    items = shown_items(session, release.period)
    hashes = np.concatenate(
        [
            trainable.hashes,
            held_out.hashes,
            items.hashes,
            *of_users.hashes.values(),
            *trainable.histories.hashes.values(),
        ]
    )
    store, counted = open_store(session, language, hashes, recipe)
    model = start_model(language, recipe, predecessor).to(session.device)
    if predecessor is None:
        begin_at_click_rates(model, trainable)
        model.standardise(some_vectors(store, hashes))
    judged = RequestRows.of(held_out, store, session.device)
    rows = RequestRows.of(trainable, store, session.device)
    before, metrics = None, counted
    if predecessor:  # it has seen none of the day
        before, ads = scores_of(model, judged), trainable.of_requests(trainable.ad_requests)
        metrics = metrics + _figures(
            "next_day", (held_out, before), (ads, scores_of(model, RequestRows.of(ads, store, session.device)))
        )
    phase = recipe.daily if predecessor else recipe.first
    with session.supervised(release) as supervision:
        fitted = train(
            model,
            rows,
            phase,
            seed=f"{recipe.seed}/{release.period}",
            description=f"bahe {release.period}",
            supervision=supervision,
        )
    scores = scores_of(model, judged)
    vectors: dict[Entity, EntityVectors] = {
        "user": user_vectors(model, SequenceRows.of(of_users, store), store, users.user_ids, session.device),
        "item": item_vectors(model, items, store, session.device),
    }
    metrics = train_metrics(fitted) + _figures("held_out", (held_out, scores)) + metrics
    weights = model.trained_weights()

    def fill(folder: Path) -> dict[str, int]:
        save_weights(weights, folder / MODEL_FILE)
        IdMapping.of_ids({ID_COLUMN[entity]: of_entity.ids for entity, of_entity in vectors.items()}).save(
            folder / MAPPING_FILE
        )
        ads = held_out.is_ad
        write_held_out(
            folder / HELD_OUT_FILE,
            {
                "event_id": held_out.event_id[ads],
                "user_id": held_out.user_id[ads],
                "click": held_out.click[ads].astype(np.int32),
                "ds": [date.fromordinal(int(day)) for day in held_out.day[ads]],
                "score": scores[ads],
                "score_before": [None] * int(ads.sum()) if before is None else before[ads],
            },
        )
        return write_vectors(folder / VECTORS_FILE, vectors)

    return write_run(session.locations, release, metrics, fill)


def _figures(split: str, *scored: tuple[TextSamples, np.ndarray]) -> list[Metric]:
    """Computes the metrics of the ad rows, which are what the model is for."""
    click, user, scores = (
        np.concatenate(parts)
        for parts in zip(
            *((rows.click[rows.is_ad], rows.user_id[rows.is_ad], of_rows[rows.is_ad]) for rows, of_rows in scored),
            strict=True,
        )
    )
    return metrics_of(split, evaluate(scores, click, user), len(click))


@dataclass(frozen=True, kw_only=True)
class Items:
    """The items that were shown on a day: ids (ascending) and the hashes of their texts."""

    ids: Ints
    hashes: Ints


def shown_items(session: Session, day: date) -> Items:
    """Returns the items of both logs with their texts.

    Of an item that was shown with several texts it takes the smallest hash, so that the order of rows does not matter.
    """
    ids, hashes = [], []
    for log in LOGS:
        rows = session.reader.read(f"{log}_samples", columns=["item_id", "item_text_hash"], where={"ds": day})
        rows = rows.filter(rows["item_text_hash"].is_valid())
        ids.append(rows["item_id"].to_numpy())
        hashes.append(rows["item_text_hash"].to_numpy().astype(np.int64))
    every, texts = np.concatenate(ids), np.concatenate(hashes)
    order = np.lexsort((texts, every))
    first = np.diff(every[order], prepend=-1) != 0
    return Items(ids=every[order][first], hashes=texts[order][first])


@torch.no_grad()
def scores_of(model: Bahe, rows: RequestRows) -> np.ndarray:
    """Returns the click probability of each row."""
    model.eval()
    scores = torch.zeros(len(rows.label), dtype=torch.float64)
    for index in rows.sequences.by_length().split(_SCORING_BATCH):
        at_B, _ = ranges(rows.first[index], rows.first[index + 1])
        scores[at_B] = torch.sigmoid(model(rows.batch(index))).double().cpu()
    return scores.numpy()


def user_vectors(
    model: Bahe, sequences: SequenceRows, store: TextStore, user_ids: Ints, device: torch.device
) -> EntityVectors:
    """Returns Q_u of the users who have a behaviour with a text."""

    def encode(index: Tensor) -> tuple[Tensor, Tensor]:
        behaviours, masks = sequences_of(store, sequences, index, device)
        return model.user(behaviours, masks), torch.stack([mask.any(dim=1) for mask in masks]).any(dim=0).cpu()

    return _vectors(model, encode, user_ids, "encode users", order=sequences.by_length())


def item_vectors(model: Bahe, items: Items, store: TextStore, device: torch.device) -> EntityVectors:
    """Returns Q_i of the items whose text has a vector."""
    rows = torch.from_numpy(store.rows_of(items.hashes))

    def encode(index: Tensor) -> tuple[Tensor, Tensor]:
        vectors, known = gathered(store, rows[index])
        return model.item(vectors.to(device)), known

    return _vectors(model, encode, items.ids, "encode items", order=torch.arange(len(items.ids)))


@torch.no_grad()
def _vectors(
    model: Bahe, encode: Callable[[Tensor], tuple[Tensor, Tensor]], ids: Ints, description: str, *, order: Tensor
) -> EntityVectors:
    """Vectors of those of the ids (N) that have one, made in the order given (N)."""
    model.eval()
    vectors_ND, known_N = torch.zeros(len(ids), model.head.dims), torch.zeros(len(ids), dtype=torch.bool)
    with progress(total=len(ids), description=description, unit="vector") as bar:
        for index in order.split(_SCORING_BATCH):
            vectors, known = encode(index)
            vectors_ND[index], known_N[index] = vectors.cpu(), known
            bar.update(len(index))
    there = known_N.numpy()
    return EntityVectors(ids=ids[there], vectors=vectors_ND.numpy()[there])


def chain(session: Session, newest: Run, back_to: date) -> list[Run]:
    """Returns a BAHE and its chain of predecessors, newest first, as far back as `back_to`."""
    runs = [newest]
    while runs[-1].release.period > back_to:
        parents = runs[-1].release.parents
        key = parent_key("predecessor", BAHE, runs[-1].release.period - ONE_DAY)
        if key not in parents:
            break
        runs.append(session.release(parents[key]))
    return runs
