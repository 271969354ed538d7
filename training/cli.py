"""`tributary training`: one command per kind of model, a comparison and a report of what they scored, scores and exports."""

from __future__ import annotations

import argparse
import logging
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from contracts.commands import add_command, add_days, add_home, add_user, day, days_of, deployment_of, given_user
from contracts.errors import BadInput
from contracts.features import ACTR
from contracts.kinds import KINDS
from contracts.settings import Deployment
from contracts.tables import owner_key
from contracts.transfer import ALL_SETTINGS, TRANSFER_SETTINGS
from training.recipes import CHECKPOINT_SECONDS, RECIPES, Recipe, recipe

if TYPE_CHECKING:
    from training.tasks.session import Session

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

FORGETTING_DAYS = 14


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; see `tributary training --help`."""
    options = _parser().parse_args(argv)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("training").setLevel(logging.INFO)  # which of native code and torch serves
    return {"compare": _compare, "report": _report, "score": _score, "export": _export,
            "encode_texts": _encode_texts, "forget_user": _forget_user}.get(options.command, _train)(options)


def _train(options: argparse.Namespace) -> int:
    from training import processes
    from training.engine.devices import held_device
    from training.engine.loop import Compute, choose_device
    from training.tasks.session import Session

    locations, deployment = deployment_of(options)
    kind = choose_device(options.device)
    if kind.type == "cpu" and (options.bf16 or options.compile):
        raise BadInput("--bf16" if options.bf16 else "--compile", "device", expected="cuda", found="cpu",
                       hint="They are for GPUs: on a CPU the network is native code.")
    with held_device(kind, locations.locks) as free, processes.joined(free) as device:
        session = Session.open(locations.home, _recipe(options, deployment), device, threads=options.threads,
                               checkpoint_seconds=options.checkpoint_seconds,
                               tensorboard=options.tensorboard,
                               compute=Compute(bf16=options.bf16, compiled=options.compile))
        _train_model(options, session if options.transfer == ALL_SETTINGS else session.alone(options.transfer))
    return 0


def _recipe(options: argparse.Namespace, deployment: Deployment) -> Recipe:
    """The recipe that the command names, else the deployment's."""
    return recipe(options.recipe or deployment.recipe)


def _train_model(options: argparse.Namespace, session: Session) -> None:
    from importlib import import_module

    run = getattr(import_module(f"training.tasks.{options.command}"), f"run_{options.command}")  # a kind's task, by its name
    run(session, options.period)


def _compare(options: argparse.Namespace) -> int:
    from training.compare import report

    locations, deployment = deployment_of(options)
    print(report(locations, deployment, days_of(options)))
    return 0


def _report(options: argparse.Namespace) -> int:
    from pages.files import write_atomically
    from training.report.gather import gather
    from training.report.page import render, verdicts

    session = _reading(options, options.device, options.threads)
    locations, days = session.locations, days_of(options)
    found = gather(session, days, forgetting_days=options.forgetting_days)
    path = (options.out or locations.model_report(days[0], days[-1])).resolve()
    write_atomically(path, render(found))
    for line in verdicts(found) or ["nothing to compare; the report says what is missing"]:
        print(line)
    print(f"report: {path.as_uri()}")
    if options.out is None:
        index = f"tributary validation index --home {shlex.quote(str(locations.home))}"
        print(f"next: open it in a browser; `{index}` links it from the calendar of all reports")
    return 0


def _score(options: argparse.Namespace) -> int:
    from training.serving.score import score_day

    session = _reading(options, options.device, options.threads)
    path = score_day(session, session.release(options.release), options.period)
    print(f"wrote {path.relative_to(session.locations.home)}")
    return 0


def _export(options: argparse.Namespace) -> int:
    import json

    from contracts.commands import table_text
    from training.serving.export import EXAMPLE_FILE, export, latencies

    session = _reading(options, "cpu", 1)
    run = session.release(options.release)
    folder = export(session, run, (options.out or session.locations.exported(run.release.release_id)).resolve())
    example = folder / EXAMPLE_FILE
    print(f"wrote {folder}")
    if example.is_file():
        found = latencies(folder, json.loads(example.read_text()))
        print(table_text(("candidates", "ms"), [(str(count), f"{value:.2f}") for count, value in found.items()]))
        print(f"next: python {shlex.quote(str(folder / 'scorer.py'))} < {shlex.quote(str(example))}")
    return 0


def _reading(options: argparse.Namespace, device: str, threads: int) -> Session:
    """A session that trains nothing: releases bear the recipes that they were made with."""
    from training.engine.loop import choose_device
    from training.tasks.session import Session

    locations, _ = deployment_of(options)
    return Session.open(locations.home, recipe("default"), choose_device(device), threads=threads)


