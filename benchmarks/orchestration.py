"""What Airflow costs a day: its wall time through the DAGs, compared with the sum of the same commands run by hand.

`python -m benchmarks.orchestration --data FOLDER [--quick]`. KuaiRand's days 1 to 4 May, their history and the models
that they rest on made before. Two homes hold the same; each day's commands run one after the other in the one, then the
backfills of its DAGs start together in the other. Both use the Spark Connect server of one stack. The first day is not
counted: it warms up what stays up.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from pathlib import Path
from statistics import median

from benchmarks.recording import finish
from contracts.commands import table_text
from contracts.errors import BadInput
from contracts.kinds import KINDS
from contracts.locations import Locations
from contracts.settings import DATA_VARIABLE, HOME_VARIABLE, Deployment, data_folder
from contracts.steps import CADENCES, DAY_DAGS, commands_over, release_commands
from tributary import stack
from tributary.backfills import spans_of_days, start_all, wait_for_all
from tributary.demo_plan import landing_days, plan_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=data_folder(), help="folder of KuaiRand's original files (default: TRIBUTARY_DATA)"
    )
    parser.add_argument("--quick", action="store_true", help="only the data's DAGs, and one day; nothing is recorded")
    parser.add_argument("--work", type=Path, default=Path("tributary-home/benchmark-orchestration"))
    parser.add_argument("--ui-port", type=int, default=stack.UI_PORT)
    parser.add_argument("--spark-port", type=int, default=stack.SPARK_PORT)
    options = parser.parse_args()
    if options.data is None:
        raise BadInput(
            "benchmarks.orchestration",
            "--data",
            expected="the folder of KuaiRand's original files",
            found="none",
            hint=f"Or set {DATA_VARIABLE}.",
        )
    shutil.rmtree(options.work, ignore_errors=True)
    through, by_hand = (options.work.resolve() / name for name in ("airflow", "hand"))
    run(through, "sources", "kuairand", "--data", str(options.data))
    info = stack.up(through, ui_port=options.ui_port, spark_port=options.spark_port)
    try:
        os.environ |= {
            "SPARK_REMOTE": info.spark,
            "SPARK_CONNECT_AUTHENTICATE_TOKEN": info.token_file.read_text().strip(),
        }
        rows = list(measured(through, by_hand, with_models=not options.quick, days=2 if options.quick else 4))
    finally:
        stack.down(through)
    table = [(day, f"{hand:.1f}", f"{airflow:.1f}", f"{airflow / hand:.2f}") for day, hand, airflow in rows]
    print(table_text(("day", "seconds by hand", "through Airflow", "ratio"), table))
    ratios = [airflow / hand for _, hand, airflow in rows]
    finish(
        "orchestration",
        {"overhead": round(median(ratios), 3)},
        quick=options.quick,
        packages=("apache-airflow", "pyspark", "torch"),
        details={
            "days": {str(day): {"by_hand": round(hand, 1), "airflow": round(airflow, 1)} for day, hand, airflow in rows}
        },
    )
    shutil.rmtree(options.work)


def measured(through: Path, by_hand: Path, *, with_models: bool, days: int) -> Iterator[tuple[date, float, float]]:
    """Day, seconds by hand, seconds through Airflow; of each day but the first."""
    deployment = Deployment.load(through)
    plan = plan_of(deployment, landing_days(Locations(through)))
    span = ("--from", str(plan.history[0]), "--to", str(plan.history[1]))
    run_all(through, commands_over(span))
    api, dags = stack.api(through), daily_dags(deployment, plan.backfilled[0], with_models=with_models)
    for parent in plan.trained if with_models else ():
        run_all(through, release_commands(parent.kind, parent.period))
    shutil.copytree(through, by_hand, ignore=shutil.ignore_patterns("stack", "locks"), symlinks=True)
    for place, day in enumerate(plan.backfilled[:days]):
        if with_models:
            for home in (through, by_hand):
                for parent in plan.scheduled:  # weeks that closed since
                    if deployment.lineage.period(parent.kind, parent.period).end == day:
                        run_all(home, release_commands(parent.kind, parent.period))
        began = time.perf_counter()
        run_all(by_hand, commands_of(day, dags))
        hand = time.perf_counter() - began
        spans = {dag: (day, day) for dag in dags}
        began = time.perf_counter()
        start_all(api, spans, reprocess="completed", say=say)
        wait_for_all(api, spans, say=say)
        if place:
            yield day, hand, time.perf_counter() - began


def daily_dags(deployment: Deployment, day: date, *, with_models: bool) -> list[str]:
    """The DAGs that make a day."""
    return [
        dag
        for dag in spans_of_days(deployment, day, day)
        if CADENCES[dag] == "day" and (with_models or dag in DAY_DAGS)
    ]


def commands_of(day: date, dags: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """What the tasks of a day's DAGs run, in order."""
    yield from commands_over(("--ds", str(day)))
    for kind in KINDS.values():
        if kind.dag in dags:
            yield from release_commands(kind.name, day)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def run_all(home: Path, commands: Iterable[tuple[str, ...]]) -> None:
    for arguments in commands:
        run(home, *arguments)


def run(home: Path, *arguments: str) -> None:
    """Runs `tributary <arguments>` on a home, as a person would."""
    say(f"$ tributary {' '.join(arguments)}   ({home.name})")
    subprocess.run(
        [sys.executable, "-m", "tributary", *arguments],
        check=True,
        stdout=subprocess.DEVNULL,
        env=os.environ | {HOME_VARIABLE: str(home)},
    )


if __name__ == "__main__":
    main()
