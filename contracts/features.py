"""Features, declared once. Log and sample columns, quality checks, batches and model tables derive from this file.

A new feature is one line here and its producer: a landing column of the same name, a statistic, or a derivation in
`spark_jobs/build_samples.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Side = Literal["user", "item", "context", "ad"]
Log = Literal["natural", "ad"]
Entity = Literal["user", "item", "category"]
FeatureType = Literal["bigint", "int"]

LOGS: tuple[Log, ...] = ("natural", "ad")
ENTITIES: tuple[Entity, ...] = ("user", "item", "category")
WHOLE_LOG = "all"  # the entity, with id 0, that every impression counts for: what a smoothed rate falls back on

TPM, CPM, ACTR = "tpm", "cpm", "actr"
ALL_MODELS = frozenset({TPM, CPM, ACTR})
FINE_GRAINED = frozenset(
    {CPM, ACTR}
)  # E-CDCTR: CPM and A-CTR read the same fine-grained features, TPM a few basic ones

HISTORY_LENGTH = 200  # positives that a user's long history holds
HISTORY_DAYS = 180  # how far back a long history reaches
SHORT_HISTORY_SECONDS = 7 * 24 * 3600
HELD_OUT_ONE_IN = 50  # a hash keeps one request in so many out of all training; the gate judges models on these


@dataclass(frozen=True, kw_only=True)
class Feature:
    """A categorical feature of an impression.

    Attributes:
        name: the column's name in logs, samples and batches.
        side: whose attribute it is; an `ad` feature exists only in the ad log and reads as unknown elsewhere.
        meaning: one line for `docs/tables.md`.
        type: its Spark type in logs and samples; batches hold int64.
        source: `landing` (delivered in the landing file) or `derived` (computed by build_samples).
        required: whether every landing file must deliver it; one that was declared later reads as unknown in older
            files.
        models: kinds of model that read it.
        embedding_dim: width of its embedding.
        maximum: largest legal value, or None.
    """

    name: str
    side: Side
    meaning: str
    type: FeatureType = "bigint"
    source: Literal["landing", "derived"] = "landing"
    required: bool = True
    models: frozenset[str] = ALL_MODELS
    embedding_dim: int = 16
    maximum: int | None = None

    @property
    def unknown_values(self) -> tuple[int | None, ...]:
        """The values that read as unknown: null and, of an id, 0, which a team delivers where it knows none; a rank of 0 is known."""
        return (None, 0) if self.maximum is None else (None,)


FEATURES: tuple[Feature, ...] = (
    Feature(name="user_id", side="user", meaning="who saw it"),
    Feature(name="item_id", side="item", meaning="what was shown"),
    Feature(name="category_id", side="item", meaning="the item's category"),
    Feature(name="user_segment_id", side="user", meaning="a stable attribute of the user", models=FINE_GRAINED),
    Feature(name="position", side="context", meaning="rank on the page, 0 on top", maximum=10_000),
    Feature(name="hour", side="context", meaning="hour of the day in day_timezone", source="derived", maximum=23),
    Feature(name="campaign_id", side="ad", meaning="the advertisement's campaign", models=FINE_GRAINED),
    Feature(name="advertiser_id", side="ad", meaning="who pays", models=FINE_GRAINED),
)


@dataclass(frozen=True, kw_only=True)
class Statistic:
    """Impressions and clicks of an entity in one log, summed over the `window_days` days before a sample's day."""

    entity: Entity
    log: Log
    window_days: int

    @property
    def impressions(self) -> str:
        """Name of the column that counts impressions."""
        return f"{self.entity}_{self.log}_impressions_{self.window_days}d_cnt"

    @property
    def clicks(self) -> str:
        """Name of the column that counts clicks."""
        return f"{self.entity}_{self.log}_clicks_{self.window_days}d_cnt"

    @property
    def columns(self) -> tuple[str, str]:
        """Names of both columns: impressions, then clicks."""
        return self.impressions, self.clicks


STATISTIC_WINDOWS = (1, 7, 30, 180)
SMOOTHING_IMPRESSIONS = 20  # a smoothed click rate adds so many impressions at the whole log's rate to the entity's own
STATISTICS: tuple[Statistic, ...] = tuple(
    Statistic(entity=entity, log=log, window_days=days)
    for entity in ENTITIES
    for log in LOGS
    for days in STATISTIC_WINDOWS
)
STATISTIC_COLUMNS: tuple[str, ...] = tuple(name for statistic in STATISTICS for name in statistic.columns)

