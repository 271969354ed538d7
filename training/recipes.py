"""Recipes: each is a function that returns the whole frozen configuration; a variant calls another and replaces fields.

A release records the part of its kind, and its id hashes it: another recipe is another release.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from contracts.errors import BadInput
from contracts.features import BEHAVIOUR_FIELDS, HISTORY_LENGTH
from contracts.kinds import RECIPES as RECIPE_NAMES
from contracts.releases import Release

OBJECTIVES = ("fg_bert", "bert4rec", "sasrec")
Pooling = Literal["mean", "last"]
Unseen = Literal["encode", "unknown"]
CHECKPOINT_SECONDS = 120.0  # how often a long training writes its state


def _check(owner: object, name: str, ok: bool, expected: str) -> None:
    if not ok:
        raise BadInput(f"recipe {type(owner).__name__}", name, expected=expected, found=getattr(owner, name))


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One stretch of training with an optimiser of its own.

    Attributes:
        epochs: passes over its rows; the optimiser starts fresh with the first.
        batch_size: rows of a step; results depend on it.
        learning_rate: Adam's, for everything but the embedding tables.
        embedding_learning_rate: row-wise Adagrad's, for the embedding tables.
        in_time_order: days one after the other, shuffled within the day; otherwise all rows are shuffled together.
    """

    epochs: int = 1
    batch_size: int = 1024
    learning_rate: float = 1e-3
    embedding_learning_rate: float = 1e-3
    in_time_order: bool = False

    def __post_init__(self) -> None:
        _check(self, "epochs", self.epochs >= 1, "a number >= 1")
        _check(self, "batch_size", self.batch_size >= 2, "a number >= 2: batch-norm needs two rows")
        _check(self, "learning_rate", self.learning_rate > 0, "a number > 0")
        _check(self, "embedding_learning_rate", self.embedding_learning_rate > 0, "a number > 0")

    def rate_at(self, step: int, steps: int) -> float:
        """Returns the learning rate at a step, counted from 0, of all `steps`."""
        """Adam's rate in step `step` (from 0) of `steps`."""
        return self.learning_rate


@dataclass(frozen=True, kw_only=True)
class DecayingPhase(Phase):
    """A phase whose rate rises over the first steps and then falls by a polynomial to zero.

    Attributes:
        warmup_share: share of the steps in which it rises.
        power: the power of the polynomial; 1 is a line.
    """

    warmup_share: float = 0.05
    power: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self, "warmup_share", 0 <= self.warmup_share < 1, "a share >= 0 and < 1")
        _check(self, "power", self.power > 0, "a number > 0")

    def rate_at(self, step: int, steps: int) -> float:
        """Returns the learning rate at a step, counted from 0, of all `steps`."""
        warmup = self.warmup_share * steps
        if step < warmup:
            return self.learning_rate * (step + 1) / (warmup + 1)
        return float(self.learning_rate * (1 - (step - warmup) / max(steps - warmup, 1)) ** self.power)


@dataclass(frozen=True, kw_only=True)
class CosinePhase(DecayingPhase):
    """A phase whose rate rises over the first steps and then falls to zero by half a cosine."""

    def rate_at(self, step: int, steps: int) -> float:
        """Returns the learning rate at a step, counted from 0, of all `steps`."""
        warmup = self.warmup_share * steps
        if step < warmup:
            return super().rate_at(step, steps)
        return self.learning_rate * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1))) / 2


@dataclass(frozen=True, kw_only=True)
class Admission:
    """When an id gets a row of its own in an embedding table, and when it loses it.

    Attributes:
        sightings: how often an id must have been seen, over all runs of the chain.
        forget_after_days: days without a sighting after which a row is given up; None never does.
    """

    sightings: int = 2
    forget_after_days: int | None = 180

    def __post_init__(self) -> None:
        _check(self, "sightings", self.sightings >= 1, "a number >= 1")
        _check(
            self,
            "forget_after_days",
            self.forget_after_days is None or self.forget_after_days >= 1,
            "days >= 1, or None",
        )


@dataclass(frozen=True, kw_only=True)
class Body:
    """The body that CPM and A-CTR share; the production body is unpublished, so every value here is our choice.

    Attributes:
        long_length: most recent behaviours of the long history that the model reads.
        short_length: the same of the short history.
        attention_hidden: widths of the attention's hidden layers.
        cross_layers: number of DCN-V2 cross layers.
        hidden: widths of the MLP.
        rate_prior_clicks, rate_prior_impressions: added to a statistic's counts before the rate is taken.
    """

    long_length: int = 50
    short_length: int = 20
    attention_hidden: tuple[int, ...] = (32,)
    cross_layers: int = 1
    hidden: tuple[int, ...] = (256, 128, 64)
    rate_prior_clicks: float = 2.0
    rate_prior_impressions: float = 10.0

    @property
    def rate_prior(self) -> tuple[float, float]:
        """Clicks and impressions that are added to a statistic's counts before the rate is taken."""
        return self.rate_prior_clicks, self.rate_prior_impressions

    def __post_init__(self) -> None:
        for name in ("long_length", "short_length"):
            _check(self, name, 1 <= getattr(self, name) <= HISTORY_LENGTH, f"1 .. {HISTORY_LENGTH}")
        _check(self, "cross_layers", self.cross_layers >= 1, "a number >= 1")
        for name in ("hidden", "attention_hidden"):
            _check(self, name, bool(getattr(self, name)) and min(getattr(self, name)) >= 1, "widths >= 1")
        _check(
            self,
            "rate_prior_impressions",
            self.rate_prior_impressions > self.rate_prior_clicks > 0,
            "more than the prior clicks > 0",
        )


