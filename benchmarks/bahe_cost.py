"""What a training step of BAHE costs compared with LLM-CTR, which reads the behaviours' whole text: seconds a sample, and peak memory.

`python -m benchmarks.bahe_cost [--quick] [--lengths 512,1024] [--source smollm2]`. Same backbone, same trainable half
with the same adapters, same head, batches of one; texts of 512 to 4,096 tokens are behaviours of 20 tokens each. Each
arm runs in a process of its own; its memory is the peak of its resident set above what it had with the model loaded and
one optimiser made. BAHE's time includes the encoding of texts that no day before had, shared among the samples: on
MovieLens-1M's first of 30 days, when all are new, .102 a sample; over its first seven days .023.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.recording import finish, run_for_result
from benchmarks.rivals.common import MARK
from contracts.commands import table_text

LENGTHS, TOKENS_OF_A_BEHAVIOUR, BATCH = (512, 1024, 2048, 4096), 20, 1
NEW_TEXTS = {"1_day": 0.102, "7_days": 0.023}  # texts to encode, a sample
STEPS, QUICK_STEPS, TURNS = 3, 1, 3
ARMS = ("bahe", "llm_ctr")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--source", default="smollm2", help="the language model (default: smollm2; minilm has 512 positions)"
    )
    parser.add_argument("--lengths", type=lambda text: tuple(map(int, text.split(","))), default=LENGTHS)
    parser.add_argument(
        "--quick", action="store_true", help="512 and 1,024 tokens, one step, one turn; nothing is recorded"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("--length", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, default=STEPS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        print(MARK + json.dumps(run(options.arm, options.source, options.length, options.steps, options.threads)))
        return
    lengths = options.lengths[:2] if options.quick else options.lengths
    steps, turns = (QUICK_STEPS, 1) if options.quick else (STEPS, TURNS)
    found: dict[tuple[int, str], list[dict[str, float]]] = {(length, arm): [] for length in lengths for arm in ARMS}
    for turn in range(turns):
        for length, arm in found:
            print(f"== turn {turn + 1} of {turns}: {arm}, {length} tokens", file=sys.stderr, flush=True)
            found[length, arm].append(arm_of(arm, length, steps, options))
    rows: list[tuple[str, ...]] = []
    figures: dict[str, float] = {}
    details: dict[str, Any] = {
        "source": options.source,
        "threads": options.threads,
        "new_texts": NEW_TEXTS,
        "batch": BATCH,
    }
    for length in lengths:
        ours, rival = (
            {name: float(np.median([of[name] for of in found[length, arm]])) for name in found[length, arm][0]}
            for arm in ARMS
        )
        times = {
            name: rival["seconds"] / (ours["seconds"] + share * ours["seconds_a_text"])
            for name, share in NEW_TEXTS.items()
        }
        memory = rival["memory_mib"] / ours["memory_mib"]
        figures |= {f"time_ratio_{length}": round(times["1_day"], 2), f"memory_ratio_{length}": round(memory, 2)}
        rows.append(
            (
                f"{length:,}",
                f"{rival['seconds']:.3f}",
                f"{ours['seconds']:.3f}",
                f"{ours['seconds_a_text'] * 1000:.1f}",
                f"{times['1_day']:.1f}",
                f"{times['7_days']:.1f}",
                f"{rival['memory_mib']:,.0f}",
                f"{ours['memory_mib']:,.0f}",
                f"{memory:.1f}",
            )
        )
        details[str(length)] = {"rival": rival, "ours": ours, "time_ratios": times}
    head = (
        "tokens",
        "LLM-CTR s/sample",
        "BAHE s/sample",
        "ms/text",
        "time, 1 day",
        "time, 7 days",
        "LLM-CTR MiB",
        "BAHE MiB",
        "memory",
    )
    print(table_text(head, rows))
    finish("bahe_cost", figures, details=details, packages=("torch", "transformers", "peft"), quick=options.quick)


def arm_of(arm: str, length: int, steps: int, options: argparse.Namespace) -> dict[str, float]:
    return run_for_result(
        [
            sys.executable,
            "-m",
            "benchmarks.bahe_cost",
            "--arm",
            arm,
            "--length",
            str(length),
            "--steps",
            str(steps),
            "--source",
            options.source,
            "--threads",
            str(options.threads),
        ]
    )


def run(arm: str, source: str, length: int, steps: int, threads: int) -> dict[str, float]:
    """One arm: median seconds of a step after a first one, MiB above idle, and of BAHE the seconds of encoding a text."""
    from training.models.bahe import Bahe, FullTextCtr, TextBatch, VectorBatch
    from training.models.language import encode_texts, load, with_lora

    torch.set_num_threads(threads)
    torch.manual_seed(1)
    language = load(source)
    with_lora(language.high)
    model = Bahe(language.high, language.width) if arm == "bahe" else FullTextCtr(language)
    optimizer = torch.optim.Adam([value for value in model.parameters() if value.requires_grad], lr=1e-4)
    idle = resident_mib("VmRSS")
    behaviours, label = length // TOKENS_OF_A_BEHAVIOUR, torch.ones(BATCH)
    of, log = torch.arange(BATCH), torch.zeros(BATCH, dtype=torch.int64)
    vocabulary = language.tokenizer.vocab_size

    def made() -> Any:
        if arm == "bahe":
            return VectorBatch(
                behaviours=[torch.randn(BATCH, behaviours, language.width)],
                label_B=label,
                of_B=of,
                log_B=log,
                masks=[torch.ones(BATCH, behaviours, dtype=torch.bool)],
                candidate_BE=torch.randn(BATCH, language.width),
            )
        ids, own = (
            torch.randint(1000, vocabulary, (BATCH, length)),
            torch.randint(1000, vocabulary, (BATCH, TOKENS_OF_A_BEHAVIOUR)),
        )
        return TextBatch(
            token_ids_GT=ids,
            mask_GT=torch.ones_like(ids, dtype=torch.bool),
            candidate_ids_BT=own,
            candidate_mask_BT=torch.ones_like(own, dtype=torch.bool),
            label_B=label,
            of_B=of,
            log_B=log,
        )

    seconds = []
    for _ in range(steps + 1):  # the first one warms up
        batch = made()
        began = time.perf_counter()
        loss = torch.stack(list(model.loss(model(batch), batch).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seconds.append((time.perf_counter() - began) / BATCH)
    found = {"seconds": float(np.median(seconds[1:])), "memory_mib": max(resident_mib("VmHWM") - idle, 0.1)}
    if arm == "bahe":
        texts = [
            f"Clicked {number} {' '.join(map(str, np.random.default_rng(number).integers(0, 9, TOKENS_OF_A_BEHAVIOUR)))}"
            for number in range(64)
        ]
        encode_texts(language, texts, longest=TOKENS_OF_A_BEHAVIOUR)
        began = time.perf_counter()
        encode_texts(language, texts, longest=TOKENS_OF_A_BEHAVIOUR)
        found["seconds_a_text"] = (time.perf_counter() - began) / len(texts)
    return found


def resident_mib(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


if __name__ == "__main__":
    main()
