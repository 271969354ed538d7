"""Waits until a command finds its inputs; where nothing is making them any more, the task fails with what a person does."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.standard.triggers.temporal import DateTimeTrigger
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from contracts.awaited import Awaited
from contracts.completeness import Readiness
from contracts.errors import EXIT_NOT_YET, EXIT_OK
from contracts.kinds import Cadence
from dags.dagkit.commands import Command
from dags.dagkit.runs import RunsTrigger

WAIT = timedelta(hours=12)  # The longest wait for other runs; after it a person should look.
ASK_AGAIN = timedelta(minutes=5)  # Between two looks at a delivery; each takes a worker for some seconds.


class AskOperator(Command, BaseOperator):
    """Runs `tributary <command> --json` until it exits with 0; exit code 75 means that something is missing.

    Between two tries the task is deferred, so that it holds no worker. How long, a subclass decides in `not_yet`.
    """

    template_fields: Sequence[str] = ("command",)
    ui_color = "#dae8fc"

    def __init__(self, *, command: Sequence[str], cadence: Cadence, period_option: str = "--ds", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.command, self.cadence, self.period_option = [*command, "--json"], cadence, period_option

    def execute(self, context: Any) -> None:
        """Runs the command for the first time."""
        self._ask(context, None)

    def execute_complete(self, context: Any, event: Any) -> None:
        """Runs the command again after the trigger has fired: only the command decides whether the inputs are there.

        Args:
            context: the context that Airflow gives to the task.
            event: what the trigger gave.
        """
        self._ask(context, event)

    def _ask(self, context: Any, event: Any) -> None:
        code, lines = self.run_command(context)
        if code == EXIT_OK:
            return
        if code != EXIT_NOT_YET:
            self.refuse(code)
        self.not_yet(context, lines, event)

    def not_yet(self, context: Any, lines: Sequence[str], event: Any) -> None:
        """Defers the task, or gives the wait up.

        Args:
            context: the context that Airflow gives to the task.
            lines: what the command wrote.
            event: what the last trigger gave; None at the first try.

        Raises:
            AirflowFailException: nothing is coming any more.
        """
        raise NotImplementedError

    def on_kill(self) -> None:
        """Ends the command when Airflow ends the task."""
        self.end_child()


class WaitOperator(AskOperator):
    """Waits for the runs that make what the command misses, and asks it again when they have ended.

    `dagkit.coming` explains why no runs can block each other.
    """

    def not_yet(self, context: Any, lines: Sequence[str], event: Any) -> None:
        """Waits for the runs, or gives up where none is going to make what is missing."""
        missing = Awaited.read(lines)
        refused = [one for one in missing if event is not None and event["final"] and one.dag == event["dag"]]
        if event is not None and refused:
            raise AirflowFailException("; and ".join(dict.fromkeys(why(one, event["state"]) for one in refused)))
        self._defer(context, missing, asked_again=event is not None and event["state"] == "made")

    def _defer(self, context: Any, missing: Sequence[Awaited], *, asked_again: bool) -> None:
        awaited: dict[str, list[str]] = {}
        for one in missing:
            awaited[one.dag] = sorted({*awaited.get(one.dag, []), *map(str, one.periods)})
        self.defer(
            method_name="execute_complete",
            trigger=RunsTrigger(
                own_dag=context["dag_run"].dag_id,
                awaited=awaited,
                asked_again=asked_again,
                wait_seconds=WAIT.total_seconds(),
            ),
        )


class DeliveryOperator(AskOperator):
    """Waits for what a team delivers: asks again every few minutes until the deadline that the command names.

    A day whose deadline is over, as most days of a backfill, is looked at once.
    """

    def not_yet(self, context: Any, lines: Sequence[str], event: Any) -> None:
        """Waits some minutes, or until the day may be read at all; after the deadline it gives up."""
        found, now = Readiness.read(lines), datetime.now(UTC)
        if now >= found.deadline:
            raise AirflowFailException(
                f"{found.day} was waited for until {found.deadline}, and is not complete: {'; '.join(found.missing)}. Deliver what "
                f"is missing, then clear this task; tributary sources ready --ds {found.day} shows whether the day may be read."
            )
        moment = min(max(now + ASK_AGAIN, found.opens), found.deadline)
        self.log.info("asks again at %s, and waits until %s", moment, found.deadline)
        self.defer(method_name="execute_complete", trigger=DateTimeTrigger(moment=moment))


def why(one: Awaited, state: str) -> str:
    """Returns the message of a wait that is given up: what is missing, the state of the run that makes it, and the command to run."""
    return {
        "absent": f"{one.what}: no run of {one.dag} is making it. Run: {one.command}",
        "failed": f"{one.what}: the run of {one.dag} that makes it has failed. Correct what its log names, then run: "
        f"{one.command} --reprocess failed",
        "made": f"{one.what}: the run of {one.dag} that makes it has succeeded, but it is missing. "
        f"Run: {one.command} --reprocess completed",
        "behind": f"{one.what}: the run of {one.dag} that makes it is queued, and no older run is running: this one may have blocked it. "
        f"Clear this task when that run has ended; if it does not begin, run: {one.command}",
        "late": f"{one.what}: expected within {WAIT.total_seconds() / 3600:.0f} h, but the runs of {one.dag} that make it have not "
        f"ended. Look at them, and clear this task when they have ended; if there are none, run: {one.command}",
    }[state]
