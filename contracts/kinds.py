"""The kinds of model, declared once: what each reads, which releases it is made from, how often, where its vectors go, which DAG makes it.

A new kind is one entry here, its recipe (`training/recipes.py`), its task (`training/tasks`), and its model. Commands,
DAG, waits, parents, gate, audit and tables follow from the entry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Cadence = Literal["day", "week", "month"]
Role = Literal["predecessor", "snapshot", "pretrained", "encoder", "texts"]


@dataclass(frozen=True, kw_only=True)
class ParentRule:
    """Which releases of a kind a period of another kind is made from.

    Attributes:
        role: what the parents are read for.
        kind: the kind of the parents.
        which: `previous`: the period before, of the same kind. `last_closed`: the last period that had ended when this
            one began. `snapshots`: the months closed before each training day, and before this period (E-CDCTR).
        binds: whether a chain of models starts again when this parent changes.
    """

    role: Role
    kind: str
    which: Literal["previous", "last_closed", "snapshots"] = "last_closed"
    binds: bool = False


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of model.

    Attributes:
        name: the word for it in commands, folders and tables.
        meaning: one line for people.
        makes: its inputs -> its outputs, as its DAG's page shows them.
        cadence: whether there is one release a day, a week or a month.
        model_version: part of every release id; raised when a change of the code changes results.
        vectors: the table that its vectors are published to.
        vectors_meaning: what a row of that table is.
        dag: the DAG that makes it.
        reads: tables that its training reads.
        reads_days: which days of them it always reads. `period`: those of its period; `last_month`: the month up to the
            period's end; `replay`: in its very first period those that a restart replays, in every other one those of
            the period.
        parents: releases that it is made from.
        first: the property of `Lineage` that names the first day of its first period.
        prepared_by: commands that run before the training, as (folder, command).
        publishes: tables that its release fills in addition to its vectors.
        trains: whether it takes a recipe; a kind that only encodes uses the recipe of its encoder.
        transfers: whether it takes a transfer setting.
        training: what its training does, for its DAG's page.
        gate: how it is judged, for its DAG's page.
        gate_stops: what it means when the gate stops.
    """

    name: str
    meaning: str
    makes: str
    cadence: Cadence
    model_version: int
    vectors: str
    vectors_meaning: str
    dag: str
    reads: tuple[str, ...]
    reads_days: Literal["period", "last_month", "replay"] = "period"
    parents: tuple[ParentRule, ...] = ()
    first: Literal["history_start", "actr_start", "encoder_start", "encoded_start", "texts_start"] = "history_start"
    prepared_by: tuple[tuple[str, str], ...] = ()
    publishes: tuple[str, ...] = ()
    trains: bool = True
    transfers: bool = False
    training: str = "trains, stages vectors and metrics as files"
    gate: str = "judges it on held-out rows: scores have to be numbers; bad calibration only warns"
    gate_stops: str = "readers see nothing of this run; the log names the check."

    @property
    def period_option(self) -> str:
        """The option that names the period in its training command."""
        return "--ds" if self.cadence == "day" else "--period"

    @property
    def goes_on(self) -> bool:
        """Whether a period's model continues that of the period before, so that periods are made oldest first."""
        return any(parent.which == "previous" for parent in self.parents)


def _predecessor(kind: str) -> ParentRule:
    return ParentRule(role="predecessor", kind=kind, which="previous")


