"""Recipes: named sets of training settings for all kinds of models.

Each recipe is a function that returns the whole configuration as frozen dataclasses; one recipe may call another and
replace some of its fields. A release records the settings of its own kind, and they are part of what its id is a hash of:
a model that is trained with other settings is another release.
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
CHECKPOINT_SECONDS = 120.0  # a long training writes its state each time so many seconds have passed


def _check(owner: object, name: str, ok: bool, expected: str) -> None:
    if not ok:
        raise BadInput(f"recipe {type(owner).__name__}", name, expected=expected, found=getattr(owner, name))


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One stretch of training with an optimiser of its own, which starts fresh.

    Attributes:
        epochs: how many times it passes over all rows.
        batch_size: the number of rows in a step; results depend on it.
        learning_rate: the rate of Adam, which trains everything but the embedding tables.
        embedding_learning_rate: the rate of row-wise Adagrad, which trains the embedding tables.
        in_time_order: whether days are trained on one after the other, with rows shuffled within each day; otherwise all rows
            are shuffled together.
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
        """Returns Adam's learning rate at a step.

        Args:
            step: the step, counted from 0.
            steps: how many steps the phase has.
        """
        return self.learning_rate


@dataclass(frozen=True, kw_only=True)
class DecayingPhase(Phase):
    """A phase in which Adam's rate rises over the first steps, and then falls to zero by a polynomial.

    Attributes:
        warmup_share: the share of all steps in which the rate rises.
        power: the degree of the polynomial; with 1 the rate falls along a line.
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
    """A phase in which Adam's rate rises over the first steps, and then falls to zero by half a cosine."""

    def rate_at(self, step: int, steps: int) -> float:
        """Returns the learning rate at a step, counted from 0, of all `steps`."""
        warmup = self.warmup_share * steps
        if step < warmup:
            return super().rate_at(step, steps)
        return self.learning_rate * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1))) / 2


@dataclass(frozen=True, kw_only=True)
class Admission:
    """When an id gets a row of its own in an embedding table, and when it loses the row.

    Attributes:
        sightings: how often an id must have been seen to get a row, over the trainings of all releases of a chain.
        forget_after_days: after so many days without being seen an id loses its row; None: it keeps the row for ever.
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
    """The settings of the network that CPM and A-CTR share. The paper publishes none of them, so every value is our choice.

    Attributes:
        long_length: how many behaviours of the long history the model reads, the most recent ones.
        short_length: how many behaviours of the short history it reads.
        attention_hidden: the widths of the hidden layers of the attention over histories.
        cross_layers: the number of DCN-V2 cross layers.
        hidden: the widths of the MLP's hidden layers.
        rate_prior_clicks: clicks that are added to a statistic's clicks before its click rate is computed.
        rate_prior_impressions: impressions that are added to its impressions.
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
        """The clicks and the impressions that are added to a statistic's counts before its click rate is computed."""
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
    """The tiny pre-training model (TPM): embeddings and a shallow MLP.

    Attributes:
        hidden: the widths of the MLP's hidden layers.
        train: how it is trained on the rows of its month.
        admission: when an id gets a row of its own.
        seed: the seed of fresh parameters and of the order of rows.
    """

    hidden: tuple[int, ...] = (64, 32)
    train: Phase = Phase(epochs=5, batch_size=1024, learning_rate=2e-3, embedding_learning_rate=1.0)
    admission: Admission = Admission()
    seed: int = 1


@dataclass(frozen=True, kw_only=True)
class CpmRecipe:
    """The complete pre-training model (CPM), with the aggregator of the monthly snapshots.

    Attributes:
        body: the settings of its network; they must equal those of the A-CTR that starts from it.
        train: how it is trained on the rows of the last month.
        admission: when an id gets a row of its own.
        snapshots_by_day: whether, in training, a row reads the snapshots of the months that had closed before its own day.
            Otherwise all rows read the snapshots of the merged table, the last of which may have been trained on the rows'
            own labels (for an ablation only).
        seed: the seed of fresh parameters and of the order of rows.
    """

    body: Body = field(default_factory=Body)
    train: Phase = Phase(epochs=2, batch_size=1024, learning_rate=1e-3, embedding_learning_rate=0.1)
    admission: Admission = Admission()
    snapshots_by_day: bool = True
    seed: int = 2


