"""What every benchmark does with its figures: the last line, and a record of full runs with commit, versions and machine."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from benchmarks.rivals.common import MARK

RESULTS = Path(__file__).with_name("results")


def finish(
    name: str, figures: Mapping[str, Any], *, details: Mapping[str, Any], packages: Sequence[str], quick: bool
) -> None:
    """Appends a full run to `results/<name>.jsonl`, and prints the processor and the figures, these as one line of JSON."""
    machine = _machine()
    print(f"on {machine['processor']} with {machine['vectors']}, {machine['cores']} cores")
    if not quick:
        record = {
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": _commit(),
            "machine": machine,
            "versions": {package: version(package) for package in packages},
            **figures,
            "details": details,
        }
        RESULTS.mkdir(exist_ok=True)
        with (RESULTS / f"{name}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        print(f"appended to {RESULTS / name}.jsonl")
    print(json.dumps(figures), flush=True)


def result_in(output: str, code: int, what: str) -> dict[str, Any]:
    """Returns the result that an arm printed; an arm that failed ends the benchmark, with the reason."""
    lines = [line for line in output.splitlines() if line.startswith(MARK)]
    if code or not lines:
        raise SystemExit(f"{what} failed ({code})\n{output[-3000:]}")
    return dict(json.loads(lines[-1].removeprefix(MARK)))


def run_for_result(command: Sequence[str], environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Runs an arm in a process of its own; `environment` is added to this one's."""
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env=os.environ | dict(environment or {}),
    )
    return result_in(done.stdout, done.returncode, " ".join(command))


def with_descendants(pid: int) -> list[int]:
    """A process and all that it has started, directly or not; without those if it has gone."""
    with suppress(psutil.NoSuchProcess):
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    return [pid]


def peak_memory_gib(pids: Sequence[int]) -> float:
    """The largest resident sets that these processes ever had, added up; psutil knows the present ones."""
    lines = [
        line
        for pid in pids
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("VmHWM")
    ]
    return sum(int(line.split()[1]) for line in lines) / 2**20  # one that has ended has no such line


def _commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        ).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + (
        "+changes" if git("status", "--porcelain", "--untracked-files=no") else ""
    )


def _machine() -> dict[str, Any]:
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
        "platform": platform.platform(),
        "processor": names[0] if names else platform.machine(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
    }
