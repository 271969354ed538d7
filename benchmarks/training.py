"""How fast models train: Tributary beside FuxiCTR, DeepCTR-Torch, torch-rechub and RecBole on MovieLens-1M, and tables of many ids.

`python -m benchmarks.training --data FOLDER --fuxictr-zoo FOLDER [--quick] [--part dnn|din|ids|growth|native] [--seeds N] [--epochs N]
[--library NAME]`. FuxiCTR's wheel lacks DNN and DIN: `--fuxictr-zoo` is the folder `model_zoo` of its repository (commit 0245987). Every
library runs in an environment of its own, made at the first run, and every arm in a process of its own, arms by turns. An arm that has run
is not run again (its figures are in `<work>/arms.jsonl`, by model, library, seed and vectors), so that the hours of a full run may be cut
anywhere.

A ratio holds for a kind of processor: its vectors are printed beside it. On one with AVX-512 everything runs a second time without, by all
libraries (`--vectors`); those figures end in `_avx2`. `--part native` runs our models with and without native code, and each operation.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch

from benchmarks.recording import finish, result_in
from benchmarks.rivals.common import THREADS
from benchmarks.rivals.prepare import prepare
from benchmarks.table_growth import growth
from contracts.commands import table_text
from contracts.settings import data_folder
from tributary.stack.processes import memory_bytes

OURS, LOOP = "tributary", "fbgemm"
ALL_RIVALS = ("fuxictr", "deepctr", "rechub", "recbole")
RIVALS = {"dnn": ALL_RIVALS, "din": ALL_RIVALS, "ids": ("fuxictr", "deepctr")}
EPOCHS, QUICK_EPOCHS = {"dnn": 3, "din": 3, "ids": 1}, 2
HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One run of one library."""

    model: str
    library: str
    seed: int
    split: str

    @property
    def key(self) -> list[Any]:
        return [self.model, self.library, self.seed, self.split]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=data_folder(), help="folder of MovieLens-1M (default: TRIBUTARY_DATA)")
    parser.add_argument("--fuxictr-zoo", type=Path, help="model_zoo of FuxiCTR's repository; without it FuxiCTR is left out")
    parser.add_argument("--quick", action="store_true", help="one seed, few steps; nothing is recorded")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 1 .. N (default 3)")
    parser.add_argument("--part", action="append", choices=("dnn", "din", "ids", "growth"), help="may be repeated; all by default")
    parser.add_argument("--work", type=Path, default=Path("tributary-home/benchmark-training"),
                        help="environments, rows, and figures of the arms that have run")
    options = parser.parse_args()
    if options.seeds < 1:
        parser.error(f"--seeds: expected a number >= 1, found {options.seeds}")
    if options.data is None:
        parser.error("--data: expected the folder of MovieLens-1M's original files, found none")
    work, parts = options.work.resolve(), options.part or ["dnn", "din", "ids", "growth"]
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "rows" / "meta.json").is_file():
        prepare(options.data, work / "rows")
    libraries = {name for part in parts for name in RIVALS.get(part, ())} - (set() if options.fuxictr_zoo else {"fuxictr"})
    for name in sorted(libraries):
        make_environment(work, name)
    seeds, split = ([1], "quick") if options.quick else (range(1, options.seeds + 1), "full")
    arms = [Arm(model=model, library=library, seed=seed, split=split) for model in parts if model != "growth" for seed in seeds
            for library in (OURS, *([LOOP] if model == "ids" else []), *(name for name in RIVALS[model] if name in libraries))]
    done = run_arms(arms, work, options.fuxictr_zoo, keep=not options.quick)
    figures: dict[str, Any] = {}
    for model in parts:
        of_model = [(arm, done[tuple(arm.key)]) for arm in arms if arm.model == model]
        figures |= growth(options.quick) if model == "growth" else figures_of(model, of_model)
    finish("training", figures, details={"parts": parts, "seeds": list(seeds), "arms": [[*key, result] for key, result in done.items()]},
           packages=("torch", "fbgemm-gpu-cpu"), quick=options.quick)


