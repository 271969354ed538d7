"""The plainest loop over FBGEMM's table-batched embeddings on the random ids: what our tables are measured against."""

import time

import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation, PoolingMode
from fbgemm_gpu.split_table_batched_embeddings_ops_training import ComputeDevice, SplitTableBatchedEmbeddingBagsCodegen
from torch.nn import functional

from benchmarks.rivals.common import (
    BATCH,
    DIM,
    ID_ROWS,
    IDS_PER_FEATURE,
    LEARNING_RATE,
    MLP,
    NUM_IDS,
    Recorder,
    options,
    random_ids,
    seed_all,
)
from training.modules.interaction import relu_mlp

asked = options()
seed_all(asked.seed)
columns, clicks = random_ids(asked.seed, ID_ROWS[asked.split])
tables = SplitTableBatchedEmbeddingBagsCodegen(
    [(IDS_PER_FEATURE, DIM, EmbeddingLocation.HOST, ComputeDevice.CPU)] * NUM_IDS,
    optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
    learning_rate=0.1,
    eps=1e-8,
    pooling_mode=PoolingMode.SUM,
)
tables.init_embedding_weights_uniform(-0.02, 0.02)
mlp = relu_mlp(NUM_IDS * DIM, MLP)
optimizer = torch.optim.Adam(mlp.parameters(), lr=LEARNING_RATE)
offsets = torch.arange(NUM_IDS * BATCH + 1)
recorder = Recorder(len(clicks))
for _ in range(asked.epochs):
    began = time.perf_counter()
    ids_FN = torch.stack([torch.from_numpy(values) for values in columns.values()])
    label_N = torch.from_numpy(clicks)
    for index in torch.randperm(len(clicks)).split(BATCH):
        x_BD = tables(ids_FN[:, index].reshape(-1), offsets[: NUM_IDS * len(index) + 1])
        loss = functional.binary_cross_entropy_with_logits(mlp(x_BD).squeeze(1), label_N[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    recorder.epoch(time.perf_counter() - began)
recorder.done()
