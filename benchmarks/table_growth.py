"""What a step costs with few and with many rows in the embedding table."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import torch

from benchmarks.rivals.common import BATCH, DIM, NUM_IDS, THREADS
from contracts.commands import table_text
from training.engine.loop import prepare_process
from training.modules.embedding import IdEmbeddings

ROWS = (100_000, 1_000_000, 10_000_000)


def growth(quick: bool) -> dict[str, Any]:
    """Milliseconds of a look-up and its update, by turns; each step touches ids of its own."""
    prepare_process(THREADS)
    generator = torch.Generator().manual_seed(1)
    tables, seconds = {}, {rows: [] for rows in ROWS}
    for rows in ROWS:
        names = [f"id{number}" for number in range(NUM_IDS)]
        tables[rows] = IdEmbeddings(dict.fromkeys(names, rows // NUM_IDS), dict.fromkeys(names, DIM), seed=1)
        for table in tables[rows].tables.values():
            table.learning_rate = 0.1
    for step in range(20 if quick else 100):
        for rows, embeddings in tables.items():
            ids = torch.randint(0, rows // NUM_IDS, (BATCH, NUM_IDS), generator=generator)
            began = time.perf_counter()
            own, _ = embeddings(ids)
            own.backward(own.detach())
            if step >= 5:
                seconds[rows].append(time.perf_counter() - began)
    print(table_text(("rows in the table", "step, ms"), [(f"{rows:,}", f"{1000 * median(taken):.2f}") for rows, taken in seconds.items()]))
    return {"step_10m_over_100k": round(median(seconds[ROWS[-1]]) / median(seconds[ROWS[0]]), 3)}
