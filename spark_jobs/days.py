"""Runs the jobs that build days, for the command line and for the repair of stale days."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from importlib import import_module
from typing import TYPE_CHECKING, Any

from contracts.commands import stage
from contracts.locations import Locations
from contracts.settings import Deployment

if TYPE_CHECKING:
    from lake.writing import Build


def run_days(
    locations: Locations, deployment: Deployment, job: str, days: Sequence[date], **options: Any
) -> list[Build]:
    """Runs one of the steps that make days over consecutive days, in a session of its own that holds their locks."""
    module = import_module(f"spark_jobs.{job}")
    return _run(
        locations,
        f"{job} {_days(days)}",
        job,
        module.partitions(days, deployment),
        lambda spark: module.run(spark, locations, deployment, days, **options),
    )


def run_checkpoint(locations: Locations, deployment: Deployment, until: date) -> list[Build]:
    """Makes the checkpoints of `until`, in a session of its own that holds their locks."""
    from spark_jobs import build_checkpoints

    return _run(
        locations,
        f"build_checkpoints {until}",
        "build_checkpoints",
        build_checkpoints.partitions(until),
        lambda spark: build_checkpoints.run(spark, locations, deployment, until),
    )


def span_option(first: date, last: date) -> str:
    """The options of a command that name these days."""
    return f"--ds {first}" if first == last else f"--from {first} --to {last}"


def _days(days: Sequence[date]) -> str:
    return str(days[0]) if len(days) == 1 else f"{days[0]} .. {days[-1]}"


def _run(
    locations: Locations, title: str, app: str, partitions: dict[str, list[str]], run: Callable[[Any], list[Build]]
) -> list[Build]:
    from lake.session import writing_session

    with stage(title), writing_session(locations, app=app, partitions=partitions) as spark:
        return run(spark)
