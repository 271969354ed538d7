"""What it costs to map ids to rows: our mapping, frozen before a run, and TorchRec's managed collision, which learns it in each step.

`python -m benchmarks.managed_collision [--quick]`. 400,000 rows of eight features, whose ids are drawn from a million
each, few often and most rarely; one pass in batches of 4,096, one thread. Managed collision gets as many rows as our
mapping admits. Its eviction policies are LFU, LRU, and LFU with admission from the second sighting on within an
interval, which is as near to ours as its settings come.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.recording import finish
from contracts.commands import table_text
from training.data.mapping import Coded, IdMapping, Seen
from training.recipes import Admission

FEATURES, IDS, ROWS, BATCH, INTERVAL = 8, 1_000_000, 400_000, 4096, 10
NAMES = tuple(f"id{number}" for number in range(FEATURES))
Columns = dict[str, NDArray[np.int64]]


def made_ids(rows: int, seed: int) -> Columns:
    """Ids whose frequency falls with a power of their number, the numbers scattered over the integers below 2^40."""
    generator = np.random.default_rng(seed)
    return {name: (IDS * generator.random(rows) ** 3).astype(np.int64) * 1_048_573 for name in NAMES}


def ours(columns: Columns) -> tuple[float, int, dict[str, NDArray[np.int64]], IdMapping]:
    """Seconds and bytes of the mapping, and the rows that the columns get."""
    began = time.perf_counter()
    coded = {name: Coded.of(ids) for name, ids in columns.items()}
    days = np.ones(len(columns[NAMES[0]]), np.int64)
    mapping, _ = IdMapping.empty(NAMES).grown(
        {name: Seen.of(column, days) for name, column in coded.items()}, NAMES, Admission()
    )
    rows = {name: mapping.fields[name].rows_of(column) for name, column in coded.items()}
    seconds = time.perf_counter() - began
    held = sum(
        a.nbytes
        for f in mapping.fields.values()
        for a in (f.ids, f.last_day, f.waiting.ids, f.waiting.cnt, f.waiting.last_day)
    )
    return seconds, held, rows, mapping


def policies() -> dict[str, Callable[[], Any]]:
    """Eviction policies by name."""
    from torchrec.modules.mc_modules import DistanceLFU_EvictionPolicy, LFU_EvictionPolicy, LRU_EvictionPolicy

    def twice(counts: torch.Tensor) -> tuple[torch.Tensor, float]:
        return counts >= 2, 2.0

    return {
        "LFU": LFU_EvictionPolicy,
        "LRU": LRU_EvictionPolicy,
        "LFU, twice": lambda: LFU_EvictionPolicy(threshold_filtering_func=twice),
        "distance LFU": DistanceLFU_EvictionPolicy,
    }


def managed(columns: Columns, sizes: dict[str, int], policy: Callable[[], Any]) -> dict[str, Any]:
    """One pass of profiling and remapping; then the rows that all ids have."""
    from torchrec import JaggedTensor
    from torchrec.modules.mc_modules import MCHManagedCollisionModule

    modules = {
        name: MCHManagedCollisionModule(
            zch_size=sizes[name],
            device=torch.device("cpu"),
            eviction_policy=policy(),
            eviction_interval=INTERVAL,
            input_hash_size=2**62,
        )
        for name in NAMES
    }
    evicted, began = 0, time.perf_counter()
    count = len(columns[NAMES[0]])
    for start in range(0, count, BATCH):
        for name, module in modules.items():
            values = torch.from_numpy(columns[name][start : start + BATCH])
            features = {name: JaggedTensor(values=values, lengths=torch.ones(len(values), dtype=torch.int64))}
            features = module.profile(module.preprocess(features))
            module.remap(features)
            freed = module.evict()
            evicted += 0 if freed is None else len(freed)
    seconds = time.perf_counter() - began
    rows = {}
    for name, module in modules.items():
        module.eval()
        values = torch.from_numpy(columns[name])
        of_all = {name: JaggedTensor(values=values, lengths=torch.ones(len(values), dtype=torch.int64))}
        rows[name] = module.remap(of_all)[name].values().numpy()
        evicted -= int(
            (module._mch_sorted_raw_ids != torch.iinfo(torch.int64).max).sum()
        )  # rows given out for the first time
    held = sum(tensor.nbytes for module in modules.values() for tensor in module.buffers())
    return {"seconds": seconds, "bytes": held, "rows": rows, "evicted": evicted}


def own_share(rows: dict[str, NDArray[np.int64]], shared: dict[str, int]) -> float:
    """Share of look-ups whose id has a row of its own."""
    return float(np.mean([np.mean(rows[name] != shared[name]) for name in NAMES]))


def same_rows(one: dict[str, NDArray[np.int64]], other: dict[str, NDArray[np.int64]], shared: dict[str, int]) -> float:
    """Of the look-ups that have a row of their own in either, the share that has the same in both."""
    own = {name: (one[name] != shared[name]) | (other[name] != shared[name]) for name in NAMES}
    return float(np.mean([np.mean((one[name] == other[name])[own[name]]) for name in NAMES]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows; nothing is recorded")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # FBGEMM and TorchRec speak of operations that their wheels lack
    torch.set_num_threads(1)
    columns = made_ids(ROWS // 10 if options.quick else ROWS, seed=1)
    turn = np.random.default_rng(2).permutation(len(columns[NAMES[0]]))
    turned = {name: ids[turn] for name, ids in columns.items()}
    steps = -(-len(turn) // BATCH)
    ours({name: ids[:BATCH] for name, ids in columns.items()})  # warms up
    seconds, held, rows, mapping = ours(columns)
    again = ours(turned)[2]
    sizes = mapping.row_cnts()
    nobody = dict.fromkeys(NAMES, 0)
    table: list[tuple[object, ...]] = [
        (
            "our mapping",
            f"{1000 * seconds / steps:.1f}",
            f"{held / 2**20:.0f}",
            0,
            f"{own_share(rows, nobody):.3f}",
            f"{same_rows(again, {name: rows[name][turn] for name in NAMES}, nobody):.3f}",
        )
    ]
    figures: dict[str, Any] = {"ours_ms_per_step": round(1000 * seconds / steps, 2), "ours_mib": round(held / 2**20, 1)}
    for name, policy in policies().items():
        first, second = managed(columns, sizes, policy), managed(turned, sizes, policy)
        shared = {feature: size - 1 for feature, size in sizes.items()}  # the last row is that of all ids without one
        stays = same_rows(second["rows"], {feature: first["rows"][feature][turn] for feature in NAMES}, shared)
        table.append(
            (
                name,
                f"{1000 * first['seconds'] / steps:.1f}",
                f"{first['bytes'] / 2**20:.0f}",
                first["evicted"],
                f"{own_share(first['rows'], shared):.3f}",
                f"{stays:.3f}",
            )
        )
        key = name.lower().replace(", ", "_").replace(" ", "_")
        figures |= {
            f"{key}_ms_per_step": round(1000 * first["seconds"] / steps, 2),
            f"{key}_mib": round(first["bytes"] / 2**20, 1),
            f"{key}_evicted": first["evicted"],
            f"{key}_same_rows_in_another_order": round(stays, 4),
        }
    print(
        table_text(
            ("id mapping", "ms per step", "MiB", "rows taken away", "look-ups with a row", "same row in another order"),
            table,
        )
    )
    finish(
        "managed_collision",
        figures,
        details={"rows": len(turn), "sizes": sizes, "interval": INTERVAL},
        packages=("torch", "torchrec", "fbgemm-gpu-cpu"),
        quick=options.quick,
    )


if __name__ == "__main__":
    main()
