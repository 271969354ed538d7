"""Does transfer work: A-CTR in every transfer setting on the same days, scored by the models of the day before.

`python -m benchmarks.transfer --data FOLDER [--quick] [--ablation] [--part simulator|unrelated|movielens|kuairand]`.
Each lake is made by the commands of a deployment; each seed is a chain of its own (TPM, CPM, A-CTR, fresh weights and
order of rows). On the first part of the scored days every setting chooses among the same recipes, by AUC; on the other
days, with these, it is reported: mean over the seeds, and the paired difference to `none` with a 95 % interval of 1,000
draws over users and seeds. An arm that has run is not run again, so that the hours of a full run may be cut anywhere.

`--ablation` compares instead which monthly snapshots CPM's rows take while it trains: those of the months before their
own day, or the three of its merged table for all rows.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.recording import finish
from benchmarks.transfer_arm import CANDIDATES, OF_ABLATION
from benchmarks.transfer_lakes import LAKES, QUICK, Lake, names, prepare
from contracts.commands import table_text
from contracts.locations import Locations
from contracts.settings import data_folder
from contracts.transfer import NO_TRANSFER, TRANSFER_SETTINGS
from lake.metrics import auc, gauc, grouped_auc, has_both_labels, logloss, num_not_finite

SEEDS, CHOOSING_SEEDS, DRAWS = 5, 2, 1000
METRICS = ("auc", "gauc", "logloss")
TRUTH, PAPER = "truth", "tpm+cpm"
BY_DAY, FOR_ALL = "snapshots by the row's day", "the same snapshots for all rows"
DEFAULT = next(iter(CANDIDATES))
_CHUNK = 50  # draws at a time

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The same ad impressions, scored by every setting with every seed.

    Attributes:
        users: the number of each row's user, N.
        clicks: whether each row was clicked, N.
        of: for each setting, its scores with each seed, S x N.
        truth: the true click probability of each row, N; None for real logs.
    """

    users: NDArray[np.int64]
    clicks: NDArray[np.int64]
    of: Mapping[str, Floats]
    truth: Floats | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=data_folder(), help="folder of MovieLens-1M and KuaiRand (default: TRIBUTARY_DATA)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a small made world, two seeds, two recipes; nothing is recorded"
    )
    parser.add_argument(
        "--part", action="append", help=f"may be repeated; all by default: {', '.join(LAKES)}, kuairand"
    )
    parser.add_argument(
        "--ablation", action="store_true", help="compare ways to take snapshots in CPM instead of transfer settings"
    )
    parser.add_argument(
        "--settings", help="transfer settings to compare, with commas, `none` among them (default: those of the lake)"
    )
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument(
        "--processes", type=int, default=2, help="seeds that run side by side, each on one core (default 2)"
    )
    parser.add_argument(
        "--work", type=Path, default=Path("tributary-home/benchmark-transfer"), help="lakes, models and scores"
    )
    options = parser.parse_args()
    lakes = [QUICK] if options.quick else [LAKES[name] for name in names(options.part)]
    if not lakes or (options.data is None and any(lake.real for lake in lakes)):
        parser.error(
            f"expected --part of {', '.join(LAKES)} and --data for the real ones, found {options.part} and {options.data}"
        )
    if options.settings:
        lakes = [replace(lake, settings=tuple(options.settings.split(","))) for lake in lakes]
    unknown = {name for lake in lakes for name in lake.settings} - set(TRANSFER_SETTINGS)
    if unknown or not all({NO_TRANSFER, PAPER} <= set(lake.settings) for lake in lakes):
        parser.error(
            f"--settings: expected {NO_TRANSFER}, {PAPER} and any of {', '.join(TRANSFER_SETTINGS)}, found {options.settings}"
        )
    seeds = range(1, (2 if options.quick else options.seeds) + 1)
    figures: dict[str, float] = {}
    details: dict[str, Any] = {"seeds": len(seeds), "lakes": {}}
    for lake in lakes:
        prepare(lake, options.work.resolve() / lake.name, options.data)
        if options.ablation:
            results = run_ablation(lake, options.work.resolve(), seeds, options.processes)
            details["lakes"][f"{lake.name}, snapshots"] = results
            gains = results["settings"][BY_DAY]
            figures |= {
                f"{lake.name}_by_day_minus_for_all_{metric}{end}": gains[f"{metric}_gain"][at]
                for metric in METRICS
                for at, end in enumerate(("", "_low", "_high"))
            }
            continue
        results = run_lake(lake, options.work.resolve(), seeds, options.processes)
        details["lakes"][lake.name] = results
        figures |= {f"{lake.name}_{metric}_gain": results["settings"][PAPER][f"{metric}_gain"][0] for metric in METRICS}
        figures |= {
            f"{lake.name}_{metric}_gain_{end}": results["settings"][PAPER][f"{metric}_gain"][at]
            for metric in METRICS
            for end, at in (("low", 1), ("high", 2))
        }
    finish(
        "transfer",
        {name: round(value, 4) for name, value in figures.items()},
        details=details,
        packages=("torch",),
        quick=options.quick,
    )


