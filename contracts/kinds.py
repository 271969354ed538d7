"""The kinds of model, declared once: how often each is made, where its vectors go, which DAG makes it.

A new kind is one line here, its parents in `contracts/periods.py`, its task in `training/tasks`, and its DAG.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Cadence = Literal["day", "week", "month"]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of model.

    Attributes:
        name: the word for it in commands, folders and tables.
        meaning: one line for people.
        cadence: one release a day, week or month.
        model_version: part of every release id: raised when a change of the code would change results.
        vectors: the table that its vectors are published to.
        vectors_meaning: what a row of that table is.
        dag: the DAG that makes it.
    """

    name: str
    meaning: str
    cadence: Cadence
    model_version: int
    vectors: str
    vectors_meaning: str
    dag: str

    @property
    def period_option(self) -> str:
        """What names its period on the command line of its training."""
        return "--ds" if self.cadence == "day" else "--period"


KINDS: dict[str, Kind] = {kind.name: kind for kind in (
    Kind(name="tpm", meaning="tiny pre-training model of one closed month", cadence="month", model_version=3, vectors="tpm_embeddings",
         vectors_meaning="one user's or item's vector in a month's TPM snapshot", dag="tpm_monthly"),
    # CPM publishes the merged snapshots, not its own embeddings.
    Kind(name="cpm", meaning="complete pre-training model of one closed week", cadence="week", model_version=3, vectors="merged_embeddings",
         vectors_meaning="one user's or item's three snapshots, merged by a CPM's aggregator", dag="cpm_weekly"),
    Kind(name="fg_bert", meaning="sequence encoder, pre-trained on the behaviours up to the end of one closed week", cadence="week",
         model_version=4, vectors="fg_bert_embeddings", vectors_meaning="one item's vector in an FG-BERT", dag="fg_bert_weekly"),
    # Inference alone: nothing is trained.
    Kind(name="fg_bert_users", meaning="vectors of a day's active users, by the FG-BERT of the last closed week", cadence="day",
         model_version=2, vectors="fg_bert_user_vectors", vectors_meaning="the mean of FG-BERT's output over a user's behaviours",
         dag="fg_bert_users_daily"),
    Kind(name="bahe", meaning="model over a day's behaviour texts, read through a language model's high layers", cadence="day",
         model_version=3, vectors="bahe_vectors", vectors_meaning="Q_u of a user who was active on a day, or Q_i of an item shown on it",
         dag="bahe_daily"),
    Kind(name="actr", meaning="the ad model: scores a day with that of the day before, then trains on it", cadence="day", model_version=7,
         vectors="actr_embeddings", vectors_meaning="one user's or item's vector in an A-CTR", dag="ad_ctr_daily"),
)}

# DAGs that make periods, and how often.
CADENCES: dict[str, Cadence] = {"logs_daily": "day", "features_daily": "day", **{kind.dag: kind.cadence for kind in KINDS.values()}}

# Recipes by name: settings of all kinds of model, as training declares them (training/recipes.py).
RECIPES = ("default", "quick")

# What an A-CTR is bound to, by role: it starts again when one of them changes.
BOUND_KINDS: dict[Literal["pretrained", "encoder"], str] = {"pretrained": "cpm", "encoder": "fg_bert"}
