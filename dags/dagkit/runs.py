"""Asks Airflow whether what a run waits for is being made. It does so in the triggerer, so that no worker slot is held."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from datetime import date, datetime
from typing import Any

from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from dags.dagkit.coming import GRACE_SECONDS, Watch, state_of
from dags.dagkit.deployment import deployment

POLL_SECONDS = 2.0  # Between the first looks. A long wait looks more rarely: it is late by a tenth of the wait at most.
RAREST_SECONDS = 60.0
AT_ONCE = 100  # Logical dates in one request; the number is limited because they are part of its address.


class RunsTrigger(BaseTrigger):
    """Fires when all that is awaited has been made, or when some of it is not being made (`Watch.judge`).

    Args:
        own_dag: the DAG whose run waits.
        awaited: by DAG, the first days of the awaited periods.
        asked_again: see `Watch`.
        wait_seconds: see `Watch`.
        grace_seconds: see `Watch`.
        poll_seconds: seconds between the first looks.
    """

    def __init__(
        self,
        *,
        own_dag: str,
        awaited: dict[str, list[str]],
        asked_again: bool,
        wait_seconds: float,
        grace_seconds: float = GRACE_SECONDS,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow gives it no types.
        self.own_dag, self.awaited, self.asked_again, self.wait_seconds = own_dag, awaited, asked_again, wait_seconds
        self.grace_seconds, self.poll_seconds = grace_seconds, poll_seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Returns the class path and the arguments from which the triggerer makes this trigger."""
        return f"{__name__}.{type(self).__qualname__}", {
            "own_dag": self.own_dag,
            "awaited": self.awaited,
            "asked_again": self.asked_again,
            "wait_seconds": self.wait_seconds,
            "grace_seconds": self.grace_seconds,
            "poll_seconds": self.poll_seconds,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Looks until the wait is over, and yields what `Watch.judge` decided."""
        began = time.monotonic()
        watch = Watch(
            asked_again=self.asked_again, wait_seconds=self.wait_seconds, grace_seconds=self.grace_seconds, now=began
        )
        logged: dict[str, str] = {}
        while True:
            states = {
                dag: await state_of(deployment(), self.own_dag, dag, [date.fromisoformat(day) for day in days], runs_in)
                for dag, days in self.awaited.items()
            }
            if states != logged:
                self.log.info("waits for %s", ", ".join(f"{dag}: {state}" for dag, state in states.items()))
                logged = dict(states)
            now = time.monotonic()
            event = watch.judge(states, now)
            if event is not None:
                yield TriggerEvent(event)
                return
            await asyncio.sleep(max(self.poll_seconds, min((now - began) / 10, RAREST_SECONDS)))


async def runs_in(dag: str, ticks: Sequence[datetime] | None, states: Sequence[str]) -> int:
    """Counts the runs of a DAG in given states, by the interface that Airflow offers to triggers.

    Args:
        dag: the DAG's id.
        ticks: the logical dates of the runs to count; None for all runs.
        states: the states in which a run counts.
    """
    ask = sync_to_async(RuntimeTaskInstance.get_dr_count)
    if ticks is None:
        return int(await ask(dag_id=dag, states=list(states)))
    parts = [list(ticks[place : place + AT_ONCE]) for place in range(0, len(ticks), AT_ONCE)]
    return sum([int(await ask(dag_id=dag, logical_dates=part, states=list(states))) for part in parts])
