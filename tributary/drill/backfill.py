"""The work that runs while parts of the stack are killed: logs and features of a few simulated days, through Airflow."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date

from contracts.errors import TributaryError
from contracts.steps import DAY_DAGS
from tributary.airflow_api import UNFINISHED, AirflowApi, ApiError, Run

RUNS_AT_A_TIME = 2
TRIES = 3  # How often a person would run failed runs again before looking for the reason.


class NotReached(TributaryError):
    """The backfill did not come to its end."""

    exit_code = 1


@dataclass(kw_only=True)
class Backfill:
    """Backfills of both DAGs over the same days, repeated for as long as the drill needs work to disturb.

    Attributes:
        api: the API of the running stack.
        first: the first day.
        last: the last day, included.
        rounds: how often one of them was started.
        failed: runs that failed, as `dag day`, once for each failure.
    """

    api: AirflowApi
    first: date
    last: date
    rounds: int = 0
    failed: list[str] = field(default_factory=list)

    def keep_going(self) -> None:
        """Starts the backfills that have ended or were never started; does nothing while the API cannot be reached."""
        try:
            for dag in DAY_DAGS:
                runs = self.api.runs(dag, self.first, self.last)
                if not any(run.state in UNFINISHED for run in runs):
                    self._start(dag)
                    self._note_failures(runs)
        except ApiError:
            return

    def finish(self, *, timeout_seconds: float, say: Callable[[str], None]) -> None:
        """Waits until every run has succeeded; failed runs are run again, as a person would do.

        Args:
            timeout_seconds: the longest wait.
            say: called with a line for the person who watches.

        Raises:
            NotReached: the time is over, or runs kept failing.
        """
        deadline = time.monotonic() + timeout_seconds
        for dag in DAY_DAGS:
            if not self.api.runs(dag, self.first, self.last):
                self._start(dag)
        for _ in range(TRIES):
            failed = self._note_failures(self._ended(deadline))
            if not failed:
                return
            for run in failed:
                say(f"failed: {run.dag_id} {run.period}: run again. {self._why(run)}")
            for dag in {run.dag_id for run in failed}:
                self.api.create_backfill(dag, self.first, self.last, max_active_runs=RUNS_AT_A_TIME, reprocess="failed")
        if failed := self._note_failures(self._ended(deadline)):
            raise NotReached(
                f"{failed[0].dag_id} {failed[0].period}: expected success after {TRIES} more runs, found failures. "
                f"{self._why(failed[0])}"
            )

    def runs(self) -> list[Run]:
        """Returns the runs of all daily DAGs in the range of the backfill."""
        return [run for dag in DAY_DAGS for run in self.api.runs(dag, self.first, self.last)]

    def _start(self, dag: str) -> None:
        self.api.unpause(dag)
        self.api.create_backfill(dag, self.first, self.last, max_active_runs=RUNS_AT_A_TIME, reprocess="completed")
        self.rounds += 1

    def _ended(self, deadline: float) -> list[Run]:
        found = "no answer of the API"
        while time.monotonic() < deadline:
            try:
                runs = self.runs()
                if runs and not any(run.state in UNFINISHED for run in runs):
                    return runs
                found = ", ".join(f"{run.dag_id} {run.period} {run.state}" for run in runs)
            except ApiError as error:
                found = str(error)
            time.sleep(2)
        raise NotReached(f"the backfill: expected its end in time, found: {found}")

    def _note_failures(self, runs: list[Run]) -> list[Run]:
        failed = [run for run in runs if run.state == "failed"]
        self.failed += [f"{run.dag_id} {run.period}" for run in failed]
        return failed

    def _why(self, run: Run) -> str:
        try:
            return self.api.failures(run.dag_id, run.run_id, lines=3)
        except ApiError as error:
            return str(error)
