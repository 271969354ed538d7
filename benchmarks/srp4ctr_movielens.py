"""Does SRP4CTR beat models without its pre-training, and each of its parts away: MovieLens-1M, the last tenth of each user's time as test.

`python -m benchmarks.srp4ctr_movielens --data FOLDER [--fuxictr-zoo FOLDER] [--quick] [--seeds N] [--arms
din,srp4ctr]`. A rating of 4 or 5 is a click; a history is the user's last 50 clicks strictly before. Encoders are
pre-trained on only the training rows' clicks. Differences are paired on the test rows, with 95 % intervals of 1,000
draws over users and seeds. An arm that has run is not run again. The long tail is the fifth of the known items with the
fewest training rows, and items that training never saw.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.recording import finish
from benchmarks.rivals.prepare import prepare
from benchmarks.srp4ctr_arm import SETTINGS
from benchmarks.training import Arm, make_environment, run_arms
from benchmarks.transfer import Draws, Scores, bootstrap, drawn
from contracts.commands import table_text
from contracts.settings import data_folder
from lake.metrics import auc

OURS = "srp4ctr"
SEEDS, EPOCHS, QUICK_EPOCHS = 5, 3, 1
QUICK_ARMS = ("din", OURS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=data_folder(), help="folder of MovieLens-1M (default: TRIBUTARY_DATA)"
    )
    parser.add_argument(
        "--fuxictr-zoo", type=Path, help="model_zoo of FuxiCTR's repository; without it FuxiCTR's DIN is left out"
    )
    parser.add_argument("--quick", action="store_true", help="two arms, one seed, 20 batches; nothing is recorded")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--arms", type=lambda text: text.split(","), help=f"of {', '.join(SETTINGS)}; all by default")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--work", type=Path, default=Path("tributary-home/benchmark-srp4ctr"), help="rows, encoders and scores"
    )
    options = parser.parse_args()
    if options.data is None:
        parser.error("--data: expected the folder of MovieLens-1M's original files, found none")
    work, split = options.work.resolve(), "quick" if options.quick else "full"
    arms = options.arms or (QUICK_ARMS if options.quick else tuple(SETTINGS))
    epochs = QUICK_EPOCHS if options.quick else EPOCHS
    if not (work / "rows" / "meta.json").is_file():
        prepare(options.data, work / "rows")
    seeds = range(1, (1 if options.quick else options.seeds) + 1)
    for seed in seeds:
        for arm in arms:
            run(arm, seed, work, split, epochs, options.threads)
    of = {arm: [pq.read_table(path(work, arm, seed, split)) for seed in seeds] for arm in arms}
    fuxictr = fuxictr_din(work, options.fuxictr_zoo, seeds, split, epochs) if options.fuxictr_zoo else None
    figures, details = judge(of, fuxictr, epochs)
    finish(
        "srp4ctr_movielens",
        figures,
        details={**details, "seeds": len(seeds), "epochs": epochs},
        packages=("torch",),
        quick=options.quick,
    )


def path(work: Path, arm: str, seed: int, split: str) -> Path:
    return work / "scores" / f"{arm}-{seed}-{split}.parquet"


def run(arm: str, seed: int, work: Path, split: str, epochs: int, threads: int) -> None:
    """Runs an arm in a process of its own, unless its scores are there."""
    if path(work, arm, seed, split).is_file():
        return
    print(f"== {arm}, seed {seed}", file=sys.stderr, flush=True)
    given = {
        "rows": work / "rows",
        "out": work,
        "arm": arm,
        "seed": seed,
        "split": split,
        "epochs": epochs,
        "threads": threads,
    }
    subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.srp4ctr_arm",
            *(part for name, value in given.items() for part in (f"--{name}", str(value))),
        ],
        check=True,
    )


def fuxictr_din(work: Path, zoo: Path, seeds: range, split: str, epochs: int) -> float:
    """Mean AUC of FuxiCTR's DIN on the same rows after as many epochs."""
    make_environment(work, "fuxictr")
    arms = [Arm(model="din", library="fuxictr", seed=seed, split=split, epochs=epochs, vectors="own") for seed in seeds]
    done = run_arms(arms, work, zoo, keep=split == "full")
    return float(np.mean([done[tuple(arm.key)]["auc"][epochs - 1] for arm in arms]))


