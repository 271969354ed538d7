"""What a day of features costs: by its size, by the length of the history, against a full recompute, against DuckDB, at 20 million rows.

`python -m benchmarks.features [--quick] [--work FOLDER]`. Everything runs in one session on this machine; every figure
is a median of repeats, taken in turns. Rivals and we read the same rows and are held to the same results.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import partial
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import duckdb_features, recompute
from benchmarks.made_logs import Size, days_before, make_home, write_landing
from benchmarks.recording import finish, peak_memory_gib, with_descendants
from benchmarks.seeding import copy_partials, forget_day, seed_logs
from contracts.commands import table_text
from contracts.locations import Locations
from contracts.periods import CHECKPOINT_DAYS
from contracts.settings import Deployment
from contracts.steps import DAY_JOBS
from lake.reader import LakeReader
from lake.session import spark_session
from spark_jobs import build_checkpoints, build_partials, ingest_logs

DAY = date(2026, 7, 10)
JOBS = [import_module(f"spark_jobs.{name}") for name in DAY_JOBS]
RESULT_TABLES = ("user_histories", "entity_statistics", "natural_samples", "ad_samples")
MID_CYCLE = 5  # days since the last checkpoint: the middle of its ten


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Sizes of a run.

    Attributes:
        histories: days of history before the measured day.
        repeats: runs that are counted; one more warms up.
        history, rival, large: impressions a day of each part.
        sizes: days of growing size, which are measured without a history.
    """

    histories: tuple[int, ...]
    repeats: int
    history: Size
    rival: Size
    large: Size
    sizes: tuple[Size, ...]


FULL = Plan(
    histories=(7, 30, 90, 180),
    repeats=3,
    history=Size(rows=1_000_000, users=50_000),
    rival=Size(rows=1_000_000, users=200_000, items=20_000),
    large=Size(rows=20_000_000, users=2_000_000, items=100_000),
    sizes=tuple(
        Size(rows=rows, users=rows // 10, items=max(5_000, rows // 200)) for rows in (100_000, 1_000_000, 10_000_000)
    ),
)
QUICK = Plan(
    histories=(7, 20),
    history=Size(rows=10_000, users=2_000),
    repeats=1,
    rival=Size(rows=50_000, users=10_000),
    large=Size(rows=200_000, users=40_000),
    sizes=(Size(rows=20_000, users=2_000), Size(rows=100_000, users=10_000)),
)
PARTS = ("history", "duckdb", "large", "sizes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, under five minutes; nothing is recorded")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("tributary-home/benchmark-features"),
        help="scratch folder, removed at the end",
    )
    parser.add_argument("--part", action="append", choices=PARTS, help="may be repeated; all by default")
    options = parser.parse_args()
    plan, work = QUICK if options.quick else FULL, options.work.resolve()
    parts = options.part or list(PARTS)
    shutil.rmtree(work, ignore_errors=True)
    os.environ.setdefault("TRIBUTARY_SPARK_MEMORY", "4g")
    figures: dict[str, Any] = {}
    details: dict[str, Any] = {"plan": str(plan), "parts": parts}
    with spark_session(Locations(work / "session"), app="benchmark") as spark:
        for name in parts:
            part = {"history": history_part, "duckdb": duckdb_part, "large": large_part, "sizes": sizes_part}[name]
            figures |= part(spark, work / name, plan, details)
        pids = with_descendants(os.getpid())  # the JVM is our child
        figures["peak_memory_gib"] = round(peak_memory_gib(pids), 2)
    shutil.rmtree(work, ignore_errors=True)
    finish("features", figures, details=details, packages=("pyspark", "delta-spark", "duckdb"), quick=options.quick)


