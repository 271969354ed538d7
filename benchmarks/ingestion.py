"""What ingesting a day costs, by format, compared with an earlier commit: each in a warm session of its own, in turns, on the same files.

A third arm ingests the same rows from a team's own folders and columns, by the settings `[landing.<log>]`.

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
from dataclasses import replace
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any, cast

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from benchmarks.made_logs import Size, parts_of_day
from benchmarks.recording import finish
from contracts.commands import table_text
from contracts.features import LOGS, Log
from contracts.landing import LandingSettings, LandingSource
from contracts.locations import Locations
from contracts.settings import SETTINGS_FILE, Deployment

DAY = date(2026, 7, 10)
FORMATS = ("parquet", "csv", "jsonl")
SOURCES = Path(__file__).parent.parent
FULL, QUICK = Size(rows=1_000_000, users=50_000), Size(rows=20_000, users=2_000)
REPEATS = 7  # counted; one more warms up
THEIRS = "their_"  # begins the names of the columns of the arm that is declared


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
        seconds = _measure({"earlier": earlier, "now": SOURCES, "declared": SOURCES}, work, size, repeats)
    finally:
        _git("worktree", "remove", "--force", str(earlier))
        shutil.rmtree(work, ignore_errors=True)
    compared = ("now", "declared")
    rows = [
        (
            kind,
            *(round(median(of_arm), 2) for of_arm in seconds[kind].values()),
            *(round(_ratio(seconds[kind], arm), 3) for arm in compared),
        )
        for kind in FORMATS
    ]
    titles = ("format", *(f"seconds {arm}" for arm in seconds[FORMATS[0]]), *(f"{arm} / earlier" for arm in compared))
    print(table_text(titles, rows))
    figures = {
        f"{kind}_{arm}_over_earlier": round(_ratio(seconds[kind], arm), 3) for kind in FORMATS for arm in compared
    }
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
        shared, theirs = work / "landing" / kind, work / "exports" / kind
        _write(shared, kind, size)
        _write(theirs, kind, size, prefix=THEIRS)
        for name in sources:
            settings = f"history_start = {DAY}\nactr_start = {DAY}\n"  # none that an earlier commit does not know
            if name == "declared":
                landing = _declared(theirs, kind, size)
                settings = Deployment(history_start=DAY, actr_start=DAY, landing=landing).to_toml()
            locations = homes[kind, name]
            locations.home.mkdir(parents=True)
            (locations.home / SETTINGS_FILE).write_text(settings)
            if name != "declared":
                locations.landing.symlink_to(shared)
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


def _declared(folder: Path, kind: str, size: Size) -> LandingSettings:
    """Settings that read what `_write` has written with a prefix."""

    def source(log: Log) -> LandingSource:
        names = next(parts_of_day(log, DAY, replace(size, rows=100))).column_names
        columns = {name: THEIRS + name for name in names}
        return LandingSource(path=f"{folder}/{log}/{{day}}/*.{kind}", columns=columns)

    return LandingSettings(natural=source("natural"), ad=source("ad"))


def _write(landing: Path, kind: str, size: Size, *, prefix: str = "") -> None:
    for log in LOGS:
        folder = landing / log / str(DAY)
        folder.mkdir(parents=True)
        for number, part in enumerate(parts_of_day(log, DAY, size)):
            path = folder / f"part-{number:05d}.{kind}"
            place = part.schema.get_field_index("item_text")
            texts = part.set_column(place, "item_text", part["item_text"].cast(pa.string()))
            rows = (part if kind == "parquet" else texts).rename_columns([prefix + one for one in part.column_names])
            if kind == "parquet":
                pa_parquet.write_table(rows, path)
            elif kind == "csv":
                pa_csv.write_csv(rows, path)
            else:
                rows.to_pandas().to_json(path, orient="records", lines=True, date_format="iso", date_unit="us")


def _ratio(seconds: dict[str, list[float]], arm: str) -> float:
    """Median of the pairs' ratios of an arm to the earlier commit."""
    return median(now / earlier for now, earlier in zip(seconds[arm], seconds["earlier"], strict=True))


def _git(*arguments: Sequence[str] | str) -> None:
    subprocess.run(["git", *map(str, arguments)], cwd=SOURCES, check=True, capture_output=True)


if __name__ == "__main__":
    main()
