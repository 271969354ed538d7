"""Tables of the lake: columns, meanings, legal values, and which partition a producer owns. Who writes and reads them: `contracts.steps`.

Column types are Spark DDL. Names are the same in Spark, Parquet and the batch. The rules that send a row to quarantine
and the expectations that judge a day both derive from the columns' legal values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from contracts.errors import BadInput
from contracts.features import (
    ACTIONS,
    BEHAVIOUR_TYPE,
    ENTITIES,
    FEATURES,
    LOGS,
    LONGEST_TEXT,
    STATISTIC_WINDOWS,
    STATISTICS,
    WHOLE_LOG,
    Feature,
    Log,
    features_in_log,
)
from contracts.kinds import KINDS


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column and its legal values.

    Attributes:
        name: its name.
        type: Spark DDL type.
        meaning: one line for people.
        nullable: whether null is legal.
        minimum, maximum: legal range, inclusive; None is unbounded.
        allowed: the legal values, or None.
        longest: most characters of a text, or None.
        volatile: whether it differs between equal runs (a time, a run id); such columns are left out of digests and
            comparisons.
    """

    name: str
    type: str
    meaning: str
    nullable: bool = False
    minimum: int | None = None
    maximum: int | None = None
    allowed: tuple[int | str, ...] | None = None
    longest: int | None = None
    volatile: bool = False

    @property
    def legal_values(self) -> str:
        """The values that a landing file may hold in this column, in words."""
        if self.allowed is not None:
            return "one of " + ", ".join(map(str, self.allowed))
        if self.type == "string":
            return "a text" if self.longest is None else f"a text of at most {self.longest} characters"
        kind = {"bigint": "an integer", "int": "an integer", "double": "a number", "timestamp": "an ISO-8601 time"}[
            self.type
        ]
        low = f" >= {self.minimum}" if self.minimum is not None else ""
        high = f" and <= {self.maximum}" if self.maximum is not None else ""
        return kind + low + high


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of the lake.

    Attributes:
        name: its folder in the lake.
        grain: what one row is.
        columns: its columns, in order.
        owner: columns whose values name the one partition that a producer may replace.
        partition: columns that Delta partitions by; the owner columns unless that would leave tiny files.
        unique: columns that no two rows of a partition share.
        content_addressed: whether it is written by an insert-only MERGE on the unique columns; such a table has no
            owner.
        journal: whether rows are only ever added; of the rows of one owner the newest counts.
        rules_version: raised when a change of the producer changes what the rows mean; partitions of older versions are
            not read.
    """

    name: str
    grain: str
    columns: tuple[Column, ...]
    owner: tuple[str, ...]
    partition: tuple[str, ...] = ()
    unique: tuple[str, ...] = ()
    content_addressed: bool = False
    journal: bool = False
    rules_version: int = 1

    def __post_init__(self) -> None:
        names = {column.name for column in self.columns}
        assert len(names) == len(self.columns), f"{self.name}: a column is declared twice"
        assert {*self.owner, *self.partition, *self.unique} <= names, f"{self.name}: an owner column is not declared"

    @property
    def partition_columns(self) -> tuple[str, ...]:
        """Columns that Delta partitions the table by."""
        return self.partition or self.owner

    @property
    def ddl(self) -> str:
        """Its columns as Spark DDL."""
        return ", ".join(f"`{column.name}` {column.type}" for column in self.columns)

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of its columns, in order."""
        return tuple(column.name for column in self.columns)

    @property
    def stable_columns(self) -> tuple[str, ...]:
        """Columns that equal runs agree on: what digests and comparisons read."""
        return tuple(column.name for column in self.columns if not column.volatile)

    @property
    def rules_input(self) -> dict[str, str]:
        """The rules version as a build of the table records it among its inputs; empty for version 1."""
        return {f"rules/{self.name}": str(self.rules_version)} if self.rules_version > 1 else {}

    def is_current(self, inputs: Mapping[str, str]) -> bool:
        """Whether a build with these inputs was made by the present rules."""
        return all(inputs.get(key) == version for key, version in self.rules_input.items())

    def column(self, name: str) -> Column:
        """The column of this name."""
        return next(column for column in self.columns if column.name == name)

    def rows_of_user(self, user_id: int) -> dict[str, int | str] | None:
        """Columns and values that select the rows about one user; None for a table whose rows name no user."""
        names = self.column_names
        if "user_id" in names:
            return {"user_id": user_id}
        if {"field", "id"} <= set(names):
            return {"field": "user_id", "id": user_id}
        if "entity" in names:
            return {"entity": "user", "entity_id" if "entity_id" in names else "id": user_id}
        return None


