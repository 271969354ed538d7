"""Torch-RecHub 0.9.0: `DataGenerator` -> `CTRTrainer.train_one_epoch`. DNN is WideDeep on one set of embeddings; it has no plain one."""

import tempfile
import time

from benchmarks.rivals.common import (
    ATTENTION,
    BATCH,
    DIM,
    FLAT,
    LEARNING_RATE,
    MLP,
    TEST_OF,
    Recorder,
    load,
    options,
    seed_all,
    vocabulary,
)

asked = options()
seed_all(asked.seed)

from torch_rechub.basic.features import SequenceFeature, SparseFeature  # noqa: E402
from torch_rechub.models.ranking import DIN, WideDeep  # noqa: E402
from torch_rechub.trainers import CTRTrainer  # noqa: E402
from torch_rechub.utils.data import DataGenerator  # noqa: E402

din, sizes = asked.model == "din", vocabulary(asked.data)
train, test = (load(asked.data, name, histories=din) for name in (asked.split, TEST_OF[asked.split]))
used = [*FLAT, *(["hist_item", "hist_genre"] if din else [])]
features = {name: SparseFeature(name, sizes[name], embed_dim=DIM) for name in FLAT}
if din:
    model = DIN(
        features=[features[name] for name in FLAT if name not in ("item_id", "genre")],
        history_features=[
            SequenceFeature(
                f"hist_{short}", sizes[name], embed_dim=DIM, pooling="concat", shared_with=name, padding_idx=0
            )
            for short, name in (("item", "item_id"), ("genre", "genre"))
        ],
        target_features=[
            SparseFeature(name, sizes[name], embed_dim=DIM, padding_idx=0) for name in ("item_id", "genre")
        ],
        mlp_params={"dims": list(MLP)},
        attention_mlp_params={"dims": list(ATTENTION)},
    )
else:
    model = WideDeep(
        wide_features=list(features.values()),
        deep_features=list(features.values()),
        mlp_params={"dims": list(MLP), "dropout": 0.0, "activation": "relu"},
    )
clicks = test["label"].astype("float32")
inputs = {name: test[name] for name in used}
generator = DataGenerator({name: train[name] for name in used}, train["label"].astype("float32"))
train_rows, _, test_rows = generator.generate_dataloader(
    x_val=inputs, y_val=clicks, x_test=inputs, y_test=clicks, batch_size=BATCH, num_workers=0
)
trainer = CTRTrainer(
    model,
    optimizer_params={"lr": LEARNING_RATE, "weight_decay": 0.0},
    n_epoch=asked.epochs,
    device="cpu",
    model_path=tempfile.mkdtemp(),
)
recorder = Recorder(len(train["label"]))
for _ in range(asked.epochs):
    began = time.perf_counter()
    trainer.train_one_epoch(train_rows)
    seconds = time.perf_counter() - began
    recorder.epoch(seconds, clicks, trainer.predict(model, test_rows))
recorder.done()
