"""RecBole 1.2.1: the steps of its `run_recbole`, epoch by epoch. DNN is WideDeep with its first-order part; its DIN leaves the user's
features out and gives its attention the MLP's widths."""

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.rivals.common import BATCH, DIM, FLAT, LEARNING_RATE, MLP, TEST_OF, Recorder, options, seed_all

asked = options()
seed_all(asked.seed)
data = asked.data.resolve()
os.chdir(tempfile.mkdtemp())
sys.argv = sys.argv[:1]

from recbole.config import Config  # noqa: E402
from recbole.data import create_dataset, data_preparation  # noqa: E402
from recbole.utils import get_model, get_trainer, init_seed  # noqa: E402

din = asked.model == "din"
name = f"ml1m{asked.model}{asked.split}"


def atomic_files() -> Path:
    """RecBole's own form of the rows, made once per model and split."""
    root: Path = data / "recbole"
    folder = root / name
    if (folder / "done").is_file():
        return root
    folder.mkdir(parents=True, exist_ok=True)
    users: dict[int, tuple[int, ...]] = {}
    items: dict[int, int] = {}
    for split, targets in ((asked.split, ["train"]), (TEST_OF[asked.split], ["test", "valid"])):
        table = pq.read_table(data / f"{split}.parquet")
        columns = {c: table[c].to_pylist() for c in (*FLAT, "label")}
        users.update(
            zip(
                columns["user_id"],
                zip(*(columns[c] for c in ("gender", "age", "occupation", "zip")), strict=True),
                strict=True,
            )
        )
        for item, genre in zip(columns["item_id"], columns["genre"], strict=True):
            items.setdefault(item, genre)
        lines = [
            f"{u}\t{i}\t{y}" for u, i, y in zip(columns["user_id"], columns["item_id"], columns["label"], strict=True)
        ]
        if din:
            lines = [
                f"{line}\t{' '.join(map(str, history))}"
                for line, history in zip(lines, table["hist_item"].to_pylist(), strict=True)
            ]
        head = "user_id:token\titem_id:token\tlabel:float" + ("\titem_id_list:token_seq" if din else "")
        for target in targets:
            (folder / f"{name}.{target}.inter").write_text(
                "\n".join([head, *(lines if target != "valid" else lines[:1000])]) + "\n"
            )
    rows = ["\t".join(map(str, [user, *values])) for user, values in sorted(users.items())]
    (folder / f"{name}.user").write_text(
        "\n".join(["user_id:token\tgender:token\tage:token\toccupation:token\tzip:token", *rows]) + "\n"
    )
    (folder / f"{name}.item").write_text(
        "\n".join(["item_id:token\tgenre:token", *(f"{i}\t{g}" for i, g in sorted(items.items()))]) + "\n"
    )
    (folder / "done").touch()
    return root


settings = {
    "data_path": str(atomic_files()),
    "benchmark_filename": ["train", "valid", "test"],
    "seed": asked.seed,
    "use_gpu": False,
    "state": "ERROR",
    "show_progress": False,
    "LABEL_FIELD": "label",
    "train_neg_sample_args": None,
    "epochs": asked.epochs,
    "train_batch_size": BATCH,
    "eval_batch_size": BATCH,
    "learning_rate": LEARNING_RATE,
    "learner": "adam",
    "weight_decay": 0.0,
    "embedding_size": DIM,
    "mlp_hidden_size": list(MLP),
    "dropout_prob": 0.0,
    "metrics": ["AUC", "LogLoss"],
    "valid_metric": "AUC",
    "load_col": {
        "inter": ["user_id", "item_id", "label", *(["item_id_list"] if din else [])],
        "user": ["user_id", "gender", "age", "occupation", "zip"],
        "item": ["item_id", "genre"],
    },
    "eval_args": {
        "split": {"RS": [0.8, 0.1, 0.1]},
        "order": "TO" if din else "RO",
        "group_by": None,
        "mode": "labeled",
    },
}
if din:
    settings |= {"alias_of_item_id": ["item_id_list"], "MAX_ITEM_LIST_LENGTH": 50, "pooling_mode": "mean"}
config = Config(model="DIN" if din else "WideDeep", dataset=name, config_dict=settings)
init_seed(config["seed"], config["reproducibility"])
dataset = create_dataset(config)
train_rows, _, test_rows = data_preparation(config, dataset)
init_seed(config["seed"], config["reproducibility"])
model = get_model(config["model"])(config, train_rows._dataset).to(config["device"])
trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
torch = seed_all(asked.seed)
recorder = Recorder(len(train_rows._dataset))
for epoch in range(asked.epochs):
    began = time.perf_counter()
    trainer._train_epoch(train_rows, epoch, show_progress=False)
    seconds = time.perf_counter() - began
    model.eval()
    with torch.no_grad():
        scored = [(batch[0]["label"].numpy(), model.predict(batch[0]).numpy()) for batch in test_rows]
    recorder.epoch(seconds, *(np.concatenate(values) for values in zip(*scored, strict=True)))
recorder.done()
