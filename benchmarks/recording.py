"""What every benchmark does with its figures: the last line, and a record of full runs with commit, versions and machine."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.rivals.common import MARK

RESULTS = Path(__file__).with_name("results")


def finish(name: str, figures: Mapping[str, Any], *, details: Mapping[str, Any], packages: Sequence[str], quick: bool) -> None:
    """Appends a full run to `results/<name>.jsonl`, and prints the figures as one line of JSON."""
    if not quick:
        record = {"when": datetime.now(UTC).isoformat(timespec="seconds"), "commit": _commit(), "machine": _machine(),
                  "versions": {package: version(package) for package in packages}, **figures, "details": details}
        RESULTS.mkdir(exist_ok=True)
        with (RESULTS / f"{name}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        print(f"appended to {RESULTS / name}.jsonl")
    print(json.dumps(figures), flush=True)


def result_in(output: str, code: int, what: str) -> dict[str, Any]:
    """The result that an arm printed; one that failed ends the benchmark, and says why."""
    lines = [line for line in output.splitlines() if line.startswith(MARK)]
    if code or not lines:
        raise SystemExit(f"{what} failed ({code})\n{output[-3000:]}")
    return dict(json.loads(lines[-1].removeprefix(MARK)))


def run_for_result(command: Sequence[str]) -> dict[str, Any]:
    """Runs an arm in a process of its own."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return result_in(done.stdout, done.returncode, " ".join(command))


def peak_memory_gib(pids: Sequence[int]) -> float:
    """The largest resident sets that these processes ever had, added up."""
    lines = [line for pid in pids for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return sum(int(line.split()[1]) for line in lines) / 2**20  # one that has ended has no such line


def _commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=False).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")


def _machine() -> dict[str, Any]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cores": len(os.sched_getaffinity(0)), "memory_gib": round(memory / 2**30, 1), "platform": platform.platform(),
            "python": platform.python_version()}
