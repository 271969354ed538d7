"""What a table of a million behaviour texts costs: looking vectors up, and adding a day's new texts.

`python -m benchmarks.text_table [--quick]`. Look-ups of 4,096 texts drawn at random, from the memory-mapped store and
by `torch.index_select` from a tensor that is wholly in memory, by turns; and from one whose bound is a quarter of the
vectors. Adding 10,000 texts (the anti-join of training, the MERGE of Spark, the store brought up to date) to a table of
a million and to one of a tenth.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from deltalake import write_deltalake

from benchmarks.recording import finish
from contracts.commands import table_text
from contracts.locations import Locations
from contracts.releases import MANIFEST
from lake.progress import each
from lake.reader import LakeReader
from lake.session import writing_session
from spark_jobs.add_text_vectors import TABLE, add
from training.data.text_store import TextStore
from training.tasks.text_vectors import SCHEMA

TEXTS, QUICK_TEXTS, WIDTH, NEW, AT_ONCE = 1_000_000, 100_000, 384, 10_000, 50_000
LOOK_UP, TURNS, QUICK_TURNS = 4_096, 200, 50
ENCODER = "benchmark"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a hundred thousand texts; nothing is recorded")
    parser.add_argument("--work", type=Path, default=Path("tributary-home/benchmark-text-table"))
    options = parser.parse_args()
    count = QUICK_TEXTS if options.quick else TEXTS
    figures: dict[str, Any] = {}
    seconds: dict[int, dict[str, float]] = {}
    for size in (count // 10, count):
        home = options.work.resolve() / str(size)
        shutil.rmtree(home, ignore_errors=True)
        locations = Locations(home)
        write_texts(locations, size)
        if size == count:
            figures |= look_ups(locations, QUICK_TURNS if options.quick else TURNS)
        seconds[size] = adding(locations, size)
    rows = [
        (
            step,
            *(f"{seconds[size][step]:.2f}" for size in seconds),
            f"{seconds[count][step] / seconds[count // 10][step]:.2f}",
        )
        for step in seconds[count]
    ]
    print(table_text((f"seconds to add {NEW:,} texts", *(f"to {size:,}" for size in seconds), "ratio"), rows))
    totals = [sum(of.values()) for of in seconds.values()]
    figures |= {
        "adding_ratio_of_ten_times_the_table": round(totals[1] / totals[0], 3),
        "adding_seconds": round(totals[1], 2),
    }
    finish(
        "text_table",
        figures,
        details={"texts": count, "width": WIDTH, "seconds": {str(size): of for size, of in seconds.items()}},
        packages=("torch", "deltalake", "pyspark"),
        quick=options.quick,
    )
    shutil.rmtree(options.work)


def write_texts(locations: Locations, count: int) -> None:
    """The table, in files of fifty thousand."""
    for start in each(range(0, count, AT_ONCE), description=f"{count:,} texts", unit="file"):
        write_deltalake(str(locations.table(TABLE)), rows_of(start, min(AT_ONCE, count - start)), mode="append")


def rows_of(start: int, count: int) -> pa.Table:
    """Vectors of texts whose hashes are scattered, as hashes are."""
    rng = np.random.default_rng(start)
    hashes = (np.arange(start, start + count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(1)).astype(
        np.int64
    )
    values = rng.standard_normal((count, WIDTH), dtype=np.float32)
    offsets = pa.array(np.arange(count + 1, dtype=np.int32) * WIDTH)
    columns = [
        pa.array([ENCODER] * count),
        pa.array(hashes),
        pa.ListArray.from_arrays(offsets, pa.array(values.reshape(-1))),
        pa.array(np.full(count, WIDTH, np.int32)),
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def look_ups(locations: Locations, turns: int) -> dict[str, float]:
    """Medians of both by turns, and how far the process grew meanwhile."""
    began = time.perf_counter()
    TextStore.open(locations, LakeReader(locations), ENCODER)
    made = time.perf_counter() - began
    began = time.perf_counter()
    opened = TextStore.open(locations, LakeReader(locations), ENCODER)
    again = time.perf_counter() - began
    bound = len(opened) * WIDTH  # a quarter of the vectors' bytes
    bounded = TextStore.open(locations, LakeReader(locations), ENCODER, resident_bytes=bound)
    rng = np.random.default_rng(1)
    draws = [bounded.hashes[rng.integers(0, len(bounded), LOOK_UP)] for _ in range(turns)]
    idle, largest, of_store = resident_bytes(), 0, []
    for hashes in draws:
        began = time.perf_counter()
        bounded.vectors(torch.from_numpy(bounded.rows_of(hashes)))
        of_store.append(time.perf_counter() - began)
        largest = max(largest, resident_bytes() - idle)
    resident = torch.from_numpy(
        np.fromfile(locations.text_store(ENCODER) / "vectors.f32", np.float32).reshape(-1, WIDTH)
    )
    of_map: list[float] = []
    of_memory: list[float] = []
    of_search = []
    for hashes in draws:
        began = time.perf_counter()
        rows = torch.from_numpy(opened.rows_of(hashes))
        of_search.append(time.perf_counter() - began)
        for found, source in ((of_map, opened.vectors), (of_memory, lambda at: resident.index_select(0, at))):
            began = time.perf_counter()
            source(rows)
            found.append(time.perf_counter() - began)
    half = turns // 2  # the first half touches pages for the first time
    times = {
        "index_select from memory": median(of_memory[half:]),
        "store, mapped": median(of_map[half:]),
        "store, read, hashes looked up too": median(of_store[half:]),
        "only hashes -> rows": median(of_search[half:]),
    }
    print(
        table_text(
            (f"{LOOK_UP:,} of {len(opened):,} vectors", "ms"),
            [(name, f"{1000 * value:.3f}") for name, value in times.items()],
        )
    )
    print(
        f"opened in {again:.2f} s, made from the table in {made:.1f} s; bound {bound >> 20} MiB, grown by {largest >> 20} MiB at most"
    )
    return {
        "look_up_over_index_select": round(times["store, mapped"] / times["index_select from memory"], 3),
        "bounded_over_index_select": round(
            times["store, read, hashes looked up too"] / times["index_select from memory"], 3
        ),
        "grown_over_bound": round(largest / bound, 3),
        "open_seconds": round(again, 3),
    }


def resident_bytes() -> int:
    """Memory of this process, files that it has mapped included."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) * 1024


