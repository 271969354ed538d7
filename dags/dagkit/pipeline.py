"""Makes the tasks of the daily steps, as `contracts.steps` declares them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from contracts.steps import LANDING, Step, begin_steps, day_steps
from dags.dagkit.assets import landing, tables
from dags.dagkit.commands import CommandOperator
from dags.dagkit.deployment import deployment
from dags.dagkit.page import Task, check_task, step_task, wait_task
from dags.dagkit.waiting import DeliveryOperator, WaitOperator

_WAITS = {"runs": WaitOperator, "delivery": DeliveryOperator}  # by what makes that which is missing


def step_operator(step: Step, *options: str, **kwargs: Any) -> CommandOperator:
    """Makes the task that runs a step.

    Args:
        step: the step, as the contracts declare it.
        options: further options of its command.
        kwargs: arguments of the operator, such as `cadence`.
    """
    inlets = [asset for name in step.reads for asset in (landing(name) if name in LANDING else tables(name))]
    return CommandOperator(
        task_id=step.task_id, command=[*step.command, *options], inlets=inlets, outlets=tables(*step.writes), **kwargs
    )


def check_operator(step: Step, *options: str, **kwargs: Any) -> CommandOperator:
    """Makes the task that checks the tables of a step, all in one process, since starting takes most of the time.

    Args:
        step: the step, as the contracts declare it.
        options: further options of the check's command.
        kwargs: arguments of the operator, such as `cadence`.
    """
    return CommandOperator(
        task_id=step.check_task,
        command=[*step.check_command, *options],
        inlets=tables(*step.judged),
        outlets=tables("quality_results"),
        **kwargs,
    )


def day_tasks(dag: str) -> None:
    """Makes the tasks of a daily DAG: each step runs after the checks of the tables that it reads, or else after their producers."""
    made: dict[str, CommandOperator] = {}
    begins = [
        _WAITS[one.awaits](task_id=wait_task(one).task, command=list(one.command), cadence="day")
        for one in _begin_steps(dag)
    ]
    for one in day_steps(dag):
        task = step_operator(one, cadence="day")
        before = {id(made[name]): made[name] for name in one.reads if name in made}
        for earlier in before.values() or begins:
            earlier >> task
        made |= dict.fromkeys(one.writes, task)
        if one.judged:
            check = check_operator(one, cadence="day")
            task >> check
            made |= dict.fromkeys((name for name in one.judged if name in one.writes), check)


def day_page_tasks(dag: str) -> list[Task]:
    """Describes the tasks of a daily DAG, in order, for its page."""
    return [*map(wait_task, _begin_steps(dag)), *step_page_tasks(day_steps(dag))]


def step_page_tasks(steps: Sequence[Step]) -> list[Task]:
    """Describes these steps and their checks, in order, for a DAG's page."""
    return [task for one in steps for task in (step_task(one), *([check_task(one)] if one.judged else []))]


def _begin_steps(dag: str) -> tuple[Step, ...]:
    return begin_steps(dag, has_completeness=deployment().completeness is not None)
