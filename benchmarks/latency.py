"""Milliseconds of a request by two exports of one release, made by two builds: `python -m benchmarks.latency BEFORE AFTER [--quick]`.

Each folder is scored by the `scorer.py` that lies in it, both in this process, by turns, with one thread, on the
folder's example request with 1, 10 and 100 candidates. A release is exported by another build from a checkout of it:

    git worktree add /tmp/before 49246db
    (cd /tmp/before && python -m training export --home HOME --release RELEASE --out /tmp/exported_before)
    python -m training export --home HOME --release RELEASE --out /tmp/exported_after

Medians and the smallest of all turns are printed: a busy machine makes turns longer, not shorter. The scores of both
are compared too.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.recording import finish
from contracts.commands import table_text
from lake.progress import each
from training.serving.export import EXAMPLE_FILE, SCORER_FILE

CANDIDATES = (1, 10, 100)


def open_scorer(folder: Path) -> Any:
    """The scorer of a folder, by its own source."""
    spec = importlib.util.spec_from_file_location(f"scorer_of_{folder.name}", folder / SCORER_FILE)
    assert spec is not None and spec.loader is not None, folder
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Scorer(folder)


def seconds_by_turns(scorers: list[Any], request: dict[str, Any], turns: int) -> np.ndarray:
    """Seconds of each scorer (rows) in each turn; who begins changes from turn to turn."""
    taken = np.zeros((len(scorers), turns))
    for turn in range(-1, turns):  # the turn before the first one warms up
        for number in range(len(scorers)) if turn % 2 else reversed(range(len(scorers))):
            began = time.perf_counter()
            scorers[number].score(request)
            if turn >= 0:
                taken[number, turn] = time.perf_counter() - began
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs=2, metavar=("BEFORE", "AFTER"), help="two exports of one release")
    parser.add_argument("--quick", action="store_true", help="fewer turns; nothing is recorded")
    options = parser.parse_args()
    torch.set_num_threads(1)
    example = json.loads((options.folders[1] / EXAMPLE_FILE).read_text())
    scorers, own = [open_scorer(folder) for folder in options.folders], example["candidates"]
    rows: list[tuple[str, ...]] = []
    figures: dict[str, float] = {}
    details = {"release": scorers[1].model["release"], "behaviours": len(example["behaviours"])}
    for count in each(CANDIDATES, description="latencies", unit="size"):
        request = {**example, "candidates": (own * count)[:count]}
        apart = float(np.abs(np.subtract(*(scorer.score(request) for scorer in scorers))).max())
        taken = seconds_by_turns(scorers, request, 20 if options.quick else 400) * 1000
        medians, least = np.median(taken, axis=1), taken.min(axis=1)
        rows.append((str(count), *(f"{value:.2f}" for pair in (medians, least) for value in pair), f"{apart:.1e}"))
        figures |= {
            f"median_after_over_before_{count}": round(medians[1] / medians[0], 3),
            f"least_after_over_before_{count}": round(least[1] / least[0], 3),
        }
        details |= {
            f"milliseconds_{count}": {"median": medians.round(3).tolist(), "least": least.round(3).tolist()},
            f"scores_apart_{count}": apart,
        }
    print(f"milliseconds of a request, {len(example['behaviours'])} behaviours, one thread")
    print(table_text(("candidates", "before, median", "after", "before, least", "after", "scores apart"), rows))
    finish("latency", figures, details=details, packages=("torch",), quick=options.quick)


if __name__ == "__main__":
    main()