def _encode_texts(options: argparse.Namespace) -> int:
    from lake.reader import LakeReader
    from training.models.language import load
    from training.tasks.text_vectors import encode_new_texts

    locations, deployment = deployment_of(options)
    texts = _recipe(options, deployment).texts
    reader = LakeReader(locations)
    if options.ds:
        reader.require_builds("behaviour_texts", [owner_key(ds=options.ds)],
                              hint=f"Make it: tributary spark_jobs collect_behaviour_texts --ds {options.ds}")
    encode_new_texts(locations, reader, load(options.source or texts.source, low_layers=texts.low_layers), texts)
    return 0


def _forget_user(options: argparse.Namespace) -> int:
    from training.forget import forget

    locations, _ = deployment_of(options)
    return forget(locations, int(given_user(options.user)), dry_run=options.dry_run)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tributary training", description="Train a period's models and stage their files for publishing.",
        epilog="By several processes, which share each batch and the embedding tables: torchrun --standalone --nproc-per-node 2 "
               "-m training cpm --period ...")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    _add_kinds(commands)
    _add_uses_of_a_release(commands)
    texts = add_command(commands, "training", "encode_texts")
    add_home(texts)
    texts.add_argument("--recipe", choices=tuple(RECIPES), help="settings (default: the deployment's)")
    texts.add_argument("--ds", type=day, help="a day whose texts have to be there; all that have no vector are encoded")
    texts.add_argument("--source", help="the language model: minilm, smollm2, a folder, a GGUF file or a name on the hub "
                                        "(default: the recipe's)")
    user = add_command(commands, "training", "forget_user")
    add_home(user)
    add_user(user)
    _add_comparisons(commands)
    return parser


def _add_kinds(commands: Commands) -> None:
    """A command for each kind of model."""
    common = argparse.ArgumentParser(add_help=False)
    add_home(common)
    common.add_argument("--recipe", choices=tuple(RECIPES), help="settings of the models (default: the deployment's)")
    common.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"),
                        help="where to train (default: cuda where there is one)")
    common.add_argument("--threads", default=1, type=_threads, help="CPU threads; results differ in the last digits (default: 1)")
    common.add_argument("--checkpoint-seconds", default=CHECKPOINT_SECONDS, type=float,
                        help="how often the state is kept, from which a killed run goes on (default: %(default)g)")
    common.add_argument("--tensorboard", action="store_true", help="write losses, speed and figures under tensorboard/ in the deployment's "
                        "folder; look at them with `tensorboard --logdir` (needs the extra tensorboard)")
    common.add_argument("--bf16", action="store_true", help="on a GPU: products in bfloat16; results differ")
    common.add_argument("--compile", action="store_true",
                        help="on a GPU: torch.compile, which takes its seconds; results differ in the last digits")
    for kind in KINDS.values():
        command = add_command(commands, "training", kind.name, parents=[common])
        what = "the day" if kind.cadence == "day" else f"first day of the {kind.cadence}"
        command.add_argument(kind.period_option, required=True, type=day, dest="period", help=f"{what}, YYYY-MM-DD")
        command.set_defaults(transfer=ALL_SETTINGS)
    commands.choices[ACTR].add_argument("--transfer", choices=(ALL_SETTINGS, *TRANSFER_SETTINGS), metavar="SETTING",
                                        help="make this one of the deployment's transfer settings alone (default: all)")


def _add_uses_of_a_release(commands: Commands) -> None:
    """What is done with one released A-CTR: a day's scores, an export."""
    score = add_command(commands, "training", "score")
    score.add_argument("--ds", required=True, type=day, dest="period", help="the day, YYYY-MM-DD")
    export = add_command(commands, "training", "export")
    export.add_argument("--out", type=Path, help="the folder, not there yet (default: exported/RELEASE in the deployment's folder)")
    for command in (score, export):
        add_home(command)
        command.add_argument("--release", required=True, help="id of an A-CTR's release, as the table `releases` has it")
    _add_scoring(score)


def _add_comparisons(commands: Commands) -> None:
    """What compares the transfer settings over a range of days: a table, a report."""
    compare = add_command(commands, "training", "compare")
    report = add_command(commands, "training", "report")
    for command in (compare, report):
        add_home(command)
        add_days(command)
    report.add_argument("--out", type=Path, help="the HTML file (default: reports/models/FROM_TO.html in the deployment's folder)")
    report.add_argument("--forgetting-days", type=_count, default=FORGETTING_DAYS, metavar="N",
                        help="let the models of the last N days score older days; 0 leaves it out (default: %(default)s)")
    _add_scoring(report)


def _add_scoring(command: argparse.ArgumentParser) -> None:
    command.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"),
                         help="where to score (default: cuda if there is one)")
    command.add_argument("--threads", default=1, type=_threads, help="CPU threads (default: 1)")


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number >= 0, found {text!r}")
    return int(text)


def _threads(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number >= 1, found {text!r}")
    return int(text)
