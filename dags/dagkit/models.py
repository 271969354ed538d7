"""The tasks that make, judge and publish one kind of model, as `contracts.kinds` declares it."""

from __future__ import annotations

from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import chain
from airflow.task.trigger_rule import TriggerRule

from contracts.kinds import Kind
from contracts.steps import Part, release_parts
from dags.dagkit.assets import releases, tables
from dags.dagkit.commands import CommandOperator
from dags.dagkit.defaults import GPU_POOL, RECIPE, TRANSFER
from dags.dagkit.priority import ScheduledFirst
from dags.dagkit.waiting import WaitOperator

RECIPE_OPTION = ["--recipe", f"{{{{ params.{RECIPE} }}}}"]
TRANSFER_OPTION = ["--transfer", f"{{{{ params.{TRANSFER} }}}}"]


def model_tasks(kind: Kind) -> None:
    """Makes the tasks of one kind of model, in a row: wait for the parents, prepare the training, train, gate, audit, publish.

    Airflow refuses a backfill of a chain that runs backwards when it is made, since the task `oldest_first` depends on
    the previous run. That task does nothing, and ends as soon as the wait has ended in whatever way. So a failed run
    never blocks a later one without a message, as it would if training itself depended on the previous run. Manual runs
    and first runs depend on no other.
    """
    wait = WaitOperator(
        task_id="wait_for_parents",
        command=["publishing", "parents", "--kind", kind.name],
        cadence=kind.cadence,
        period_option="--period",
    )
    tasks = [_task(kind, part) for part in release_parts(kind)]
    chain(wait, *tasks)
    if kind.goes_on:
        (
            wait
            >> EmptyOperator(task_id="oldest_first", depends_on_past=True, trigger_rule=TriggerRule.ALL_DONE)
            >> tasks[0]
        )


def _task(kind: Kind, part: Part) -> CommandOperator:
    """Makes the task of one part of a release; the parts that train share the pool `gpu`, where scheduled runs go first."""
    arguments: dict[str, Any] = {"task_id": part.task, "cadence": kind.cadence, "period_option": part.period_option}
    command = [*part.step.command, *part.options]
    if part.trains and kind.trains:
        command += RECIPE_OPTION
    if part.trains:
        arguments |= {"pool": GPU_POOL, "weight_rule": ScheduledFirst()}
    inlets, outlets = tables(*part.step.reads), tables(*part.step.writes)
    if part.step.command == ("training", kind.name):
        command += TRANSFER_OPTION if kind.transfers else []
        inlets += releases(*dict.fromkeys(parent.kind for parent in kind.parents))
    elif part.step.command == ("publishing", "audit"):
        inlets = tables(kind.vectors)
    elif part.step.command == ("spark_jobs", "publish_release"):
        outlets = [*tables(kind.vectors, "model_metrics", *kind.publishes), *releases(kind.name)]
    return CommandOperator(command=command, inlets=inlets, outlets=outlets, **arguments)