_DS = Column(name="ds", type="date", meaning="the day, in day_timezone")
_LOG = Column(name="log", type="string", meaning="natural or ad", allowed=LOGS)
_CLICK = Column(name="click", type="int", meaning="1 if the user took it up, else 0", allowed=(0, 1))


def _id(name: str, meaning: str) -> Column:
    return Column(name=name, type="bigint", meaning=meaning, minimum=0)


def _feature(feature: Feature, *, nullable: bool = False) -> Column:
    return Column(
        name=feature.name,
        type=feature.type,
        meaning=feature.meaning,
        nullable=nullable or not feature.required,
        minimum=0,
        maximum=feature.maximum,
    )


def _log_table(log: Log) -> Table:
    return Table(
        name=f"{log}_log",
        grain=f"one impression of the {log} domain",
        columns=(
            _id("event_id", "the impression"),
            Column(name="event_ts", type="timestamp", meaning="when it was shown"),
            Column(
                name="arrival_ts", type="timestamp", meaning="when the row reached the landing folder", nullable=True
            ),
            _id("request_id", "the request it answered; its candidates share one history"),
            *map(_feature, features_in_log(log)),
            _CLICK,
            Column(
                name="action",
                type="int",
                meaning=f"the strongest action: {', '.join(f'{k} {v}' for k, v in ACTIONS.items())}",
                allowed=tuple(ACTIONS),
            ),
            Column(name="dwell_seconds", type="double", meaning="how long the user stayed", minimum=0, maximum=86_400),
            Column(
                name="item_text",
                type="string",
                meaning="what the item is, in words: what behaviour texts are made of",
                nullable=True,
                longest=LONGEST_TEXT,
            ),
            Column(name="late", type="boolean", meaning="an event of an earlier day that arrived on this one"),
            _DS,
        ),
        owner=("ds",),
        unique=("event_id",),
    )


def _samples_table(log: Log) -> Table:
    return Table(
        name=f"{log}_samples",
        grain=f"one impression of the {log} domain, as a training row",
        columns=(
            _id("event_id", "the impression"),
            _id("request_id", "the request it answered"),
            Column(name="event_ts", type="timestamp", meaning="when it was shown"),
            Column(
                name="sample_ts",
                type="timestamp",
                meaning="the request's first event_ts: what the row may know, it knew then",
            ),
            *(_feature(f) for f in FEATURES if f.side != "ad" or log == "ad"),
            *(
                Column(name=name, type="bigint", meaning="a statistic of the days before", minimum=0)
                for statistic in STATISTICS
                for name in statistic.columns
            ),
            Column(
                name="history_end",
                type="int",
                meaning="how many behaviours of the user's history of the day it may see",
                minimum=0,
            ),
            Column(
                name="item_text_hash",
                type="bigint",
                nullable=True,
                minimum=0,
                meaning="which behaviour text its item's is, as if it had been clicked; null without a text",
            ),
            Column(name="held_out", type="boolean", meaning="its request is kept out of all training, for the gate"),
            _CLICK,
            _DS,
        ),
        owner=("ds",),
        unique=("event_id",),
    )


LANDING_COLUMNS: dict[Log, tuple[str, ...]] = {
    log: (
        "event_id",
        "event_ts",
        "arrival_ts",
        "request_id",
        *(f.name for f in features_in_log(log)),
        "click",
        "action",
        "dwell_seconds",
        "item_text",
    )
    for log in LOGS
}
OPTIONAL_LANDING_COLUMNS = ("arrival_ts", "item_text", *(f.name for f in FEATURES if not f.required))
ENTITY_ID_COLUMNS = tuple(f.name for f in FEATURES if f.name.endswith("_id"))
LANDING_ID_COLUMNS = ("event_id", "request_id", *ENTITY_ID_COLUMNS)

