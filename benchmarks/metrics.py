"""Our AUC, GAUC and LogLoss next to those of FuxiCTR, RecBole, TorchEasyRec, torch-rechub and TorchRec, on one fixed set.

`python -m benchmarks.metrics [--work FOLDER] [--tzrec FOLDER]`. FuxiCTR, RecBole and torch-rechub run in environments
of their own, those of `benchmarks.training`, made at the first run. TorchEasyRec is on no registry: `--tzrec` is a copy
of its repository, without which it is left out. It fails where a library does not give what its formula
(`benchmarks.rivals.metrics_set`) gives.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.recording import result_in
from benchmarks.rivals.metrics_arm import FAILED
from benchmarks.rivals.metrics_set import FORMULAS, ORDERS, ROUNDING, agrees, cases, fixed_rows
from contracts.commands import table_text

HERE = Path(__file__).parent
OURS = "tributary"
OWN_ENVIRONMENT = ("fuxictr", "recbole", "rechub")
LIBRARIES = (OURS, "fuxictr", "recbole", "tzrec", "rechub", "torchrec")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("tributary-home/benchmark-training"), help="environments")
    parser.add_argument(
        "--tzrec", type=Path, help="a copy of TorchEasyRec's repository; without it TorchEasyRec is left out"
    )
    options = parser.parse_args()
    results = {
        library: run_arm(library, options.work.resolve(), options.tzrec)
        for library in LIBRARIES
        if library != "tzrec" or options.tzrec
    }
    rows, wrong = table(results)
    for result in results.values():
        print(
            ", ".join(f"{name} {version}" for name, version in result["versions"].items()), *result["notes"], sep="; "
        )
    print(
        table_text(
            (
                "library",
                "figure",
                "on the set",
                f"in {ORDERS} orders",
                "users of both labels",
                "one NaN",
                "one wrong 0",
                "equals ours",
                "formula",
            ),
            rows,
        )
    )
    print(json.dumps({f"{row[0]} {row[1]}": row[2] for row in rows}))
    if wrong:
        raise SystemExit(f"not what the formula gives: {', '.join(wrong)}")


def run_arm(library: str, work: Path, tzrec: Path | None) -> dict[str, Any]:
    """One library's versions and figures, by a process of its own."""
    python = sys.executable
    if library in OWN_ENVIRONMENT:
        from benchmarks.training import make_environment

        make_environment(work, library)
        python = str(work / "environments" / library / "bin" / "python")
    command = [
        python,
        "-m",
        "benchmarks.rivals.metrics_arm",
        "--library",
        library,
        *(["--tzrec", str(tzrec.resolve())] if tzrec else []),
    ]
    done = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": str(HERE.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return result_in(done.stdout, done.returncode, " ".join(command))


def table(results: Mapping[str, Mapping[str, Any]]) -> tuple[list[tuple[str, ...]], list[str]]:
    """A row for each figure, and which figures are not their formula's."""
    rows_of = cases(fixed_rows())
    ours = {name: of_cases["all"][0] for name, of_cases in results[OURS]["figures"].items()}
    lines: list[tuple[str, ...]] = []
    wrong: list[str] = []
    for library, result in results.items():
        for name, figures in result["figures"].items():
            broken = [
                case
                for case in ("all", "no ties", "both labels", "certain and wrong")
                if not agrees(library, name, figures, case, rows_of[case][0])
            ]
            value = figures["all"][0]
            equal = [
                other
                for other, of_ours in ours.items()
                if not isinstance(value, str) and abs(of_ours - value) < ROUNDING
            ]
            lines.append(
                (
                    library,
                    name,
                    _text([value]),
                    _text(figures["orders"]),
                    _text(figures["both labels"]),
                    _text(figures["NaN"]),
                    _text(figures["certain and wrong"]),
                    ", ".join(equal) or "-",
                    ", ".join(broken) or "as the library",
                )
            )
            wrong += [f"{library} {name} ({case})" for case in broken]
    assert {(line[0], line[1]) for line in lines} <= set(FORMULAS)
    return lines, wrong


def _text(values: Sequence[float | str]) -> str:
    """One value, or the lowest and the highest."""
    if any(isinstance(value, str) for value in values):
        return FAILED
    texts = sorted({f"{value:.5f}" for value in values})
    return texts[0] if len(texts) == 1 else f"{texts[0]} .. {texts[-1]}"


if __name__ == "__main__":
    main()
