"""How fast is pre-training: behaviours per second of BERT4Rec on MovieLens-1M, this project's engine and RecBole's, by turns.

`python -m benchmarks.pretraining --data FOLDER [--quick]`. Equal sizes (two layers, two heads, width 64, FFN 256,
dropout .1, a fifth masked, softmax over all items, 256 sequences a batch) on the same sequences: every prefix of a
user's clicks, its last 50, as RecBole makes them. A behaviour counts once, padding not; making batches and masks is in
the time. FG-BERT on the same sequences is shown too. Attention weights are not dropped out in either.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.recording import finish, run_for_result
from benchmarks.rivals.common import MARK
from benchmarks.rivals.prepare import prepare
from benchmarks.training import make_environment
from contracts.commands import table_text
from contracts.settings import data_folder

SIZE: dict[str, Any] = {
    "length": 50,
    "layers": 2,
    "heads": 2,
    "width": 64,
    "inner": 256,
    "dropout": 0.1,
    "mask": 0.2,
    "batch": 256,
}
THREADS, STEPS, QUICK_STEPS, TURNS = 2, 20, 10, 3
USERS = 1500  # of 6,040: RecBole's pipeline makes each of their prefixes anew
WARM_UP = 3
OURS, FG_BERT, RECBOLE = "tributary", "tributary, FG-BERT", "recbole"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=data_folder(), help="folder of MovieLens-1M (default: TRIBUTARY_DATA)"
    )
    parser.add_argument("--quick", action="store_true", help="one turn of few steps; nothing is recorded")
    parser.add_argument("--work", type=Path, default=Path("tributary-home/benchmark-srp4ctr"), help="rows")
    parser.add_argument(
        "--environments", type=Path, default=Path("tributary-home/benchmark-training"), help="the other library's"
    )
    parser.add_argument("--arm", choices=("bert4rec", "fg_bert"), help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, default=STEPS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    rows = options.work.resolve() / "rows"
    if options.arm:
        print(MARK + json.dumps(run_ours(rows, options.arm, options.steps)))
        return
    if options.data is None:
        parser.error("--data: expected the folder of MovieLens-1M's original files, found none")
    if not (rows / "meta.json").is_file():
        prepare(options.data, rows)
    environments = options.environments.resolve()
    make_environment(environments, "recbole")
    steps, turns = (QUICK_STEPS, 1) if options.quick else (STEPS, TURNS)
    ours = [
        sys.executable,
        "-m",
        "benchmarks.pretraining",
        "--work",
        str(options.work.resolve()),
        "--steps",
        str(steps),
    ]
    python = environments / "environments" / "recbole" / "bin" / "python"
    rival = [
        str(python),
        "-m",
        "benchmarks.rivals.recbole_bert4rec",
        "--rows",
        str(rows),
        "--steps",
        str(steps),
        "--size",
        json.dumps(SIZE),
        "--users",
        str(USERS),
        "--threads",
        str(THREADS),
    ]
    arms = {OURS: [*ours, "--arm", "bert4rec"], FG_BERT: [*ours, "--arm", "fg_bert"], RECBOLE: rival}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in arms}
    for turn in range(turns):
        for name, command in arms.items():
            print(f"== turn {turn + 1} of {turns}: {name}", file=sys.stderr, flush=True)
            found[name].append(run_for_result(command))
    speed = {name: float(np.median([of["behaviours_per_s"] for of in results])) for name, results in found.items()}
    print(
        table_text(
            ("arm", "behaviours/s", "behaviours a sequence"),
            [(name, f"{speed[name]:,.0f}", f"{found[name][0]['mean_length']:.1f}") for name in arms],
        )
    )
    figures = {
        f"{name}_over_recbole": round(speed[arm] / speed[RECBOLE], 2)
        for name, arm in (("bert4rec", OURS), ("fg_bert", FG_BERT))
    }
    finish(
        "pretraining",
        figures,
        details={"behaviours_per_s": speed, "size": SIZE, "threads": THREADS, "steps": steps, "arms": found},
        packages=("torch",),
        quick=options.quick,
    )


def run_ours(rows: Path, objective: str, steps: int) -> dict[str, Any]:
    """Steps of the engine, batches prefetched as in training."""
    from benchmarks.srp4ctr_arm import FIELDS, ID_ONLY, World
    from training.data.sequences import EncodedSequences
    from training.engine.loop import prepare_process
    from training.engine.optimizer import Adam
    from training.engine.prefetch import prefetched
    from training.models.fg_bert import FgBert, masks_of
    from training.recipes import FgBertRecipe

    prepare_process(THREADS)
    world = World.read(rows, "full")
    recipe = replace(
        FgBertRecipe(),
        objective=objective,
        fields=FIELDS if objective == "fg_bert" else ID_ONLY,
        item_mask=SIZE["mask"],
        **{name: SIZE[name] for name in ("length", "layers", "heads", "width", "inner", "dropout")},
    )
    start, end = prefixes(world.user, world.is_known, int(SIZE["length"]))
    sequences = EncodedSequences.of(
        {name: world.columns[name] for name in recipe.fields}, start, end, mapping=world.mapping, masks=masks_of(recipe)
    )
    torch.manual_seed(1)
    model = FgBert(recipe, world.mapping.row_cnts())
    optimizer = Adam(model.parameters(), 1e-3)
    order = torch.from_numpy(np.random.default_rng(1).permutation(len(sequences))).split(int(SIZE["batch"]))
    behaviours, began, losses = 0, 0.0, []
    for step, batch in enumerate(prefetched(sequences.batch, list(islice(order, steps + WARM_UP)))):
        if step == WARM_UP:
            began, behaviours = time.perf_counter(), 0
        loss = torch.stack(list(model.loss(model(batch), batch).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        behaviours += len(batch.position_P)
        losses.append(float(loss.detach()))
    seconds = time.perf_counter() - began
    return {
        "behaviours_per_s": behaviours / seconds,
        "mean_length": behaviours / steps / int(SIZE["batch"]),
        "items": world.mapping.fields["item_id"].row_cnt,
        "loss": float(np.mean(losses[-10:])),
    }


def prefixes(user: Any, is_known: Any, length: int) -> tuple[Any, Any]:
    """Every prefix of each of the first users' clicks that has one before it, its last `length`."""
    places = np.flatnonzero(is_known & (np.unique(user, return_inverse=True)[1] < USERS))
    first = np.flatnonzero(np.diff(user, prepend=-1))
    begin = first[np.searchsorted(first, places, "right") - 1]
    used = places > begin
    return np.maximum(begin, places - length)[used], places[used]


if __name__ == "__main__":
    main()
