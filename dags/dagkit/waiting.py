"""Waits until a command finds its inputs; where no run is making them, the task fails with the command that does."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from contracts.awaited import Awaited
from contracts.errors import EXIT_NOT_YET, EXIT_OK
from contracts.kinds import Cadence
from dags.dagkit.commands import Command
from dags.dagkit.runs import RunsTrigger

WAIT = timedelta(hours=12)  # The longest wait for other runs; after it a person should look.


class WaitOperator(Command, BaseOperator):
    """Runs `tributary <command> --json` until it exits with 0; exit code 75 means that something is missing.

    The operator then waits for the runs that make it, and runs the command again when they have ended. It holds no
    worker meanwhile (`dagkit.coming` explains why no runs can block each other).
    """

    template_fields: Sequence[str] = ("command",)
    ui_color = "#dae8fc"

    def __init__(self, *, command: Sequence[str], cadence: Cadence, period_option: str = "--ds", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.command, self.cadence, self.period_option = [*command, "--json"], cadence, period_option

    def execute(self, context: Any) -> None:
        """Runs the command for the first time."""
        self._ask(context, None)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> None:
        """Runs the command again after the trigger has fired: only the command decides whether the inputs are there.

        Args:
            context: the context that Airflow gives to the task.
            event: what `Watch.judge` decided.
        """
        self._ask(context, event)

    def _ask(self, context: Any, event: dict[str, Any] | None) -> None:
        code, lines = self.run_command(context)
        if code == EXIT_OK:
            return
        if code != EXIT_NOT_YET:
            self.refuse(code)
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

    def on_kill(self) -> None:
        """Ends the command when Airflow ends the task."""
        self.end_child()


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