@dataclass(frozen=True, kw_only=True)
class TpmRecipe:
    """The tiny pre-training model: embeddings and a shallow MLP."""

    hidden: tuple[int, ...] = (64, 32)
    train: Phase = Phase(epochs=5, batch_size=1024, learning_rate=2e-3, embedding_learning_rate=1.0)
    admission: Admission = Admission()
    seed: int = 1


@dataclass(frozen=True, kw_only=True)
class CpmRecipe:
    """The complete pre-training model, with the aggregator of the snapshots.

    Attributes:
        body: equal to that of the A-CTR that starts from it.
        train: the last month's rows.
        admission: when an id gets a row of its own.
        snapshots_by_day: while it trains, a row takes the months closed before its own day; otherwise all rows take
            those of the merged table, inside whose last snapshot their labels may be (an ablation).
        seed: of fresh parameters and of the order of rows.
    """

    body: Body = field(default_factory=Body)
    train: Phase = Phase(epochs=2, batch_size=1024, learning_rate=1e-3, embedding_learning_rate=0.1)
    admission: Admission = Admission()
    snapshots_by_day: bool = True
    seed: int = 2


@dataclass(frozen=True, kw_only=True)
class ActrRecipe:
    """The ad model; every variant of transfer has the same recipe, so the same tuning budget.

    Attributes:
        body: equal to that of the CPM that it starts from.
        restart: replay of the last ad days, from a CPM or from fresh parameters.
        daily: only the newest day, from the predecessor.
        corrects_base_rate: before a replay, logits are shifted so that the mean score is the click rate of the rows to
            come.
        admission: when an id gets a row of its own.
        seed: of fresh parameters and of the order of rows.
    """

    body: Body = field(default_factory=Body)
    restart: Phase = Phase(
        epochs=1, batch_size=256, learning_rate=1e-3, embedding_learning_rate=0.02, in_time_order=True
    )
    daily: Phase = Phase(epochs=1, batch_size=256, learning_rate=2e-4, embedding_learning_rate=0.01, in_time_order=True)
    corrects_base_rate: bool = True
    admission: Admission = Admission()
    seed: int = 3


