"""Trains FG-BERT on the behaviours of the users of one closed week, continuing from the week before; publishes its item vectors.

A sequence holds a user's last behaviours up to the end of the week, natural and ad, their log a field of theirs (ours:
the paper speaks of natural behaviour; here nearly all of it is). One user in fifty is kept out of training, picked by a
hash: what the model makes of their newest behaviour is what the gate judges.

Shapes: U users, P behaviours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from contracts.errors import BadInput
from contracts.features import HELD_OUT_ONE_IN
from contracts.periods import Period
from contracts.releases import HELD_OUT_FILE, MAPPING_FILE, MODEL_FILE, VECTORS_FILE, Release
from lake.metrics import evaluate
from lake.run_folders import Run
from training.data.behaviours import Behaviours, read_newest
from training.data.codes import Ints, ordinal_days
from training.data.mapping import SHARED_ROW, Coded, IdMapping, Seen
from training.data.ranges import ranges
from training.data.sequences import ID_FIELDS, EncodedSequences
from training.data.vectors import EntityVectors, write_vectors
from training.engine.checkpoint import read_weights, save_weights
from training.engine.loop import generator_of, train
from training.engine.runs import Metric, metrics_of, write_held_out, write_run
from training.models.build import build_fg_bert
from training.models.ctr import load_weights
from training.models.fg_bert import FgBert, masks_of
from training.recipes import FgBertRecipe, as_json
from training.tasks.continued import Continued, run_continued
from training.tasks.session import Session, train_metrics

FG_BERT = "fg_bert"
SHORTEST = 2  # The fewest behaviours of a sequence from which a model can learn.
HIT_AT = 10


def run_fg_bert(session: Session, start: date) -> Run:
    """Trains and stages the FG-BERT of the week that begins on `start`.

    Raises:
        ParentMissing: the week before was not published, or a day's histories were not built.
    """
    recipe = session.recipe.fg_bert

    def make(continued: Continued) -> Run:
        behaviours = read_newest(session.reader, continued.days, session.deployment.day_timezone)
        return _train(session, continued.release, continued.period, behaviours, continued.predecessor)

    return run_continued(
        session, FG_BERT, start, recipe=as_json(recipe), tables=["user_histories"], feature_set=recipe.fields, make=make
    )


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """Ranges of behaviours, the last `length` of each user.

    Attributes:
        start: where each sequence begins.
        end: where each sequence ends, exclusive.
        user_ids: the user of each sequence.
        held_out: whether each sequence is kept out of training.
    """

    start: Ints
    end: Ints
    user_ids: Ints
    held_out: NDArray[np.bool_]

    @classmethod
    def of(cls, behaviours: Behaviours, length: int) -> Sequences:
        """Selects the sequences of users with enough behaviours."""
        begin, end = behaviours.offsets[:-1], behaviours.offsets[1:]
        used = end - begin >= SHORTEST
        user_ids = behaviours.user_ids[used]
        chosen = np.array(
            [generator_of("held out", int(user)).integers(HELD_OUT_ONE_IN) == 0 for user in user_ids], bool
        )
        return cls(start=np.maximum(begin, end - length)[used], end=end[used], user_ids=user_ids, held_out=chosen)


def open_fg_bert(run: Run) -> tuple[FgBert, IdMapping]:
    """Opens a finished encoder, with its ids."""
    mapping = IdMapping.load(run.folder / MAPPING_FILE, ID_FIELDS)
    model = FgBert(recipe_of(run.release), mapping.row_cnts())
    load_weights(model, read_weights(run.folder / MODEL_FILE))
    return model, mapping


def recipe_of(release: Release) -> FgBertRecipe:
    """Returns the recipe of a finished FG-BERT, as far as the network depends on it."""
    known = FgBertRecipe()
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in release.recipe.items()
        if not isinstance(value, dict)
    }
    return replace(known, **values)


def _train(session: Session, release: Release, period: Period, behaviours: Behaviours, predecessor: Run | None) -> Run:
    recipe = session.recipe.fg_bert
    sequences = Sequences.of(behaviours, recipe.length)
    chosen = ~sequences.held_out
    if chosen.sum() < 2:
        raise BadInput(
            "user_histories",
            str(period),
            expected=f"at least two users with {SHORTEST} behaviours to train on",
            found=int(chosen.sum()),
        )
    model, mapping = _start(recipe, behaviours, sequences, predecessor)
    model.to(session.device)
    rows = _encoded(session, behaviours, sequences, mapping)
    chosen_S = torch.from_numpy(chosen).to(session.device)
    learned = replace(rows, start_S=rows.start_S[chosen_S], end_S=rows.end_S[chosen_S], masks=masks_of(recipe))
    with session.supervised(release) as supervision:
        fitted = train(
            model,
            learned,
            recipe.train,
            seed=f"{recipe.seed}/{release.period}",
            description=f"fg_bert {release.period}",
            supervision=supervision,
        )
    judged = _judge(model, rows, behaviours, sequences)
    before = None
    if predecessor:
        earlier, own = open_fg_bert(predecessor)
        before = _judge(
            earlier.to(session.device), _encoded(session, behaviours, sequences, own), behaviours, sequences
        ).columns["score"]
    state = model.state_dict()

    def fill(folder: Path) -> dict[str, int]:
        save_weights(state, folder / MODEL_FILE)
        mapping.save(folder / MAPPING_FILE)
        write_held_out(
            folder / HELD_OUT_FILE,
            {**judged.columns, "score_before": [None] * len(judged.columns["score"]) if before is None else before},
        )
        ids = mapping.fields["item_id"].ids
        order = np.argsort(ids, kind="stable")
        vectors = state["embeddings.item_id.weight"].cpu().numpy()[1:][order]
        return write_vectors(folder / VECTORS_FILE, {"item": EntityVectors(ids=ids[order], vectors=vectors)})

    return write_run(session.locations, release, train_metrics(fitted) + judged.metrics, fill)


def _encoded(session: Session, behaviours: Behaviours, sequences: Sequences, mapping: IdMapping) -> EncodedSequences:
    """Encodes all sequences by a model's ids, without masks; models of one chain read the same fields."""
    columns = {name: behaviours.columns[name] for name in session.recipe.fg_bert.fields}
    return EncodedSequences.of(columns, sequences.start, sequences.end, mapping=mapping, device=session.device)


