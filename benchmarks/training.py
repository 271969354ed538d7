"""How fast models train: Tributary compared with FuxiCTR, DeepCTR-Torch, torch-rechub and RecBole on MovieLens-1M, and tables of many ids.

`python -m benchmarks.training --data FOLDER --fuxictr-zoo FOLDER [--quick] [--part dnn|din|ids|growth|native] [--seeds
N] [--epochs N] [--library NAME]`. FuxiCTR's wheel lacks DNN and DIN: `--fuxictr-zoo` is the folder `model_zoo` of its
repository (commit 0245987). Every library runs in an environment of its own, made at the first run, and every arm in a
process of its own, arms by turns. An arm that has run is not run again (its figures are in `<work>/arms.jsonl`, by
model, library, seed and vectors), so that the hours of a full run may be cut anywhere.

A ratio holds for a kind of processor: its vectors are printed next to it. On one with AVX-512 everything runs a second
time without, by all libraries (`--vectors`); those figures end in `_avx2`. `--part native` runs our models with and
without native code, and each operation.
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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch

from benchmarks.recording import finish, result_in, run_for_result, with_descendants
from benchmarks.rivals.common import THREADS
from benchmarks.rivals.prepare import prepare
from benchmarks.table_growth import growth
from contracts.commands import table_text
from contracts.settings import data_folder
from tributary.stack.processes import memory_bytes

OURS, LOOP, IN_TORCH = "tributary", "fbgemm", "tributary in torch"
ALL_RIVALS = ("fuxictr", "deepctr", "rechub", "recbole")
RIVALS = {"dnn": ALL_RIVALS, "din": ALL_RIVALS, "ids": ("fuxictr", "deepctr")}
EPOCHS, QUICK_EPOCHS = {"dnn": 3, "din": 3, "ids": 1}, 2
PARTS = ("dnn", "din", "ids", "growth", "native")
# What each library's kernels look at. FBGEMM looks at the processor only.
WITHOUT_AVX512 = {
    "TRIBUTARY_NATIVE_FLAGS": "-mno-avx512f",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}
VECTORS: dict[str, dict[str, str]] = {"own": {}, "avx2": WITHOUT_AVX512}
HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One run of one library.

    Attributes:
        model, library, seed: which model is trained, by which library, from which seed.
        split: which rows it trains on and is judged on.
        epochs: how many times it passes over the training rows.
        vectors: which vector instructions it may use: `own`, all that the processor has, or `avx2`, no more than AVX2.
    """

    model: str
    library: str
    seed: int
    split: str
    epochs: int
    vectors: str

    @property
    def key(self) -> list[Any]:
        return [self.model, self.library, self.seed, self.split, self.epochs, self.vectors]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=data_folder(), help="folder of MovieLens-1M (default: TRIBUTARY_DATA)"
    )
    parser.add_argument(
        "--fuxictr-zoo", type=Path, help="model_zoo of FuxiCTR's repository; without it FuxiCTR is left out"
    )
    parser.add_argument("--quick", action="store_true", help="one seed, few steps; nothing is recorded")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 1 .. N (default 3)")
    parser.add_argument("--part", action="append", choices=PARTS, help="may be repeated; all by default")
    parser.add_argument("--epochs", type=int, help="epochs of each run, for a shorter one; nothing is recorded")
    parser.add_argument(
        "--library", action="append", choices=ALL_RIVALS, help="which rivals only; may be repeated; nothing is recorded"
    )
    parser.add_argument(
        "--vectors",
        action="append",
        choices=tuple(VECTORS),
        help="of the processor: its own, or no more than AVX2; may be repeated; both by default where it has AVX-512",
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("tributary-home/benchmark-training"),
        help="environments, rows, and figures of the arms that have run",
    )
    options = parser.parse_args()
    if options.seeds < 1:
        parser.error(f"--seeds: expected a number >= 1, found {options.seeds}")
    if options.epochs is not None and options.epochs < 1:
        parser.error(f"--epochs: expected a number >= 1, found {options.epochs}")
    if options.data is None:
        parser.error("--data: expected the folder of MovieLens-1M's original files, found none")
    work, parts = options.work.resolve(), options.part or list(PARTS)
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "rows" / "meta.json").is_file():
        prepare(options.data, work / "rows")
    libraries = {name for part in parts for name in RIVALS.get(part, ())} & set(options.library or ALL_RIVALS)
    libraries -= set() if options.fuxictr_zoo else {"fuxictr"}
    for name in sorted(libraries):
        make_environment(work, name)
    seeds, split = ([1], "quick") if options.quick else (range(1, options.seeds + 1), "full")
    vectors = list(dict.fromkeys(options.vectors or (("own", "avx2") if has_avx512() else ("own",))))
    arms = [
        Arm(
            model=model,
            library=library,
            seed=seed,
            split=split,
            vectors=way,
            epochs=options.epochs or (min(EPOCHS[model], QUICK_EPOCHS) if options.quick else EPOCHS[model]),
        )
        for way in vectors
        for model, of_part in arms_of(parts, libraries).items()
        for seed in seeds
        for library in of_part
    ]
    done = run_arms(arms, work, options.fuxictr_zoo, keep=not options.quick)
    figures: dict[str, Any] = {}
    for way in vectors:
        of_way: dict[str, Any] = {}
        for part in parts:
            of_part = {
                model: [(arm, done[tuple(arm.key)]) for arm in arms if (arm.model, arm.vectors) == (model, way)]
                for model in (RIVALS if part == "native" else [part])
            }
            of_way |= (
                (growth(options.quick) if way == vectors[0] else {})
                if part == "growth"
                else (native_figures(of_part, way) if part == "native" else figures_of(part, of_part[part]))
            )
        figures |= of_way if way == vectors[0] else {f"{name}_{way}": value for name, value in of_way.items()}
    finish(
        "training",
        figures,
        details={"parts": parts, "seeds": list(seeds), "arms": [[*key, result] for key, result in done.items()]},
        packages=("torch", "fbgemm-gpu-cpu"),
        quick=options.quick or bool(options.library or options.epochs),
    )


