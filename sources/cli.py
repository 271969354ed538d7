"""`tributary sources`: makes landing files."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from contracts.commands import (
    DAY,
    Decorator,
    folder_group,
    one_day,
    run_line,
    span,
    table_text,
    together,
    with_deployment,
    with_home,
    with_landing_files,
)
from contracts.errors import NotYet
from contracts.features import LOGS, Log
from contracts.settings import SETTINGS_FILE, folder_python

if TYPE_CHECKING:
    from contracts.locations import Locations
    from contracts.settings import Deployment
    from sources.original import Converted
    from sources.simulator import SimulatorSettings

commands = folder_group("sources")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; see `tributary sources --help`."""
    return run_line(commands, argv)


def _number(name: str, default: float, help: str) -> Decorator:
    return click.option(
        name, type=type(default), default=default, metavar="N" if isinstance(default, int) else "X", help=help
    )


def _first_day(default: date) -> Decorator:
    return click.option("--from", "start", type=DAY, default=default, help="The first day.")


def _original(name: str) -> Decorator:
    return together(
        with_home,
        click.option(
            "--data",
            type=click.Path(path_type=Path),
            required=True,
            metavar="FOLDER",
            help=f"Folder of {name}'s original files, or its parent.",
        ),
    )


def simulator_settings(
    *, start: date, days: int, duplicate_rate: float, malformed_rate: float, late_rate: float, **world: Any
) -> SimulatorSettings:
    """Makes the simulator's settings from the options of `simulate`; `world` are the options of the made world."""
    from sources.faults import FaultRates
    from sources.simulator import SimulatorSettings
    from sources.world import WorldSettings

    return SimulatorSettings(
        start=start,
        days=days,
        world=WorldSettings(**world),
        faults=FaultRates(duplicates=duplicate_rate, malformed=malformed_rate, late=late_rate),
    )


@commands.add(
    "simulate",
    "Days of natural and ad impressions of a made world, as landing files, and the true click probability of each "
    "next to them. Equal options give equal bytes; more days begin with the same days. Rates are shares of the impressions.",
)
@with_home
@_first_day(date(2026, 1, 1))
@_number("--days", 120, "Days.")
@_number("--users", 2000, "Users; each makes about six impressions a day.")
@_number("--items", 1500, "Items that live at any time.")
@_number("--seed", 7, "Another one gives another world.")
@_number("--item-turnover", 0.1, "Share of the items that end within 30 days, each followed by a new one.")
@_number("--burst-rate", 0.4, "Share of visits that bring an interest in one category, gone within hours.")
@click.option(
    "--unrelated-domains",
    is_flag=True,
    help="Negative control: the ad domain has tastes, item qualities and interests of its own.",
)
@_number("--duplicate-rate", 0.01, "Impressions delivered twice.")
@_number("--malformed-rate", 0.002, "Additional rows that break a rule.")
@_number("--late-rate", 0.005, "Impressions that arrive with the next day's file.")
def _simulate(home: Path, **options: Any) -> None:
    from sources import simulator

    settings = simulator_settings(**options)
    done = simulator.simulate(settings, home)
    for log, rows in done.rows.items():
        impressions = done.impressions[log]
        print(
            f"{log}: {rows:,} rows for {impressions:,} impressions ({impressions / settings.days:,.0f} a day), "
            f"click rate {done.clicks[log] / max(impressions, 1):.3f}"
        )
    print(
        f"items: {settings.world.items:,} at any time, {done.items_born:,} born and {done.items_ended:,} ended meanwhile"
    )
    print(
        f"Wrote the true probabilities by day, and which faults each file holds ({simulator.INJECTED_FILE}), under {home / 'truth'}"
    )
    _print_next(home, done.rows)


@commands.add("kuairand")
@_original("KuaiRand-Pure")
@_number("--natural-tab", 1, "Scenario of the natural log.")
@_number("--ad-tab", 6, "Scenario taken as the ad log.")
def _kuairand(home: Path, data: Path, **options: Any) -> None:
    from sources.kuairand import KuaiRandSettings, convert

    _print_counts(home, convert(data, home, KuaiRandSettings(**options)))


@commands.add("movielens")
@_original("MovieLens-1M")
@_number("--ad-share", 0.12, "Share of the advertised items' ratings that make the ad log.")
@_number("--equal-days", 30, "Days of equal count.")
@_first_day(date(2001, 1, 1))
def _movielens(home: Path, data: Path, **options: Any) -> None:
    from sources.movielens import MovieLensSettings, convert

    _print_counts(home, convert(data, home, MovieLensSettings(**options)))


