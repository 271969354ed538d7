"""`tributary sources`: makes landing files."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

from contracts.commands import day
from contracts.settings import home_folder


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    return {"simulate": _simulate, "kuairand": _kuairand, "movielens": _movielens}[arguments.command](arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tributary sources", description="Makes landing files, by log and day of arrival.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_simulate(commands.add_parser("simulate", help="a made world: tastes shared by a rich natural and a sparse ad domain"))
    kuairand = _add_real(commands.add_parser("kuairand", help="from the original files of KuaiRand-Pure"), "KuaiRand-Pure")
    kuairand.add_argument("--natural-tab", type=int, default=1, metavar="N", help="scenario of the natural log (default 1)")
    kuairand.add_argument("--ad-tab", type=int, default=6, metavar="N", help="scenario taken as the ad log (default 6)")
    movielens = _add_real(commands.add_parser("movielens", help="from the original files of MovieLens-1M"), "MovieLens-1M")
    movielens.add_argument("--ad-share", type=float, default=0.12, metavar="X",
                           help="share of the advertised items' ratings that make the ad log (default 0.12)")
    movielens.add_argument("--equal-days", type=int, default=30, metavar="N", help="days of equal count (default 30)")
    movielens.add_argument("--start", type=day, default=date(2001, 1, 1), metavar="DAY",
                           help="the first of these days (default 2001-01-01)")
    return parser


def _add_simulate(parser: argparse.ArgumentParser) -> None:
    _add_home(parser)
    parser.add_argument("--days", type=int, default=120, metavar="N", help="default 120")
    parser.add_argument("--users", type=int, default=2000, metavar="N", help="default 2000")
    parser.add_argument("--items", type=int, default=1500, metavar="N", help="default 1500")
    parser.add_argument("--seed", type=int, default=7, metavar="N", help="default 7")
    parser.add_argument("--start", type=day, default=date(2026, 1, 1), metavar="DAY", help="default 2026-01-01")
    parser.add_argument("--duplicate-rate", type=float, default=0.01, metavar="X", help="share of impressions (default 0.01)")
    parser.add_argument("--malformed-rate", type=float, default=0.002, metavar="X", help="share of impressions (default 0.002)")
    parser.add_argument("--late-rate", type=float, default=0.005, metavar="X", help="share of impressions (default 0.005)")
    parser.add_argument("--unrelated-domains", action="store_true",
                        help="negative control: the ad domain draws tastes and item qualities of its own")


def _add_home(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--home", type=Path, metavar="DIR", help="the deployment's folder (default: TRIBUTARY_HOME)")


def _add_real(parser: argparse.ArgumentParser, name: str) -> argparse.ArgumentParser:
    _add_home(parser)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help=f"folder of {name}'s original files, or its parent")
    return parser


def _home(arguments: argparse.Namespace) -> Path:
    return arguments.home.resolve() if arguments.home else home_folder()


def _simulate(arguments: argparse.Namespace) -> int:
    from sources import simulator
    from sources.faults import FaultRates
    from sources.world import WorldSettings

    settings = simulator.SimulatorSettings(
        start=arguments.start,
        days=arguments.days,
        world=WorldSettings(users=arguments.users, items=arguments.items, seed=arguments.seed,
                            unrelated_domains=arguments.unrelated_domains),
        faults=FaultRates(duplicates=arguments.duplicate_rate, malformed=arguments.malformed_rate, late=arguments.late_rate),
    )
    home = _home(arguments)
    done = simulator.simulate(settings, home)
    for log, rows in done.rows.items():
        impressions = done.impressions[log]
        print(f"{log}: {rows:,} rows for {impressions:,} impressions ({impressions / settings.days:,.0f} a day), "
              f"click rate {done.clicks[log] / max(impressions, 1):.3f}")
    print(f"True probabilities and what was injected: {home / 'truth'}")
    _say_next(home, done.rows)
    return 0


def _kuairand(arguments: argparse.Namespace) -> int:
    from sources import kuairand

    home = _home(arguments)
    settings = kuairand.KuaiRandSettings(natural_tab=arguments.natural_tab, ad_tab=arguments.ad_tab)
    done = kuairand.convert(arguments.data, home, settings)
    for line in done.notes:
        print(line)
    _say_next(home, done.rows)
    return 0


def _movielens(arguments: argparse.Namespace) -> int:
    from sources import movielens

    home = _home(arguments)
    settings = movielens.MovieLensSettings(ad_share=arguments.ad_share, equal_days=arguments.equal_days, start=arguments.start)
    done = movielens.convert(arguments.data, home, settings)
    for line in done.notes:
        print(line)
    _say_next(home, done.rows)
    return 0


def _say_next(home: Path, rows: Mapping[str, int]) -> None:
    from contracts.settings import SETTINGS_FILE, Deployment

    first = Deployment.load(home).history_start
    counts = ", ".join(f"{count:,} {log}" for log, count in rows.items())
    print(f"Wrote landing files ({counts} rows) under {home / 'landing'}, and {home / SETTINGS_FILE}")
    print(f"Next: TRIBUTARY_HOME={home} tributary spark_jobs ingest_logs --ds {first}")