@dataclass(frozen=True, kw_only=True)
class ActrRecipe:
    """The ad model (A-CTR). All of its variants share one recipe, so that none is tuned more than another.

    Attributes:
        body: the settings of its network; they must equal those of the CPM that it starts from.
        restart: how it is trained on the replayed last ad days, when it starts from a CPM or from fresh parameters.
        daily: how it is trained on the newest day, when it continues its predecessor.
        corrects_base_rate: whether, before a replay, all logits are shifted so that the mean score equals the click rate of
            the rows that follow.
        admission: when an id gets a row of its own.
        seed: the seed of fresh parameters and of the order of rows.
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
    """The sequence encoder (FG-BERT).

    Layers and length are the paper's, as far as it publishes them; the other values are those of BERT4Rec's code, or our
    choice. Width and FFN are half of BERT4Rec's: with the whole, a sample would spend more on SRP4CTR's part than in the
    paper (docs/experiments.md).

    Attributes:
        objective: `fg_bert` masks the item side and the behaviour side of a behaviour separately and predicts all fields;
            `bert4rec` masks and predicts only the item; `sasrec` predicts the next item from those before it.
        fields: the fields of a behaviour that it reads, `item_id` among them.
        length: how many behaviours of a sequence it reads, the most recent ones.
        layers: the number of transformer layers.
        heads: the number of attention heads.
        width: the width of a token.
        inner: the width of the FFN's hidden layer.
        dropout: the share of values that dropout sets to zero.
        item_mask: the share of positions whose item side is masked.
        behaviour_mask: the share of positions whose behaviour side is masked.
        sampled_above: a field with more rows than this is predicted by a sampled softmax with log-Q correction.
        negatives: how many negatives the sampled softmax draws, once a step.
        train: how it is trained; a batch counts sequences, not behaviours.
        admission: when an id gets a row of its own.
        seed: the seed of fresh parameters, masks and the order of sequences.
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
    """How behaviour texts become vectors: by the lowest layers of a language model, which are not trained, and a pooling.

    The source is BAHE, arXiv 2403.19347.

    Attributes:
        source: the language model: `minilm` or `smollm2`, which Python packages contain, a folder, a GGUF file, or a name on
            the Hugging Face hub.
        low_layers: how many of its layers are the lowest; None: half of them.
        pooling: what becomes a text's vector: the mean over its tokens, or its last token.
        longest: how many tokens of a text are read.
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
    """The model over behaviour texts (BAHE, arXiv 2403.19347).

    The rank of LoRA, the batch size and the cosine decay are the paper's; the rest is our choice.

    Attributes:
        length: how many behaviours of a sequence it reads, the most recent ones; a user has a sequence for each log.
        lora_rank: the rank of the adapters in the language model's high layers.
        dims: the width of the published vectors of users and items.
        hidden: the widths of the head's hidden layers.
        natural_requests: at most so many requests of the natural log are trained on a day, chosen by a hash.
        ad_requests: at most so many requests of the ad log are trained on a day, chosen by a hash.
        first_days: how many days the first release of a chain trains on.
        unseen: what happens with a text that has no vector yet: `encode` encodes it on demand, `unknown` reads it as unknown.
            Either way such texts are counted.
        first: how the first release of a chain is trained; a batch counts requests, not rows.
        daily: how the other releases are trained. Its rate is low, so that a day changes the vectors little and an ad model
            that reads them can continue.
        seed: the seed of fresh parameters and of the order of requests.
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
    """The training settings of every kind of model."""

    tpm: TpmRecipe = field(default_factory=TpmRecipe)
    cpm: CpmRecipe = field(default_factory=CpmRecipe)
    fg_bert: FgBertRecipe = field(default_factory=FgBertRecipe)
    actr: ActrRecipe = field(default_factory=ActrRecipe)
    texts: TextRecipe = field(default_factory=TextRecipe)
    bahe: BaheRecipe = field(default_factory=BaheRecipe)


def default() -> Recipe:
    """Returns the settings with which the documentation's figures were measured."""
    return Recipe()


def quick() -> Recipe:
    """Returns settings of smaller models and shorter trainings, for demonstrations on two cores and for tests."""
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
    """Returns the recipe of a name.

    Raises:
        BadInput: there is no recipe of this name.
    """
    if name not in RECIPES:
        raise BadInput("--recipe", "recipe", expected=f"one of {', '.join(RECIPES)}", found=name)
    return RECIPES[name]()


def as_json(part: TpmRecipe | CpmRecipe | FgBertRecipe | BaheRecipe | ActrRecipe) -> dict[str, Any]:
    """Converts the settings of one kind to JSON values, as a release records them."""
    return {name: _jsonable(value) for name, value in asdict(part).items()}


def body_of(release: Release) -> Body:
    """Reads from a release of CPM or A-CTR the settings of its network."""
    values: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in release.recipe["body"].items()}
    return replace(Body(), **values)


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _jsonable(item) for name, item in value.items()}
    return list(value) if isinstance(value, tuple) else value