def figures_of(model: str, results: Sequence[tuple[Arm, dict[str, Any]]]) -> dict[str, Any]:
    """Medians of the libraries, printed as a table, and our ratios to them."""
    libraries = list(dict.fromkeys(arm.library for arm, _ in results))
    by_library = {library: [result for arm, result in results if arm.library == library] for library in libraries}
    speed = {name: median(run["rows"] / seconds for run in runs for seconds in run["seconds"][1:] or run["seconds"])
             for name, runs in by_library.items()}  # of several epochs the first warms up
    memory = {name: median(run["memory_gib"] for run in runs) for name, runs in by_library.items()}
    auc = {name: [mean(run["auc"][epoch] for run in runs) for epoch in range(min(len(run["auc"]) for run in runs))]
           for name, runs in by_library.items()}
    rows = [(name, f"{speed[name]:,.0f}", f"{median(run['setup_seconds'] for run in by_library[name]):.1f}", f"{memory[name]:.2f}",
             *(f"{value:.4f}" for value in auc[name])) for name in sorted(libraries, key=lambda name: -speed[name])]
    print(f"\n{model}, {THREADS} threads, batches of 4,096")
    print(table_text(("library", "samples/s", "set-up s", "peak GiB", *(f"AUC {n + 1}" for n in range(len(rows[0]) - 4))), rows))
    rivals = [name for name in libraries if name not in (OURS, LOOP)]
    if model == "ids":
        return {"ids_over_fbgemm": round(speed[OURS] / speed[LOOP], 3),
                **{f"ids_over_{name}": round(speed[OURS] / speed[name], 1) for name in rivals}}
    judged = [epoch for epoch in (0, 2) if epoch < len(auc[OURS])]
    return {f"{model}_over_fastest_rival": round(speed[OURS] / max(speed[name] for name in rivals), 2),
            f"{model}_auc_margin": round(min(auc[OURS][epoch] - max(auc[name][epoch] for name in rivals) for epoch in judged), 4),
            f"{model}_memory_over_smallest_rival": round(memory[OURS] / min(memory[name] for name in rivals), 2),
            f"{model}_samples_per_second": round(speed[OURS])}


def run_arms(arms: Sequence[Arm], work: Path, zoo: Path | None, *, keep: bool) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Figures by an arm's key, of these and, where figures are kept, of all that have run: none of those runs again."""
    done = read_done(work) if keep else {}
    for number, arm in enumerate(arms, 1):
        if tuple(arm.key) in done:
            continue
        print(f"== {number} of {len(arms)}: {arm.model} by {arm.library}, seed {arm.seed}", flush=True)
        done[tuple(arm.key)] = run_arm(arm, work, zoo, keep=keep)
    return done


def run_arm(arm: Arm, work: Path, zoo: Path | None, *, keep: bool) -> dict[str, Any]:
    """Runs an arm, its memory (all its processes, shared pages shared) beside it; one that failed says why and ends the benchmark."""
    ours = arm.library in (OURS, LOOP)
    python = sys.executable if ours else str(work / "environments" / arm.library / "bin" / "python")
    module = {OURS: "benchmarks.our_arm", LOOP: "benchmarks.fbgemm_arm"}.get(arm.library, f"benchmarks.rivals.{arm.library}_arm")
    epochs = min(EPOCHS[arm.model], QUICK_EPOCHS) if arm.split == "quick" else EPOCHS[arm.model]
    command = [python, "-m", module, "--data", str(work / "rows"), "--model", arm.model, "--seed", str(arm.seed), "--split", arm.split,
               "--epochs", str(epochs), *(["--zoo", str(zoo.resolve())] if zoo else [])]
    environment = os.environ | {"OMP_NUM_THREADS": str(THREADS), "PYTHONPATH": str(HERE.parent), "PYTHONWARNINGS": "ignore"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        peak = [0]
        watch = threading.Thread(target=watch_memory, args=(process, peak), daemon=True)
        watch.start()
        output, _ = process.communicate()
        watch.join()
    result = result_in(output, process.returncode, f"{arm.library}: {' '.join(command)}") | {"memory_gib": peak[0] / 2**30}
    print(f"   {result['rows'] / median(result['seconds']):,.0f} samples/s, AUC {result['auc']}", flush=True)
    if keep:
        with (work / "arms.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps([arm.key, result]) + "\n")
    return result


def watch_memory(process: subprocess.Popen[str], peak: list[int]) -> None:
    """Samples the memory of a process and all below it, in bytes."""
    while process.poll() is None:
        peak[0] = max(peak[0], memory_bytes(list(below(process.pid))))
        time.sleep(2.0)  # reading the memory of a large process holds it up


def below(pid: int) -> Iterator[int]:
    """A process and its descendants."""
    yield pid
    try:
        children = [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
    except OSError:
        return
    for child in children:
        yield from below(child)


def make_environment(work: Path, name: str) -> None:
    """An environment of a library's own, with our torch, from its pins."""
    folder = work / "environments" / name
    if (folder / "made").is_file():
        return
    print(f"== making the environment of {name}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    uv, python = [sys.executable, "-m", "uv"], str(folder / "bin" / "python")
    subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
    pins = HERE / "rivals" / f"{name}.txt"
    install = [*uv, "pip", "install", "--quiet", "--python", python]
    subprocess.run([*install, f"torch=={torch.__version__.split('+')[0]}", "-r", str(pins)], check=True)
    alone = HERE / "rivals" / f"{name}-alone.txt"  # whose own requirements contradict each other
    if alone.is_file():
        subprocess.run([*install, "--no-deps", "-r", str(alone)], check=True)
    (folder / "made").touch()


def read_done(work: Path) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Figures of the arms that have run."""
    path = work / "arms.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return {tuple(key): result for key, result in lines}


if __name__ == "__main__":
    main()
