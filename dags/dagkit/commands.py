"""The two operators of this project: run a command for the run's period; wait until a command says that it may go on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from airflow.sdk import BaseOperator, BaseSensorOperator, chain
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from contracts.errors import EXIT_BAD_INPUT, EXIT_NOT_YET, EXIT_OK, EXIT_PARENT_MISSING, EXIT_QUALITY_FAILED, BadInput
from contracts.kinds import KINDS
from contracts.periods import Cadence, Period
from dags.dagkit.child import Child
from dags.dagkit.days import period_of_context
from dags.dagkit.deployment import deployment

POKE_SECONDS = 10
WAIT = timedelta(hours=12)  # for what others are about to make; after it somebody should look
FINAL = {  # another try would end the same way
    EXIT_BAD_INPUT: "bad input",
    EXIT_QUALITY_FAILED: "a quality check failed",
    EXIT_PARENT_MISSING: "a parent is missing",
}


class _Command:
    """What both operators share.

    Attributes:
        command: what follows `tributary`, e.g. `("spark_jobs", "ingest_logs")`.
        period_option: option that takes the first day of the period; None of a command that is about no period.
        cadence: of that period.
    """

    command: Sequence[str]
    period_option: str | None
    cadence: Cadence
    log: Any
    _child: Child | None = None

    def run_command(self, context: Any) -> int:
        """Runs the command for the run's period, its output in the task's log; returns its exit code."""
        start = str(self._period(context).start)
        arguments = [*self.command, *([self.period_option, start] if self.period_option else [])]
        self.log.info("$ tributary %s", " ".join(arguments))
        self._child = Child(arguments)
        code = self._child.run(lambda line: self.log.error("%s", line) if line.startswith("error:") else self.log.info("%s", line))
        self.log.info("exit code %d", code)
        return code

    def refuse(self, code: int) -> NoReturn:
        """Raises what an exit code other than 0 means to Airflow."""
        assert self._child is not None
        said = f"tributary {' '.join(self._child.arguments)}: exit code {code}"
        if code in FINAL:
            raise AirflowFailException(f"{said} ({FINAL[code]}): {self._child.error_line()}")
        raise AirflowException(f"{said}: {self._child.error_line()}")

    def end_child(self) -> None:
        if self._child is not None:
            self._child.end()

    def _period(self, context: Any) -> Period:
        try:
            period = period_of_context(context, deployment(), self.cadence, datetime.now(UTC))
        except BadInput as error:
            raise AirflowFailException(str(error)) from None
        if period is None:
            raise AirflowSkipException(f"no {self.cadence} ends with this day: nothing to do")
        return period


class CommandOperator(_Command, BaseOperator):
    """Runs `tributary <command> <period_option> <first day of the run's period>`.

    Exit code 0 is success; bad input, failed quality and missing parents fail at once; anything else is tried again.
    """

    template_fields: Sequence[str] = ("command",)
    ui_color = "#d5e8d4"

    def __init__(self, *, command: Sequence[str], cadence: Cadence, period_option: str | None = "--ds", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.command, self.cadence, self.period_option = list(command), cadence, period_option

    def execute(self, context: Any) -> None:
        code = self.run_command(context)
        if code != EXIT_OK:
            self.refuse(code)

    def on_kill(self) -> None:
        self.end_child()


class CommandSensor(_Command, BaseSensorOperator):
    """Waits until such a command exits with 0; 75 means not yet. Holds no worker while it waits."""

    template_fields: Sequence[str] = ("command",)
    ui_color = "#dae8fc"

    def __init__(self, *, command: Sequence[str], cadence: Cadence, period_option: str = "--ds", **kwargs: Any) -> None:
        super().__init__(mode="reschedule", poke_interval=POKE_SECONDS, timeout=WAIT, **kwargs)
        self.command, self.cadence, self.period_option = list(command), cadence, period_option

    def poke(self, context: Any) -> bool:
        code = self.run_command(context)
        if code not in (EXIT_OK, EXIT_NOT_YET):
            self.refuse(code)
        return code == EXIT_OK

    def on_kill(self) -> None:
        self.end_child()


def model_tasks(kind: str, *, first: Sequence[CommandOperator] = ()) -> None:
    """The tasks of one kind of model, in a row: wait for its parents, what comes `first`, train, gate, audit, publish."""
    from dags.dagkit.defaults import GPU_POOL

    period: dict[str, Any] = {"cadence": KINDS[kind].cadence, "period_option": "--period"}
    training = {**period, "period_option": KINDS[kind].period_option}
    wait = CommandSensor(task_id="wait_for_parents", command=["publishing", "parents", "--kind", kind], **period)
    train = CommandOperator(task_id=f"train_{kind}", command=["training", kind], pool=GPU_POOL, **training)
    gate = CommandOperator(task_id=f"gate_{kind}", command=["validation", "gate", "--kind", kind], **period)
    audit = CommandOperator(task_id=f"audit_{kind}", command=["publishing", "audit", "--kind", kind], **period)
    publish = CommandOperator(task_id=f"publish_{kind}", command=["spark_jobs", "publish_release", "--kind", kind], **period)
    chain(wait, *first, train, gate, audit, publish)
