"""Whether what a run waits for is coming, decided from what Airflow knows of the runs that make it. Nothing here imports Airflow.

Nothing that waits can keep what it waits for from running, however many runs are active. A deferred task holds no worker and no
pool slot; what its run still holds is a place among the active runs of its own DAG. DAGs wait for each other in one direction
(logs, features, TPM, CPM and FG-BERT, BAHE, A-CTR), so a run of another DAG never needs that place. Runs of one DAG wait for older
ones alone. Those start first, by a backfill or by the schedule; backwards is refused when the backfill is made (`dagkit.models`). One
that was cleared later may still queue behind those that wait for it: where no older run is at work any more, the wait is given up
after the grace, and the place is free. The oldest run that waits has none before it, so some run always goes on.
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

GRACE_SECONDS = 300.0  # in which backfills that are started together, or a scheduler that restarts, make their runs
ACTIVE = ("queued", "running")


async def state_of(settings: Deployment, own_dag: str, dag: str, days: Sequence[date], count: Count) -> State:
    """What Airflow knows of the runs of `dag` that make the periods of these first days.

    A manual run has no logical date, and a DAG with as many active runs as it may have gets its next scheduled run only when one of them
    ends: so runs of another DAG that are active at all are waited for. So are runs of `bootstrap`, which makes logs and features.

    Args:
        settings: the deployment's.
        own_dag: the DAG of the run that waits.
        dag: the DAG whose runs are asked for.
        days: first days of their periods.
        count: counts runs of a DAG, by logical dates (None: all) and states.
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
    found = []
    while settings.lineage.exists(period := settings.periods.previous(period)):
        found.append(settings.tick(period))
    return found


class Watch:
    """What one wait has seen so far, and when it is over.

    Args:
        asked_again: whether the runs had ended before, and something was missing all the same.
        wait_seconds: after so long somebody should look.
        grace_seconds: for how long nothing may come.
        now: when it begins, in seconds.
    """

    def __init__(self, *, asked_again: bool, wait_seconds: float, grace_seconds: float, now: float) -> None:
        self.asked_again, self.wait_seconds, self.grace_seconds, self.began = asked_again, wait_seconds, grace_seconds, now
        self._since: dict[str, float] = {}  # when it was last seen coming, or first looked for
        self._came: set[str] = set()

    def judge(self, states: Mapping[str, State], now: float) -> dict[str, Any] | None:
        """None while it goes on; else `state`, `dag`, and `final`: whether to give up what is still missing of that DAG.

        A failure from before the wait has the grace too: its backfill may be about to be started.
        """
        for dag, state in states.items():
            if state == "coming":
                self._came.add(dag)
                self._since[dag] = now
            elif state != "made" and (
                    (state == "failed" and dag in self._came) or now - self._since.setdefault(dag, self.began) >= self.grace_seconds):
                return {"state": state, "dag": dag, "final": True}
        if set(states.values()) == {"made"} and (not self.asked_again or now - self.began >= self.grace_seconds):
            return {"state": "made", "dag": next(iter(states)), "final": self.asked_again}
        if now - self.began >= self.wait_seconds:
            return {"state": "late", "dag": next(dag for dag, state in states.items() if state != "made"), "final": True}
        return None
