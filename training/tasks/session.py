"""What every training task does before and after training: resolves parents and inputs, skips what is done, stages the result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from contracts.commands import table_text
from contracts.errors import BadInput, ParentMissing
from contracts.locations import Locations
from contracts.periods import ONE_DAY, Parent, Period
from contracts.releases import Release, Served, training_command
from contracts.settings import SETTINGS_FILE, Deployment
from contracts.steps import maker
from contracts.tables import owner_key
from lake.locks import hold
from lake.metrics import evaluate, figure_text
from lake.reader import LakeReader
from lake.run_folders import Run, open_released, stage_runs
from training import processes
from training.data.samples import Samples
from training.engine.board import Board, require_tensorboard, write_figures
from training.engine.checkpoint import Checkpoint
from training.engine.loop import Compute, Fitted, Supervision, prepare_process
from training.engine.runs import SLICE, Metric, metrics_of, write_held_out
from training.recipes import CHECKPOINT_SECONDS, Recipe
from training.slices import slices

_AS_WRITTEN = Compute()
JUDGED_ROWS = 2_000


@dataclass(frozen=True, kw_only=True)
class Session:
    """One command's view of a deployment.

    Attributes:
        judged_rows: how many held-out rows of an ad model the gate judges, where the last days have as many.
    """

    deployment: Deployment
    locations: Locations
    reader: LakeReader
    recipe: Recipe
    device: torch.device
    threads: int = 1
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    tensorboard: bool = False
    compute: Compute = _AS_WRITTEN
    judged_rows: int = JUDGED_ROWS

    @classmethod
    def open(
        cls,
        home: Path,
        recipe: Recipe,
        device: torch.device,
        *,
        threads: int = 1,
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
        tensorboard: bool = False,
        compute: Compute = _AS_WRITTEN,
    ) -> Session:
        """Opens a deployment for training.

        Args:
            home: the folder of the deployment.
            recipe: the settings of the models.
            device: the device to train on.
            threads: threads of torch on a CPU.
            checkpoint_seconds: how often the state of an unfinished training is written; 0 means after every step.
            tensorboard: whether to write event files for TensorBoard.
            compute: precision and compilation.

        Raises:
            BadInput: there is no such deployment, or TensorBoard is wanted and not installed.
        """
        if tensorboard:
            require_tensorboard()  # Before hours of training, not after them.
        locations = Locations(home)
        return cls(
            deployment=Deployment.load(home),
            locations=locations,
            reader=LakeReader(locations),
            recipe=recipe,
            device=device,
            threads=threads,
            checkpoint_seconds=checkpoint_seconds,
            tensorboard=tensorboard,
            compute=compute,
        )

    def only_variant(self, variant: str) -> Session:
        """Returns the session restricted to one transfer setting of the deployment.

        Raises:
            BadInput: the deployment does not name it.
        """
        if variant not in self.deployment.variants:
            raise BadInput(
                self.locations.home / SETTINGS_FILE,
                "variants",
                expected=f"{variant} among them",
                found=", ".join(self.deployment.variants),
                hint="Add it there, and train it for every day from actr_start on.",
            )
        return replace(self, deployment=replace(self.deployment, variants=(variant,)))

    def period(self, kind: str, start: date) -> Period:
        """The period to train.

        Raises:
            BadInput: no period of this kind begins on `start`, or it has not ended.
        """
        period = self.deployment.lineage.period(kind, start)
        self.deployment.refuse_unfinished(period.end - ONE_DAY, datetime.now(UTC))
        return period

    @contextmanager
    def training(self, kind: str, period: Period) -> Iterator[None]:
        """Holds the lock of the period's training and makes torch deterministic; the first of several processes holds it for all."""
        locks = [self.locations.locks / "training" / kind / f"{period.start}.lock"]
        with hold(locks if processes.is_first() else []):
            processes.wait()
            prepare_process(self.threads)
            yield

    def parent(self, child: str, parent: Parent, variant: str) -> Run:
        """Returns the run that is served as a parent.

        Raises:
            ParentMissing: no release of the parent's period is active.
            BadInput: its files are not those that were released.
        """
        row = self.reader.active(parent.kind, variant, parent.period)
        if row is None:
            served = Served(kind=parent.kind, variant=variant, period=parent.period)
            raise ParentMissing(
                f"{child}: expected an active release of its {parent.role} {served}, found none."
                f" Train it, and publish it: {training_command(served)}"
            )
        return self.open_release(row)

    def release(self, release_id: str) -> Run:
        """Returns the run of a release by its id, active or not."""
        row = self.reader.releases().get(release_id)
        if row is None:
            raise BadInput("releases", "release_id", expected=release_id, found="no such row")
        return self.open_release(row)

    def open_release(self, row: dict[str, Any]) -> Run:
        """Opens the run folder of a row of `releases`, and checks it against the row."""
        return open_released(self.locations, row)

    def inputs(self, tables: Sequence[str], days: Sequence[date]) -> dict[str, str]:
        """Returns the digests of the partitions to read, by `table/owner`.

        Raises:
            ParentMissing: one was never built; the message ends with the command that builds it.
        """
        digests: dict[str, str] = {}
        for name in tables:
            owners = {owner_key(ds=day): day for day in days}
            built = self.reader.builds(name, list(owners))
            missing = [day for owner, day in owners.items() if owner not in built]
            hint = f"Build it: tributary {maker(name)} --ds {missing[0]}" if missing else ""
            digests |= self.reader.require_builds(name, list(owners), hint=hint)
        return digests

    @contextmanager
    def supervised(self, release: Release) -> Iterator[Supervision]:
        """Returns what accompanies a release's training: its checkpoint, and TensorBoard if wanted, which the first process writes."""
        checkpoint = Checkpoint(self.locations.unfinished(release.release_id), self.checkpoint_seconds)
        if not self.tensorboard or not processes.is_first():
            yield Supervision(checkpoint=checkpoint, compute=self.compute)
            return
        with Board(self.locations.tensorboard(release.kind, release.variant, release.release_id)) as board:
            yield Supervision(checkpoint=checkpoint, observe=board, compute=self.compute)

    def stage(self, kind: str, period: Period, runs: Sequence[Run]) -> None:
        """Stages the runs, and prints their metrics, what was written and the next command; only the first process does."""
        if not processes.is_first():
            return
        path = stage_runs(self.locations, kind, period.start, runs)
        _print_metrics(runs)
        for run in runs:
            print(f"wrote {run.folder.relative_to(self.locations.home)}")
            if self.tensorboard:
                events = self.locations.tensorboard(kind, run.release.variant, run.release.release_id)
                write_figures(events, run.release.metrics, run.release.period)
                print(f"wrote {events.relative_to(self.locations.home)}")
        print(f"wrote {path.relative_to(self.locations.home)}")
        print(f"next: tributary validation gate --kind {kind} --period {period.start}", flush=True)


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Held-out rows, scored by the model that was trained and by the champion, which is served until then.

    Attributes:
        samples: N rows.
        scores: the scores of the model that was trained, N.
        before: the scores of the champion, N; None where there is none, or where this kind is not compared.
    """

    samples: Samples
    scores: NDArray[np.float64]
    before: NDArray[np.float64] | None = None

    @property
    def metrics(self) -> list[Metric]:
        """The metrics on the held-out rows."""
        return figures("held_out", self.samples, self.scores)

    def write(self, path: Path) -> None:
        """Writes the held-out rows and scores that the gate judges."""
        rows = self.samples
        write_held_out(
            path,
            {
                "event_id": rows.event_id,
                "user_id": rows.user_id,
                "ds": [date.fromordinal(int(day)) for day in rows.day],
                "click": rows.click.astype(np.int32),
                "score": self.scores,
                "score_before": [None] * len(rows) if self.before is None else self.before,
            },
        )


def figures(split: str, samples: Samples, scores: NDArray[np.float64]) -> list[Metric]:
    """Returns all metrics of scores, over all samples (`split`) and over each slice (`split/slice`)."""
    parts = {split: np.ones(len(samples), bool)} | {
        f"{split}{SLICE}{name}": mask for name, mask in slices(samples).items()
    }
    return [
        metric
        for name, mask in parts.items()
        for metric in metrics_of(
            name, evaluate(scores[mask], samples.click[mask], samples.user_id[mask]), int(mask.sum())
        )
    ]


def train_metrics(fitted: Fitted) -> list[Metric]:
    """Returns `train_loss` and, where it is a sum of several losses, these too; None where there was no row to train on."""
    loss = sum(fitted.losses.values()) if fitted.losses else None
    parts = metrics_of("train", fitted.losses, fitted.row_cnt) if len(fitted.losses) > 1 else []
    return [Metric(metric="train_loss", split="train", value=loss, row_cnt=fitted.row_cnt), *parts]


def say_finished(run: Run) -> None:
    """Prints that a run with the same inputs exists, so that nothing is trained."""
    print(f"{run.release.release_id} is there already, from the same inputs: nothing to train")


def _print_metrics(runs: Sequence[Run]) -> None:
    rows = [
        (run.release.variant, name, figure_text(value, ".5f"))
        for run in runs
        for name, value in sorted(run.release.metrics.items())
    ]
    print(table_text(("variant", "figure", "value"), rows))
