"""A timetable whose data intervals are exactly the days, weeks and months of a time zone, also where clocks change at midnight."""

from __future__ import annotations

from datetime import UTC, date, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from airflow.timetables.interval import CronDataIntervalTimetable
from pendulum import DateTime, instance

from contracts.kinds import Cadence
from contracts.periods import PeriodSettings
from contracts.zones import day_start

CALENDAR_CRON: dict[Cadence, str] = {"day": "0 0 * * *", "week": "0 0 * * 1", "month": "0 0 1 * *"}
_CALENDAR = PeriodSettings()


class PeriodTimetable(CronDataIntervalTimetable):
    """Runs whose data intervals are calendar days, ISO weeks or months of a time zone.

    Airflow's own class takes the cron expression's next wall-clock time and then looks for an instant of that time.
    Where midnight is missing it leaves out the day before if a range begins with it, and where midnight comes twice it
    takes the second (`tests/test_timetable.py` shows both). `plugins/scheduling.py` registers this class with Airflow.

    Args:
        cadence: day, week or month.
        timezone: the IANA name of the time zone.
    """

    def __init__(self, cadence: Cadence, timezone: str) -> None:
        super().__init__(CALENDAR_CRON[cadence], timezone=timezone)
        self.cadence, self.zone = cadence, ZoneInfo(timezone)

    def serialize(self) -> dict[str, Any]:
        """Returns the arguments from which Airflow makes this timetable again."""
        return {"cadence": self.cadence, "timezone": self.zone.key}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> PeriodTimetable:
        """Makes the timetable from what `serialize` returned."""
        return cls(data["cadence"], data["timezone"])

    def _get_next(self, current: DateTime) -> DateTime:
        """The first beginning of a period after an instant."""
        period = _CALENDAR.containing(self.cadence, self._day_of(current))
        start = self._start(period.start)
        while start <= current:
            period = _CALENDAR.containing(self.cadence, period.end)
            start = self._start(period.start)
        return start

    def _get_prev(self, current: DateTime) -> DateTime:
        """The last beginning of a period before an instant."""
        period = _CALENDAR.containing(self.cadence, self._day_of(current))
        start = self._start(period.start)
        while start >= current:
            period = _CALENDAR.previous(period)
            start = self._start(period.start)
        return start

    def _align_to_next(self, current: DateTime) -> DateTime:
        """The first beginning of a period that is not before an instant."""
        return self._get_next(current - timedelta(microseconds=1))

    def _align_to_prev(self, current: DateTime) -> DateTime:
        """The last beginning of a period that is not after an instant."""
        return self._get_prev(current + timedelta(microseconds=1))

    def _day_of(self, instant: DateTime) -> date:
        local = instant.astimezone(self.zone)
        return date(local.year, local.month, local.day)

    def _start(self, day: date) -> DateTime:
        return instance(day_start(self.zone, day), tz=UTC)
