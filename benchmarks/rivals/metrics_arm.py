"""One library's own AUC, GAUC and LogLoss on the fixed set: `python -m benchmarks.rivals.metrics_arm --library NAME`."""

from __future__ import annotations

import argparse
import importlib.util
import json
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rivals.common import MARK
from benchmarks.rivals.metrics_set import THRESHOLDS, Rows, cases, fixed_rows

Figures = Callable[[Rows], Mapping[str, float]]
FAILED = "fails"  # what a figure begins with that the library could not give


def tributary(rows: Rows) -> Mapping[str, float]:
    from lake.metrics import evaluate

    found = evaluate(rows.scores, rows.clicks, rows.users)
    return {name: float(found[name]) for name in ("auc", "gauc", "gauc_plain", "logloss")}  # type: ignore[arg-type]  # all are defined


def fuxictr(rows: Rows, name: str) -> float:
    from fuxictr.metrics import evaluate_metrics

    return float(evaluate_metrics(rows.clicks, rows.scores, [name], group_id=rows.users)[name])


def rechub(rows: Rows, name: str) -> float:
    from torch_rechub.basic import metric

    users = (rows.users,) if name == "gauc_score" else ()
    return float(getattr(metric, name)(rows.clicks, rows.scores, *users))


def recbole(rows: Rows, name: str) -> float:
    """Its metrics read what its collector gathers; a user's items stand in a row, as many columns as the longest has, and one more."""
    import torch
    from recbole.evaluator import metrics
    from recbole.evaluator.collector import Collector, DataStruct

    config = {"metric_decimal_place": 9, "device": "cpu", "topk": [1]}
    if name != "GAUC":
        struct = DataStruct()
        struct.update_tensor("rec.score", torch.tensor(rows.scores))
        struct.update_tensor("data.label", torch.tensor(rows.clicks))
        return float(getattr(metrics, name)(config).calculate_metric(struct)[name.lower()])
    users, of_row = np.unique(rows.users, return_inverse=True)
    order = np.argsort(of_row, kind="stable")
    counts = np.bincount(of_row)
    column = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    scores = torch.full((len(users), int(counts.max()) + 1), -torch.inf, dtype=torch.float64)
    scores[of_row[order], column] = torch.tensor(rows.scores[order])
    clicked = rows.clicks[order] == 1
    collector = Collector.__new__(Collector)  # its constructor wants a whole configuration, to find out what to gather
    collector.device, collector.topk, collector.data_struct = "cpu", [1], DataStruct()
    collector.register = type("Register", (), {"need": staticmethod(lambda what: what == "rec.meanrank")})
    collector.eval_batch_collect(scores, None, torch.tensor(of_row[order][clicked]), torch.tensor(column[clicked]))
    return float(metrics.GAUC(config).calculate_metric(collector.data_struct)["gauc"])


