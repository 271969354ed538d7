"""The lakes that transfer is measured on: two made worlds, MovieLens-1M in two domains, and KuaiRand's tabs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from contracts.locations import Locations
from contracts.periods import ONE_DAY
from contracts.settings import SETTINGS_FILE, Deployment
from contracts.steps import DAY_JOBS
from contracts.transfer import TRANSFER_SETTINGS, reads

HALVES = ("none", "tpm", "cpm", "tpm+cpm")
_COMPLETE = "complete"


@dataclass(frozen=True, kw_only=True)
class Lake:
    """One source of logs, and which of its days are for what.

    Attributes:
        name: the name of its folder.
        source: what follows `tributary sources`.
        real: whether it is read from original files, below --data.
        actr_start: the ad models' first day; every day after it is scored by the models of the day before.
        report_from: settings are chosen on the scored days before it, and reported on the others.
        settings: the transfer settings to compare.
        replay_days: ad days that a model reads when it starts again: more where a day has few ads.
        months_and_weeks: how long they are here, for the table.
    """

    name: str
    source: tuple[str, ...]
    real: bool
    actr_start: date
    report_from: date
    settings: tuple[str, ...] = tuple(TRANSFER_SETTINGS)
    replay_days: int = 30
    months_and_weeks: str = "the calendar's months and weeks"


def _kuairand(tab: int) -> Lake:
    return Lake(
        name=f"kuairand-{tab}",
        source=("kuairand", "--ad-tab", str(tab)),
        real=True,
        actr_start=date(2022, 4, 27),
        report_from=date(2022, 5, 1),
        months_and_weeks="months and weeks shrunk to two days",
    )


LAKES = {
    lake.name: lake
    for lake in (
        Lake(
            name="simulator",
            source=("simulate",),
            real=False,
            actr_start=date(2026, 4, 6),
            report_from=date(2026, 4, 14),
        ),
        Lake(
            name="unrelated",
            source=("simulate", "--unrelated-domains"),
            real=False,
            actr_start=date(2026, 4, 6),
            report_from=date(2026, 4, 14),
            settings=HALVES,
        ),
        Lake(
            name="movielens",
            source=("movielens", "--equal-days", "180"),
            real=True,
            actr_start=date(2001, 4, 9),
            report_from=date(2001, 4, 30),
            replay_days=90,
            months_and_weeks="the calendar's months and weeks, of 180 days of equal count",
        ),
        *map(_kuairand, (6, 2, 4, 0)),
    )
}
QUICK = Lake(
    name="quick",
    source=("simulate", "--days", "40", "--users", "300", "--items", "200"),
    real=False,
    actr_start=date(2026, 2, 2),
    report_from=date(2026, 2, 5),
    settings=HALVES,
)


def prepare(lake: Lake, folder: Path, data: Path | None) -> None:
    """Makes the lake by the same commands that a person would use, unless it is there."""
    if (folder / _COMPLETE).is_file():
        return
    _command("sources", *lake.source, "--home", str(folder), *(("--data", str(data)) if lake.real else ()))
    deployment = replace(
        Deployment.load(folder), actr_start=lake.actr_start, replay_days=lake.replay_days, variants=lake.settings
    )
    (folder / SETTINGS_FILE).write_text(deployment.to_toml())
    first, last = deployment.history_start, last_day(folder)
    for job in DAY_JOBS:
        _command("spark_jobs", job, "--home", str(folder), "--from", str(first), "--to", str(last))
    if reads("texts", lake.settings):
        _command("training", "encode_texts", "--home", str(folder))
        _command("spark_jobs", "add_text_vectors", "--home", str(folder))
    (folder / _COMPLETE).touch()


def last_day(folder: Path) -> date:
    """The last day with landing files."""
    return max(
        date.fromisoformat(path.name)
        for path in (Locations(folder).landing / "ad").iterdir()
        if not path.name.startswith(".")
    )


def scored_days(lake: Lake, folder: Path, *, until: date | None = None) -> list[date]:
    """Days from `actr_start` on, up to `until` (exclusive) or the last."""
    end = until or last_day(folder) + ONE_DAY
    return [lake.actr_start + number * ONE_DAY for number in range((end - lake.actr_start).days)]


def _command(*arguments: str) -> None:
    print(f"$ tributary {' '.join(arguments)}", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", *arguments], check=True, stdout=subprocess.DEVNULL)


def names(parts: Sequence[str] | None) -> list[str]:
    """The lakes that these parts are about; all of them without any."""
    return [name for name in LAKES if not parts or name in parts or name.split("-")[0] in parts]
