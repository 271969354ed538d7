"""DeepCTR-Torch 0.3.0: arrays -> `model.fit`, its own loader. DNN is WDL without its linear part; DIN's attention is Dice."""

import time

from benchmarks.rivals.common import (
    ATTENTION,
    BATCH,
    DIM,
    FLAT,
    HISTORY,
    ID_ROWS,
    IDS_PER_FEATURE,
    MLP,
    TEST_OF,
    Recorder,
    load,
    options,
    random_ids,
    seed_all,
    vocabulary,
)

asked = options()
seed_all(asked.seed)

from deepctr_torch.callbacks import Callback  # noqa: E402
from deepctr_torch.inputs import SparseFeat, VarLenSparseFeat, get_feature_names  # noqa: E402
from deepctr_torch.models import DIN, WDL  # noqa: E402

plain = {"l2_reg_embedding": 0, "l2_reg_dnn": 0, "dnn_dropout": 0, "dnn_hidden_units": MLP, "seed": asked.seed}
test = None
if asked.model == "ids":
    train, labels = random_ids(asked.seed, ID_ROWS[asked.split])
    columns = [SparseFeat(name, IDS_PER_FEATURE, embedding_dim=DIM) for name in train]
    model = WDL([], columns, l2_reg_linear=0, **plain)
else:
    din, sizes = asked.model == "din", vocabulary(asked.data)
    train, test = (load(asked.data, name, histories=din) for name in (asked.split, TEST_OF[asked.split]))
    labels = train["label"].astype("float32")
    columns = [SparseFeat(name, sizes[name], embedding_dim=DIM) for name in FLAT]
    if din:
        for rows in (train, test):
            rows["hist_item_id"], rows["seq_length"] = rows.pop("hist_item"), rows.pop("hist_len")
        columns += [
            VarLenSparseFeat(
                SparseFeat(f"hist_{name}", sizes[name], embedding_dim=DIM, embedding_name=name),
                HISTORY,
                length_name="seq_length",
            )
            for name in ("item_id", "genre")
        ]
        model = DIN(columns, ["item_id", "genre"], att_hidden_size=ATTENTION, **plain)
    else:
        model = WDL([], columns, l2_reg_linear=0, **plain)
names = get_feature_names(columns)
model.compile("adam", "binary_crossentropy", metrics=["binary_crossentropy"])
recorder = Recorder(len(labels))


class Timer(Callback):
    """Times each epoch, and scores the test rows after it."""

    def on_train_begin(self, logs=None):
        pass

    def on_train_end(self, logs=None):
        pass

    def on_epoch_begin(self, epoch, logs=None):
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        seconds = time.perf_counter() - self.began
        if test is None:
            recorder.epoch(seconds)
            return
        recorder.epoch(seconds, test["label"], model.predict({name: test[name] for name in names}, BATCH))
        model.train()


model.fit(
    {name: train[name] for name in names}, labels, batch_size=BATCH, epochs=asked.epochs, verbose=2, callbacks=[Timer()]
)
recorder.done()