def has_avx512() -> bool:
    """Whether the processor has AVX-512, as torch sees it."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512"


def arms_of(parts: Sequence[str], rivals: set[str]) -> dict[str, list[str]]:
    """Which libraries train which model."""
    arms = {
        model: [OURS, *([LOOP] if model == "ids" else []), *(name for name in RIVALS[model] if name in rivals)]
        for model in RIVALS
        if model in parts
    }
    if "native" in parts:
        for model in ("dnn", "din"):
            arms[model] = [*arms.get(model, [OURS]), IN_TORCH]
    return arms


def native_figures(results: dict[str, Any], vectors: str) -> dict[str, Any]:
    """How much native code gains: our models with it and without, and each operation compared with its twin on the problem of its trial."""
    figures = {}
    for model in ("dnn", "din"):
        speed = {
            library: speed_of([result for arm, result in results[model] if arm.library == library])
            for library in (OURS, IN_TORCH)
        }
        figures[f"{model}_native_over_torch"] = round(speed[OURS] / speed[IN_TORCH], 2)
    trials = run_for_result([sys.executable, "-m", "benchmarks.native_arm"], VECTORS[vectors])
    rows = [
        (name, f"{of['native_ms']:.2f}", f"{of['torch_ms']:.2f}", f"{of['torch_ms'] / of['native_ms']:.2f}")
        for name, of in trials["operations"].items()
    ]
    print(f"\nnative operations, one thread, {trials['vectors']}")
    print(table_text(("operation", "native ms", "torch ms", "ratio"), rows))
    return figures | {
        "least_native_over_torch": round(
            min(of["torch_ms"] / of["native_ms"] for of in trials["operations"].values()), 2
        )
    }


def speed_of(runs: Sequence[dict[str, Any]]) -> float:
    """Samples a second; of several epochs the first warms up."""
    speed: float = median(run["rows"] / seconds for run in runs for seconds in run["seconds"][1:] or run["seconds"])
    return speed


def figures_of(model: str, results: Sequence[tuple[Arm, dict[str, Any]]]) -> dict[str, Any]:
    """Medians of the libraries, printed as a table, and our ratios to them."""
    results = [(arm, result) for arm, result in results if arm.library != IN_TORCH]
    libraries = list(dict.fromkeys(arm.library for arm, _ in results))
    by_library = {library: [result for arm, result in results if arm.library == library] for library in libraries}
    speed = {name: speed_of(runs) for name, runs in by_library.items()}
    vectors = by_library[OURS][0]["vectors"]
    memory = {name: median(run["memory_gib"] for run in runs) for name, runs in by_library.items()}
    auc = {
        name: [mean(run["auc"][epoch] for run in runs) for epoch in range(min(len(run["auc"]) for run in runs))]
        for name, runs in by_library.items()
    }
    rows = [
        (
            name,
            f"{speed[name]:,.0f}",
            f"{median(run['setup_seconds'] for run in by_library[name]):.1f}",
            f"{memory[name]:.2f}",
            *(f"{value:.4f}" for value in auc[name]),
        )
        for name in sorted(libraries, key=lambda name: -speed[name])
    ]
    print(f"\n{model}, {THREADS} threads, batches of 4,096, {vectors}")
    print(
        table_text(
            ("library", "samples/s", "set-up s", "peak GiB", *(f"AUC {n + 1}" for n in range(len(rows[0]) - 4))), rows
        )
    )
    rivals = [name for name in libraries if name not in (OURS, LOOP)]
    if model == "ids":
        return {
            "vectors": vectors,
            "ids_over_fbgemm": round(speed[OURS] / speed[LOOP], 3),
            **{f"ids_over_{name}": round(speed[OURS] / speed[name], 1) for name in rivals},
        }
    judged = [epoch for epoch in (0, 2) if epoch < len(auc[OURS])]
    own = {"vectors": vectors, f"{model}_samples_per_second": round(speed[OURS])}
    return (
        own
        if not rivals
        else own
        | {
            f"{model}_over_fastest_rival": round(speed[OURS] / max(speed[name] for name in rivals), 2),
            f"{model}_auc_margin": round(
                min(auc[OURS][epoch] - max(auc[name][epoch] for name in rivals) for epoch in judged), 4
            ),
            f"{model}_memory_over_smallest_rival": round(memory[OURS] / min(memory[name] for name in rivals), 2),
        }
    )


def run_arms(arms: Sequence[Arm], work: Path, zoo: Path | None, *, keep: bool) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Figures by an arm's key, of these and, where figures are kept, of all that have run: none of those runs again."""
    done = read_done(work) if keep else {}
    for number, arm in enumerate(arms, 1):
        if tuple(arm.key) in done:
            continue
        limit = "" if arm.vectors == "own" else f", no more than {arm.vectors}"
        print(f"== {number} of {len(arms)}: {arm.model} by {arm.library}, seed {arm.seed}{limit}", flush=True)
        done[tuple(arm.key)] = run_arm(arm, work, zoo, keep=keep)
    return done


