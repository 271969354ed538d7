"""What a step costs with few and with many rows in the embedding table: the table's own part, and a whole step of training."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import torch
from torch.nn import functional

from benchmarks.rivals.common import BATCH, DIM, LEARNING_RATE, MLP, NUM_IDS, THREADS
from contracts.commands import table_text
from training.engine.loop import prepare_process
from training.modules.embedding import FbgemmTable, IdEmbeddings, Table
from training.modules.interaction import relu_mlp

ROWS = (100_000, 1_000_000, 10_000_000)


def growth(quick: bool) -> dict[str, Any]:
    """Milliseconds of a look-up and its update, and of a step with the other parts' network, by turns; each step touches new ids."""
    prepare_process(THREADS)
    generator = torch.Generator().manual_seed(1)
    tables = {}
    for rows in ROWS:
        names = [f"id{number}" for number in range(NUM_IDS)]
        tables[rows] = IdEmbeddings(dict.fromkeys(names, rows // NUM_IDS), dict.fromkeys(names, DIM), seed=1)
        for table in tables[rows].tables.values():
            assert isinstance(table, Table | FbgemmTable)
            table.learning_rate = 0.1
    mlp = relu_mlp(NUM_IDS * DIM, MLP)
    optimizer = torch.optim.Adam(mlp.parameters(), lr=LEARNING_RATE, fused=True)
    clicks = torch.rand(BATCH, generator=generator).round()

    def look_up_and_update(embeddings: IdEmbeddings, ids: torch.Tensor) -> None:
        own, _ = embeddings(ids)
        own.backward(own.detach())

    def train_step(embeddings: IdEmbeddings, ids: torch.Tensor) -> None:
        own, _ = embeddings(ids)
        functional.binary_cross_entropy_with_logits(mlp(own)[:, 0], clicks).backward()
        optimizer.step()
        optimizer.zero_grad()

    ratios = {}
    for name, what in (("", train_step), ("_table_alone", look_up_and_update)):
        seconds: dict[int, list[float]] = {rows: [] for rows in ROWS}
        for step in range(20 if quick else 100):
            for rows, embeddings in tables.items():
                ids = torch.randint(0, rows // NUM_IDS, (BATCH, NUM_IDS), generator=generator)
                began = time.perf_counter()
                what(embeddings, ids)
                if step >= 5:
                    seconds[rows].append(time.perf_counter() - began)
        print(
            table_text(
                ("rows in the table", what.__name__.replace("_", " ") + ", ms"),
                [(f"{rows:,}", f"{1000 * median(taken):.2f}") for rows, taken in seconds.items()],
            )
        )
        ratios[f"step_10m_over_100k{name}"] = round(median(seconds[ROWS[-1]]) / median(seconds[ROWS[0]]), 3)
    return ratios