def _start(
    recipe: FgBertRecipe, behaviours: Behaviours, sequences: Sequences, predecessor: Run | None
) -> tuple[FgBert, IdMapping]:
    """Builds the model before it trains, with its ids: those of the week before and those of this week's training sequences."""
    used, _ = ranges(*(torch.from_numpy(of_all[~sequences.held_out]) for of_all in (sequences.start, sequences.end)))
    coded = {name: Coded.of(behaviours.columns[name][used.numpy()]) for name in ID_FIELDS}
    seen = {name: Seen.of(of_name, ordinal_days(behaviours.event_us[used.numpy()])) for name, of_name in coded.items()}
    before = IdMapping.load(predecessor.folder / MAPPING_FILE, ID_FIELDS) if predecessor else IdMapping.empty(ID_FIELDS)
    mapping, carried = before.grown(seen, ID_FIELDS, recipe.admission)
    frequency = {
        name: torch.from_numpy(
            np.bincount(mapping.fields[name].rows_of(of_name), minlength=mapping.fields[name].row_cnt)
        )
        for name, of_name in coded.items()
    }
    model = build_fg_bert(recipe, mapping, frequency)
    if predecessor:
        if recipe_of(predecessor.release) != replace(
            recipe, train=FgBertRecipe().train, admission=FgBertRecipe().admission
        ):
            raise BadInput(
                predecessor.folder,
                "recipe",
                expected=f"that of this FG-BERT, {recipe}",
                found=recipe_of(predecessor.release),
                hint="Train the chain of models with the same --recipe.",
            )
        load_weights(model, read_weights(predecessor.folder / MODEL_FILE), carried=carried)
    return model, mapping


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A model's predictions of the newest behaviours of held-out users.

    Attributes:
        metrics: AUC and the rest over pairs (the item that was clicked, one drawn by its frequency), and how often the
            former is among the ten highest of all items.
        columns: the columns of `held_out.parquet`; both rows of a pair have the event_id of the clicked behaviour.
    """

    metrics: list[Metric]
    columns: dict[str, NDArray[np.generic]]


@torch.no_grad()
def _judge(model: FgBert, rows: EncodedSequences, behaviours: Behaviours, sequences: Sequences) -> Judged:
    """Hides the newest behaviour of each held-out user, and asks for its item.

    A pair's scores are the model's preference, `sigmoid(difference of logits)` and one less it: their mean is the click
    rate.
    """
    model.eval()
    at = np.flatnonzero(sequences.held_out)
    newest = sequences.end[at] - 1
    everything = rows.rows["item_id"]
    target, drawn, logits = [], [], []
    for part in np.array_split(at, max(1, len(at) // 256)) if len(at) else []:
        batch = rows.batch(torch.from_numpy(part).to(rows.device))
        is_newest = batch.position_P == 0
        batch = replace(batch, masks={"item": is_newest, "behaviour": torch.zeros_like(is_newest)})
        logits.append(model.logits("item_id", model(batch)).cpu())
        target.append(batch.rows["item_id"][is_newest].cpu())
        places = [
            int(generator_of("pair", int(behaviours.event_ids[sequences.end[s] - 1])).integers(len(everything)))
            for s in part
        ]
        drawn.append(everything[torch.tensor(places)].cpu())
    if not logits:
        nothing = np.zeros(0, np.int64)
        metrics = metrics_of("held_out", evaluate(nothing.astype(float), nothing, nothing), 0)
        return Judged(
            metrics=metrics,
            columns=dict.fromkeys(("event_id", "user_id", "click"), nothing)
            | {"ds": nothing.astype("datetime64[D]"), "score": nothing.astype(float)},
        )
    scores_UV, target_U, drawn_U = torch.cat(logits).double(), torch.cat(target), torch.cat(drawn)
    clicked_U = scores_UV.gather(1, target_U[:, None]).squeeze(1)
    preference = torch.sigmoid(clicked_U - scores_UV.gather(1, drawn_U[:, None]).squeeze(1)).numpy()
    hits = ((scores_UV > clicked_U[:, None]).sum(dim=1) < HIT_AT) & (target_U != SHARED_ROW)
    users, events = sequences.user_ids[at], behaviours.event_ids[newest]
    days = behaviours.event_us[newest].astype("datetime64[us]").astype("datetime64[D]")
    columns = {
        "event_id": np.repeat(events, 2),
        "user_id": np.repeat(users, 2),
        "ds": np.repeat(days, 2),
        "click": np.tile(np.array([1, 0], np.int32), len(at)),
        "score": np.stack([preference, 1 - preference], axis=1).reshape(-1),
    }
    found = evaluate(columns["score"], columns["click"].astype(np.int64), columns["user_id"])
    hit_rate = (
        float(hits.double().mean()) if bool(scores_UV.isfinite().all()) else math.nan
    )  # No score exceeds NaN: all would hit.
    hit = Metric(metric=f"hit_rate_{HIT_AT}", split="held_out", value=hit_rate, row_cnt=len(at))
    return Judged(metrics=[*metrics_of("held_out", found, len(columns["score"])), hit], columns=columns)
