"""`tributary training`: one command per kind of model, and a comparison of what they scored."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from contracts.commands import add_days, add_home, day, days_of, deployment_of
from training.recipes import CHECKPOINT_SECONDS, RECIPES, recipe


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; see `tributary training --help`."""
    options = _parser().parse_args(argv)
    return _compare(options) if options.command == "compare" else _train(options)


def _train(options: argparse.Namespace) -> int:
    from training.engine.loop import choose_device
    from training.tasks.session import Session

    locations, _ = deployment_of(options)
    session = Session.open(locations.home, recipe(options.recipe), choose_device(options.device), threads=options.threads,
                           checkpoint_seconds=options.checkpoint_seconds)
    if options.command == "tpm":
        from training.tasks.tpm import run_tpm

        run_tpm(session, options.period)
    elif options.command == "cpm":
        from training.tasks.cpm import run_cpm

        run_cpm(session, options.period)
    else:
        from training.tasks.actr import run_actr

        run_actr(session, options.ds)
    return 0


def _compare(options: argparse.Namespace) -> int:
    from training.compare import report

    locations, deployment = deployment_of(options)
    print(report(locations, deployment, days_of(options)))
    return 0


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    add_home(common)
    common.add_argument("--recipe", default="default", choices=tuple(RECIPES), help="settings of the models (default: default)")
    common.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"),
                        help="where to train (default: cuda where there is one)")
    common.add_argument("--threads", default=1, type=_threads, help="CPU threads; results differ in the last digits (default: 1)")
    common.add_argument("--checkpoint-seconds", default=CHECKPOINT_SECONDS, type=float,
                        help="how often the state is kept, from which a killed run goes on (default: %(default)g)")
    parser = argparse.ArgumentParser(prog="tributary training", description="Train a period's models and stage their files for publishing.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    tpm = commands.add_parser("tpm", parents=[common], help="tiny pre-training model of one closed month")
    cpm = commands.add_parser("cpm", parents=[common], help="complete pre-training model of one closed week")
    actr = commands.add_parser("actr", parents=[common], help="score a day with the ad model of the day before, then train on it")
    for command, what in ((tpm, "month"), (cpm, "week")):
        command.add_argument("--period", required=True, type=day, help=f"first day of the {what}, YYYY-MM-DD")
    actr.add_argument("--ds", required=True, type=day, help="the day, YYYY-MM-DD")
    compare = commands.add_parser("compare", help="published scores of some days: transfer beside no transfer")
    add_home(compare)
    add_days(compare)
    return parser


def _threads(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number >= 1, found {text!r}")
    return int(text)
