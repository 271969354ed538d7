"""FuxiCTR 2.3.10 with DNN and DIN of its repository's `model_zoo` (the wheel has neither): its own preprocessing, parquet loader, `fit`."""

import collections
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from benchmarks.rivals.common import (
    ATTENTION,
    BATCH,
    DIM,
    FLAT,
    HISTORY,
    ID_ROWS,
    IDS_PER_FEATURE,
    LEARNING_RATE,
    MLP,
    TEST_OF,
    Recorder,
    options,
    random_ids,
    seed_all,
)

asked = options()
torch = seed_all(asked.seed)
for folder in ("DNN/DNN_torch", "DIN"):
    sys.path.insert(0, str(asked.zoo / folder / "src"))

from DIN import DIN  # noqa: E402
from DNN import DNN  # noqa: E402
from fuxictr.features import FeatureMap  # noqa: E402
from fuxictr.preprocess import FeatureProcessor, build_dataset  # noqa: E402
from fuxictr.pytorch.dataloaders import RankDataLoader  # noqa: E402
from fuxictr.pytorch.torch_utils import seed_everything  # noqa: E402


def preprocessed() -> Path:
    """FuxiCTR's own form of the rows, made once per split."""
    root: Path = asked.data / f"fuxictr-{asked.split}"
    if (root / "done").is_file():
        return root
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for split, target in ((asked.split, "train"), (TEST_OF[asked.split], "test")):
        table = pq.read_table(asked.data / f"{split}.parquet").select(["label", *FLAT, "hist_item", "hist_genre"])
        for column in ("hist_item", "hist_genre"):
            texts = pa.chunked_array([pc.cast(chunk, pa.list_(pa.string())) for chunk in table[column].chunks])
            table = table.set_column(table.column_names.index(column), column, pc.binary_join(texts, "^"))
        pa_csv.write_csv(table, root / f"{target}.csv")
    sequence = {
        "active": True,
        "dtype": "str",
        "type": "sequence",
        "splitter": "^",
        "max_len": HISTORY,
        "padding": "post",
    }
    processor = FeatureProcessor(
        feature_cols=[
            {"name": list(FLAT), "active": True, "dtype": "str", "type": "categorical"},
            {"name": "hist_item", "share_embedding": "item_id", **sequence},
            {"name": "hist_genre", "share_embedding": "genre", **sequence},
        ],
        label_col={"name": "label", "dtype": "float"},
        dataset_id="ml1m",
        data_root=str(root),
    )
    build_dataset(processor, train_data=str(root / "train.csv"), valid_data=str(root / "test.csv"), data_format="csv")
    (root / "done").touch()
    return root


seed_everything(asked.seed)
torch.set_num_threads(2)
work = Path(tempfile.mkdtemp())
settings = {
    "model_root": f"{work}/",
    "metrics": ["AUC", "logloss"],
    "monitor": "AUC",
    "verbose": 0,
    "seed": asked.seed,
    "task": "binary_classification",
    "optimizer": "adam",
    "loss": "binary_crossentropy",
    "learning_rate": LEARNING_RATE,
    "embedding_dim": DIM,
    "embedding_regularizer": 0,
    "net_regularizer": 0,
    "net_dropout": 0,
    "batch_norm": False,
    "reduce_lr_on_plateau": False,
    "early_stop_patience": 99,
}
if asked.model == "ids":
    import pandas as pd

    columns, labels = random_ids(asked.seed, ID_ROWS[asked.split])
    (work / "ids").mkdir()
    pd.DataFrame({**columns, "label": labels}).to_parquet(work / "ids" / "train.parquet")
    features = FeatureMap("ids", str(work / "ids"))
    features.labels, features.default_emb_dim, features.num_fields = ["label"], DIM, len(columns)
    features.features = collections.OrderedDict(
        (name, {"source": "", "type": "categorical", "padding_idx": 0, "vocab_size": IDS_PER_FEATURE})
        for name in columns
    )
    features.total_features = len(columns) * IDS_PER_FEATURE
    features.set_column_index()
    train_rows, _ = RankDataLoader(
        features,
        stage="train",
        train_data=str(work / "ids" / "train.parquet"),
        batch_size=BATCH,
        data_format="parquet",
        shuffle=True,
        num_workers=1,
    )
    model, test_rows = DNN(features, gpu=-1, **settings, hidden_units=list(MLP)), None
else:
    root = preprocessed()
    din = asked.model == "din"
    settings["use_features"] = [*FLAT, *(["hist_item", "hist_genre"] if din else [])]
    if din:
        settings |= {
            "dnn_hidden_units": list(MLP),
            "dnn_activations": "ReLU",
            "attention_hidden_units": list(ATTENTION),
            "attention_hidden_activations": "Dice",
            "attention_dropout": 0,
            "din_target_field": [("item_id", "genre")],
            "din_sequence_field": [("hist_item", "hist_genre")],
            "feature_specs": [{"name": ["hist_item", "hist_genre"], "feature_encoder": None}],
        }
    else:
        settings |= {"hidden_units": list(MLP), "hidden_activations": "ReLU"}
    features = FeatureMap("ml1m", str(root / "ml1m"))
    features.load(str(root / "ml1m" / "feature_map.json"), settings)
    train_rows, test_rows = RankDataLoader(
        features,
        stage="train",
        train_data=str(root / "ml1m" / "train.parquet"),
        valid_data=str(root / "ml1m" / "valid.parquet"),
        batch_size=BATCH,
        data_format="parquet",
        shuffle=True,
        num_workers=1,
    )
    (work / "ml1m").mkdir(exist_ok=True)
    model = (DIN if din else DNN)(features, gpu=-1, **settings)
recorder = Recorder(train_rows.num_samples)
train_epoch = model.train_epoch


def evaluate() -> None:
    """Called by `fit` at the end of an epoch: the epoch's clock stops here."""
    seconds = time.perf_counter() - model.began
    if test_rows is None:
        recorder.epoch(seconds)
        return
    model.eval()
    with torch.no_grad():
        parts = [
            (model.get_labels(batch).numpy().reshape(-1), model.forward(batch)["y_pred"].numpy().reshape(-1))
            for batch in test_rows
        ]
    model.train()
    recorder.epoch(seconds, *(np.concatenate(values) for values in zip(*parts, strict=True)))
    model.save_weights(model.checkpoint)


def timed(rows: object) -> None:
    model.began = time.perf_counter()
    train_epoch(rows)


model.eval_step, model.train_epoch = evaluate, timed
if test_rows is None:
    model.load_weights = lambda checkpoint: None
model.fit(train_rows, epochs=asked.epochs, validation_data=test_rows)
recorder.done()
shutil.rmtree(work)
