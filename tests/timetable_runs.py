"""What Airflow makes of `PeriodTimetable`, and of its own class: run by `test_timetable.py` in a process of its own, which prints JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Any
from unittest.mock import patch

from airflow.serialization.decoders import decode_timetable
from airflow.serialization.encoders import encode_timetable
from airflow.timetables import interval
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction
from pendulum import instance

from contracts.kinds import Cadence
from contracts.periods import ONE_DAY, PeriodSettings, days_between
from contracts.settings import Deployment
from dags.dagkit.timetable import PeriodTimetable

CADENCES: tuple[Cadence, ...] = ("day", "week", "month")


def starts_in_a_row(timetable: Any, first: datetime, last: datetime) -> Iterator[tuple[datetime, datetime]]:
    """The intervals of all runs of a backfill over a range of logical dates."""
    restriction = TimeRestriction(earliest=instance(first), latest=instance(last), catchup=True)
    before = None
    while (run := timetable.next_dagrun_info(last_automated_data_interval=before, restriction=restriction)) is not None:
        before = run.data_interval
        yield before.start, before.end


def first_run(timetable: Any, earliest: datetime) -> datetime | None:
    """Where the first run of a backfill begins."""
    return next((start for start, _ in starts_in_a_row(timetable, earliest, earliest + timedelta(days=40))), None)


def latest_run(timetable: Any, earliest: datetime, now: datetime) -> DataInterval:
    """The run that a DAG without catch-up gets next at an instant."""
    restriction = TimeRestriction(earliest=instance(earliest), latest=None, catchup=False)
    with patch.object(interval, "utcnow", lambda: instance(now)):
        run: DagRunInfo = timetable.next_dagrun_info(last_automated_data_interval=None, restriction=restriction)
        assert run.data_interval is not None
        return run.data_interval


def wrong_days(name: str, first: date, last: date) -> list[str]:
    """Where the runs of a zone are not the deployment's days, weeks and months."""
    deployment, wrong, settings = (
        Deployment(day_timezone=name, history_start=first, actr_start=first),
        [],
        PeriodSettings(),
    )
    for cadence in CADENCES:
        timetable = decode_timetable(encode_timetable(PeriodTimetable(cadence, name)))
        periods = list(dict.fromkeys(settings.containing(cadence, day) for day in days_between(first, last + ONE_DAY)))
        ticks = [deployment.tick(period) for period in periods]
        ends = [*ticks[1:], deployment.day_start(periods[-1].end)]
        wrong += [
            f"{name} {cadence}: run {run} instead of {due}"
            for run, due in zip(
                starts_in_a_row(timetable, ticks[0], ticks[-1]), zip(ticks, ends, strict=True), strict=True
            )
            if run != due
        ]
        for tick, end in zip(ticks, ends, strict=True):
            late = end + timedelta(minutes=30)
            by_hand = timetable.infer_manual_data_interval(run_after=instance(late))
            if (first_run(timetable, tick), *by_hand) != (tick, tick, end):
                wrong.append(
                    f"{name} {cadence} {tick}: a range begins with {first_run(timetable, tick)}, a run by hand is {by_hand}"
                )
            newest = latest_run(timetable, ticks[0], late)
            if tuple(newest) != (tick, end):
                wrong.append(f"{name} {cadence}: the newest at {late} is {newest}")
    return wrong


def upstream() -> dict[str, Any]:
    """What Airflow's own timetable does at midnights that are missing or come twice."""

    def of(name: str) -> Any:
        return interval.CronDataIntervalTimetable("0 0 * * *", timezone=name)

    def begin(name: str, day: date) -> datetime:
        return Deployment(day_timezone=name, history_start=day, actr_start=day).day_start(day)

    missing = {
        "Africa/Cairo": date(2026, 4, 23),
        "Asia/Beirut": date(2026, 3, 28),
        "America/Santiago": date(2026, 9, 5),
        "America/Havana": date(2026, 3, 7),
    }
    twice = {"America/Havana": date(2026, 11, 1), "Atlantic/Azores": date(2026, 10, 25)}
    left_out = {
        name: first_run(of(name), begin(name, day)) == begin(name, day + ONE_DAY) for name, day in missing.items()
    }
    rows = {
        name: list(starts_in_a_row(of(name), begin(name, day - ONE_DAY), begin(name, day + ONE_DAY)))
        for name, day in twice.items()
    }
    hours_late = {name: (rows[name][1][0] - begin(name, day)).total_seconds() / 3600 for name, day in twice.items()}
    empty = {
        name: (
            run := of(name).infer_manual_data_interval(
                run_after=instance(begin(name, day + ONE_DAY) + timedelta(hours=3))
            )
        ).end
        == run.start
        for name, day in missing.items()
    }
    return {"left_out": left_out, "hours_late": hours_late, "empty_by_hand": empty}


if __name__ == "__main__":
    asked = json.loads(sys.stdin.read())
    days = [date.fromisoformat(day) for day in asked["days"]]
    print(
        "RESULT"
        + json.dumps({"wrong": {name: wrong_days(name, *days) for name in asked["zones"]}, "upstream": upstream()})
    )
