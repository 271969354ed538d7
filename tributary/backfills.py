"""Backfills of several DAGs: what a range of days means to each of them, starting them in order, and waiting for all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date

from contracts.commands import table_text
from contracts.errors import TributaryError
from contracts.kinds import KINDS
from contracts.periods import ONE_DAY, days_between
from contracts.settings import Deployment
from contracts.steps import CADENCES, DAY_DAGS
from contracts.transfer import is_read
from tributary.airflow_api import UNFINISHED, AirflowApi, Reprocess, Run, RunFailed

Say = Callable[[str], None]
Spans = Mapping[str, tuple[date, date]]  # by DAG, the first days of the first and the last period

AD_MODEL = KINDS["actr"].dag
ORDER = (*DAY_DAGS, *(kind.dag for kind in KINDS.values()))
CHAINED = tuple(kind.dag for kind in KINDS.values() if kind.goes_on)


class BackfillsLate(TributaryError):
    """The runs did not end in time; they go on."""

    exit_code = 1


def spans_of_days(deployment: Deployment, first: date, last: date) -> dict[str, tuple[date, date]]:
    """What the schedule would have made on the days from `first` to `last`: of each DAG the periods that end within them.

    Kinds of model that no transfer setting of the deployment reads have none, nor have those whose first period comes
    later.
    """
    found = {}
    kinds = {kind.dag: kind.name for kind in KINDS.values()}
    for dag in ORDER:
        periods = [
            start
            for start in _ending(deployment, dag, first, last)
            if dag in DAY_DAGS or _is_made(deployment, kinds[dag], start)
        ]
        if periods:
            found[dag] = (periods[0], periods[-1])
    return found


def _ending(deployment: Deployment, dag: str, first: date, last: date) -> list[date]:
    settings, cadence = deployment.periods, CADENCES[dag]
    periods = [settings.containing(cadence, day) for day in days_between(first, last + ONE_DAY)]
    return sorted(
        {period.start for period in periods if period.end <= last + ONE_DAY and deployment.lineage.exists(period)}
    )


def _is_made(deployment: Deployment, kind: str, start: date) -> bool:
    """Whether the deployment has such a period at all."""
    return is_read(kind, deployment.variants) and start >= deployment.lineage.first_periods.get(kind, start)


def start_all(
    api: AirflowApi,
    spans: Spans,
    *,
    max_active_runs: Mapping[str, int] | int = 1,
    reprocess: Reprocess = "failed",
    backwards: bool = False,
    recipe: str | None = None,
    transfer: str | None = None,
    say: Say = print,
) -> None:
    """Starts a backfill of each DAG, those that others wait for first.

    Args:
        api: the API of the running stack.
        spans: for each DAG, the first and the last period to run.
        max_active_runs: how many periods run at a time, for all DAGs or by DAG.
        reprocess: which periods are run besides those that have no run yet.
        backwards: whether to run the newest period first. Of several DAGs, those whose periods are chained run the oldest
            first all the same, since Airflow refuses to run them backwards.
        recipe: the recipe of the DAGs that train models; None for the recipe of the deployment.
        transfer: the one transfer setting for which the ad model is trained; None for all of the deployment.
        say: called with a line for the person who waits, once a backfill has started.
    """
    for dag in sorted(spans, key=ORDER.index):
        api.unpause(dag)  # the runs of a paused DAG stay queued
        runs = max_active_runs if isinstance(max_active_runs, int) else max_active_runs.get(dag, 1)
        conf = {} if recipe is None or dag in DAY_DAGS else {"recipe": recipe}
        conf |= {"transfer": transfer} if transfer and dag == AD_MODEL else {}
        number = api.create_backfill(
            dag,
            *spans[dag],
            max_active_runs=runs,
            reprocess=reprocess,
            conf=conf,
            backwards=backwards and (len(spans) == 1 or dag not in CHAINED),
        )
        say(f"backfill {number} of {dag}: {spans[dag][0]} .. {spans[dag][1]}, {api.address}/dags/{dag}")


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What became of the runs of a DAG.

    Attributes:
        runs: all of them, in the order of their periods.
    """

    dag: str
    runs: tuple[Run, ...]

    @property
    def failed(self) -> list[Run]:
        """The runs that have failed."""
        return [run for run in self.runs if run.state == "failed"]

    @property
    def is_over(self) -> bool:
        """Whether no run goes on or waits."""
        return not any(run.state in UNFINISHED for run in self.runs)

    @property
    def progress(self) -> str:
        """How many runs have succeeded and failed, in one line."""
        text = f"{self.dag} {sum(run.state == 'success' for run in self.runs)}/{len(self.runs)}"
        return f"{text} ({len(self.failed)} failed)" if self.failed else text


def wait_for_all(
    api: AirflowApi, spans: Spans, *, at_first_failure: bool = True, timeout_seconds: float = 86_400, say: Say = print
) -> list[Ended]:
    """Waits until every run of these DAGs and periods has ended, with a line whenever one changes.

    Args:
        api: the API of the running stack.
        spans: for each DAG, the first and the last period to wait for.
        at_first_failure: whether to stop waiting when one has failed; otherwise all that can still end is waited for.
        timeout_seconds: the longest wait.
        say: called with a line for the person who waits, whenever a run has changed.

    Raises:
        RunFailed: `at_first_failure`, and one failed; the message ends with the tail of its log.
        BackfillsLate: they did not end in time.
    """
    began, shown = time.monotonic(), ""
    while True:
        ended = [Ended(dag=dag, runs=tuple(api.runs(dag, *spans[dag]))) for dag in sorted(spans, key=ORDER.index)]
        line = ", ".join(one.progress for one in ended)
        if line != shown:
            say(f"{time.monotonic() - began:6.1f} s  {line}")
            shown = line
        failed = [run for one in ended for run in one.failed]
        if failed and at_first_failure:
            raise RunFailed(
                f"{failed[0].dag_id} {failed[0].period}: failed.\n{api.failures(failed[0].dag_id, failed[0].run_id)}"
            )
        if all(one.runs and one.is_over for one in ended):
            return ended
        if time.monotonic() - began >= timeout_seconds:
            raise BackfillsLate(
                f"{shown}: expected all runs to end within {timeout_seconds:.0f} s. They go on: see {api.address}"
            )
        time.sleep(3)


def table_of(ended: list[Ended]) -> str:
    """A row for each DAG: its periods, how many runs succeeded and failed, and how long they took together."""
    rows = [
        (
            one.dag,
            f"{one.runs[0].period} .. {one.runs[-1].period}",
            sum(run.state == "success" for run in one.runs),
            ", ".join(str(run.period) for run in one.failed) or "-",
            f"{sum(run.seconds or 0 for run in one.runs):.0f}",
        )
        for one in ended
    ]
    return table_text(("dag", "periods", "succeeded", "failed", "seconds of all runs"), rows)
