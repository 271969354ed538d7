"""What every arm has in common: settings, rows, figures. Needs only numpy and pyarrow, so that it runs in any environment."""

from __future__ import annotations

import argparse
import json
import random
import resource
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

DIM, BATCH, LEARNING_RATE, MLP, ATTENTION, HISTORY = 16, 4096, 1e-3, (200, 80), (64, 32), 50
THREADS = 2
FLAT = ("user_id", "gender", "age", "occupation", "zip", "item_id", "genre")
NUM_IDS, IDS_PER_FEATURE = 8, 1_000_000
MARK = "RESULT "
_BEGAN = time.perf_counter()


def options() -> argparse.Namespace:
    """The command line of an arm."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True, help="folder made by benchmarks.rivals.prepare")
    parser.add_argument("--model", choices=("dnn", "din", "ids"), required=True)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--split", default="full", help="full, or quick: fewer rows")
    parser.add_argument("--zoo", type=Path, help="FuxiCTR's model_zoo")
    return parser.parse_args()


def load(folder: Path, name: str, *, histories: bool = False) -> dict[str, Any]:
    """Columns of a split; histories padded behind to N x 50, 0 where there is nothing."""
    table = pq.read_table(folder / f"{name}.parquet")
    columns = {c: table[c].to_numpy() for c in table.column_names if not c.startswith("hist_")}
    if histories:
        lengths = table["hist_len"].to_numpy()
        columns["hist_len"] = lengths
        mask = np.arange(HISTORY)[None, :] < lengths[:, None]
        for name_ in ("hist_item", "hist_genre"):
            padded = np.zeros((len(lengths), HISTORY), np.int32)
            padded[mask] = table[name_].combine_chunks().flatten().to_numpy()
            columns[name_] = padded
    return columns


def vocabulary(folder: Path) -> dict[str, int]:
    """Ids of each feature: 0 is padding, 1 unknown."""
    return dict(json.loads((folder / "meta.json").read_text())["vocabulary"])


def auc(clicks: Any, scores: Any) -> float:
    """Area under the ROC curve, ties counting half; NaN where a score is not finite."""
    clicks, scores = np.asarray(clicks) > 0, np.asarray(scores, np.float64).reshape(-1)
    if not np.isfinite(scores).all():
        return float("nan")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    positives = int(clicks.sum())
    return float((rank[clicks].sum() - positives * (positives + 1) / 2) / (positives * (len(clicks) - positives)))


def seed_all(seed: int) -> Any:
    """Torch with the benchmark's threads, everything seeded."""
    import torch

    torch.set_num_threads(THREADS)
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    return torch


class Recorder:
    """Seconds and AUC of each epoch; `done` prints them as the arm's result."""

    def __init__(self, rows: int, **more: Any) -> None:
        self.result: dict[str, Any] = {
            "rows": rows,
            "seconds": [],
            "auc": [],
            "setup_seconds": time.perf_counter() - _BEGAN,
            **more,
        }

    def epoch(self, seconds: float, clicks: Any = None, scores: Any = None) -> None:
        self.result["seconds"].append(seconds)
        if scores is not None:
            self.result["auc"].append(auc(clicks, scores))
        print(f"epoch {len(self.result['seconds'])}: {seconds:.2f} s, AUC {self.result['auc'][-1:]}", flush=True)

    def done(self, **more: Any) -> None:
        self.result |= {**more, "memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}
        print(MARK + json.dumps(self.result), flush=True)


def random_ids(seed: int, rows: int) -> tuple[Mapping[str, Any], Any]:
    """Eight features of a million ids each, and labels."""
    rng = np.random.default_rng(seed)
    return (
        {f"id{number}": rng.integers(1, IDS_PER_FEATURE, rows).astype(np.int64) for number in range(NUM_IDS)},
        rng.integers(0, 2, rows).astype(np.float32),
    )


ID_ROWS = {"full": 400_000, "quick": 40_000}
TEST_OF = {"full": "test", "quick": "quick-test", "fit": "valid"}
