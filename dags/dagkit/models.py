"""The tasks that make, judge and publish one kind of model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import chain
from airflow.task.trigger_rule import TriggerRule

from contracts.kinds import KINDS
from dags.dagkit.assets import releases, tables
from dags.dagkit.commands import CommandOperator
from dags.dagkit.defaults import GPU_POOL, RECIPE, TRANSFER
from dags.dagkit.priority import ScheduledFirst
from dags.dagkit.waiting import WaitOperator

RECIPE_OPTION = ["--recipe", f"{{{{ params.{RECIPE} }}}}"]
TRANSFER_OPTION = ["--transfer", f"{{{{ params.{TRANSFER} }}}}"]


def gpu_operator(task_id: str, command: Sequence[str], **kwargs: Any) -> CommandOperator:
    """A task of the pool `gpu`, which as many share at a time as it has slots; scheduled runs go first."""
    return CommandOperator(task_id=task_id, command=command, pool=GPU_POOL, weight_rule=ScheduledFirst(), **kwargs)


def model_tasks(kind: str, *, reads: Sequence[str], parents: Sequence[str] = (), first: Sequence[CommandOperator] = (),
                publishes: Sequence[str] = (), options: Sequence[str] = (), trains: bool = True, oldest_first: bool = True) -> None:
    """The tasks of one kind of model, in a row: wait for its parents, what comes `first`, train, gate, audit, publish.

    Args:
        kind: of model.
        reads: tables that its training reads.
        parents: kinds of model whose releases it reads, its own left out.
        first: tasks before the training.
        publishes: tables that it writes beside its vectors.
        options: of its training, beside period and recipe.
        trains: whether it takes the run's recipe; what only encodes has that of its encoder.
        oldest_first: whether it goes on from the period before. A backfill that runs backwards is then refused by Airflow when it is
            made, since a task depends on the past. That task does nothing, and ends as soon as the wait has ended in whatever way: so a
            failed run never holds up a later one in silence, as training would if it depended on the past itself. Manual runs and first
            runs do not depend on any.
    """
    period: dict[str, Any] = {"cadence": KINDS[kind].cadence, "period_option": "--period"}
    wait = WaitOperator(task_id="wait_for_parents", command=["publishing", "parents", "--kind", kind], **period)
    train = gpu_operator(f"train_{kind}", ["training", kind, *(RECIPE_OPTION if trains else []), *options], cadence=KINDS[kind].cadence,
                         period_option=KINDS[kind].period_option,
                         inlets=[*tables(*reads), *releases(*parents, *([kind] if oldest_first else []))])
    gate = CommandOperator(task_id=f"gate_{kind}", command=["validation", "gate", "--kind", kind], **period)
    audit = CommandOperator(task_id=f"audit_{kind}", command=["publishing", "audit", "--kind", kind], **period)
    publish = CommandOperator(task_id=f"publish_{kind}", command=["spark_jobs", "publish_release", "--kind", kind],
                              outlets=[*tables(KINDS[kind].vectors, "model_metrics", *publishes), *releases(kind)], **period)
    begin = [*first, train][0]
    chain(wait, *first, train, gate, audit, publish)
    if oldest_first:
        wait >> EmptyOperator(task_id="oldest_first", depends_on_past=True, trigger_rule=TriggerRule.ALL_DONE) >> begin
