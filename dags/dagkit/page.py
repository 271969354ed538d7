"""The page of a DAG in Airflow's UI: what each of its tasks does, and what a person does when one stops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from contracts.kinds import KINDS, Cadence, Kind, ParentRule
from contracts.steps import Step, awaited_table, maker, release_parts

_WAITS = "*While it waits* (deferred), the runs that its log names are running or queued."
_ASKS = "*While it waits* (deferred), it looks again every few minutes; its log names what is missing, and until when it waits."
_NOBODY = "no run is making what is missing. Its log ends with the command that does: run that, then clear this task."
_BLOCKS = {
    "day": "",
    "week": "Where weeks are blocks of days, this DAG runs daily, and skips the days that end no week.",
    "month": "Where months are blocks of days, this DAG runs daily, and skips the days that end no month.",
}


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task as its DAG's page describes it.

    Attributes:
        task: its id.
        does: what it does.
        stops: what a person does when it stops; empty for a task that cannot stop.
        waits: what happens while it waits; empty for a task that does not wait.
    """

    task: str
    does: str
    stops: str = ""
    waits: str = ""

    def __str__(self) -> str:
        lines = [f"- **`{self.task}`**: {self.does}{'' if self.does.endswith('.') else '.'}"]
        return "\n  ".join(
            [*lines, *([self.waits] if self.waits else []), *([f"*When it stops:* {self.stops}"] if self.stops else [])]
        )


def page(makes: str, *paragraphs: str, tasks: Sequence[Task], ends: Sequence[str]) -> str:
    """Returns the Markdown of a DAG's page.

    Args:
        makes: the first paragraph, which names what the DAG makes.
        paragraphs: further paragraphs before the tasks; empty ones are left out.
        tasks: the DAG's tasks, in the order in which they run.
        ends: paragraphs after the tasks; empty ones are left out.
    """
    return "\n\n".join(filter(None, [makes, *paragraphs, "\n".join(map(str, tasks)), *ends]))


def step_task(step: Step) -> Task:
    """Describes the task that runs a step."""
    return Task(task=step.task_id, does=step.meaning, stops=step.when_it_stops)


def check_task(step: Step) -> Task:
    """Describes the task that checks the tables of a step."""
    return Task(
        task=step.check_task,
        does=f"checks {', '.join(f'`{name}`' for name in step.judged)}, writes a report of each",
        stops=step.checks_stop,
    )


def wait_task(step: Step) -> Task:
    """Describes the task that waits until a check step passes."""
    if step.awaits == "delivery":
        return Task(
            task=step.task_id, does=f"waits until this holds: {step.meaning}", waits=_ASKS, stops=step.when_it_stops
        )
    return Task(
        task=f"wait_for_{step.name.removeprefix('check_')}",
        does=f"waits until this holds: {step.meaning}",
        waits=_WAITS,
        stops=_NOBODY,
    )


def model_page(kind: Kind) -> str:
    """Returns the Markdown of the page of the DAG that makes a kind of model."""
    tasks = [Task(task="wait_for_parents", does=f"waits for {', '.join(_awaited(kind))}", waits=_WAITS, stops=_NOBODY)]
    if kind.goes_on:
        tasks.append(
            Task(task="oldest_first", does="does nothing; because of it Airflow refuses a backfill that runs backwards")
        )
    does = {f"train_{kind.name}": kind.training, f"gate_{kind.name}": kind.gate}
    stops = {f"train_{kind.name}": "it is tried again by itself, twice.", f"gate_{kind.name}": kind.gate_stops}
    tasks += [
        Task(
            task=part.task,
            does=does.get(part.task, part.step.meaning),
            stops=stops.get(part.task, part.step.when_it_stops),
        )
        for part in release_parts(kind)
    ]
    transfer = (
        "`transfer` in the form: `all`, or one of the settings that `variants` in `deployment.toml` names, to make only that one, "
        "of a run or of a backfill: for example one that was added there and still needs a backfill. Each setting continues from "
        "its own model of the day before. So a day that lacks one of them stops the day after, unless that day makes only the "
        "settings that are there."
    )
    order = "oldest first" if kind.goes_on else f"in any order: a {kind.cadence} depends on no other"
    backwards = (
        'In the form of Airflow choose "Missing and Errored Runs" or "All Runs": "Missing Runs" is refused, as is running '
        "backwards."
        if kind.goes_on
        else ""
    )
    return page(
        f"{kind.makes}.",
        _BLOCKS[kind.cadence],
        tasks=tasks,
        ends=[
            transfer if kind.transfers else "",
            f"A range: `tributary dags backfill {kind.dag} --from ... --to ...` (first days of the periods), {order}.\n{backwards}".strip(),
        ],
    )


def _awaited(kind: Kind) -> list[str]:
    where = {
        "previous": f"of the {kind.cadence} before",
        "snapshots": "of the months closed before its days",
        "last_closed": "of the last {} that closed before it",
    }

    def named(parent: ParentRule, cadence: Cadence) -> str:
        return f"the {parent.kind} {where[parent.which].format(cadence)}"

    table = awaited_table(kind)
    return [f"`{table}` ({maker(table).dag})", *(named(parent, KINDS[parent.kind].cadence) for parent in kind.parents)]