_ENTITY_KEY = (
    Column(
        name="entity",
        type="string",
        meaning="user, item, category, or all: the whole log, with id 0",
        allowed=(*ENTITIES, WHOLE_LOG),
    ),
    _id("entity_id", "the entity's id"),
)
_COUNTS = (
    Column(name="impressions", type="bigint", meaning="times shown", minimum=0),
    Column(name="clicks", type="bigint", meaning="times clicked", minimum=0),
)
_UNTIL = Column(name="until_ds", type="date", meaning="merged over all days before this one, from history_start on")
_BEHAVIOURS = Column(
    name="behaviours",
    type=f"array<{BEHAVIOUR_TYPE}>",
    meaning="positives, oldest first; one that arrived later than feedback_delay_seconds after its event has, as its "
    "event_ts, so much before its arrival_ts",
)
_RELEASE = Column(name="release_id", type="string", meaning="the release that it belongs to")


VectorEntity = Literal["user", "item"]
VECTOR_ENTITIES: tuple[VectorEntity, ...] = get_args(VectorEntity)
VECTOR_ID_COLUMNS = tuple(f"{entity}_id" for entity in VECTOR_ENTITIES)
STRINGS_JOINED_BY = " | "


def _embedding_table(name: str, grain: str) -> Table:
    return Table(
        name=name,
        grain=grain,
        columns=(
            Column(name="entity", type="string", meaning="user or item", allowed=VECTOR_ENTITIES),
            _id("id", "the entity's raw id"),
            Column(name="vector", type="array<float>", meaning="the embedding"),
            Column(name="dim", type="int", meaning="its width", minimum=1),
            Column(
                name="string",
                type="string",
                nullable=True,
                meaning="what was hashed into the id, where `published_strings` names its column; of several strings "
                "with one hash, all of them",
            ),
            _RELEASE,
        ),
        owner=("release_id",),
        unique=("entity", "id"),
    )


