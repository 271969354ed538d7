"""`tributary validation gate`: judges the staged runs of a period, writes each verdict, and makes the fallback of a refused one."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from contracts.commands import table_text
from contracts.errors import BadInput, QualityFailed
from contracts.locations import Locations
from contracts.releases import GATE, HELD_OUT_FILE, Release
from lake.run_folders import read_release, refuses, sha256_of, staged_runs, write_verdict
from validation.fallback import NEXT_DAY, make_fallback
from validation.gate import GateCheck, HeldOutRows, check_figures, judge


def gate(locations: Locations, kind: str, period: date) -> None:
    """Judges all staged runs of a period and prints what is going to be released.

    Raises:
        QualityFailed: a run was refused and has no fallback; readers continue to see the releases that they saw.
        BadInput: nothing was staged, or a file is not the one that training wrote.
    """
    stuck = []
    for folder in staged_runs(locations, kind, period):
        release = read_release(folder)
        checks = [
            *judge(read_held_out(folder, release), refuse_figures=kind == "actr"),
            *check_figures(release.metrics, of_the_model_before=f"{NEXT_DAY}_"),
        ]
        refused = list(filter(refuses, checks))
        fallback = make_fallback(locations, folder) if refused else None
        write_verdict(
            folder / GATE,
            release,
            checks,
            fallback=None if fallback is None else str(fallback.relative_to(locations.home)),
        )
        print(f"{release.release_id}: {'REFUSED' if refused else 'passed'}")
        print(table_text(("check", "", "expected", "found"), [(c.name, _mark(c), c.expected, c.found) for c in checks]))
        if fallback is not None:
            carried = read_release(fallback)
            print(f"fallback: {carried.release_id} is released instead; it carries {carried.carries}\n")
        elif refused:
            first = refused[0]
            stuck.append(
                f"{release.release_id}: {first.name}: expected {first.expected}, found {first.found}. Nothing can stand in "
                f"for it: no {kind} ({release.variant}) of the period before is its parent. Verdict: {folder / GATE}"
            )
    if stuck:
        raise QualityFailed("\n".join(stuck))
    print(f"next: tributary publishing audit --kind {kind} --period {period}")


def read_held_out(folder: Path, release: Release) -> HeldOutRows:
    """The held-out rows on which a run is judged, with their scores.

    Raises:
        BadInput: the file is absent, or is not the one that training wrote.
    """
    path = folder / HELD_OUT_FILE
    digest = sha256_of(path) if path.is_file() else "no such file"
    if HELD_OUT_FILE not in release.files or digest != release.files[HELD_OUT_FILE]:
        raise BadInput(
            path,
            "sha256",
            expected=release.files.get(HELD_OUT_FILE, "a file of the manifest"),
            found=digest,
            hint="The run folder was damaged: train this release again.",
        )
    rows = pq.read_table(path)
    before = rows["score_before"]
    return HeldOutRows(
        user_ids=rows["user_id"].to_numpy(),
        clicks=rows["click"].to_numpy().astype(np.int64),
        scores=rows["score"].to_numpy(),
        before=before.to_numpy() if before.null_count == 0 else None,
    )


def _mark(check: GateCheck) -> str:
    return "ok" if check.passed else "FAIL" if check.severity == "fail" else "warn"
