"""Does BAHE predict as well as a language model that reads the whole text: MovieLens-1M with its titles, time split, MiniLM.

`python -m benchmarks.bahe_quality --data FOLDER [--quick] [--seeds N] [--requests N] [--epochs N] [--part NAME]`. A
rating of 4 or 5 is a click; a user's behaviour text is the newest clicks strictly before the request, 512 tokens at
most, the same behaviours for both. `rival`: LLM-CTR and BAHE train over the same requests of the training rows, equally
often, and BAHE once more on as many as it gets through in the time that LLM-CTR took. Differences are paired on a
sample of the test rows, intervals of 1,000 draws over users and seeds. Products are in bfloat16 for both, which on
processors that know it gives LLM-CTR twice the rows. Two arms run at a time, a thread each.

`splits`: BAHE with 1 .. 5 of MiniLM's six layers in its low half, and with the last token instead of the mean.
`smollm2`: a decoder, in a smaller run. `downstream`: A-CTR on all rows with Q_u and Q_i, and without. An arm that has
run is not run again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.bahe_arm import Arm
from benchmarks.recording import finish, run_for_result
from benchmarks.rivals.prepare import prepare
from benchmarks.srp4ctr_movielens import difference
from benchmarks.transfer import Scores, bootstrap, drawn
from contracts.commands import table_text
from contracts.settings import data_folder
from lake.metrics import auc

SEEDS, REQUESTS, EPOCHS, TEST_REQUESTS = 3, 12_000, 1, 12_000
QUICK_REQUESTS = 48  # trained on and tested on
SMOLLM2_REQUESTS, SMOLLM2_TEST_REQUESTS = 2_000, 1_000
EQUAL_TIME = "bahe, equal time"
PARTS = ("rival", "splits", "smollm2", "downstream")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=data_folder(), help="folder of MovieLens-1M (default: TRIBUTARY_DATA)"
    )
    parser.add_argument("--quick", action="store_true", help="48 requests, one seed, both models; nothing is recorded")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument(
        "--requests",
        type=int,
        default=REQUESTS,
        help="that both train on; about three rows each (default: %(default)s)",
    )
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="passes over them (default: %(default)s)")
    parser.add_argument("--part", action="append", choices=PARTS, help="may be repeated; all by default")
    parser.add_argument(
        "--at-once", type=int, default=2, help="arms side by side, a thread each (default: %(default)s)"
    )
    parser.add_argument(
        "--work", type=Path, default=Path("tributary-home/benchmark-bahe"), help="rows, scores and figures of the arms"
    )
    options = parser.parse_args()
    work = options.work.resolve()
    if options.data is None:
        parser.error("--data: expected the folder of MovieLens-1M's original files, found none")
    if not (work / "rows" / "items.parquet").is_file():
        prepare(options.data, work / "rows")
    seeds = range(1, (1 if options.quick else options.seeds) + 1)
    parts = ("rival",) if options.quick else tuple(options.part or PARTS)
    requests, test_requests = (QUICK_REQUESTS, QUICK_REQUESTS) if options.quick else (options.requests, TEST_REQUESTS)
    bench = Bench(
        work=work,
        requests=requests,
        epochs=options.epochs,
        test_requests=test_requests,
        seeds=seeds,
        at_once=options.at_once,
    )
    figures: dict[str, Any] = {}
    details: dict[str, Any] = {
        "requests": requests,
        "epochs": options.epochs,
        "seeds": len(seeds),
        "test_requests": test_requests,
    }
    for part in parts:
        of_part, of_details = getattr(bench, part)()
        figures |= of_part
        details[part] = of_details
    finish("bahe_quality", figures, details=details, packages=("torch", "transformers", "peft"), quick=options.quick)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The parts of a run."""

    work: Path
    requests: int
    epochs: int
    test_requests: int
    seeds: Sequence[int]
    at_once: int

    def rival(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """BAHE compared with LLM-CTR, at equal epochs and at equal time."""
        arms, found = self.rivals()
        gains = self.gains(arms, "llm_ctr")
        print_arms(found, gains)
        gain, low, high = gains["bahe"]
        ratios = [
            rival["seconds"] / ours["seconds"] for ours, rival in zip(found["bahe"], found["llm_ctr"], strict=True)
        ]
        figures = {
            "bahe_minus_llm_ctr_auc": round(gain, 4),
            "interval": [round(low, 4), round(high, 4)],
            "bahe_minus_llm_ctr_auc_equal_time": round(gains[EQUAL_TIME][0], 4),
            "time_ratio": round(float(np.median(ratios)), 2),
        }
        return figures, {"arms": found, "gains": gains}

    def rivals(self) -> tuple[dict[str, list[Arm]], dict[str, list[dict[str, Any]]]]:
        """LLM-CTR, BAHE on the same rows, and BAHE in the same time, with their figures."""
        arms = {name: self.of_seeds(name) for name in ("llm_ctr", "bahe")}
        found = self.results(arms)
        arms[EQUAL_TIME] = [
            replace(arm, requests=self.in_the_same_time(ours, rival))
            for arm, ours, rival in zip(arms["bahe"], found["bahe"], found["llm_ctr"], strict=True)
        ]
        return arms, self.results(arms)

    def splits(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """BAHE by the layer that it is split after, and with the last token."""
        arms = {f"low half of {low}": self.of_seeds("bahe", low_layers=low) for low in range(1, 6)}
        arms["low half of 3, last token"] = self.of_seeds("bahe", pooling="last")
        found = self.results(arms)
        gains = self.gains(arms, "low half of 3")
        print_arms(found, gains)
        areas = {name: round(float(np.mean([one["auc"] for one in of])), 4) for name, of in found.items()}
        return {"auc_by_split": areas}, {"arms": found, "gains": gains}

    def smollm2(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """A decoder learns, in a smaller run of one seed: its AUC with the interval over users, and MiniLM's on the same rows."""
        smaller = replace(self, requests=SMOLLM2_REQUESTS, test_requests=SMOLLM2_TEST_REQUESTS, seeds=(1,))
        arms = {
            "MiniLM": smaller.of_seeds("bahe"),
            "SmolLM2": smaller.of_seeds("bahe", source="smollm2", low_layers=15),
        }
        found = smaller.results(arms)
        gains = smaller.gains(arms, "MiniLM")
        print_arms(found, gains)
        scores = smaller.scores(arms)
        draws = drawn(scores, 1)
        areas = bootstrap(scores.of["SmolLM2"][0], scores.clicks, scores.users, draws.users)["auc"]
        area, low, high = difference(areas[:, None], 0.0, draws, found["SmolLM2"][0]["auc"])
        figures = {"smollm2_auc": round(area, 4), "smollm2_interval": [round(low, 4), round(high, 4)]}
        return figures, {"arms": found, "gains": gains}

    def downstream(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """A-CTR on all rows with Q_u and Q_i, and without; the vectors are those of the first part's BAHE."""
        trained, _ = self.rivals()
        arms = {
            "A-CTR": [Arm(name="downstream", seed=seed, requests=0, epochs=0) for seed in self.seeds]
        }  # it reads no vectors
        arms |= {
            f"A-CTR with Q_u and Q_i of {name}": [replace(arm, name="downstream", texts=True) for arm in trained[name]]
            for name in ("bahe", EQUAL_TIME)
        }
        found = self.results(arms)
        gains = self.gains(arms, "A-CTR")
        print_arms(found, gains)
        same_rows, same_time = (gains[f"A-CTR with Q_u and Q_i of {name}"] for name in ("bahe", EQUAL_TIME))
        return {
            "downstream_auc_gain": round(same_rows[0], 4),
            "downstream_interval": [round(end, 4) for end in same_rows[1:]],
            "downstream_auc_gain_equal_time": round(same_time[0], 4),
            "downstream_interval_equal_time": [round(end, 4) for end in same_time[1:]],
        }, {"arms": found, "gains": gains}

    def of_seeds(self, name: str, **settings: Any) -> list[Arm]:
        return [
            Arm(name=name, seed=seed, requests=self.requests, epochs=self.epochs, **settings) for seed in self.seeds
        ]

    def in_the_same_time(self, ours: Mapping[str, Any], rival: Mapping[str, Any]) -> int:
        """Requests, in hundreds, that BAHE trains on while LLM-CTR trains on its own; the table is made in that time too."""
        left = max(rival["seconds"] - ours["encoding_seconds"], 0.0)
        return max(int(left * self.requests / ours["seconds"]) // 100 * 100, self.requests)

    def results(self, arms: Mapping[str, Sequence[Arm]]) -> dict[str, list[dict[str, Any]]]:
        """Figures of some arms, several of which run at a time."""
        with ThreadPoolExecutor(self.at_once) as pool:
            found = iter(list(pool.map(self.result, [arm for of in arms.values() for arm in of])))
        return {name: [next(found) for _ in of] for name, of in arms.items()}

    def result(self, arm: Arm) -> dict[str, Any]:
        """Figures of an arm, which runs unless it has."""
        path = self.work / "scores" / f"{arm.key}-of-{self.test_requests}.json"
        if path.is_file():
            return dict(json.loads(path.read_text()))
        print(f"== {arm.key}", file=sys.stderr, flush=True)
        found = run_for_result(
            [
                sys.executable,
                "-m",
                "benchmarks.bahe_arm",
                "--work",
                str(self.work),
                "--arm",
                json.dumps(asdict(arm)),
                "--test-requests",
                str(self.test_requests),
            ]
        )
        path.write_text(json.dumps(found))
        return found

    def gains(self, arms: Mapping[str, Sequence[Arm]], base: str) -> dict[str, tuple[float, float, float]]:
        """AUC of each minus that of the base, with the interval's ends."""
        scores = self.scores(arms)
        draws = drawn(scores, len(self.seeds))
        areas = {
            name: np.stack([bootstrap(one, scores.clicks, scores.users, draws.users)["auc"] for one in of], axis=1)
            for name, of in scores.of.items()
        }
        means = {
            name: float(np.mean([auc(one, scores.clicks) or np.nan for one in of])) for name, of in scores.of.items()
        }
        return {
            name: difference(areas[name], areas[base], draws, means[name] - means[base])
            for name in arms
            if name != base
        }

    def scores(self, arms: Mapping[str, Sequence[Arm]]) -> Scores:
        """What the arms predict of the test rows, the same for all."""
        tables = {
            name: [pq.read_table(self.work / "scores" / f"{arm.key}.parquet") for arm in of]
            for name, of in arms.items()
        }
        first = next(iter(tables.values()))[0]
        return Scores(
            users=np.unique(first["user"].to_numpy(), return_inverse=True)[1],
            clicks=first["click"].to_numpy(),
            truth=None,
            of={name: np.stack([one["score"].to_numpy() for one in of]) for name, of in tables.items()},
        )


def print_arms(
    found: Mapping[str, Sequence[Mapping[str, Any]]], gains: Mapping[str, tuple[float, float, float]]
) -> None:
    def mean(of: Sequence[Mapping[str, Any]], name: str) -> float:
        return float(np.mean([one[name] for one in of]))

    rows = [
        (
            name,
            f"{mean(of, 'rows'):,.0f}",
            f"{mean(of, 'seconds'):,.0f}",
            f"{mean(of, 'auc'):.4f}",
            "-" if name not in gains else "{:+.4f} ({:+.4f} .. {:+.4f})".format(*gains[name]),
        )
        for name, of in found.items()
    ]
    print(table_text(("arm", "rows", "seconds", "AUC", "difference"), rows), flush=True)


if __name__ == "__main__":
    main()