def run_lake(lake: Lake, work: Path, seeds: Sequence[int], processes: int) -> dict[str, Any]:
    """All arms of a lake, and the table of them."""
    folder = work / lake.name
    _arms(lake, work, [["--seed", str(seed)] for seed in list(seeds)[:CHOOSING_SEEDS]], processes)
    choices = choose(lake, folder, list(seeds)[:CHOOSING_SEEDS])
    path = folder / "choices.json"
    path.write_text(json.dumps(choices, indent=2) + "\n")
    _arms(lake, work, [["--seed", str(seed), "--choices", str(path)] for seed in seeds], processes)
    scores = read_scores(lake, folder, seeds, {setting: ("", choices[setting], setting) for setting in lake.settings})
    return tabled(lake, scores, choices, len(seeds), NO_TRANSFER)


def run_ablation(lake: Lake, work: Path, seeds: Sequence[int], processes: int) -> dict[str, Any]:
    """The paper's setting with the default recipe, twice: by the two ways in which a CPM's rows may take snapshots."""
    path = work / lake.name / "choices-of-ablation.json"
    path.write_text(json.dumps({PAPER: DEFAULT}) + "\n")
    ways = [
        ["--seed", str(seed), "--choices", str(path), *way] for seed in seeds for way in ((), ("--snapshots-for-all",))
    ]
    _arms(lake, work, ways, processes)
    scores = read_scores(
        lake, work / lake.name, seeds, {BY_DAY: ("", DEFAULT, PAPER), FOR_ALL: (OF_ABLATION, DEFAULT, PAPER)}
    )
    return tabled(lake, scores, {BY_DAY: DEFAULT, FOR_ALL: DEFAULT}, len(seeds), FOR_ALL)


def tabled(lake: Lake, scores: Scores, recipes: Mapping[str, str], seeds: int, base: str) -> dict[str, Any]:
    """Figures of each setting, and its paired difference to `base`."""
    results: dict[str, Any] = {
        "rows": len(scores.clicks),
        "clicks": int(scores.clicks.sum()),
        "months_and_weeks": lake.months_and_weeks,
        "users_with_both_labels": _judged(scores),
        "settings": {},
    }
    draws = drawn(scores, seeds)
    for setting in scores.of:
        results["settings"][setting] = {
            "recipe": recipes[setting],
            **_means(scores, setting),
            **_gains(scores, setting, draws, base),
        }
    if scores.truth is not None:
        results["truth"] = _metrics(scores.truth, scores)
    print_table(lake, results, base)
    return results