def tzrec(rows: Rows, name: str, *, folder: Path) -> float:
    """Its AUC is torchmetrics', with 200 thresholds by default; its grouped AUC is a file in a copy of its repository."""
    import torch
    import torchmetrics

    scores, clicks, users = (
        torch.tensor(rows.scores, dtype=torch.float32),
        torch.tensor(rows.clicks),
        torch.tensor(rows.users),
    )
    if name == "auc":
        metric = torchmetrics.AUROC(task="binary", thresholds=THRESHOLDS)
        metric.update(scores, clicks)
        return float(metric.compute())
    spec = importlib.util.spec_from_file_location("grouped_auc", folder / "tzrec" / "metrics" / "grouped_auc.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    grouped = module.GroupedAUC()
    grouped.update(scores, clicks, users)
    return float(grouped.compute())


def torchrec(rows: Rows, name: str) -> float:
    """A RecMetric of one task; a session is a user, whose rows stand together."""
    import torch
    from torchrec.metrics.auc import AUCMetric
    from torchrec.metrics.gauc import GAUCMetric
    from torchrec.metrics.metrics_config import DefaultTaskInfo
    from torchrec.metrics.ne import NEMetric
    from torchrec.metrics.rec_metric import RecComputeMode

    kind: Any = {"auc": AUCMetric, "gauc": GAUCMetric, "logloss": NEMetric}[name.split(",")[0]]
    if kind is GAUCMetric:
        rows = rows.at(np.argsort(rows.users, kind="stable"))
    more = {"include_logloss": True} if kind is NEMetric else {}
    metric = kind(
        world_size=1,
        my_rank=0,
        batch_size=len(rows.scores),
        tasks=[DefaultTaskInfo],
        window_size=10 * len(rows.scores),
        compute_mode=RecComputeMode.UNFUSED_TASKS_COMPUTATION,
        **more,
    )
    weights = rows.weights if name.endswith("weights") else np.ones(len(rows.scores))
    inputs = {"predictions": rows.scores, "labels": rows.clicks.astype(np.float64), "weights": weights}
    by_task = {key: {DefaultTaskInfo.name: torch.tensor(value, dtype=torch.float32)} for key, value in inputs.items()}
    others = (
        {"num_candidates": torch.tensor(np.unique(rows.users, return_counts=True)[1])} if kind is GAUCMetric else {}
    )
    metric.update(**by_task, **others)
    wanted = {AUCMetric: "window_auc", GAUCMetric: "lifetime_gauc", NEMetric: "lifetime_logloss"}[kind]
    found = {key.split("|")[-1]: value for key, value in metric.compute().items()}
    return float(found[wanted])


NAMES = {
    "tributary": ("auc", "gauc", "gauc_plain", "logloss"),
    "fuxictr": ("AUC", "gAUC", "avgAUC", "logloss"),
    "recbole": ("AUC", "GAUC", "LogLoss"),
    "tzrec": ("auc", "grouped_auc"),
    "rechub": ("auc_score", "gauc_score", "log_loss"),
    "torchrec": ("auc", "auc, weights", "gauc", "logloss, weights"),
}
PACKAGES = {
    "tributary": ("numpy",),
    "fuxictr": ("fuxictr", "scikit-learn"),
    "recbole": ("recbole", "numpy"),
    "tzrec": ("torchmetrics",),
    "rechub": ("torch-rechub", "scikit-learn"),
    "torchrec": ("torchrec", "torch"),
}


def figures_of(library: str, folder: Path | None = None) -> dict[str, dict[str, list[float | str]]]:
    """Each figure of a library in each case; of one that it does not give, why."""

    def figure(rows: Rows, name: str) -> float | str:
        try:
            if library == "tributary":
                return tributary(rows)[name]
            if library == "tzrec":
                assert folder is not None
                return tzrec(rows, name, folder=folder)
            return {"fuxictr": fuxictr, "rechub": rechub, "recbole": recbole, "torchrec": torchrec}[library](rows, name)
        except (ValueError, AttributeError, RuntimeError, FloatingPointError) as error:
            return f"{FAILED}: {type(error).__name__}: {str(error).splitlines()[0]}"

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            name: {case: [figure(rows, name) for rows in of_case] for case, of_case in cases(fixed_rows()).items()}
            for name in NAMES[library]
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", choices=tuple(NAMES), required=True)
    parser.add_argument("--tzrec", type=Path, help="a copy of TorchEasyRec's repository")
    options = parser.parse_args()
    notes = []
    if options.library == "recbole" and not hasattr(np, "bool"):
        notes.append(f"its GAUC reads np.bool, which NumPy {np.__version__} lacks: it was put there")
        np.bool = np.bool_  # type: ignore[misc]
    versions = {name: version(name) for name in PACKAGES[options.library]}
    print(
        MARK + json.dumps({"versions": versions, "notes": notes, "figures": figures_of(options.library, options.tzrec)})
    )


if __name__ == "__main__":
    main()