def judge(of: Mapping[str, list[Any]], fuxictr: float | None, epochs: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The table, the figures and what they rest on."""
    first = next(iter(of.values()))[0]
    slices = {"all": np.ones(len(first), bool), "long_tail": first["is_tail"].to_numpy(zero_copy_only=False)}
    results: dict[str, dict[str, Any]] = {arm: {} for arm in of}
    gains: dict[tuple[str, str, str], tuple[float, float, float]] = {}
    for name, rows in slices.items():
        users = np.unique(first["user"].to_numpy()[rows], return_inverse=True)[1]
        scores = Scores(
            users=users,
            clicks=first["click"].to_numpy()[rows],
            truth=None,
            of={
                arm: np.stack([table[f"epoch_{epochs}"].to_numpy()[rows] for table in tables])
                for arm, tables in of.items()
            },
        )
        draws = drawn(scores, len(next(iter(of.values()))))
        areas = {
            arm: np.stack([bootstrap(one, scores.clicks, users, draws.users)["auc"] for one in values], axis=1)
            for arm, values in scores.of.items()
        }
        for arm, values in scores.of.items():
            results[arm][name] = float(np.mean([auc(one, scores.clicks) or np.nan for one in values]))
        for arm, base in ((arm, base) for arm in of for base in of if OURS in (arm, base) or base == "din"):
            gains[name, arm, base] = difference(
                areas[arm], areas[base], draws, results[arm][name] - results[base][name]
            )
    print_table(results, gains, {name: int(rows.sum()) for name, rows in slices.items()}, fuxictr)
    figures: dict[str, Any] = {}
    if {OURS, "din"} <= set(of):
        gain = gains["all", OURS, "din"]
        figures |= {"srp4ctr_minus_din": round(gain[0], 4), "interval": [round(end, 4) for end in gain[1:]]}
        figures["long_tail_srp4ctr_minus_din"] = round(gains["long_tail", OURS, "din"][0], 4)
    for part in ("cross_attention", "querying"):
        if {OURS, f"without_{part}"} <= set(of):
            figures[f"minus_without_{part}"] = round(gains["all", OURS, f"without_{part}"][0], 4)
    if fuxictr is not None and "din" in of:
        figures["din_minus_fuxictr_din"] = round(results["din"]["all"] - fuxictr, 4)
    return figures, {
        "auc": results,
        "differences": {"/".join(key): value for key, value in gains.items()},
        "fuxictr_din": fuxictr,
    }


def difference(ours: Any, base: Any, draws: Draws, mean: float) -> tuple[float, float, float]:
    """Mean, and the ends of the 95 % interval over users and seeds."""
    of_draws = ((ours - base) * draws.seeds).sum(1) / draws.seeds.sum(1)
    low, high = np.quantile(of_draws, [0.025, 0.975])
    return mean, float(low), float(high)


def print_table(
    results: Mapping[str, Any],
    gains: Mapping[tuple[str, str, str], tuple[float, float, float]],
    row_cnt: Mapping[str, int],
    fuxictr: float | None,
) -> None:
    def gain(name: str, arm: str) -> str:
        found = gains.get((name, arm, "din"))
        return "-" if found is None or arm == "din" else f"{found[0]:+.4f} ({found[1]:+.4f} .. {found[2]:+.4f})"

    print(
        f"\nMovieLens-1M, {row_cnt['all']} test rows, {row_cnt['long_tail']} of them of the long tail; AUC, and differences to DIN"
    )
    rows = [
        (arm, f"{of['all']:.4f}", gain("all", arm), f"{of['long_tail']:.4f}", gain("long_tail", arm))
        for arm, of in results.items()
    ]
    rows += [("FuxiCTR's DIN", f"{fuxictr:.4f}", "-", "-", "-")] if fuxictr is not None else []
    print(table_text(("arm", "AUC", "to DIN", "long tail", "to DIN"), rows), flush=True)


if __name__ == "__main__":
    main()