@commands.add("taobao")
@_original("Ali_Display_Ad_Click")
@span("First day (default: 2017-04-22).", "Last day, included (default: 2017-05-13).")
def _taobao(home: Path, data: Path, **options: Any) -> None:
    from sources.taobao import TaobaoSettings, convert

    _print_counts(
        home,
        convert(data, home, TaobaoSettings(**{name: value for name, value in options.items() if value is not None})),
    )


@commands.add("look")
@with_home
@click.argument("address", metavar="PATH_OR_TABLE")
@click.option("--log", type=click.Choice(LOGS), default=LOGS[0], show_default=True, help="Which log the rows are.")
def _look(home: Path, address: str, log: Log) -> None:
    from sources.proposal import days_of, guesses, profiles_of, settings_text
    from sources.sample import sample_of

    sample = sample_of(address)
    print(f"{len(sample.rows):,} rows of {sample.looked_at}\n")
    rows = [
        (
            one.name or "(no name)",
            one.type,
            f"{one.nulls:.0%}",
            one.distinct,
            ", ".join(one.examples),
            ", ".join(one.may_be),
        )
        for one in profiles_of(sample)
    ]
    print(table_text(("column", "type", "empty", "different", "examples", "may be"), rows))
    days = days_of(sample, guesses(sample, log))
    if days:
        print(f"\ndays: {days[0]} .. {days[-1]}{'' if sample.days else ' in the sample'}")
    text = settings_text(sample, log)
    path = home / (SETTINGS_FILE if not (home / SETTINGS_FILE).exists() else f"proposed-{log}.toml")
    home.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    print(f"\n{text}\nwrote {path}: guesses, so read every line")
    if path.name != SETTINGS_FILE:
        print(f"next: copy [landing.{log}] and its columns into {home / SETTINGS_FILE}")
    print(f"next: tributary sources check --home {home} --log {log} --ds {days[0] if days else 'DAY'}")


@commands.add("check")
@with_landing_files
def _check(home: Path, paths: Sequence[Path], strict: bool, **given: object) -> int:
    """Ingestion judges landing files, and ingestion is a job of Spark: the command there is asked."""
    options = [f"--{name}={value}" for name, value in given.items() if value is not None]
    command = [
        folder_python("spark_jobs") or sys.executable,
        "-m",
        "spark_jobs",
        "check_landing",
        f"--home={home}",
        *options,
        *(["--strict"] if strict else []),
        "--",
        *map(str, paths),
    ]
    sys.stdout.flush()
    return subprocess.run(command, check=False).returncode


@commands.add("ready")
@with_deployment
@one_day("Day of arrival.", required=True)
@click.option("--json", "as_json", is_flag=True, help="Also print what is missing as JSON.")
def _ready(locations: Locations, deployment: Deployment, ds: date, as_json: bool) -> None:
    from lake.completeness import findings, readiness

    following = f"tributary spark_jobs ingest_logs --home {locations.home} --ds {ds}"
    if deployment.completeness is None:
        print(f"{locations.home / SETTINGS_FILE} has no [completeness]: a day may be read once it has ended")
        print(f"next: {following}")
        return
    now = datetime.now(UTC)
    found = findings(locations, deployment, ds, now)
    answer = readiness(deployment, ds, found)
    for one in found:
        print(f"{'holds' if one.holds else 'MISSING'}: {one}")
    if not answer.missing:
        print(f"{ds} may be read\nnext: {following}")
        return
    if as_json:
        print(answer.line())
    raise NotYet(
        f"{ds} may not be read yet: {len(answer.missing)} of {len(found)} rules do not hold. "
        f"The scheduler {'waits' if now < answer.deadline else 'waited'} for the day until "
        f"{answer.deadline.astimezone(deployment.timezone):%Y-%m-%d %H:%M} in {deployment.day_timezone}. "
        f"Run this again when what is missing has been delivered; to read the day as it is, run: {following}"
    )


def _print_counts(home: Path, done: Converted) -> None:
    """What a conversion of original files has noticed and written."""
    for line in done.notes:
        print(line)
    _print_next(home, done.rows)


def _print_next(home: Path, rows: Mapping[str, int]) -> None:
    from contracts.settings import Deployment

    first = Deployment.load(home).history_start
    counts = ", ".join(f"{count:,} {log}" for log, count in rows.items())
    print(f"Wrote landing files ({counts} rows) under {home / 'landing'}, and {home / SETTINGS_FILE}")
    print(f"Next: TRIBUTARY_HOME={home} tributary spark_jobs ingest_logs --ds {first}")
