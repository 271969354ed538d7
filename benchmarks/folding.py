"""What SRP4CTR adds to the cost of scoring a request: FLOPs by candidate, and milliseconds.

`python -m benchmarks.folding [--quick]`. The default recipe's A-CTR body (D = 16, DIN over the long and the short
history, one cross layer, MLP 256-128-64) without transfer and with FG-BERT's bridges, random weights, one user, one
thread. *Folded* encodes the user's sequence once for all candidates, *unfolded* once for each; *full attention* reads
each candidate as one more behaviour of the sequence (only the encoder). Latencies are medians by turns.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from benchmarks.recording import finish
from contracts.commands import table_text
from contracts.features import BEHAVIOUR_FIELDS, FEATURES, STATISTICS
from lake.progress import each
from training.data.batches import Batch, Jagged
from training.data.histories import HISTORY_FEATURES
from training.data.sequences import FIELDS_OF_SIDE, SequenceInput, sequence_batch
from training.engine.loop import prepare_process
from training.flops import Flops, flops_of, flops_of_bridge, flops_of_full_attention
from training.models.build import EMBEDDING_DIMS, TRANSFER_DIMS
from training.models.ctr import CtrModel
from training.models.fg_bert import FgBert
from training.models.srp4ctr import Bridge
from training.modules.embedding import IdEmbeddings
from training.modules.transfer import TransferSource
from training.recipes import Body, FgBertRecipe

ROWS = 1000  # of each table: what is looked up costs no FLOPs
CANDIDATES = (1, 10, 100)


def make_model(body: Body, encoder: FgBertRecipe | None) -> CtrModel:
    """An A-CTR of random weights, with SRP4CTR's bridges where there is an encoder."""
    torch.manual_seed(1)
    names = {feature.name: ROWS for feature in FEATURES}
    bridge = Bridge(FgBert(encoder, {"item_id": ROWS, "category_id": ROWS}), learned=True) if encoder else None
    embeddings = IdEmbeddings(names, EMBEDDING_DIMS, seed=1)
    return CtrModel(body, embeddings, 2 * len(STATISTICS), TransferSource(TRANSFER_DIMS), bridge=bridge)


def make_request(candidates: int, long: int, short: int) -> Batch:
    """Random candidates of one user with so many behaviours."""
    generator = torch.Generator().manual_seed(candidates)

    def rows(*shape: int, below: int = ROWS) -> torch.Tensor:
        return torch.randint(0, below, shape, generator=generator)

    def history(length: int) -> Jagged:
        once = {name: rows(length) for name in HISTORY_FEATURES}
        return Jagged(
            rows={name: of.repeat(candidates) for name, of in once.items()},
            offsets=torch.arange(candidates + 1) * length,
        )

    sequences = sequence_batch(
        {field.name: rows(long, below=field.codes or ROWS) for field in BEHAVIOUR_FIELDS},
        torch.arange(long),
        torch.tensor([0, long]),
    )
    nothing = torch.zeros(candidates, dtype=torch.int64)
    return Batch(
        rows_BF=rows(candidates, len(FEATURES)),
        dense_BS=torch.rand(candidates, 2 * len(STATISTICS), generator=generator),
        long=history(long),
        short=history(short),
        user_at_B=nothing,
        item_at_B=nothing,
        day_B=nothing,
        label_B=nothing.float(),
        sequence=SequenceInput(
            sequences=sequences, of_B=nothing, candidate={name: rows(candidates) for name in FIELDS_OF_SIDE["item"]}
        ),
    )


def unfolded(batch: Batch) -> Batch:
    """The same, with a sequence for each candidate."""
    assert batch.sequence is not None
    count, once = len(batch.label_B), batch.sequence.sequences
    assert once.offsets is not None
    length = int(once.offsets[-1])
    many = replace(
        once,
        rows={name: of.repeat(count) for name, of in once.rows.items()},
        position_P=once.position_P.repeat(count),
        offsets=torch.arange(count + 1) * length,
    )
    return replace(batch, sequence=replace(batch.sequence, sequences=many, of_B=torch.arange(count)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer turns; nothing is recorded")
    options = parser.parse_args()
    prepare_process(1)
    body, encoder = Body(), FgBertRecipe()
    long, short = body.long_length, body.short_length
    without, model = make_model(body, None).eval(), make_model(body, encoder).eval()
    assert model.bridge is not None
    base, both = flops_of(without, long=long, short=short), flops_of(model, long=long, short=short)
    of_bridge = flops_of_bridge(model.bridge, long)
    full = flops_of_full_attention(model.bridge, long)
    print(f"FLOPs of a sample, {long} and {short} behaviours; encoder of width {encoder.width}")
    print(
        table_text(
            ("model", "user's part", "candidate's part", "at batch 1", "at batch 100"),
            [
                ("body", *_row(base)),
                ("body with SRP4CTR", *_row(both)),
                ("only SRP4CTR's part", *_row(of_bridge)),
                ("full attention", "-", f"{full:,.0f}", f"{full:,.0f}", f"{full:,.0f}"),
            ],
        )
    )
    milliseconds = latencies(without, model, long, short, turns=5 if options.quick else 50)
    print("\nmilliseconds of a request, one thread, medians by turns")
    print(
        table_text(
            ("candidates", "body", "folded", "unfolded", "full attention, only the encoder"),
            [(str(count), *(f"{value:.2f}" for value in of.values())) for count, of in milliseconds.items()],
        )
    )
    at_100 = milliseconds[100]
    figures = {
        "inference_flops_over_body": round(both.by_sample(100) / base.by_sample(100), 3),
        "efficiency_flops_over_body": round(both.by_sample(1) / base.by_sample(1), 3),
        "full_attention_over_folded": round(full / of_bridge.by_sample(100), 1),
        "latency_over_body_100": round(at_100["folded"] / at_100["body"], 3),
        "latency_unfolded_over_folded_100": round(at_100["unfolded"] / at_100["folded"], 2),
    }
    details = {
        "flops": {"body": vars(base), "with_srp4ctr": vars(both), "full_attention": full},
        "milliseconds": milliseconds,
        "lengths": [long, short],
        "width": encoder.width,
    }
    finish("folding", figures, details=details, packages=("torch",), quick=options.quick)


def _row(of: Flops) -> tuple[str, ...]:
    return tuple(f"{value:,.0f}" for value in (of.user, of.candidate, of.by_sample(1), of.by_sample(100)))


@torch.inference_mode()
def latencies(without: CtrModel, model: CtrModel, long: int, short: int, *, turns: int) -> dict[int, dict[str, float]]:
    """Median milliseconds by number of candidates and way."""
    assert model.bridge is not None
    encode = model.bridge.network.encode
    found: dict[int, dict[str, float]] = {}
    for count in each(CANDIDATES, description="latencies", unit="size"):
        folded = make_request(count, long, short)
        each_alone, longer = unfolded(folded), unfolded(make_request(count, long + 1, short))
        assert longer.sequence is not None
        full = longer.sequence.sequences
        ways: dict[str, Callable[[], object]] = {
            "body": partial(without, folded),
            "folded": partial(model, folded),
            "unfolded": partial(model, each_alone),
            "full_attention": partial(encode, full),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(turns + 1):
            for name, run in ways.items():
                began = time.perf_counter()
                run()
                if turn:  # the first one warms up
                    seconds[name].append(time.perf_counter() - began)
        found[count] = {name: round(float(np.median(of)) * 1000, 3) for name, of in seconds.items()}
    return found


if __name__ == "__main__":
    main()