def choose(lake: Lake, folder: Path, seeds: Sequence[int]) -> dict[str, str]:
    """Of each setting, the recipe with the best mean AUC on the days before `report_from`."""
    found: dict[str, dict[str, float]] = {setting: {} for setting in lake.settings}
    for name in CANDIDATES:
        tables = [pq.read_table(folder / "seeds" / str(seed) / "scores" / f"choose-{name}.parquet") for seed in seeds]
        for setting in lake.settings:
            values = [auc(table[setting].to_numpy(), table["click"].to_numpy().astype(np.int64)) for table in tables]
            found[setting][name] = float(np.mean([value for value in values if value is not None]))
    header = ("AUC on the days of choice", *CANDIDATES)
    print(
        f"\n{lake.name}: {table_text(header, [(s, *(f'{found[s][name]:.4f}' for name in CANDIDATES)) for s in lake.settings])}"
    )
    return {setting: max(of_setting, key=lambda name: of_setting[name]) for setting, of_setting in found.items()}


def read_scores(lake: Lake, folder: Path, seeds: Sequence[int], arms: Mapping[str, tuple[str, str, str]]) -> Scores:
    """The reported days' scores, rows in the same order for all.

    Args:
        lake: the source of logs whose days were scored.
        folder: the folder with the homes of its chains.
        seeds: the seeds of the chains.
        arms: for each name, where its scores are: what follows the seed in the name of the chain's home, the recipe, and
            the column.
    """
    found: dict[str, list[Floats]] = {name: [] for name in arms}
    rows: pa.Table | None = None
    for seed in seeds:
        for name, (suffix, recipe, setting) in arms.items():
            table = pq.read_table(
                folder / "seeds" / f"{seed}{suffix}" / "scores" / f"report-{recipe}.parquet",
                filters=[("ds", ">=", lake.report_from)],
            ).sort_by("event_id")
            rows = rows if rows is not None else table.select(["ds", "event_id", "user_id", "click"])
            assert table["event_id"].equals(rows["event_id"]), "all settings score the same rows"
            found[name].append(table[setting].to_numpy())
    assert rows is not None
    truth = None
    if Locations(folder).truth.is_dir():
        files = [Locations(folder).truth / f"{day}.parquet" for day in sorted(set(rows["ds"].to_pylist()))]
        known = pa.concat_tables([pq.read_table(path, filters=[("log", "==", "ad")]) for path in files])
        at = np.argsort(known["event_id"].to_numpy())
        ids = known["event_id"].to_numpy()[at]
        places = np.searchsorted(ids, rows["event_id"].to_numpy())
        assert (ids[places] == rows["event_id"].to_numpy()).all(), "the simulator knows the truth of every row"
        truth = known["probability"].to_numpy()[at][places]
    return Scores(
        users=np.unique(rows["user_id"].to_numpy(), return_inverse=True)[1],
        clicks=rows["click"].to_numpy().astype(np.int64),
        of={name: np.stack(parts) for name, parts in found.items()},
        truth=truth,
    )


@dataclass(frozen=True, kw_only=True)
class Draws:
    """How often each user (D x U) and each seed (D x S) is in each draw."""

    users: NDArray[np.int64]
    seeds: NDArray[np.int64]


def drawn(scores: Scores, seeds: int) -> Draws:
    rng, users = np.random.default_rng(7), int(scores.users.max()) + 1
    return Draws(
        users=rng.multinomial(users, np.full(users, 1 / users), size=DRAWS),
        seeds=rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=DRAWS),
    )


