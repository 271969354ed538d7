"""RecBole 1.2.1's BERT4Rec on the given sequences: its data set, its masking transform, its loss, the steps of its trainer.

Its own pipeline makes a sequence of every prefix of a user's clicks, cut to the last 50; the rows come in its shuffled
order.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.rivals.common import MARK

parser = argparse.ArgumentParser()
parser.add_argument("--rows", type=Path, required=True)
parser.add_argument("--size", type=json.loads, required=True)
parser.add_argument("--steps", type=int, required=True)
parser.add_argument("--users", type=int, required=True)
parser.add_argument("--threads", type=int, required=True)
asked = parser.parse_args()
rows = asked.rows.resolve()
os.chdir(tempfile.mkdtemp())
sys.argv = sys.argv[:1]

import torch  # noqa: E402

torch.set_num_threads(asked.threads)
from recbole.config import Config  # noqa: E402
from recbole.data import create_dataset, data_preparation  # noqa: E402
from recbole.utils import get_model, get_trainer, init_seed  # noqa: E402

table = pq.read_table(rows / "behaviours.parquet")
known = ~table["is_test"].to_numpy(zero_copy_only=False)
user = table["user_id"].to_numpy()
known &= np.unique(user, return_inverse=True)[1] < asked.users
columns = [table[name].to_numpy()[known] for name in ("user_id", "item_id")]
folder = Path("data") / "clicks"
folder.mkdir(parents=True)
# The place among all clicks stands for the time: ties keep the order that the other arm has.
lines = [f"{u}\t{i}\t{t}" for t, (u, i) in enumerate(zip(*columns, strict=True))]
(folder / "clicks.inter").write_text("\n".join(["user_id:token\titem_id:token\ttimestamp:float", *lines]) + "\n")
size = asked.size
config = Config(
    model="BERT4Rec",
    dataset="clicks",
    config_dict={
        "data_path": "data",
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "MAX_ITEM_LIST_LENGTH": size["length"],
        "n_layers": size["layers"],
        "n_heads": size["heads"],
        "hidden_size": size["width"],
        "inner_size": size["inner"],
        "hidden_dropout_prob": size["dropout"],
        "attn_dropout_prob": 0.0,
        "mask_ratio": size["mask"],
        "loss_type": "CE",
        "train_neg_sample_args": None,
        "train_batch_size": size["batch"],
        "use_gpu": False,
        "state": "ERROR",
        "show_progress": False,
        "learning_rate": 1e-3,
        "epochs": 1,
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full", "group_by": "user"},
    },
)
init_seed(1, True)
dataset = create_dataset(config)
batches, _, _ = data_preparation(config, dataset)
model = get_model("BERT4Rec")(config, batches._dataset).to(config["device"])
trainer = get_trainer(config["MODEL_TYPE"], "BERT4Rec")(config, model)
model.train()
behaviours, began, losses = 0, 0.0, []
source = iter(batches)
for step in range(asked.steps + 3):
    if step == 3:  # what came before warmed up
        began, behaviours = time.perf_counter(), 0
    batch = next(source)
    trainer.optimizer.zero_grad()
    loss = model.calculate_loss(batch)
    loss.backward()
    trainer.optimizer.step()
    behaviours += int(batch["item_length"].sum())
    losses.append(float(loss.detach()))
seconds = time.perf_counter() - began
print(
    MARK
    + json.dumps(
        {
            "behaviours_per_s": behaviours / seconds,
            "mean_length": behaviours / asked.steps / size["batch"],
            "items": int(model.n_items),
            "loss": float(np.mean(losses[-10:])),
        }
    )
)