def history_part(spark: Any, work: Path, plan: Plan, details: dict[str, Any]) -> dict[str, Any]:
    """One more day after histories of several lengths, by job; and the same day recomputed from the logs of its windows."""
    longest = plan.histories[-1] + MID_CYCLE
    base = Locations(work / "base")
    deployment = make_home(base, DAY - timedelta(days=longest), DAY)
    progress(f"history: {longest} days of {plan.history.rows:,} impressions")
    seed_logs(spark, base, days_before(DAY, longest), plan.history)
    progress("history: its partials")
    for begin in range(0, longest, 30):
        build_partials.run(spark, base, deployment, days_before(DAY, longest)[begin : begin + 30])
    homes = {}
    for days in plan.histories:
        length = days if days < CHECKPOINT_DAYS else days + MID_CYCLE
        homes[days] = base if length == longest else Locations(work / f"after-{days}")
        of_length = make_home(homes[days], DAY - timedelta(days=length), DAY)
        if homes[days] is not base:
            copy_partials(spark, base, homes[days], days_before(DAY, length))
        for day in (DAY - timedelta(days=1), DAY):
            write_landing(homes[days], day, plan.history)
        progress(f"history: a first day after {days} days")
        run_day(spark, homes[days], of_length)  # warms up, and makes the checkpoints that daily life has made before
    seconds: dict[int, list[dict[str, float]]] = {days: [] for days in plan.histories}
    recomputed: dict[int, list[float]] = {plan.histories[-1]: []}
    scratch = Locations(work / "recomputed")
    for repeat in range(plan.repeats):
        progress(f"history: repeat {repeat + 1} of {plan.repeats}")
        for days in plan.histories:
            seconds[days].append(run_day(spark, homes[days], Deployment.load(homes[days].home)))
        shutil.rmtree(scratch.home, ignore_errors=True)
        recomputed[plan.histories[-1]].append(timed(lambda: recompute.run(spark, base, scratch, deployment, DAY)))
    require_equal(base, scratch)
    checkpoints = {
        days: checkpoint_seconds(spark, homes[days]) for days in plan.histories if days >= 2 * CHECKPOINT_DAYS
    }
    by_job = {days: {job: median(run[job] for run in runs) for job in runs[0]} for days, runs in seconds.items()}
    totals = {days: sum(jobs.values()) + checkpoints.get(days, 0.0) / CHECKPOINT_DAYS for days, jobs in by_job.items()}
    ingest = by_job[plan.histories[-1]]["ingest_logs"]
    rival = median(recomputed[plan.histories[-1]]) + ingest
    rows = [
        (
            f"after {days} days",
            *(f"{value:.1f}" for value in by_job[days].values()),
            f"{checkpoints.get(days, 0.0) / CHECKPOINT_DAYS:.1f}",
            f"{totals[days]:.1f}",
        )
        for days in plan.histories
    ]
    print(table_text(("a day, s", *by_job[plan.histories[0]], "checkpoints/10", "all"), rows))
    print(f"recomputed from the logs of {plan.histories[-1]} days: {rival:.1f} s, {ingest:.1f} of them the same ingest")
    details["history"] = {
        "seconds": by_job,
        "checkpoint_seconds": checkpoints,
        "totals": totals,
        "recompute_seconds": recomputed,
    }
    shutil.rmtree(work)
    return {
        "day_cost_180_over_7": round(totals[plan.histories[-1]] / totals[plan.histories[0]], 3),
        "recompute_over_ours_180": round(rival / totals[plan.histories[-1]], 2),
        "recompute_over_ours_180_features": round((rival - ingest) / (totals[plan.histories[-1]] - ingest), 2),
    }


def duckdb_part(spark: Any, work: Path, plan: Plan, details: dict[str, Any]) -> dict[str, Any]:
    """A day of a million impressions with seven days before it: our jobs, and the same features by DuckDB in one process."""
    home = Locations(work / "ours")
    deployment = make_home(home, DAY - timedelta(days=7), DAY)
    progress(f"DuckDB: a day of {plan.rival.rows:,} impressions")
    seed_logs(spark, home, days_before(DAY, 7), plan.rival)
    build_partials.run(spark, home, deployment, days_before(DAY, 7))
    for day in (DAY - timedelta(days=1), DAY):
        write_landing(home, day, plan.rival)
    duckdb_features.export_partials(home, work / "partials")
    ours, theirs = [], []
    for repeat in range(plan.repeats + 1):
        own = run_day(spark, home, deployment)
        rival = duckdb_features.run_in_a_process(home, work / "partials", work / "duckdb", DAY, deployment)
        if repeat:  # the first of each warms up
            ours.append(own)
            theirs.append(rival)
    duckdb_features.require_equal(home, work / "duckdb", DAY)
    our_seconds, their_seconds = median(sum(run.values()) for run in ours), median(run["seconds"] for run in theirs)
    by_job = {job: median(run[job] for run in ours) for job in ours[0]}
    rows = [
        (
            "ours",
            *(f"{value:.1f}" for value in by_job.values()),
            f"{our_seconds:.1f}",
            f"{plan.rival.rows / our_seconds:,.0f}",
        ),
        ("DuckDB", *[""] * len(by_job), f"{their_seconds:.1f}", f"{plan.rival.rows / their_seconds:,.0f}"),
    ]
    print(table_text(("a day, s", *by_job, "all", "rows/s"), rows))
    details["duckdb"] = {"ours": ours, "theirs": theirs}
    shutil.rmtree(work)
    return {
        "duckdb_ratio": round(their_seconds / our_seconds, 3),
        "duckdb_memory_gib": round(max(run["memory_gib"] for run in theirs), 2),
        "rows_per_s_1m": round(plan.rival.rows / our_seconds),
    }


