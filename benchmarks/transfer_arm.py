"""One seed of the transfer benchmark on one lake: the chain of models, day by day, by the tasks that a deployment runs.

Releases serve as soon as they are trained: what stands between, audit and publishing, changes no figure.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.transfer_lakes import LAKES, QUICK, Lake, scored_days
from contracts.features import CPM, TPM
from contracts.locations import Locations
from contracts.periods import Parent
from contracts.releases import PREDICTIONS_FILE
from contracts.settings import SETTINGS_FILE, Deployment
from contracts.transfer import reads
from lake.reader import LakeReader
from lake.run_folders import Run
from training.recipes import Phase, Recipe, default, quick
from training.tasks.actr import run_actr
from training.tasks.bahe import BAHE, run_bahe
from training.tasks.cpm import run_cpm
from training.tasks.fg_bert import FG_BERT, run_fg_bert
from training.tasks.session import Session
from training.tasks.tpm import run_tpm

ALONE: dict[str, Callable[[Session, date], Run]] = {
    TPM: run_tpm,
    FG_BERT: run_fg_bert,
    BAHE: run_bahe,
}  # kinds of one release a period
OF_ABLATION = "-for-all"  # follows the seed in the name of a chain's home


def _rates(recipe: Recipe, *, restart: tuple[float, float], daily: tuple[float, float]) -> Recipe:
    def phase(base: Phase, rates: tuple[float, float]) -> Phase:
        return replace(base, learning_rate=rates[0], embedding_learning_rate=rates[1])

    return replace(
        recipe,
        actr=replace(recipe.actr, restart=phase(recipe.actr.restart, restart), daily=phase(recipe.actr.daily, daily)),
    )


def _one_pass(recipe: Recipe) -> Recipe:
    """Less pre-training: with few days, more of it overfits to the natural log."""
    return replace(
        recipe,
        cpm=replace(recipe.cpm, train=replace(recipe.cpm.train, epochs=1)),
        tpm=replace(recipe.tpm, train=replace(recipe.tpm.train, epochs=2, embedding_learning_rate=0.3)),
    )


# What every setting chooses from for itself: another pre-training, or other rates (Adam's, Adagrad's) of the replay and
# of the newest day.
CANDIDATES: dict[str, Callable[[Recipe], Recipe]] = {
    "default": lambda recipe: recipe,
    "one_pass": _one_pass,
    "gentle": lambda recipe: _rates(_one_pass(recipe), restart=(3e-4, 0.05), daily=(1e-4, 0.025)),
    "fast_tables": lambda recipe: _rates(recipe, restart=(1e-3, 0.05), daily=(2e-4, 0.025)),
}


def base_recipe() -> Recipe:
    """The default with the small body of `quick`: on natural rows held out it is as good here, and twice as fast."""
    body = quick().cpm.body
    return replace(default(), cpm=replace(default().cpm, body=body), actr=replace(default().actr, body=body))


def seeded(recipe: Recipe, seed: int) -> Recipe:
    return replace(
        recipe,
        tpm=replace(recipe.tpm, seed=10 * seed + 1),
        cpm=replace(recipe.cpm, seed=10 * seed + 2),
        actr=replace(recipe.actr, seed=10 * seed + 3),
        fg_bert=replace(recipe.fg_bert, seed=10 * seed + 4),
        bahe=replace(recipe.bahe, seed=10 * seed + 5),
    )


@dataclass(frozen=True, kw_only=True)
class Chain(Session):
    """A session in which a run serves its period from the moment that it is trained."""

    served: dict[tuple[str, str, date], Run] = field(default_factory=dict)

    def parent(self, child: str, parent: Parent, variant: str) -> Run:
        return self.served[parent.kind, variant, parent.period]

    def release(self, release_id: str) -> Run:
        return next(run for run in self.served.values() if run.release.release_id == release_id)

    def serve(self, runs: Sequence[Run]) -> None:
        self.served.update({(run.release.kind, run.release.variant, run.release.period): run for run in runs})


def open_chain(lake_folder: Path, home: Path, recipe: Recipe) -> Chain:
    """A home of its own on the lake's tables, so that seeds may run side by side."""
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "lake").exists():
        (home / "lake").symlink_to(lake_folder / "lake")
    (home / SETTINGS_FILE).write_text((lake_folder / SETTINGS_FILE).read_text())
    locations = Locations(home)
    return Chain(
        deployment=Deployment.load(home),
        locations=locations,
        reader=LakeReader(locations),
        recipe=recipe,
        device=torch.device("cpu"),
        judged_rows=0,
    )  # no gate reads them here


