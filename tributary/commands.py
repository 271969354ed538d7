"""The command's own sub-commands; imported only when one of them runs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

from contracts import zones
from contracts.commands import day
from contracts.errors import EXIT_BAD_INPUT, BadInput
from contracts.kinds import RECIPES
from contracts.locations import Locations
from contracts.periods import PeriodSettings
from contracts.settings import SETTINGS_FILE, Deployment, folder_python, home_folder, lake_address
from contracts.transfer import DEFAULT_VARIANTS, TRANSFER_SETTINGS
from tributary.own import own_parser


def main(name: str, argv: Sequence[str]) -> int:
    """Runs one of `tributary.own.OWN`."""
    if name == "demo":
        from tributary import demo

        return demo.main(list(argv))
    if name == "drill":
        from tributary.drill import command as drill

        return drill.main(argv)
    if name == "dags":
        from tributary import dags_command

        return dags_command.main(argv)
    if name == "forget":
        from tributary import forget

        return forget.main(argv)
    if name == "compose-env":
        from tributary import compose_env

        return compose_env.main(argv)
    return {"init": _init, "up": _up, "down": _down, "status": _status}[name](argv)


def _init(argv: Sequence[str]) -> int:
    parser = own_parser("init")
    parser.add_argument("--history-start", type=day, required=True, help="first day with logs")
    parser.add_argument("--history-end", type=day, help="last day of a closed data set; none if days keep coming")
    parser.add_argument("--actr-start", type=day, required=True, help="the one ad-model day without a predecessor")
    parser.add_argument("--ad-start", type=day, help="first day with advertisements if they began later: before it no ad folder is needed")
    parser.add_argument("--day-timezone", default="UTC", help="IANA name; a day begins at its midnight (default UTC)")
    parser.add_argument("--source", default="own", help="where the landing files come from, for people")
    parser.add_argument("--allowed-lateness-days", type=int, default=1, help="how many days late an event may arrive (default 1)")
    parser.add_argument("--feedback-delay-seconds", type=int, default=600, help="age at which a behaviour may be used (default 600)")
    parser.add_argument("--replay-days", type=int, default=30, help="ad days replayed from a new CPM (default 30)")
    parser.add_argument("--recipe", choices=RECIPES, default=RECIPES[0], help="settings of the models (default %(default)s)")
    parser.add_argument("--string-ids", nargs="*", default=[], metavar="COLUMN", help="landing columns that hold strings")
    parser.add_argument("--variants", nargs="+", default=list(DEFAULT_VARIANTS), choices=tuple(TRANSFER_SETTINGS), metavar="SETTING",
                        help=f"transfer settings trained side by side, of {', '.join(TRANSFER_SETTINGS)} (default: %(default)s)")
    parser.add_argument("--anchor", type=day, help="with --month-days and --week-days: equal blocks instead of the calendar's")
    parser.add_argument("--month-days", type=int, help="length of a month in days")
    parser.add_argument("--week-days", type=int, help="length of a week in days")
    parser.add_argument("--force", action="store_true", help=f"write over an existing {SETTINGS_FILE}")
    options = parser.parse_args(argv)
    home = home_folder()
    deployment = Deployment(
        day_timezone=options.day_timezone, history_start=options.history_start, history_end=options.history_end,
        actr_start=options.actr_start, ad_start=options.ad_start, allowed_lateness_days=options.allowed_lateness_days,
        feedback_delay_seconds=options.feedback_delay_seconds, replay_days=options.replay_days, recipe=options.recipe,
        string_ids=tuple(options.string_ids), variants=tuple(options.variants), source=options.source,
        periods=PeriodSettings(anchor=options.anchor, month_days=options.month_days, week_days=options.week_days))
    path = home / SETTINGS_FILE
    if path.exists() and not options.force and path.read_text() != deployment.to_toml():
        raise BadInput(path, "file", expected="no other settings there", found="a deployment",
                       hint="Its lake was built with them; `--force` writes over them.")
    _require_zone(deployment)
    home.mkdir(parents=True, exist_ok=True)
    path.write_text(deployment.to_toml())
    print(f"wrote {path}")
    print(f"next: landing files under {home / 'landing'} (see `tributary sources --help`), then `tributary up --home {home}`")
    return 0


def _require_zone(deployment: Deployment) -> None:
    """Asks Java and Python for the days of the deployment's time zone.

    Raises:
        BadInput: one of them does not know it, they differ, or a day of it is no stretch of time.
    """
    name, first = deployment.day_timezone, deployment.history_start
    last = zones.last_day(first, deployment.history_end)
    zones.require_days(name, first, last)
    if name == zones.FIXED:
        return
    java = subprocess.run([folder_python("spark_jobs") or sys.executable, "-m", "lake.zones", name, str(first), str(last)],
                          capture_output=True, text=True, check=False)
    if java.returncode == EXIT_BAD_INPUT:
        print(f"note: {java.stderr.strip()}\nnote: Java's rules for {name} are compared with Python's when Spark starts", file=sys.stderr)
        return
    if java.returncode != 0:
        raise BadInput("this machine", "java", expected="its rules of time zones", found=java.stderr.strip()[-500:])
    zones.require_same(name, [zones.python_rules(name, first, last), zones.Rules(**json.loads(java.stdout))])


def _up(argv: Sequence[str]) -> int:
    from tributary import stack

    parser = own_parser("up")
    parser.add_argument("--ui-port", type=int, default=stack.UI_PORT, help=f"Airflow's UI and API (default {stack.UI_PORT})")
    parser.add_argument("--spark-port", type=int, default=stack.SPARK_PORT, help=f"Spark Connect (default {stack.SPARK_PORT})")
    options = parser.parse_args(argv)
    stack.up(home_folder(), ui_port=options.ui_port, spark_port=options.spark_port)
    return 0


def _down(argv: Sequence[str]) -> int:
    from tributary import stack

    own_parser("down").parse_args(argv)
    stack.down(home_folder())
    return 0


def _status(argv: Sequence[str]) -> int:
    from tributary import stack

    own_parser("status").parse_args(argv)
    home = home_folder()
    print(stack.status(home))
    if lake_address() is None and not Locations(home).table("builds").is_dir():
        return 0
    print(flush=True)
    python = folder_python("spark_jobs") or sys.executable
    return subprocess.run([python, "-m", "spark_jobs", "list_stale", "--home", str(home)], check=False).returncode
