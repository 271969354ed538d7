"""Each native operation compared with its twin in torch, on the problem of its trial, and which vectors it was compiled for."""

import json

from benchmarks.rivals.common import MARK
from training import native
from training.modules import attention, dropout, embedding, field_mlp, segments
from training.native.choice import compare

PROBLEMS = {
    "target_attention": attention.problem,
    "field_mlp": field_mlp.problem,
    "segment_attention": segments.problem,
    "row_wise_adagrad": embedding.problem,
    "dropout": dropout.problem,
}

if __name__ == "__main__":
    trials = {name: compare(problem) for name, problem in PROBLEMS.items()}
    print(
        MARK
        + json.dumps(
            {
                "vectors": native.vectors(),
                "operations": {
                    name: {"native_ms": trial.native_ms, "torch_ms": trial.torch_ms} for name, trial in trials.items()
                },
            }
        )
    )
