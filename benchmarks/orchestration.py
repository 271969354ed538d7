"""What Airflow costs a day: its wall time through the DAGs, beside the sum of the same commands run by hand.

`python -m benchmarks.orchestration --data FOLDER [--quick]`. KuaiRand's days 1 to 4 May, their history and the models that they rest
on made before. Two homes hold the same; each day's commands run one after the other in the one, then the backfills of its DAGs start
together in the other. Both use the Spark Connect server of one stack. The first day is not counted: it warms up what stays up.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from statistics import median

from benchmarks.recording import finish
from contracts.commands import table_text
from contracts.errors import BadInput
from contracts.kinds import KINDS
from contracts.locations import Locations
from contracts.periods import Parent
from contracts.settings import DATA_VARIABLE, HOME_VARIABLE, Deployment, data_folder
from contracts.transfer import reads
from tributary import stack
from tributary.airflow_api import AirflowApi
from tributary.backfills import start_all, wait_for_all
from tributary.demo import landing_days, plan_of

LOGS = ("natural_log", "ad_log")
FEATURES = ("user_histories", "natural_samples", "ad_samples")
HISTORY_JOBS = ("build_partials", "collect_behaviour_texts", "build_user_histories", "build_statistics", "build_samples")
DATA_DAGS = ("logs_daily", "features_daily")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=data_folder(), help="folder of KuaiRand's original files (default: TRIBUTARY_DATA)")
    parser.add_argument("--quick", action="store_true", help="the data's DAGs alone, and one day; nothing is recorded")
    parser.add_argument("--work", type=Path, default=Path("tributary-home/benchmark-orchestration"))
    parser.add_argument("--ui-port", type=int, default=stack.UI_PORT)
    parser.add_argument("--spark-port", type=int, default=stack.SPARK_PORT)
    options = parser.parse_args()
    if options.data is None:
        raise BadInput("benchmarks.orchestration", "--data", expected="the folder of KuaiRand's original files", found="none",
                       hint=f"Or set {DATA_VARIABLE}.")
    shutil.rmtree(options.work, ignore_errors=True)
    through, by_hand = (options.work.resolve() / name for name in ("airflow", "hand"))
    run(through, "sources", "kuairand", "--data", str(options.data))
    info = stack.up(through, ui_port=options.ui_port, spark_port=options.spark_port)
    try:
        os.environ |= {"SPARK_REMOTE": info.spark, "SPARK_CONNECT_AUTHENTICATE_TOKEN": info.token_file.read_text().strip()}
        rows = list(measured(through, by_hand, with_models=not options.quick, days=2 if options.quick else 4))
    finally:
        stack.down(through)
    table = [(day, f"{hand:.1f}", f"{airflow:.1f}", f"{airflow / hand:.2f}") for day, hand, airflow in rows]
    print(table_text(("day", "seconds by hand", "through Airflow", "ratio"), table))
    ratios = [airflow / hand for _, hand, airflow in rows]
    finish("orchestration", {"overhead": round(median(ratios), 3)}, quick=options.quick, packages=("apache-airflow", "pyspark", "torch"),
           details={"days": {str(day): {"by_hand": round(hand, 1), "airflow": round(airflow, 1)} for day, hand, airflow in rows}})
    shutil.rmtree(options.work)


def measured(through: Path, by_hand: Path, *, with_models: bool, days: int) -> Iterator[tuple[date, float, float]]:
    """Day, seconds by hand, seconds through Airflow; of each day but the first."""
    deployment = Deployment.load(through)
    plan = plan_of(deployment, landing_days(Locations(through)))
    make_history(through, *plan.history)
    api, spans_of = AirflowApi.of(through), daily_dags(deployment, with_models=with_models)
    if with_models:
        for parent in plan.trained:
            make_release(through, parent)
    shutil.copytree(through, by_hand, ignore=shutil.ignore_patterns("stack", "locks"), symlinks=True)
    for place, day in enumerate(plan.backfilled[:days]):
        if with_models:
            for home in (through, by_hand):
                for parent in plan.scheduled:  # weeks that closed since
                    if deployment.lineage.period(parent.kind, parent.period).end == day:
                        make_release(home, parent)
        began = time.perf_counter()
        for command in commands_of(day, spans_of):
            run(by_hand, *command)
        hand = time.perf_counter() - began
        spans = {dag: (day, day) for dag in spans_of}
        began = time.perf_counter()
        start_all(api, spans, reprocess="completed", say=say)
        wait_for_all(api, spans, say=say)
        if place:
            yield day, hand, time.perf_counter() - began


def daily_dags(deployment: Deployment, *, with_models: bool) -> list[str]:
    """The DAGs that make a day."""
    kinds = [kind for kind in ("fg_bert_users", "bahe", "actr")
             if kind == "actr" or reads("texts" if kind == "bahe" else "encoder", deployment.variants)]
    return [*DATA_DAGS, *(KINDS[kind].dag for kind in kinds if with_models)]


def commands_of(day: date, dags: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """What the tasks of a day's DAGs run, in order."""
    of_day = ("--ds", str(day))
    yield ("spark_jobs", "ingest_logs", *of_day)
    yield ("validation", "run", *tables(LOGS), *of_day)
    for job in HISTORY_JOBS:
        yield ("spark_jobs", job, *of_day)
    yield ("validation", "run", *tables(FEATURES), *of_day)
    for kind in KINDS.values():
        if kind.dag in dags:
            yield from release_commands(Parent(role="", kind=kind.name, period=day))


def make_history(home: Path, first: date, last: date) -> None:
    span = ("--from", str(first), "--to", str(last))
    run(home, "spark_jobs", "ingest_logs", *span)
    run(home, "validation", "run", *tables(LOGS), *span)
    for job in HISTORY_JOBS:
        run(home, "spark_jobs", job, *span)
    run(home, "validation", "run", *tables(FEATURES), *span)


def make_release(home: Path, release: Parent) -> None:
    for command in release_commands(release):
        run(home, *command)


def release_commands(release: Parent) -> Iterator[tuple[str, ...]]:
    """What makes a period's models, from texts to the release."""
    period = ("--kind", release.kind, "--period", str(release.period))
    if release.kind == "bahe":
        yield ("training", "encode_texts", "--ds", str(release.period))
        yield ("spark_jobs", "add_text_vectors")
    yield ("training", release.kind, KINDS[release.kind].period_option, str(release.period))
    yield ("validation", "gate", *period)
    yield ("publishing", "audit", *period)
    yield ("spark_jobs", "publish_release", *period)


def tables(names: Sequence[str]) -> list[str]:
    return [word for name in names for word in ("--table", name)]


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def run(home: Path, *arguments: str) -> None:
    """Runs `tributary <arguments>` on a home, as a person would."""
    say(f"$ tributary {' '.join(arguments)}   ({home.name})")
    subprocess.run([sys.executable, "-m", "tributary", *arguments], check=True, stdout=subprocess.DEVNULL,
                   env=os.environ | {HOME_VARIABLE: str(home)})


if __name__ == "__main__":
    main()
