"""`tributary sources`: makes landing files."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from contracts.commands import add_check, add_command, day
from contracts.settings import folder_python, home_folder

if TYPE_CHECKING:
    from sources.simulator import SimulatorSettings


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    commands = {"simulate": _simulate, "kuairand": _kuairand, "movielens": _movielens, "taobao": _taobao, "check": _check}
    return commands[arguments.command](arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tributary sources", description="Makes landing files, by log and day of arrival.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_simulate(add_command(commands, "sources", "simulate"))
    kuairand = _add_real(add_command(commands, "sources", "kuairand"), "KuaiRand-Pure")
    kuairand.add_argument("--natural-tab", type=int, default=1, metavar="N", help="scenario of the natural log (default 1)")
    kuairand.add_argument("--ad-tab", type=int, default=6, metavar="N", help="scenario taken as the ad log (default 6)")
    movielens = _add_real(add_command(commands, "sources", "movielens"), "MovieLens-1M")
    movielens.add_argument("--ad-share", type=float, default=0.12, metavar="X",
                           help="share of the advertised items' ratings that make the ad log (default 0.12)")
    movielens.add_argument("--equal-days", type=int, default=30, metavar="N", help="days of equal count (default 30)")
    movielens.add_argument("--start", type=day, default=date(2001, 1, 1), metavar="DAY",
                           help="the first of these days (default 2001-01-01)")
    taobao = _add_real(add_command(commands, "sources", "taobao"), "Ali_Display_Ad_Click")
    taobao.add_argument("--from", dest="first", type=day, metavar="DAY", help="first day (default 2017-04-22)")
    taobao.add_argument("--to", dest="last", type=day, metavar="DAY", help="last day, included (default 2017-05-13)")
    check = add_command(commands, "sources", "check")
    _add_home(check)
    add_check(check)
    return parser


def _add_simulate(parser: argparse.ArgumentParser) -> None:
    parser.description = ("Days of natural and ad impressions of a made world, as landing files, and the true click probability of each "
                          "beside. Equal options give equal bytes; more days begin with the same days.")
    size = parser.add_argument_group("what, and how much of it")
    _add_home(size)
    size.add_argument("--start", type=day, default=date(2026, 1, 1), metavar="DAY", help="the first day (default 2026-01-01)")
    size.add_argument("--days", type=int, default=120, metavar="N", help="days (default 120)")
    size.add_argument("--users", type=int, default=2000, metavar="N", help="users; each makes about six impressions a day (default 2000)")
    size.add_argument("--items", type=int, default=1500, metavar="N", help="items that live at any time (default 1500)")
    size.add_argument("--seed", type=int, default=7, metavar="N", help="another one gives another world (default 7)")
    world = parser.add_argument_group("the world")
    world.add_argument("--item-turnover", type=float, default=0.1, metavar="X",
                       help="share of the items that end within 30 days, each followed by a new one (default 0.1)")
    world.add_argument("--burst-rate", type=float, default=0.4, metavar="X",
                       help="share of visits that bring an interest in one category, gone within hours (default 0.4)")
    world.add_argument("--unrelated-domains", action="store_true",
                       help="negative control: the ad domain has tastes, item qualities and interests of its own")
    faults = parser.add_argument_group("what goes wrong on the way, as shares of the impressions")
    faults.add_argument("--duplicate-rate", type=float, default=0.01, metavar="X", help="delivered twice (default 0.01)")
    faults.add_argument("--malformed-rate", type=float, default=0.002, metavar="X", help="rows more, that break a rule (default 0.002)")
    faults.add_argument("--late-rate", type=float, default=0.005, metavar="X", help="arriving with the next day's file (default 0.005)")


def _add_home(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--home", type=Path, metavar="DIR", help="the deployment's folder (default: TRIBUTARY_HOME)")


def _add_real(parser: argparse.ArgumentParser, name: str) -> argparse.ArgumentParser:
    _add_home(parser)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help=f"folder of {name}'s original files, or its parent")
    return parser


def _home(arguments: argparse.Namespace) -> Path:
    return arguments.home.resolve() if arguments.home else home_folder()


def simulator_settings(arguments: argparse.Namespace) -> SimulatorSettings:
    """What the options of `simulate` say."""
    from sources.faults import FaultRates
    from sources.simulator import SimulatorSettings
    from sources.world import WorldSettings

    return SimulatorSettings(
        start=arguments.start,
        days=arguments.days,
        world=WorldSettings(users=arguments.users, items=arguments.items, seed=arguments.seed, item_turnover=arguments.item_turnover,
                            burst_rate=arguments.burst_rate, unrelated_domains=arguments.unrelated_domains),
        faults=FaultRates(duplicates=arguments.duplicate_rate, malformed=arguments.malformed_rate, late=arguments.late_rate),
    )


def _simulate(arguments: argparse.Namespace) -> int:
    from sources import simulator

    settings, home = simulator_settings(arguments), _home(arguments)
    done = simulator.simulate(settings, home)
    for log, rows in done.rows.items():
        impressions = done.impressions[log]
        print(f"{log}: {rows:,} rows for {impressions:,} impressions ({impressions / settings.days:,.0f} a day), "
              f"click rate {done.clicks[log] / max(impressions, 1):.3f}")
    print(f"items: {arguments.items:,} at any time, {done.items_born:,} born and {done.items_ended:,} ended meanwhile")
    print(f"Wrote the true probabilities by day, and which faults each file holds ({simulator.INJECTED_FILE}), under {home / 'truth'}")
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


def _taobao(arguments: argparse.Namespace) -> int:
    from sources import taobao

    home = _home(arguments)
    chosen = {name: value for name in ("first", "last") if (value := getattr(arguments, name)) is not None}
    settings = taobao.TaobaoSettings(**chosen)
    done = taobao.convert(arguments.data, home, settings)
    for line in done.notes:
        print(line)
    _say_next(home, done.rows)
    return 0


def _check(arguments: argparse.Namespace) -> int:
    """Ingestion judges landing files, and ingestion is a job of Spark: the command there is asked."""
    options = [f"--{name}={value}" for name in ("log", "day") if (value := getattr(arguments, name)) is not None]
    strict = ["--strict"] if arguments.strict else []
    command = [folder_python("spark_jobs") or sys.executable, "-m", "spark_jobs", "check_landing", f"--home={_home(arguments)}", *options,
               *strict, "--", *map(str, arguments.paths)]
    sys.stdout.flush()
    return subprocess.run(command, check=False).returncode


def _say_next(home: Path, rows: Mapping[str, int]) -> None:
    from contracts.settings import SETTINGS_FILE, Deployment

    first = Deployment.load(home).history_start
    counts = ", ".join(f"{count:,} {log}" for log, count in rows.items())
    print(f"Wrote landing files ({counts} rows) under {home / 'landing'}, and {home / SETTINGS_FILE}")
    print(f"Next: TRIBUTARY_HOME={home} tributary spark_jobs ingest_logs --ds {first}")