def bootstrap(
    scores: Floats, clicks: NDArray[np.int64], users: NDArray[np.int64], draws: NDArray[np.int64]
) -> dict[str, Floats]:
    """Each metric of one seed's scores (N) in every draw of users (D x U): D each; NaN where a score is not finite."""
    if num_not_finite(scores):
        return {metric: np.full(len(draws), np.nan) for metric in METRICS}
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) != 0])  # runs of equal scores
    of_runs = np.diff(np.r_[starts, len(order)])
    label = clicks[order]
    areas = []
    for part in np.array_split(draws, max(1, len(draws) // _CHUNK)):
        weight = part[:, users[order]].astype(np.float64)
        positive, negative = weight * label, weight * (1 - label)
        of_run = np.add.reduceat(negative, starts, axis=1)
        below = np.cumsum(of_run, axis=1) - of_run / 2
        areas.append((positive * np.repeat(below, of_runs, axis=1)).sum(1) / (positive.sum(1) * negative.sum(1)))
    values, counts = grouped_auc(scores, clicks, users)
    known = has_both_labels(clicks, users)
    weights = draws[:, known] * counts[known]
    losses = -np.where(clicks == 1, np.log(np.clip(scores, 1e-7, 1)), np.log1p(-np.clip(scores, 0, 1 - 1e-7)))
    by_user = np.bincount(users, weights=losses)
    return {
        "auc": np.concatenate(areas),
        "gauc": (weights @ values[known]) / weights.sum(1),
        "logloss": (draws @ by_user) / (draws @ np.bincount(users)),
    }


def _gains(scores: Scores, setting: str, draws: Draws, base: str) -> dict[str, tuple[float, float, float]]:
    """Each metric's difference to `base`: mean over the seeds, and the interval's ends."""
    if setting == base:
        return {}
    gains = {}
    found = [
        [bootstrap(of_seed, scores.clicks, scores.users, draws.users) for of_seed in scores.of[name]]
        for name in (setting, base)
    ]
    for metric in METRICS:
        difference = np.stack([ours[metric] - theirs[metric] for ours, theirs in zip(*found, strict=True)], axis=1)
        of_draws = (difference * draws.seeds).sum(1) / draws.seeds.sum(1)
        mean = _means(scores, setting)[metric] - _means(scores, base)[metric]
        low, high = np.quantile(of_draws, [0.025, 0.975])
        gains[f"{metric}_gain"] = (mean, float(low), float(high))
    return gains


def _means(scores: Scores, setting: str) -> dict[str, float]:
    found = [_metrics(of_seed, scores) for of_seed in scores.of[setting]]
    return {metric: float(np.mean([of_seed[metric] for of_seed in found])) for metric in METRICS}


def _metrics(values: Floats, scores: Scores) -> dict[str, float]:
    found = {
        "auc": auc(values, scores.clicks),
        "gauc": gauc(values, scores.clicks, scores.users),
        "logloss": logloss(values, scores.clicks),
    }
    return {name: float("nan") if value is None else value for name, value in found.items()}


def _judged(scores: Scores) -> int:
    return int(has_both_labels(scores.clicks, scores.users).sum())


def print_table(lake: Lake, results: Mapping[str, Any], base: str) -> None:
    def gain(of_setting: Mapping[str, Any], metric: str) -> str:
        ends = of_setting.get(f"{metric}_gain")
        return "-" if ends is None else f"{ends[0]:+.4f} ({ends[1]:+.4f} .. {ends[2]:+.4f})"

    rows = [
        (name, of["recipe"], *(f"{of[metric]:.4f}" for metric in METRICS), *(gain(of, metric) for metric in METRICS))
        for name, of in results["settings"].items()
    ]
    if "truth" in results:
        rows.append((TRUTH, "-", *(f"{results['truth'][metric]:.4f}" for metric in METRICS), "-", "-", "-"))
    print(
        f"\n{lake.name}: {results['rows']} rows, {results['clicks']} clicks, {results['users_with_both_labels']} users with both labels; "
        f"{lake.months_and_weeks}; differences to `{base}`, 95 % intervals"
    )
    print(
        table_text(("setting", "recipe", "AUC", "GAUC", "LogLoss", *(f"{metric} gain" for metric in METRICS)), rows),
        flush=True,
    )


def _arms(lake: Lake, work: Path, arms: Sequence[Sequence[str]], processes: int) -> None:
    def run(arguments: Sequence[str]) -> None:
        command = [
            sys.executable,
            "-m",
            "benchmarks.transfer_arm",
            "--work",
            str(work),
            "--lake",
            lake.name,
            "--settings",
            ",".join(lake.settings),
            *arguments,
        ]
        print(f"{lake.name} {' '.join(arguments)} ...", file=sys.stderr, flush=True)
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr[-2000:]}")

    with ThreadPoolExecutor(processes) as pool:
        list(pool.map(run, arms))


if __name__ == "__main__":
    main()
