"""Asks Airflow whether what a run waits for is coming, from the triggerer, so that nobody's slot is held."""

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

POLL_SECONDS = 2.0  # between the first looks; who has waited long looks more rarely, and so is late by a tenth of its wait at most
RAREST_SECONDS = 60.0
AT_ONCE = 100  # logical dates in one request: they travel in its address


class RunsTrigger(BaseTrigger):
    """Fires when all that is awaited has been made, or when some of it is not coming (`Watch.judge`).

    Args:
        own_dag: the DAG whose run waits.
        awaited: by DAG, the first days of the periods whose runs make it.
        asked_again, wait_seconds, grace_seconds: of the watch.
        poll_seconds: between the first looks.
    """

    def __init__(self, *, own_dag: str, awaited: dict[str, list[str]], asked_again: bool, wait_seconds: float,
                 grace_seconds: float = GRACE_SECONDS, poll_seconds: float = POLL_SECONDS) -> None:
        super().__init__()
        self.own_dag, self.awaited, self.asked_again, self.wait_seconds = own_dag, awaited, asked_again, wait_seconds
        self.grace_seconds, self.poll_seconds = grace_seconds, poll_seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{__name__}.{type(self).__qualname__}", {
            "own_dag": self.own_dag, "awaited": self.awaited, "asked_again": self.asked_again, "wait_seconds": self.wait_seconds,
            "grace_seconds": self.grace_seconds, "poll_seconds": self.poll_seconds}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        began = time.monotonic()
        watch = Watch(asked_again=self.asked_again, wait_seconds=self.wait_seconds, grace_seconds=self.grace_seconds, now=began)
        said: dict[str, str] = {}
        while True:
            states = {dag: await state_of(deployment(), self.own_dag, dag, [date.fromisoformat(day) for day in days], runs_in)
                      for dag, days in self.awaited.items()}
            if states != said:
                self.log.info("waits for %s", ", ".join(f"{dag}: {state}" for dag, state in states.items()))
                said = dict(states)
            now = time.monotonic()
            event = watch.judge(states, now)
            if event is not None:
                yield TriggerEvent(event)
                return
            await asyncio.sleep(max(self.poll_seconds, min((now - began) / 10, RAREST_SECONDS)))


async def runs_in(dag: str, ticks: Sequence[datetime] | None, states: Sequence[str]) -> int:
    """How many runs of a DAG there are in these states, asked of Airflow's API as a trigger may."""
    ask = sync_to_async(RuntimeTaskInstance.get_dr_count)
    if ticks is None:
        return int(await ask(dag_id=dag, states=list(states)))
    parts = [list(ticks[place:place + AT_ONCE]) for place in range(0, len(ticks), AT_ONCE)]
    return sum([int(await ask(dag_id=dag, logical_dates=part, states=list(states))) for part in parts])