@dataclass(frozen=True, kw_only=True)
class FgBertRecipe:
    """The sequence encoder. Layers and length are the paper's, as far as is known; the rest are BERT4Rec's public values or ours.

    Half of BERT4Rec's width and FFN: with them SRP4CTR's part of a sample would cost more than the paper's
    (docs/experiments.md).

    Attributes:
        objective: `fg_bert` masks item and behaviour sides apart and predicts all fields; `bert4rec` masks and predicts
            the item alone; `sasrec` predicts the next item from those before.
        fields: side information that it reads.
        length: most recent behaviours of a sequence.
        layers, heads, width, inner, dropout: of the transformer.
        item_mask, behaviour_mask: share of positions that each mask hides.
        sampled_above: from how many rows on a field's softmax is sampled, with log-Q correction.
        negatives: drawn for it, once a step.
        train: sequences, not behaviours, make a batch.
        admission: when an id gets a row of its own.
        seed: of fresh parameters, masks and the order of sequences.
    """

    objective: str = "fg_bert"
    fields: tuple[str, ...] = tuple(f.name for f in BEHAVIOUR_FIELDS)
    length: int = HISTORY_LENGTH
    layers: int = 2
    heads: int = 2
    width: int = 32
    inner: int = 128
    dropout: float = 0.1
    item_mask: float = 0.2
    behaviour_mask: float = 0.2
    sampled_above: int = 100_000
    negatives: int = 8192
    train: DecayingPhase = DecayingPhase(epochs=12, batch_size=64, learning_rate=3e-3)
    admission: Admission = Admission()
    seed: int = 4

    def __post_init__(self) -> None:
        _check(self, "objective", self.objective in OBJECTIVES, f"one of {', '.join(OBJECTIVES)}")
        known = {f.name for f in BEHAVIOUR_FIELDS}
        _check(
            self,
            "fields",
            "item_id" in self.fields and set(self.fields) <= known,
            f"item_id, and any of {', '.join(sorted(known))}",
        )
        _check(self, "length", 1 <= self.length <= HISTORY_LENGTH, f"1 .. {HISTORY_LENGTH}")
        _check(self, "width", self.width % self.heads == 0, f"a multiple of the {self.heads} heads")
        for name in ("item_mask", "behaviour_mask"):
            _check(self, name, 0 < getattr(self, name) < 1, "a share between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class TextRecipe:
    """How behaviour texts become vectors (BAHE, arXiv 2403.19347: pre-trained low layers, frozen, and a pooling).

    Attributes:
        source: `minilm` or `smollm2`, which packages carry; a folder, a GGUF file, or a name on the hub.
        low_layers: layers of the low half; None is half of them.
        pooling: mean over the tokens, or the last token.
        longest: tokens read of a text.
    """

    source: str = "minilm"
    low_layers: int | None = None
    pooling: Pooling = "mean"
    longest: int = 64

    def __post_init__(self) -> None:
        _check(self, "pooling", self.pooling in get_args(Pooling), "mean or last")
        _check(self, "longest", self.longest >= 2, "tokens >= 2")


@dataclass(frozen=True, kw_only=True)
class BaheRecipe:
    """The model over behaviour texts (BAHE, arXiv 2403.19347): LoRA rank, batch and cosine decay are the paper's, the rest is our choice.

    Attributes:
        length: most recent behaviours of each sequence, a sequence for each log.
        lora_rank: the rank of the high layers' adapters.
        dims: width of the user's and the item's vector, as they are published.
        hidden: widths of the head.
        natural_requests, ad_requests: of a day, at most so many are trained on, picked by a hash.
        first_days: days that the first release of all trains on.
        unseen: what a text without a vector reads as: encoded on demand, or unknown. Both are counted.
        first, daily: of the first release, and of the others; requests, not rows, make a batch. A day moves the vectors
            little, so that an ad model which reads them can go on.
        seed: of fresh parameters and of the order of requests.
    """

    length: int = 30
    lora_rank: int = 64
    dims: int = 64
    hidden: tuple[int, ...] = (64,)
    natural_requests: int = 256
    ad_requests: int = 8192
    first_days: int = 2
    unseen: Unseen = "encode"
    first: CosinePhase = CosinePhase(epochs=1, batch_size=16, learning_rate=5e-4)
    daily: CosinePhase = CosinePhase(epochs=1, batch_size=16, learning_rate=1e-4)
    seed: int = 5

    def __post_init__(self) -> None:
        _check(self, "length", 1 <= self.length <= HISTORY_LENGTH, f"1 .. {HISTORY_LENGTH}")
        _check(self, "unseen", self.unseen in get_args(Unseen), "encode or unknown")
        for name in ("lora_rank", "dims", "ad_requests", "first_days"):
            _check(self, name, getattr(self, name) >= 1, "a number >= 1")
        _check(self, "natural_requests", self.natural_requests >= 0, "a number >= 0")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of every kind of model of one deployment."""

    tpm: TpmRecipe = field(default_factory=TpmRecipe)
    cpm: CpmRecipe = field(default_factory=CpmRecipe)
    fg_bert: FgBertRecipe = field(default_factory=FgBertRecipe)
    actr: ActrRecipe = field(default_factory=ActrRecipe)
    texts: TextRecipe = field(default_factory=TextRecipe)
    bahe: BaheRecipe = field(default_factory=BaheRecipe)


def default() -> Recipe:
    """The settings that the documentation's figures were made with."""
    return Recipe()


def quick() -> Recipe:
    """Smaller and shorter: for demonstrations on two cores, and for tests."""
    base = default()
    body = replace(base.cpm.body, long_length=20, short_length=10, attention_hidden=(16,), hidden=(64, 32))
    return replace(
        base,
        cpm=replace(base.cpm, body=body),
        bahe=replace(base.bahe, length=20, natural_requests=128),
        fg_bert=replace(base.fg_bert, length=50, train=replace(base.fg_bert.train, epochs=3)),
        actr=replace(base.actr, body=body),
    )


RECIPES: dict[str, Callable[[], Recipe]] = dict(zip(RECIPE_NAMES, (default, quick), strict=True))


def recipe(name: str) -> Recipe:
    """A recipe by name.

    Raises:
        BadInput: there is none of this name.
    """
    if name not in RECIPES:
        raise BadInput("--recipe", "recipe", expected=f"one of {', '.join(RECIPES)}", found=name)
    return RECIPES[name]()


def as_json(part: TpmRecipe | CpmRecipe | FgBertRecipe | BaheRecipe | ActrRecipe) -> dict[str, Any]:
    """A recipe's part as JSON values, as a release records it."""
    return {name: _jsonable(value) for name, value in asdict(part).items()}


def body_of(release: Release) -> Body:
    """The body that a CPM or A-CTR was made with."""
    values: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in release.recipe["body"].items()}
    return replace(Body(), **values)


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _jsonable(item) for name, item in value.items()}
    return list(value) if isinstance(value, tuple) else value