def adding(locations: Locations, size: int) -> dict[str, float]:
    """Seconds of each step of a day that brings new texts."""
    TextStore.open(locations, LakeReader(locations), ENCODER)
    new = rows_of(size, NEW)
    seconds = {}
    began = time.perf_counter()
    known = LakeReader(locations).read(TABLE, columns=["text_hash"], where={"encoder_id": ENCODER})["text_hash"]
    assert not pc.any(pc.is_in(new["text_hash"], known.combine_chunks())).as_py()
    seconds["anti-join"] = time.perf_counter() - began
    with writing_session(locations, app="benchmark", partitions={TABLE: ["all"]}) as spark:
        for name in ("warm-up", "MERGE"):
            part = new if name == "MERGE" else rows_of(size + NEW, 10)
            folder = locations.text_vectors(ENCODER)
            folder.mkdir(parents=True)
            pq.write_table(part, folder / "part-00000.parquet")
            (folder / MANIFEST).write_text(json.dumps({"encoder_id": ENCODER, "text_cnt": len(part), "dim": WIDTH}))
            began = time.perf_counter()
            add(spark, locations, folder)
            seconds[name] = time.perf_counter() - began
    del seconds["warm-up"]
    began = time.perf_counter()
    store = TextStore.open(locations, LakeReader(locations), ENCODER)
    seconds["store"] = time.perf_counter() - began
    assert len(store) == size + NEW + 10
    return seconds


if __name__ == "__main__":
    main()