def run_chain(chain: Chain, days: Sequence[date], settings: Sequence[str]) -> pa.Table:
    """Trains all that these ad days rest on, and the ad models day by day; returns the scores, a column for each setting."""
    chain = replace(chain, deployment=replace(chain.deployment, variants=tuple(settings)))
    lineage, tables = chain.deployment.lineage, []

    def ensure(parent: Parent) -> None:
        if any((kind, period) == (parent.kind, parent.period) for kind, _, period in chain.served):
            return
        for grandparent in lineage.parents(parent.kind, parent.period):
            ensure(grandparent)
        chain.serve(run_cpm(chain, parent.period) if parent.kind == CPM else [ALONE[parent.kind](chain, parent.period)])

    needed = {"pretrained", *(role for role in ("encoder", "texts") if reads(role, settings))}
    for day in days:
        for parent in lineage.parents("actr", day):
            if parent.role in needed:
                ensure(parent)
        runs = run_actr(chain, day)
        chain.serve(runs)
        found = [pq.read_table(run.folder / PREDICTIONS_FILE).sort_by("event_id") for run in runs]
        of_day = found[0].select(["ds", "event_id", "user_id", "click"])
        for run, rows in zip(runs, found, strict=True):
            of_day = of_day.append_column(run.release.variant, rows["score"])
        tables.append(of_day)
    return pa.concat_tables(tables)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--lake", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument(
        "--choices", type=Path, help="JSON: the candidate of each setting; without it all run, until report_from"
    )
    parser.add_argument(
        "--settings", type=lambda text: tuple(text.split(",")), help="transfer settings (default: the lake's)"
    )
    parser.add_argument(
        "--snapshots-for-all", action="store_true", help="the ablation: the merged table's months for all rows of a CPM"
    )
    options = parser.parse_args()
    lake: Lake = LAKES.get(options.lake, QUICK)
    settings = options.settings or lake.settings
    folder = options.work / lake.name
    recipe = seeded(base_recipe(), options.seed)
    if options.snapshots_for_all:
        recipe = replace(recipe, cpm=replace(recipe.cpm, snapshots_by_day=False))
    home = folder / "seeds" / f"{options.seed}{OF_ABLATION if options.snapshots_for_all else ''}"
    out = home / "scores"
    out.mkdir(parents=True, exist_ok=True)
    with (home / "log.txt").open("a") as log, contextlib.redirect_stdout(log):
        if options.choices is None:
            days = scored_days(lake, folder, until=lake.report_from)
            for name, change in CANDIDATES.items():
                _complete(open_chain(folder, home, change(recipe)), days, settings, out / f"choose-{name}.parquet")
            return
        choices: dict[str, str] = json.loads(options.choices.read_text())
        for name in dict.fromkeys(choices.values()):
            chosen = [setting for setting in settings if choices.get(setting) == name]
            _complete(
                open_chain(folder, home, CANDIDATES[name](recipe)),
                scored_days(lake, folder),
                chosen,
                out / f"report-{name}.parquet",
            )


def _complete(chain: Chain, days: Sequence[date], settings: Sequence[str], path: Path) -> None:
    """Adds to a file of scores the settings that it lacks."""
    before = pq.read_table(path) if path.is_file() else None
    missing = [setting for setting in settings if before is None or setting not in before.column_names]
    if not missing:
        return
    rows = run_chain(chain, days, missing)
    if before is not None:
        assert rows["event_id"].equals(before["event_id"]), "all settings score the same rows"
        for setting in missing:
            before = before.append_column(setting, rows[setting])
    _write(rows if before is None else before, path)


def _write(rows: pa.Table, path: Path) -> None:
    temporary = path.with_suffix(f".{os.getpid()}")
    pq.write_table(rows, temporary)
    temporary.replace(path)


if __name__ == "__main__":
    main()
