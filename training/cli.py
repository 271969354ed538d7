"""`tributary training`: one command per kind of model, a comparison and a report of what they scored, scores and exports."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from contracts.commands import (
    DAY,
    folder_group,
    given_user,
    one_day,
    run_line,
    table_text,
    together,
    with_days,
    with_deployment,
    with_user,
)
from contracts.errors import BadInput
from contracts.kinds import KINDS, Kind
from contracts.locations import Locations
from contracts.settings import Deployment
from contracts.tables import owner_key
from contracts.transfer import ALL_SETTINGS, TRANSFER_SETTINGS
from training.recipes import CHECKPOINT_SECONDS, RECIPES, Recipe, recipe

if TYPE_CHECKING:
    from training.tasks.session import Session

FORGETTING_DAYS = 14

commands = folder_group("training")
commands.epilog = (
    "By several processes, which share each batch and the embedding tables: torchrun --standalone --nproc-per-node 2 "
    "-m training cpm --period ..."
)

_recipe_name = click.option(
    "--recipe", "name", type=click.Choice(tuple(RECIPES)), help="Settings of the models (default: the deployment's)."
)
_device = click.option(
    "--device",
    default="auto",
    type=click.Choice(("auto", "cpu", "cuda")),
    help="Where it is computed; auto is cuda where there is one.",
)
_threads = click.option(
    "--threads", default=1, type=click.IntRange(min=1), help="CPU threads; results differ in the last digits."
)
_release = click.option(
    "--release", required=True, metavar="ID", help="Id of an A-CTR's release, as the table `releases` has it."
)
_with_training = together(
    _recipe_name,
    _device,
    _threads,
    click.option(
        "--checkpoint-seconds",
        default=CHECKPOINT_SECONDS,
        metavar="X",
        help="How often the state is kept, from which a killed run goes on.",
    ),
    click.option(
        "--tensorboard",
        is_flag=True,
        help="Write losses, speed and figures under tensorboard/ in the deployment's folder; "
        "look at them with `tensorboard --logdir` (needs the extra tensorboard).",
    ),
    click.option("--bf16", is_flag=True, help="On a GPU: products in bfloat16; results differ."),
    click.option(
        "--compile",
        "compiled",
        is_flag=True,
        help="On a GPU: torch.compile, which takes its seconds; results differ in the last digits.",
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; see `tributary training --help`."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("training").setLevel(logging.INFO)  # which of native code and torch serves
    return run_line(commands, argv)


def _add_kind(kind: Kind) -> None:
    """A command that trains the models of a period of a kind."""
    what = "The day." if kind.cadence == "day" else f"First day of the {kind.cadence}."

    @with_deployment
    @click.option(kind.period_option, "period", required=True, type=DAY, help=what)
    @_with_training
    def train(locations: Locations, deployment: Deployment, period: date, name: str | None, **how: Any) -> None:
        _train(locations, recipe(name or deployment.recipe), kind, period, **how)

    if kind.transfers:
        train = click.option(
            "--transfer",
            type=click.Choice((ALL_SETTINGS, *TRANSFER_SETTINGS)),
            default=ALL_SETTINGS,
            metavar="SETTING",
            help="Make this one of the deployment's transfer settings only.",
        )(train)
    commands.add(kind.name)(train)


def _train(
    locations: Locations,
    settings: Recipe,
    kind: Kind,
    period: date,
    *,
    device: str,
    bf16: bool,
    compiled: bool,
    transfer: str = ALL_SETTINGS,
    **how: Any,
) -> None:
    from training import processes
    from training.engine.devices import held_device
    from training.engine.loop import Compute, choose_device
    from training.tasks.session import Session

    chosen = choose_device(device)
    if chosen.type == "cpu" and (bf16 or compiled):
        raise BadInput(
            "--bf16" if bf16 else "--compile",
            "device",
            expected="cuda",
            found="cpu",
            hint="They are for GPUs: on a CPU the network is native code.",
        )
    with held_device(chosen, locations.locks) as free, processes.joined(free) as joined:
        session = Session.open(locations.home, settings, joined, compute=Compute(bf16=bf16, compiled=compiled), **how)
        task = getattr(import_module(f"training.tasks.{kind.name}"), f"run_{kind.name}")  # a kind's task, by its name
        task(session if transfer == ALL_SETTINGS else session.only_variant(transfer), period)


for _kind in KINDS.values():
    _add_kind(_kind)


@commands.add("compare")
@with_deployment
@with_days
def _compare(locations: Locations, deployment: Deployment, days: list[date]) -> None:
    from training.compare import report

    print(report(locations, deployment, days))


@commands.add("report")
@with_deployment
@with_days
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The HTML file (default: reports/models/FROM_TO.html in the deployment's folder).",
)
@click.option(
    "--forgetting-days",
    type=click.IntRange(min=0),
    default=FORGETTING_DAYS,
    metavar="N",
    help="Let the models of the last N days score older days; 0 leaves it out.",
)
@_device
@_threads
def _report(
    locations: Locations,
    _: Deployment,
    *,
    days: list[date],
    out: Path | None,
    forgetting_days: int,
    device: str,
    threads: int,
) -> None:
    from pages.files import write_atomically
    from training.report.gather import gather
    from training.report.page import render, verdicts

    found = gather(_reading(locations, device, threads), days, forgetting_days=forgetting_days)
    path = (out or locations.model_report(days[0], days[-1])).resolve()
    write_atomically(path, render(found))
    for line in verdicts(found) or ["nothing to compare; the report lists what is missing"]:
        print(line)
    print(f"report: {path.as_uri()}")
    if out is None:
        index = f"tributary validation index --home {shlex.quote(str(locations.home))}"
        print(f"next: open it in a browser; `{index}` links it from the calendar of all reports")


@commands.add("score")
@with_deployment
@one_day(required=True)
@_release
@_device
@_threads
def _score(locations: Locations, _: Deployment, ds: date, release: str, device: str, threads: int) -> None:
    from training.serving.score import score_day

    session = _reading(locations, device, threads)
    path = score_day(session, session.release(release), ds)
    print(f"wrote {path.relative_to(locations.home)}")


@commands.add("export")
@with_deployment
@_release
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="The folder, not there yet (default: exported/RELEASE in the deployment's folder).",
)
def _export(locations: Locations, _: Deployment, release: str, out: Path | None) -> None:
    import json

    from training.serving.export import EXAMPLE_FILE, export, latencies

    session = _reading(locations, "cpu", 1)
    run = session.release(release)
    folder = export(session, run, (out or locations.exported(run.release.release_id)).resolve())
    example = folder / EXAMPLE_FILE
    print(f"wrote {folder}")
    if example.is_file():
        found = latencies(folder, json.loads(example.read_text()))
        print(table_text(("candidates", "ms"), [(str(count), f"{value:.2f}") for count, value in found.items()]))
        print(f"next: python {shlex.quote(str(folder / 'scorer.py'))} < {shlex.quote(str(example))}")


def _reading(locations: Locations, device: str, threads: int) -> Session:
    """A session that trains nothing: releases bear the recipes that they were made with."""
    from training.engine.loop import choose_device
    from training.tasks.session import Session

    return Session.open(locations.home, recipe("default"), choose_device(device), threads=threads)


@commands.add("encode_texts")
@with_deployment
@_recipe_name
@one_day("A day whose texts have to be there; all that have no vector are encoded.")
@click.option(
    "--source",
    help="The language model: minilm, smollm2, a folder, a GGUF file or a name on the hub (default: the recipe's).",
)
def _encode_texts(
    locations: Locations, deployment: Deployment, name: str | None, ds: date | None, source: str | None
) -> None:
    from lake.reader import LakeReader
    from training.models.language import load
    from training.tasks.text_vectors import encode_new_texts

    texts = recipe(name or deployment.recipe).texts
    reader = LakeReader(locations)
    if ds:
        reader.require_builds(
            "behaviour_texts",
            [owner_key(ds=ds)],
            hint=f"Make it: tributary spark_jobs collect_behaviour_texts --ds {ds}",
        )
    encode_new_texts(locations, reader, load(source or texts.source, low_layers=texts.low_layers), texts)


@commands.add("forget_user")
@with_deployment
@with_user
def _forget_user(locations: Locations, _: Deployment, user: str, dry_run: bool) -> int:
    from training.forget import forget

    return forget(locations, int(given_user(user)), dry_run=dry_run)