def large_part(spark: Any, work: Path, plan: Plan, details: dict[str, Any]) -> dict[str, Any]:
    """A day of 20 million impressions against one of a million, both with a day of a million before them."""
    per_second, growth = {}, {}
    for name, size in (("1m", replace(plan.large, rows=plan.rival.rows, users=plan.rival.users)), ("20m", plan.large)):
        repeats = plan.repeats if name == "1m" else 0  # twenty million are their own repeats
        details[name] = first_day(
            spark, Locations(work / name), size, replace(size, rows=plan.rival.rows), repeats=repeats
        )
        per_second[name], growth[name] = details[name]["rows_per_s"], details[name]["lake_bytes_per_impression"]
    return {
        "rows_per_s_20m_over_1m": round(per_second["20m"] / per_second["1m"], 3),
        "lake_bytes_per_impression": round(growth["20m"], 1),
    }


def sizes_part(spark: Any, work: Path, plan: Plan, details: dict[str, Any]) -> dict[str, Any]:
    """Days of growing size, each the second of its history."""
    figures = {}
    for size in plan.sizes:
        repeats = plan.repeats if size.rows <= 10**6 else 0
        made = details[f"{size.rows}"] = first_day(spark, Locations(work / f"{size.rows}"), size, size, repeats=repeats)
        figures[f"seconds_{size.rows}"] = round(sum(made["seconds"].values()), 1)
    return figures


def first_day(spark: Any, home: Locations, size: Size, before: Size, *, repeats: int) -> dict[str, Any]:
    """Seconds by job of a day after a day of `before`, of the median repeat, and what the lake grows by; the home is removed."""
    deployment = make_home(home, DAY - timedelta(days=1), DAY)
    progress(f"a day of {size.rows:,} impressions")
    write_landing(home, DAY - timedelta(days=1), before)
    for job in (ingest_logs, build_partials):
        job.run(spark, home, deployment, [DAY - timedelta(days=1)])
    write_landing(home, DAY, size)
    already = folder_bytes(home.lake)
    seconds = run_day(spark, home, deployment)
    growth = (folder_bytes(home.lake) - already) / size.rows
    if repeats:
        seconds = sorted((run_day(spark, home, deployment) for _ in range(repeats)), key=lambda run: sum(run.values()))[
            repeats // 2
        ]
    per_second = size.rows / sum(seconds.values())
    times = [f"{value:.1f}" for value in (*seconds.values(), sum(seconds.values()))]
    row = (f"{size.rows:,}", *times, f"{per_second:,.0f}", f"{growth:.1f}")
    print(table_text(("a day of", *seconds, "all, s", "rows/s", "bytes per row"), [row]), flush=True)
    shutil.rmtree(home.home)
    return {"seconds": seconds, "rows_per_s": per_second, "lake_bytes_per_impression": growth}


def run_day(spark: Any, locations: Locations, deployment: Deployment) -> dict[str, float]:
    """Seconds of each job of the day, as one that was never made before."""
    forget_day(spark, locations, DAY)
    return {
        job.__name__.rsplit(".", 1)[-1]: timed(partial(job.run, spark, locations, deployment, [DAY])) for job in JOBS
    }


def checkpoint_seconds(spark: Any, locations: Locations) -> float:
    """Of making both running merges from the ones ten days before."""
    deployment = Deployment.load(locations.home)
    until = deployment.lineage.checkpoint_before(DAY)
    assert until is not None
    build_checkpoints.run(spark, locations, deployment, until - timedelta(days=CHECKPOINT_DAYS))
    shutil.rmtree(locations.home / "made", ignore_errors=True)
    return timed(
        lambda: [
            build_checkpoints.make(spark, locations, deployment, running, until)
            for running in (build_checkpoints.BEHAVIOURS, build_checkpoints.STATISTICS)
        ]
    )


def require_equal(ours: Locations, theirs: Locations) -> None:
    """Raises AssertionError unless both ways gave the same rows: their content digests are compared."""
    for name in RESULT_TABLES:
        one, other = (LakeReader(locations).builds(name, [f"ds={DAY}"])[f"ds={DAY}"] for locations in (ours, theirs))
        assert (one["row_cnt"], one["digest"]) == (other["row_cnt"], other["digest"]), (
            f"{name}: the recompute gave other rows"
        )


def timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.parquet"))


def progress(text: str) -> None:
    print(f"== {text}", flush=True)


if __name__ == "__main__":
    main()
