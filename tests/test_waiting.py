"""What a run waits for: when it is coming, when it is given up, and that runs of any number cannot block each other."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

import pytest

from contracts.awaited import Awaited
from contracts.periods import PeriodSettings
from contracts.settings import Deployment
from contracts.steps import CADENCES
from dags.dagkit.coming import State, Watch, state_of

CALENDAR = Deployment(history_start=date(2026, 1, 10), actr_start=date(2026, 2, 5))
SHANGHAI = Deployment(
    history_start=date(2022, 4, 8),
    actr_start=date(2022, 5, 2),
    day_timezone="Asia/Shanghai",
    periods=PeriodSettings(anchor=date(2022, 4, 25), month_days=2, week_days=2),
)
DAY = date(2026, 2, 10)


class Runs:
    """What Airflow knows: states of runs by DAG and logical date."""

    def __init__(self, deployment: Deployment = CALENDAR) -> None:
        self.deployment = deployment
        self.states: dict[tuple[str, datetime | None], str] = {}

    def put(self, dag: str, day: date, state: str) -> None:
        self.states[dag, self.deployment.tick(self.deployment.periods.named(CADENCES[dag], day))] = state

    async def count(self, dag: str, ticks: Sequence[datetime] | None, states: Sequence[str]) -> int:
        return sum(
            state in states and name == dag and (ticks is None or tick in ticks)
            for (name, tick), state in self.states.items()
        )

    def of(self, dag: str, *days: date, own: str = "ad_ctr_daily") -> State:
        return asyncio.run(state_of(self.deployment, own, dag, days, self.count))


class TestState:
    @pytest.mark.parametrize(
        ("found", "state"),
        [
            ({}, "absent"),
            ({DAY: "queued"}, "coming"),
            ({DAY: "running"}, "coming"),
            ({DAY: "success"}, "made"),
            ({DAY: "failed"}, "failed"),
            (
                {DAY - timedelta(days=1): "running"},
                "coming",
            ),  # with as many active runs as it may have, its next is made later
            ({DAY - timedelta(days=1): "success"}, "absent"),
        ],
    )
    def test_of_another_dag(self, found: dict[date, str], state: State) -> None:
        runs = Runs()
        for day, value in found.items():
            runs.put("features_daily", day, value)
        runs.put("logs_daily", DAY, "running")
        assert runs.of("features_daily", DAY) == state

    def test_of_several_periods_is_the_worst(self) -> None:
        runs, days = Runs(), [DAY, DAY + timedelta(days=1), DAY + timedelta(days=2)]
        for day, state, then in zip(
            days, ("success", "running", "failed"), ("absent", "coming", "failed"), strict=True
        ):
            runs.put("features_daily", day, state)
            assert runs.of("features_daily", *days) == then

    def test_a_manual_run_without_a_date_may_be_making_it(self) -> None:
        runs = Runs()
        runs.states["features_daily", None] = "running"
        assert runs.of("features_daily", DAY) == "coming"

    def test_a_bootstrap_makes_logs_and_features(self) -> None:
        runs = Runs()
        runs.states["bootstrap", None] = "running"
        found = [runs.of(dag, DAY) for dag in ("logs_daily", "features_daily", "bahe_daily")]
        assert found == ["coming", "coming", "absent"]

    def test_the_predecessor_comes_while_an_older_run_is_at_work(self) -> None:
        runs = Runs()
        runs.put("ad_ctr_daily", DAY + timedelta(days=1), "running")  # the one that waits
        assert runs.of("ad_ctr_daily", DAY) == "absent"
        runs.put("ad_ctr_daily", DAY, "queued")
        assert runs.of("ad_ctr_daily", DAY) == "behind"
        runs.put("ad_ctr_daily", DAY - timedelta(days=3), "running")
        assert runs.of("ad_ctr_daily", DAY) == "coming"

    def test_a_shrunken_week_is_made_by_the_run_of_its_last_day(self) -> None:
        runs = Runs(SHANGHAI)
        runs.states["cpm_weekly", SHANGHAI.day_start(date(2022, 4, 28))] = "success"
        assert runs.of("cpm_weekly", date(2022, 4, 27)) == "made"
        assert runs.of("cpm_weekly", date(2022, 4, 25)) == "absent"


class TestWatch:
    def judged(self, *states: State, asked_again: bool = False) -> list[tuple[int, str, bool]]:
        """Looks a second apart, with a grace of 3 s; what the first event said."""
        watch = Watch(asked_again=asked_again, wait_seconds=20, grace_seconds=3, now=0)
        for now, state in enumerate(states):
            event = watch.judge({"cpm_weekly": state}, now)
            if event is not None:
                assert event["dag"] == "cpm_weekly"
                return [(now, event["state"], event["final"])]
        return []

    def test_what_is_made_is_asked_for_at_once(self) -> None:
        assert self.judged("made") == [(0, "made", False)]

    def test_made_and_still_missing_is_given_up_after_the_grace(self) -> None:
        made: list[State] = ["made"]
        assert self.judged(*made * 5, asked_again=True) == [(3, "made", True)]

    @pytest.mark.parametrize("state", ["absent", "behind", "failed"])
    def test_the_grace(self, state: State) -> None:
        assert self.judged(*[state] * 3) == []
        assert self.judged(*[state] * 5) == [(3, state, True)]
        if state != "failed":
            assert self.judged(state, state, "coming", state, "coming") == []

    def test_a_failure_that_it_has_seen_coming_is_said_at_once(self) -> None:
        assert self.judged("coming", "failed") == [(1, "failed", True)]
        assert self.judged("coming", "absent", "absent", "absent") == [(3, "absent", True)]

    def test_waiting_ends(self) -> None:
        coming: list[State] = ["coming"]
        assert self.judged(*coming * 30) == [(20, "late", True)]

    def test_one_that_does_not_come_ends_it_for_all(self) -> None:
        watch = Watch(asked_again=False, wait_seconds=20, grace_seconds=3, now=0)
        assert watch.judge({"tpm_monthly": "made", "features_daily": "coming"}, 0) is None
        event = watch.judge({"tpm_monthly": "absent", "features_daily": "coming"}, 3)
        assert event == {"state": "absent", "dag": "tpm_monthly", "final": True}


def test_a_line_says_what_is_awaited() -> None:
    one = Awaited(
        what="the snapshot tpm of 2026-01-01", dag="tpm_monthly", periods=(date(2026, 1, 1), date(2026, 2, 1))
    )
    assert Awaited.read(["some line", one.line(), "error: the rest"]) == [one]
    assert (
        str(one)
        == "the snapshot tpm of 2026-01-01: tributary dags backfill tpm_monthly --from 2026-01-01 --to 2026-02-01"
    )


@dataclass
class Scheduler:
    """Airflow in small: runs start in the order of their backfill, a DAG has at most `most` active runs, and a wait holds only its own run.

    Attributes:
        most: active runs of a DAG.
        begin: at which tick a DAG's backfill is made.
        backwards: DAGs whose runs start in reverse.
    """

    most: int
    begin: dict[str, int]
    backwards: frozenset[str] = frozenset()
    days: Sequence[date] = tuple(CALENDAR.actr_start + timedelta(days=number) for number in range(6))
    runs: Runs = field(default_factory=Runs)
    watches: dict[tuple[str, date], Watch] = field(default_factory=dict)
    done: set[tuple[str, date]] = field(default_factory=set)

    GRACE = 30

    def awaited(self, dag: str, day: date) -> dict[str, list[date]]:
        """As the commands say it: partials of all days, samples, and the predecessor."""
        wanted: dict[str, list[date]] = defaultdict(list)
        if dag == "features_daily":
            wanted["logs_daily"] = [one for one in self.days if one <= day]
        if dag in ("ad_ctr_daily", "bahe_daily"):
            wanted["features_daily"] = [day]
            if day > self.days[0]:
                wanted[dag].append(day - timedelta(days=1))
        if dag == "ad_ctr_daily" and day > self.days[0]:
            wanted["bahe_daily"] = [day - timedelta(days=1)]
        missing = {name: [one for one in days if (name, one) not in self.done] for name, days in wanted.items()}
        return {name: days for name, days in missing.items() if days}

    def run(self, ticks: int) -> dict[str, dict[date, str]]:
        for now in range(ticks):
            for dag in self.begin:
                if self.begin[dag] == now:
                    for day in self.days:
                        self.runs.put(dag, day, "queued")
                self._start(dag)
                for day in self._in("running", dag):
                    self._step(dag, day, now)
        return {dag: {day: self._state(dag, day) for day in self.days} for dag in self.begin}

    def _start(self, dag: str) -> None:
        order = sorted(self._in("queued", dag), reverse=dag in self.backwards)
        for day in order[: max(self.most - len(self._in("running", dag)), 0)]:
            self.runs.put(dag, day, "running")

    def _step(self, dag: str, day: date, now: int) -> None:
        missing = self.awaited(dag, day)
        if not missing:
            self.done.add((dag, day))
            self.runs.put(dag, day, "success")
            return
        watch = self.watches.setdefault(
            (dag, day), Watch(asked_again=False, wait_seconds=10_000, grace_seconds=self.GRACE, now=now)
        )
        states = {
            name: asyncio.run(state_of(CALENDAR, dag, name, days, self.runs.count)) for name, days in missing.items()
        }
        event = watch.judge(states, now)
        if event is not None and event["state"] == "made":
            del self.watches[dag, day]  # the command is asked again, which finds it or waits anew
        elif event is not None:
            self.runs.put(dag, day, "failed")

    def _state(self, dag: str, day: date) -> str:
        return self.runs.states.get((dag, CALENDAR.day_start(day)), "none")

    def _in(self, state: str, dag: str) -> list[date]:
        return [day for day in self.days if self._state(dag, day) == state]


DAGS = ("logs_daily", "features_daily", "bahe_daily", "ad_ctr_daily")


@pytest.mark.parametrize("most", [1, 2, 16])
@pytest.mark.parametrize("seed", range(4))
def test_backfills_started_together_in_any_order_all_end(most: int, seed: int) -> None:
    begin = {dag: random.Random(seed).sample(range(Scheduler.GRACE - 1), 4)[place] for place, dag in enumerate(DAGS)}
    backwards = frozenset(["logs_daily", "features_daily"] if seed % 2 else [])  # they take any order
    found = Scheduler(most=most, begin=begin, backwards=backwards).run(200)
    assert {state for states in found.values() for state in states.values()} == {"success"}, found


@pytest.mark.parametrize("most", [1, 16])
def test_a_chain_that_was_turned_round_ends_too(most: int) -> None:
    """Airflow refuses such a backfill; a run that was cleared behind its successors comes to the same."""
    begin = dict.fromkeys(DAGS, 0)
    found = Scheduler(most=most, begin=begin, backwards=frozenset(["bahe_daily"])).run(1000)
    ended = set(found["bahe_daily"].values())
    assert ended == ({"success"} if most == 16 else {"failed", "success"})


def test_where_nobody_makes_the_inputs_every_run_says_so() -> None:
    found = Scheduler(most=2, begin={"ad_ctr_daily": 0, "bahe_daily": 0}).run(1000)
    assert {state for states in found.values() for state in states.values()} == {"failed"}