def run_arm(arm: Arm, work: Path, zoo: Path | None, *, keep: bool) -> dict[str, Any]:
    """Runs an arm, and measures its memory (proportional, of all its processes); one that fails ends the benchmark with the reason."""
    own_modules = {OURS: "benchmarks.our_arm", IN_TORCH: "benchmarks.our_arm", LOOP: "benchmarks.fbgemm_arm"}
    module = own_modules.get(arm.library, f"benchmarks.rivals.{arm.library}_arm")
    python = (
        sys.executable if arm.library in own_modules else str(work / "environments" / arm.library / "bin" / "python")
    )
    command = [
        python,
        "-m",
        module,
        "--data",
        str(work / "rows"),
        "--model",
        arm.model,
        "--seed",
        str(arm.seed),
        "--split",
        arm.split,
        "--epochs",
        str(arm.epochs),
        *(["--zoo", str(zoo.resolve())] if zoo else []),
    ]
    environment = os.environ | {
        "OMP_NUM_THREADS": str(THREADS),
        "PYTHONPATH": str(HERE.parent),
        "PYTHONWARNINGS": "ignore",
    }
    environment |= VECTORS[arm.vectors] | ({"TRIBUTARY_NATIVE": "0"} if arm.library == IN_TORCH else {})
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        peak = [0]
        watch = threading.Thread(target=watch_memory, args=(process, peak), daemon=True)
        watch.start()
        output, _ = process.communicate()
        watch.join()
    result = result_in(output, process.returncode, f"{arm.library}: {' '.join(command)}") | {
        "memory_gib": peak[0] / 2**30
    }
    print(f"   {result['rows'] / median(result['seconds']):,.0f} samples/s, AUC {result['auc']}", flush=True)
    if keep:
        with (work / "arms.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps([arm.key, result]) + "\n")
    return result


def watch_memory(process: subprocess.Popen[str], peak: list[int]) -> None:
    """Samples the memory of a process and all below it, in bytes."""
    while process.poll() is None:
        peak[0] = max(peak[0], memory_bytes(with_descendants(process.pid)))
        time.sleep(2.0)  # reading the memory of a large process holds it up


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
    without = HERE / "rivals" / f"{name}-alone.txt"  # packages whose own requirements contradict each other
    if without.is_file():
        subprocess.run([*install, "--no-deps", "-r", str(without)], check=True)
    (folder / "made").touch()


def read_done(work: Path) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Figures of the arms that have run."""
    path = work / "arms.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return {tuple(key): result for key, result in lines}


if __name__ == "__main__":
    main()
