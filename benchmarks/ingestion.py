"""What ingesting a day costs, by format, compared with an earlier commit: each in a warm session of its own, in turns, on the same files.

`python -m benchmarks.ingestion --against COMMIT [--quick] [--work FOLDER]`. Nothing else may run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any, cast

import pyarrow as pa
import pyarrow.csv as pa_csv

from benchmarks.made_logs import Size, make_home, parts_of_day, write_landing
from benchmarks.recording import finish
from contracts.commands import table_text
from contracts.features import LOGS
from contracts.locations import Locations

DAY = date(2026, 7, 10)
FORMATS = ("parquet", "csv", "jsonl")
SOURCES = Path(__file__).parent.parent
FULL, QUICK = Size(rows=1_000_000, users=50_000), Size(rows=20_000, users=2_000)
REPEATS = 7  # counted; one more warms up


class Arm:
    """A process that ingests with the sources of a folder."""

    def __init__(self, sources: Path, home: Path) -> None:
        home.mkdir(parents=True)
        command = [sys.executable, str(SOURCES / "benchmarks" / "ingestion_arm.py"), str(home)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"PYTHONPATH": str(sources)},
            cwd=sources,
        )

    def ingest(self, home: Path) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"home": str(home), "day": str(DAY)}) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("RESULT "):
                return cast(dict[str, Any], json.loads(line.removeprefix("RESULT ")))
        raise SystemExit(f"the arm of {self._process.args!r} ended")

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--against", default="49246db", metavar="COMMIT", help="the earlier commit (default %(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="a small day, two repeats; nothing is recorded")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("tributary-home/benchmark-ingestion"),
        help="scratch folder, removed at the end",
    )
    options = parser.parse_args()
    work, size, repeats = options.work.resolve(), QUICK if options.quick else FULL, 2 if options.quick else REPEATS
    shutil.rmtree(work, ignore_errors=True)
    earlier = work / "sources"
    _git("worktree", "add", "--detach", str(earlier), options.against)
    try:
        seconds = _measure({"earlier": earlier, "now": SOURCES}, work, size, repeats)
    finally:
        _git("worktree", "remove", "--force", str(earlier))
        shutil.rmtree(work, ignore_errors=True)
    rows = [
        (kind, *(round(median(seconds[kind][arm]), 2) for arm in ("earlier", "now")), round(_ratio(seconds[kind]), 3))
        for kind in FORMATS
    ]
    print(table_text(("format", "seconds earlier", "seconds now", "now / earlier"), rows))
    figures = {f"{kind}_now_over_earlier": round(_ratio(seconds[kind]), 3) for kind in FORMATS}
    finish(
        "ingestion",
        figures,
        details={"rows": size.rows, "against": options.against, "seconds": seconds},
        packages=("pyspark", "delta-spark", "pyarrow"),
        quick=options.quick,
    )


def _measure(sources: dict[str, Path], work: Path, size: Size, repeats: int) -> dict[str, dict[str, list[float]]]:
    homes = {(kind, name): Locations(work / kind / name) for kind in FORMATS for name in sources}
    for kind in FORMATS:
        shared = Locations(work / "landing" / kind)
        _write(shared, kind, size)
        for name in sources:
            make_home(homes[kind, name], DAY, DAY)
            homes[kind, name].landing.symlink_to(shared.landing)
    arms = {name: Arm(folder, work / f"session-{name}") for name, folder in sources.items()}
    seconds: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in sources} for kind in FORMATS}
    for repeat in range(repeats + 1):
        for kind in FORMATS:
            results = {}
            for name in list(arms)[:: 1 if repeat % 2 else -1]:
                results[name] = arms[name].ingest(homes[kind, name].home)
                if repeat:
                    seconds[kind][name].append(results[name]["seconds"])
            assert len({result["rows"] for result in results.values()}) == 1, results
    for arm in arms.values():
        arm.end()
    return seconds


def _write(locations: Locations, kind: str, size: Size) -> None:
    if kind == "parquet":
        write_landing(locations, DAY, size)
        return
    for log in LOGS:
        folder = locations.landing_day(log, DAY)
        folder.mkdir(parents=True)
        for number, part in enumerate(parts_of_day(log, DAY, size)):
            rows = part.set_column(
                part.schema.get_field_index("item_text"), "item_text", part["item_text"].cast(pa.string())
            )
            if kind == "csv":
                pa_csv.write_csv(rows, folder / f"part-{number:05d}.csv")
            else:
                path = folder / f"part-{number:05d}.jsonl"
                rows.to_pandas().to_json(path, orient="records", lines=True, date_format="iso", date_unit="us")


def _ratio(seconds: dict[str, list[float]]) -> float:
    """Median of the pairs' ratios."""
    return median(now / earlier for now, earlier in zip(seconds["now"], seconds["earlier"], strict=True))


def _git(*arguments: Sequence[str] | str) -> None:
    subprocess.run(["git", *map(str, arguments)], cwd=SOURCES, check=True, capture_output=True)


if __name__ == "__main__":
    main()