_ENCODER = ParentRule(role="encoder", kind="fg_bert", binds=True)

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            name="tpm",
            meaning="tiny pre-training model of one closed month",
            cadence="month",
            model_version=3,
            vectors="tpm_embeddings",
            vectors_meaning="one user's or item's vector in a month's TPM snapshot",
            dag="tpm_monthly",
            makes="natural samples of a month -> TPM, the model of long histories",
            reads=("natural_samples",),
            parents=(_predecessor("tpm"),),
        ),
        # CPM publishes the merged snapshots, not its own embeddings.
        Kind(
            name="cpm",
            meaning="complete pre-training model of one closed week",
            cadence="week",
            model_version=3,
            vectors="merged_embeddings",
            vectors_meaning="one user's or item's three snapshots, merged by a CPM's aggregator",
            dag="cpm_weekly",
            makes="natural samples of the last month -> CPM with the aggregator over three TPM snapshots, and the merged tables",
            reads=("natural_samples", "user_histories"),
            reads_days="last_month",
            parents=(ParentRule(role="snapshot", kind="tpm", which="snapshots"),),
            training="trains, merges the snapshots, stages vectors and metrics as files",
        ),
        Kind(
            name="fg_bert",
            meaning="sequence encoder, pre-trained on the behaviours up to the end of one closed week",
            cadence="week",
            model_version=4,
            vectors="fg_bert_embeddings",
            vectors_meaning="one item's vector in an FG-BERT",
            dag="fg_bert_weekly",
            makes="user histories of a week -> FG-BERT, the sequence encoder, and its item vectors",
            reads=("user_histories",),
            parents=(_predecessor("fg_bert"),),
            first="encoder_start",
            gate="judges it on the newest behaviours of users whom it has not seen: scores have to be numbers; the rest warns",
        ),
        # Inference only: nothing is trained.
        Kind(
            name="fg_bert_users",
            meaning="vectors of a day's active users, by the FG-BERT of the last closed week",
            cadence="day",
            model_version=2,
            vectors="fg_bert_user_vectors",
            vectors_meaning="the mean of FG-BERT's output over a user's behaviours",
            dag="fg_bert_users_daily",
            makes="user histories of a day -> vectors of its active users, by the FG-BERT of the last closed week",
            reads=("user_histories",),
            parents=(_ENCODER,),
            first="encoded_start",
            trains=False,
            training="encodes the users, stages their vectors as files; nothing is trained",
            gate="has no figures to judge; it names the run as the one to release",
        ),
        Kind(
            name="bahe",
            meaning="model over a day's behaviour texts, read through a language model's high layers",
            cadence="day",
            model_version=3,
            vectors="bahe_vectors",
            vectors_meaning="Q_u of a user who was active on a day, or Q_i of an item shown on it",
            dag="bahe_daily",
            makes="samples of a day -> BAHE, the model over behaviour texts, and vectors of the day's users and items",
            reads=("natural_samples", "ad_samples", "user_histories", "behaviour_texts", "behaviour_text_vectors"),
            parents=(_predecessor("bahe"),),
            first="texts_start",
            prepared_by=(("training", "encode_texts"), ("spark_jobs", "add_text_vectors")),
            training="trains adapters and head on the day's requests, stages vectors and metrics as files; "
            "a language model that has changed is refused by name",
            gate="judges it on held-out ad rows: scores have to be numbers; the rest warns",
        ),
        Kind(
            name="actr",
            meaning="the ad model: scores a day with that of the day before, then trains on it",
            cadence="day",
            model_version=7,
            vectors="actr_embeddings",
            vectors_meaning="one user's or item's vector in an A-CTR",
            dag="ad_ctr_daily",
            makes="ad samples of a day -> A-CTR, the ad model: the day is scored by the model of the day before, and only then trained on",
            reads=("ad_samples", "user_histories", "natural_samples"),
            reads_days="replay",
            parents=(
                ParentRule(role="pretrained", kind="cpm", binds=True),
                _ENCODER,
                ParentRule(role="texts", kind="bahe"),
                _predecessor("actr"),
            ),
            first="actr_start",
            publishes=("predictions",),
            transfers=True,
            training="scores, trains, stages vectors, predictions and metrics as files",
            gate="judges it on held-out rows together with the model of the day before; a refused one is replaced by a *fallback*, which "
            "carries that model under an id of its own, and the chain goes on",
            gate_stops="nothing can stand in on the first day of all; the log names the check.",
        ),
    )
}

# Recipes by name: settings of all kinds of model, as training declares them (training/recipes.py).
RECIPES = ("default", "quick")

# What an A-CTR is bound to, by role: it starts again when one of them changes.
BOUND_KINDS: dict[Role, str] = {parent.role: parent.kind for parent in KINDS["actr"].parents if parent.binds}