# What a user did on an impression, from least to most; a behaviour is an impression with action >= 1.
ACTIONS: dict[int, str] = {0: "none", 1: "click", 2: "like", 3: "comment", 4: "forward", 5: "follow", 6: "purchase"}

# One behaviour of a user. It begins with the time and a tie-break, so that sorting the structs sorts them in time. The
# time is that of the event, or, where it arrived later than the feedback delay after it, `arrival_ts` less that delay:
# a sample at t sees what has `event_ts + feedback_delay < t`, so it sees what had arrived (docs/adr/0017).
BEHAVIOUR_TYPE = (
    "struct<event_ts: timestamp, log: string, event_id: bigint, item_id: bigint, category_id: bigint,"
    " action: int, dwell_seconds: double, text_hash: bigint>"
)


@dataclass(frozen=True, kw_only=True)
class BehaviourField:
    """Side information of a behaviour, as FG-BERT reads and predicts it (SRP4CTR, arXiv 2407.19658).

    Attributes:
        name: its name in batches: that of a feature, or of a code that the batch computes.
        side: whether it describes the item, or what the user did with it; one mask hides all fields of a side together.
        meaning: one line.
        embedding_dim: width of its embedding.
        codes: number of its codes; None for ids, which get embedding rows when they are first seen.
    """

    name: str
    side: Literal["item", "behaviour"]
    meaning: str
    embedding_dim: int
    codes: int | None = None


DWELL_BUCKETS = (
    0.0,
    1.0,
    3.0,
    7.0,
    15.0,
    30.0,
    60.0,
    180.0,
    600.0,
)  # bounds in seconds; a code below each, and one above
GAP_BUCKETS = (
    1,
    10,
    60,
    300,
    1800,
    3 * 3600,
    12 * 3600,
    24 * 3600,
    3 * 86_400,
    7 * 86_400,
    30 * 86_400,
)  # likewise, and one of the first
BEHAVIOUR_FIELDS: tuple[BehaviourField, ...] = (
    BehaviourField(name="item_id", side="item", meaning="what was clicked", embedding_dim=64),
    BehaviourField(name="category_id", side="item", meaning="its category", embedding_dim=16),
    BehaviourField(
        name="action", side="behaviour", meaning="the strongest action", embedding_dim=8, codes=len(ACTIONS)
    ),
    BehaviourField(
        name="dwell",
        side="behaviour",
        meaning="how long the user stayed",
        embedding_dim=8,
        codes=len(DWELL_BUCKETS) + 1,
    ),
    BehaviourField(
        name="gap",
        side="behaviour",
        meaning="time since the behaviour before; 0 of the first",
        embedding_dim=8,
        codes=len(GAP_BUCKETS) + 2,
    ),
    BehaviourField(name="hour", side="behaviour", meaning="hour of the day in day_timezone", embedding_dim=8, codes=24),
    BehaviourField(name="log", side="behaviour", meaning="in which log", embedding_dim=8, codes=len(LOGS)),
)

# The text of a behaviour, by its action; `{text}` is the item's text. A text is identified by its xxhash64, masked to
# 63 bits.
BEHAVIOUR_TEXTS: dict[int, str] = {
    1: "Clicked {text}",
    2: "Liked {text}",
    3: "Commented on {text}",
    4: "Forwarded {text}",
    5: "Followed {text}",
    6: "Bought {text}",
}
CANDIDATE_ACTION = (
    1  # a shown item gets the text of a click, so that its vector is looked up among those of the behaviours
)
LONGEST_TEXT = 20_000  # characters of an item's text; a longer one is a fault of delivery


def features_of(model: str) -> tuple[Feature, ...]:
    """Features that a kind of model reads, in declaration order."""
    return tuple(feature for feature in FEATURES if model in feature.models)


def features_in_log(log: Log) -> tuple[Feature, ...]:
    """Features delivered with this log's impressions."""
    return tuple(f for f in FEATURES if f.source == "landing" and (log == "ad" or f.side != "ad"))
