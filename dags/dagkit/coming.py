"""Decides from the states of Airflow's runs whether what a run waits for is being made. Nothing here imports Airflow.

A run that waits can never block the run that it waits for, however many runs are active. A deferred task holds no
worker and no pool slot; its run only holds a place among the active runs of its own DAG. DAGs wait for each other in
one direction (logs, features, TPM, CPM and FG-BERT, BAHE, A-CTR), so a run of another DAG never needs that place. Runs
of one DAG wait only for older ones. Those start first, in a backfill as by the schedule; a backfill that runs backwards
is refused when it is made (`dagkit.models`). A run that was cleared later may still queue behind runs that wait for it.
Where no older run is running any more, the wait is therefore given up after a grace period, and its place becomes free.
The oldest run that waits has none before it, so some run can always proceed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import date, datetime
from typing import Any, Literal

from contracts.periods import Period
from contracts.settings import Deployment
from contracts.steps import BOOTSTRAP, CADENCES, DAY_DAGS

State = Literal["coming", "made", "failed", "absent", "behind"]
Count = Callable[[str, Sequence[datetime] | None, Sequence[str]], Awaitable[int]]

GRACE_SECONDS = (
    300.0  # Within it, backfills that are started together, or a scheduler that restarts, have made their runs.
)
ACTIVE = ("queued", "running")


async def state_of(settings: Deployment, own_dag: str, dag: str, days: Sequence[date], count: Count) -> State:
    """Returns the state of the runs of `dag` that make the periods which begin on `days`.

    Any active run of another DAG is waited for, whatever its logical date: a manual run has none, and a DAG that has
    reached its limit of active runs gets its next scheduled run only when one of them ends. Runs of `bootstrap`, which
    makes logs and features, are waited for too.

    Args:
        settings: the deployment's settings.
        own_dag: the DAG of the run that waits.
        dag: the DAG whose runs make what is awaited.
        days: the first days of the awaited periods, oldest first.
        count: counts the runs of a DAG with given logical dates (None: all runs) that are in given states.
    """
    periods = [settings.periods.named(CADENCES[dag], day) for day in days]
    ticks = [settings.tick(period) for period in periods]
    if await count(dag, ticks, ["failed"]):
        return "failed"
    if dag == own_dag:
        if await count(dag, [*_ticks_before(settings, periods[0]), *ticks], ["running"]):
            return "coming"
        if await count(dag, ticks, ["queued"]):
            return "behind"
    elif await count(dag, ticks, ACTIVE):
        return "coming"
    if await count(dag, ticks, ["success"]) == len(ticks):
        return "made"
    others = [*([dag] if dag != own_dag else []), *([BOOTSTRAP] if dag in DAY_DAGS else [])]
    return "coming" if sum([await count(other, None, ACTIVE) for other in others]) else "absent"


def _ticks_before(settings: Deployment, period: Period) -> list[datetime]:
    ticks = []
    while settings.lineage.exists(period := settings.periods.previous(period)):
        ticks.append(settings.tick(period))
    return ticks


class Watch:
    """Follows one wait and decides when it is over.

    Args:
        asked_again: whether the awaited runs had ended before, and something was missing all the same.
        wait_seconds: the longest wait; after it a person should look.
        grace_seconds: how long the wait goes on while no run makes what is missing.
        now: the time at which the wait begins, in seconds of any clock.
    """

    def __init__(self, *, asked_again: bool, wait_seconds: float, grace_seconds: float, now: float) -> None:
        self.asked_again, self.wait_seconds, self.grace_seconds, self.began = (
            asked_again,
            wait_seconds,
            grace_seconds,
            now,
        )
        self._since: dict[
            str, float
        ] = {}  # By DAG, the time at which it was last seen coming, or was first looked for.
        self._came: set[str] = set()

    def judge(self, states: Mapping[str, State], now: float) -> dict[str, Any] | None:
        """Decides whether the wait is over.

        A run that failed before the wait began gets the grace period too: its backfill may be about to be started.

        Args:
            states: the present state of each awaited DAG.
            now: the present time, by the clock of the constructor's `now`.

        Returns:
            None while the wait goes on; else `state`, `dag`, and `final`: whether to give up what is still missing from
                that DAG.
        """
        for dag, state in states.items():
            if state == "coming":
                self._came.add(dag)
                self._since[dag] = now
            elif state != "made" and (
                (state == "failed" and dag in self._came)
                or now - self._since.setdefault(dag, self.began) >= self.grace_seconds
            ):
                return {"state": state, "dag": dag, "final": True}
        if set(states.values()) == {"made"} and (not self.asked_again or now - self.began >= self.grace_seconds):
            return {"state": "made", "dag": next(iter(states)), "final": self.asked_again}
        if now - self.began >= self.wait_seconds:
            return {
                "state": "late",
                "dag": next(dag for dag, state in states.items() if state != "made"),
                "final": True,
            }
        return None