_ALL = (
    _log_table("natural"),
    _log_table("ad"),
    Table(
        name="quarantine",
        grain="one bad row",
        columns=(
            Column(name="rule", type="string", meaning="the first rule that it breaks"),
            Column(name="field", type="string", meaning="the field at fault"),
            Column(name="expected", type="string", meaning="what the field should have been"),
            Column(name="found", type="string", meaning="what it was", nullable=True),
            Column(
                name="file",
                type="string",
                meaning="the landing file: under the landing folder, or its whole path where it lies elsewhere",
            ),
            Column(
                name="raw",
                type="string",
                meaning="the whole row, as JSON; of a log in columns of a team `user_id`, and `delivered` in those columns",
            ),
            Column(name="run_id", type="string", meaning="the run that found it", volatile=True),
            _LOG,
            _DS,
        ),
        owner=("ds", "log"),
    ),
    Table(
        name="behaviour_partials",
        grain="one user of a day and log",
        columns=(_id("user_id", "the user"), _BEHAVIOURS, _LOG, _DS),
        owner=("ds", "log"),
        unique=("user_id",),
        rules_version=2,  # a behaviour is known from when it had arrived
    ),
    Table(
        name="statistic_partials",
        grain="one user, item or category of a day and log",
        columns=(*_ENTITY_KEY, *_COUNTS, _LOG, _DS),
        owner=("ds", "log"),
        unique=("entity", "entity_id"),
    ),
    Table(
        name="behaviour_checkpoints",
        grain="one user, merged up to a day: the last 200 positives, and those not known before that day",
        columns=(_id("user_id", "the user"), _BEHAVIOURS, _LOG, _UNTIL),
        owner=("until_ds", "log"),
        unique=("user_id",),
    ),
    Table(
        name="statistic_checkpoints",
        grain="one user, item or category, merged up to a day: totals since history_start",
        columns=(*_ENTITY_KEY, *_COUNTS, _LOG, _UNTIL),
        owner=("until_ds", "log"),
        unique=("entity", "entity_id"),
    ),
    Table(
        name="user_histories",
        grain="one user of the day: the last 200 positives before it, and those of the day or first known on it",
        columns=(_id("user_id", "the user"), _BEHAVIOURS, _DS),
        owner=("ds",),
        unique=("user_id",),
    ),
    Table(
        name="entity_statistics",
        grain="one user, item or category of the day: window sums over the days before it",
        columns=(
            *_ENTITY_KEY,
            *(
                Column(
                    name=f"{log}_{what}_{days}d_cnt",
                    type="bigint",
                    minimum=0,
                    meaning=f"{what} in the {log} log, in the {days} days before",
                )
                for log in LOGS
                for days in STATISTIC_WINDOWS
                for what in ("impressions", "clicks")
            ),
            *(
                Column(
                    name=f"{log}_smoothed_ctr_{days}d",
                    type="double",
                    nullable=True,
                    minimum=0,
                    maximum=1,
                    meaning=f"click rate in the {log} log, in the {days} days before, drawn to the whole log's; null without a row",
                )
                for log in LOGS
                for days in STATISTIC_WINDOWS
            ),
            _DS,
        ),
        owner=("ds",),
        unique=("entity", "entity_id"),
    ),
    _samples_table("natural"),
    _samples_table("ad"),
    Table(
        name="behaviour_texts",
        grain="one text of a behaviour, or of what was shown",
        columns=(
            _id("text_hash", "xxhash64 of the text, masked to 63 bits"),
            Column(
                name="text",
                type="string",
                longest=LONGEST_TEXT + 100,
                meaning="the action in words, and the item's text; what was shown reads as clicked",
            ),
        ),
        owner=(),
        unique=("text_hash",),
        content_addressed=True,
    ),
    Table(
        name="behaviour_text_vectors",
        grain="one text's vector by one encoder",
        columns=(
            Column(
                name="encoder_id",
                type="string",
                meaning="hash of the low layers, the vocabulary, the pooling and the cut",
            ),
            _id("text_hash", "the text"),
            Column(name="vector", type="array<float>", meaning="the low layers' output, pooled"),
            Column(name="dim", type="int", meaning="its width", minimum=1),
        ),
        owner=(),
        unique=("encoder_id", "text_hash"),
        content_addressed=True,
    ),
    Table(
        name="id_strings",
        grain="one string that was hashed into an id",
        columns=(
            Column(
                name="field",
                type="string",
                meaning="the landing column, one of those that `kept_strings` names",
                allowed=ENTITY_ID_COLUMNS,
            ),
            _id("id", "the id: xxhash64 of the string, masked to 63 bits"),
            Column(name="string", type="string", meaning="the string as it was delivered, without blanks around it"),
        ),
        owner=(),
        partition=("field",),
        unique=("field", "id", "string"),
        content_addressed=True,
    ),
    *(_embedding_table(kind.vectors, kind.vectors_meaning) for kind in KINDS.values()),
    Table(
        name="predictions",
        grain="one ad impression, scored by the model of the day before",
        columns=(
            _id("event_id", "the impression"),
            _id("user_id", "who saw it"),
            Column(name="score", type="double", meaning="predicted click probability", minimum=0, maximum=1),
            _CLICK,
            Column(name="scored_by", type="string", meaning="the release that scored it"),
            Column(name="variant", type="string", meaning="its transfer setting"),
            _RELEASE,
            _DS,
        ),
        owner=("ds", "release_id"),
        unique=("event_id",),
    ),
    Table(
        name="model_metrics",
        grain="one figure of a release",
        columns=(
            Column(name="metric", type="string", meaning="its name: auc, gauc, gauc_plain, logloss, ..."),
            Column(name="split", type="string", meaning="the rows it is of: next_day, held_out, train"),
            Column(name="value", type="double", meaning="the figure", nullable=True),
            Column(name="row_cnt", type="bigint", meaning="rows behind it", minimum=0),
            Column(name="kind", type="string", meaning="kind of model"),
            Column(name="variant", type="string", meaning="its transfer setting"),
            _RELEASE,
            _DS,
        ),
        owner=("ds", "release_id"),
        unique=("metric", "split"),
    ),
    Table(
        name="quality_results",
        grain="one check of one table and day",
        columns=(
            Column(name="table_name", type="string", meaning="the table"),
            Column(name="check_name", type="string", meaning="the expectation"),
            Column(name="field", type="string", meaning="the column it judges, if one", nullable=True),
            Column(
                name="severity", type="string", meaning="fail stops the day, warn reports", allowed=("fail", "warn")
            ),
            Column(name="success", type="boolean", meaning="whether it held"),
            Column(name="expected", type="string", meaning="what should hold"),
            Column(name="found", type="string", meaning="what did"),
            Column(name="run_ts", type="timestamp", meaning="when it was judged", volatile=True),
            _DS,
        ),
        owner=("table_name", "ds"),
    ),
    Table(
        name="builds",
        grain="one writing of a partition; the newest of a partition counts",
        columns=(
            Column(name="table_name", type="string", meaning="the table"),
            Column(name="owner", type="string", meaning="the partition, as column=value, comma-separated"),
            Column(name="row_cnt", type="bigint", meaning="rows written", minimum=0),
            Column(name="digest", type="string", meaning="sum of xxhash64 over the non-volatile columns"),
            Column(name="inputs", type="map<string, string>", meaning="digest of each partition read, by table/owner"),
            Column(
                name="counts", type="map<string, bigint>", meaning="figures of the job: read, kept, duplicates, ..."
            ),
            Column(name="code_version", type="string", meaning="version of the code that wrote it"),
            Column(name="built_ts", type="timestamp", meaning="when", volatile=True),
        ),
        owner=("table_name", "owner"),
        partition=("table_name",),
        journal=True,
    ),
    Table(
        name="forgotten",
        grain="one user that was forgotten, and when",
        columns=(
            Column(name="user_hash", type="string", meaning="sha256 of the deployment's salt and the user's id"),
            Column(
                name="forgotten_on",
                type="date",
                meaning="the day, in day_timezone: events up to it do not come in again",
            ),
        ),
        owner=(),
        unique=("user_hash", "forgotten_on"),
        content_addressed=True,
    ),
    Table(
        name="releases",
        grain="one release of a model and its vectors; immutable",
        columns=(
            _RELEASE,
            Column(name="kind", type="string", meaning="kind of model", allowed=tuple(KINDS)),
            Column(name="variant", type="string", meaning="transfer setting; `default` where there is one only"),
            Column(name="period", type="date", meaning="first day of its period"),
            Column(name="recipe", type="string", meaning="its settings, as JSON"),
            Column(
                name="parents", type="map<string, string>", meaning="release id of each parent, by role/kind/period"
            ),
            Column(name="absent_parents", type="array<string>", meaning="snapshots that precede history_start"),
            Column(name="inputs", type="map<string, string>", meaning="digest of each partition read, by table/owner"),
            Column(name="model_version", type="int", meaning="version of the model's code"),
            Column(name="artifact", type="string", meaning="its run folder, under the home folder"),
            Column(name="sha256", type="string", meaning="of the artifact's manifest"),
            Column(name="feature_set", type="array<string>", meaning="features it reads"),
            Column(name="metrics", type="map<string, double>", meaning="headline figures"),
            Column(
                name="carries",
                type="string",
                meaning="of a fallback: the release whose model it carries",
                nullable=True,
            ),
            Column(name="created_ts", type="timestamp", meaning="when", volatile=True),
        ),
        owner=("release_id",),
        partition=("kind",),
        unique=("release_id",),
    ),
    Table(
        name="activations",
        grain="which release serves a kind, variant and period",
        columns=(
            Column(name="kind", type="string", meaning="kind of model"),
            Column(name="variant", type="string", meaning="transfer setting"),
            Column(name="period", type="date", meaning="first day of the period"),
            _RELEASE,
            Column(name="activated_ts", type="timestamp", meaning="when", volatile=True),
        ),
        owner=("kind", "variant", "period"),
        partition=("kind",),
        unique=("kind", "variant", "period"),
    ),
)

TABLES: dict[str, Table] = {table.name: table for table in _ALL}


def table(name: str) -> Table:
    """The contract of a table.

    Raises:
        BadInput: there is none of this name.
    """
    if name not in TABLES:
        raise BadInput("contracts", "table", expected=f"one of {', '.join(TABLES)}", found=name)
    return TABLES[name]


def owner_key(**values: object) -> str:
    """Owner values as one string, e.g. `ds=2026-01-01,log=ad`: the key of `builds`, and of a lock."""
    return ",".join(f"{name}={value}" for name, value in values.items())


def landing_key(name: str, day: object) -> str:
    """The key among the inputs of a build of a log's landing day, or of what a landing day reads of a side table.

    Args:
        name: natural, ad, users or items.
        day: the landing day.
    """
    return f"landing/{owner_key(log=name, ds=day)}"
