"""Runs a command for the run's period."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from contracts.errors import EXIT_BAD_INPUT, EXIT_OK, EXIT_PARENT_MISSING, EXIT_QUALITY_FAILED, BadInput
from contracts.kinds import Cadence
from contracts.periods import Period
from dags.dagkit.child import Child
from dags.dagkit.days import period_of_context
from dags.dagkit.deployment import deployment

FINAL = {  # With these exit codes another try would end the same way.
    EXIT_BAD_INPUT: "bad input",
    EXIT_QUALITY_FAILED: "a quality check failed",
    EXIT_PARENT_MISSING: "a parent is missing",
}


class Command:
    """What the operators that run a `tributary` command share.

    Attributes:
        command: what follows `tributary`, e.g. `("spark_jobs", "ingest_logs")`.
        period_option: the option that takes the first day of the period; None for a command that is about no period.
        cadence: the cadence of that period; None for a DAG whose runs stand for no period.
    """

    command: Sequence[str]
    period_option: str | None
    cadence: Cadence | None
    log: Any
    _child: Child | None = None

    def run_command(self, context: Any) -> tuple[int, list[str]]:
        """Runs the command for the run's period and writes its output to the task's log.

        Args:
            context: the context that Airflow gives to the task.

        Returns:
            The command's exit code and the lines that it wrote.
        """
        arguments = [*self.command, *self._period_arguments(context)]
        self.log.info("$ tributary %s", " ".join(arguments))
        self._child = Child(arguments)
        lines: list[str] = []

        def show(line: str) -> None:
            lines.append(line)
            (self.log.error if line.startswith("error:") else self.log.info)("%s", line)

        code = self._child.run(show)
        self.log.info("exit code %d", code)
        return code, lines

    def refuse(self, code: int) -> NoReturn:
        """Raises the exception by which Airflow tries the task again, or does not.

        Args:
            code: the command's exit code, other than 0.

        Raises:
            AirflowFailException: another try would end the same way.
            AirflowException: another try may succeed.
        """
        assert self._child is not None
        result = f"tributary {' '.join(self._child.arguments)}: exit code {code}"
        if code in FINAL:
            raise AirflowFailException(f"{result} ({FINAL[code]}): {self._child.error_line()}")
        raise AirflowException(f"{result}: {self._child.error_line()}")

    def end_child(self) -> None:
        """Ends the command if it is still running."""
        if self._child is not None:
            self._child.end()

    def _period_arguments(self, context: Any) -> list[str]:
        if self.cadence is None:
            return []
        start = str(self._period(context, self.cadence).start)
        return [self.period_option, start] if self.period_option else []

    def _period(self, context: Any, cadence: Cadence) -> Period:
        try:
            period = period_of_context(context, deployment(), cadence, datetime.now(UTC))
        except BadInput as error:
            raise AirflowFailException(str(error)) from None
        if period is None:
            raise AirflowSkipException(f"no {cadence} ends with this day: nothing to do")
        return period


class CommandOperator(Command, BaseOperator):
    """Runs `tributary <command> <period_option> <first day of the run's period>`.

    Exit code 0 is success. Bad input, failed quality checks and missing parents fail the task at once; anything else is
    tried again. A retry policy of Airflow's would need an exception class for each of those codes, and would do no
    more.
    """

    template_fields: Sequence[str] = ("command",)
    ui_color = "#d5e8d4"

    def __init__(
        self, *, command: Sequence[str], cadence: Cadence | None, period_option: str | None = "--ds", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.command, self.cadence, self.period_option = list(command), cadence, period_option

    def execute(self, context: Any) -> None:
        """Runs the command; a failure is raised as `refuse` describes."""
        code, _ = self.run_command(context)
        if code != EXIT_OK:
            self.refuse(code)

    def on_kill(self) -> None:
        """Ends the command when Airflow ends the task."""
        self.end_child()
