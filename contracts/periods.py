"""Periods (days, weeks, months) and the parents that a period's model is made from.

Everything here is a pure function of a period and of a deployment's settings, so that a live run, a backfill and a
person at a terminal get the same answer whenever they ask. Never "latest", never the clock.

A period is named by its first day; its `end` is exclusive. Calendar months and ISO weeks by default; where the data
spans days only, months and weeks are equal blocks of days counted from an anchor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

from contracts.errors import BadInput
from contracts.kinds import KINDS, Cadence, ParentRule, Role

ONE_DAY = timedelta(days=1)
TPM_SNAPSHOTS = 3  # E-CDCTR: the snapshots of the last three months, T, T-1, T-2
CHECKPOINT_DAYS = 10  # a checkpoint of the running features every ten days, counted from `history_start`
CALENDAR_MONTH_DAYS = 30  # how many days "the last month" of a CPM is, where months are the calendar's


@dataclass(frozen=True, kw_only=True)
class Period:
    """A day, week or month: `start` inclusive, `end` exclusive."""

    cadence: Cadence
    start: date
    end: date

    def days(self) -> list[date]:
        """All days of the period, in order."""
        return list(days_between(self.start, self.end))

    def __str__(self) -> str:
        return f"{self.cadence} {self.start} .. {self.end - ONE_DAY}"


@dataclass(frozen=True, kw_only=True)
class PeriodSettings:
    """How days fall into weeks and months.

    Attributes:
        anchor: a day on which a block begins; None means the calendar's months and ISO weeks.
        month_days: length of a month in days, with an anchor.
        week_days: length of a week in days, with an anchor.
    """

    anchor: date | None = None
    month_days: int | None = None
    week_days: int | None = None

    def __post_init__(self) -> None:
        lengths = (self.month_days, self.week_days)
        if self.anchor is None and lengths != (None, None):
            raise BadInput("periods", "anchor", expected="a day, since month_days or week_days is set", found="none")
        for name, length in zip(("month_days", "week_days"), lengths, strict=True):
            if self.anchor is not None and (length is None or length < 1):
                raise BadInput("periods", name, expected="a number of days >= 1, since anchor is set", found=length)

    @property
    def is_calendar(self) -> bool:
        """Whether months are the calendar's and weeks are ISO weeks."""
        return self.anchor is None

    def containing(self, cadence: Cadence, day: date) -> Period:
        """The period of this cadence that holds `day`."""
        if cadence == "day":
            return Period(cadence="day", start=day, end=day + ONE_DAY)
        if self.anchor is not None:
            length = self.month_days if cadence == "month" else self.week_days
            assert length is not None
            start = day - timedelta(days=(day - self.anchor).days % length)
            return Period(cadence=cadence, start=start, end=start + timedelta(days=length))
        if cadence == "week":
            start = day - timedelta(days=day.weekday())
            return Period(cadence="week", start=start, end=start + timedelta(days=7))
        start = day.replace(day=1)
        return Period(cadence="month", start=start, end=(start + timedelta(days=31)).replace(day=1))

    def named(self, cadence: Cadence, start: date) -> Period:
        """The period whose id is `start`.

        Raises:
            BadInput: `start` is not the first day of a period.
        """
        period = self.containing(cadence, start)
        if period.start != start:
            raise BadInput(
                "--period",
                cadence,
                expected=f"the first day of a {cadence}",
                found=start,
                hint=f"{start} lies in the {cadence} that begins on {period.start}.",
            )
        return period

    def previous(self, period: Period) -> Period:
        """The period of the same cadence that ends where this one begins."""
        return self.containing(period.cadence, period.start - ONE_DAY)

    def closed_before(self, cadence: Cadence, day: date) -> Period:
        """The last period of this cadence with `end <= day`."""
        period = self.containing(cadence, day)
        return period if period.end <= day else self.previous(period)

    def last_closed(self, cadence: Cadence, day: date, count: int) -> list[Period]:
        """The last `count` periods closed before `day`, newest first."""
        periods = [self.closed_before(cadence, day)]
        while len(periods) < count:
            periods.append(self.previous(periods[-1]))
        return periods

    def ends_on(self, cadence: Cadence, day: date) -> Period | None:
        """The period whose last day is `day`, or None."""
        period = self.containing(cadence, day)
        return period if period.end == day + ONE_DAY else None


def days_between(start: date, end: date) -> Iterator[date]:
    """Days of [start, end)."""
    while start < end:
        yield start
        start += ONE_DAY


@dataclass(frozen=True, kw_only=True, order=True)
class Parent:
    """A release that another release is made from; `role` names what it is used for."""

    role: Role
    kind: str
    period: date


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """Which periods a period depends on, for one deployment.

    Attributes:
        settings: how days fall into periods.
        history_start: the first day with logs; parents wholly before it are legitimately absent.
        actr_start: the one A-CTR day without a predecessor.
    """

    settings: PeriodSettings
    history_start: date
    actr_start: date

    def exists(self, period: Period) -> bool:
        """Whether the period holds any day with logs."""
        return period.end > self.history_start

    @property
    def encoder_start(self) -> date:
        """First day of the first FG-BERT: the one that the first A-CTR reads. Histories are short, so no earlier one is needed."""
        week = self.settings.closed_before("week", self.actr_start)
        return week.start if self.exists(week) else self.settings.containing("week", self.history_start).start

    @property
    def encoded_start(self) -> date:
        """First day whose users are encoded: that of the first A-CTR, once there is an FG-BERT."""
        return max(self.actr_start, self.settings.containing("week", self.encoder_start).end)

    @property
    def texts_start(self) -> date:
        """First day of the first BAHE: the day before the first A-CTR, which reads vectors of the days before each row's day."""
        return max(self.actr_start - ONE_DAY, self.history_start)

    @property
    def first_periods(self) -> dict[str, date]:
        """First day of the first period of each kind that begins after the logs do."""
        return {kind.name: getattr(self, kind.first) for kind in KINDS.values() if kind.first != "history_start"}

    def is_made(self, kind: str, period: Period) -> bool:
        """Whether the deployment has a model of this kind for the period."""
        return self.exists(period) and period.start >= self.first_periods.get(kind, period.start)

    def period(self, kind: str, start: date) -> Period:
        """The period of a model of this kind.

        Raises:
            BadInput: unknown kind, `start` is no period's first day, or the period lies before the deployment's first.
        """
        if kind not in KINDS:
            raise BadInput("--kind", "kind", expected=f"one of {', '.join(KINDS)}", found=kind)
        period = self.settings.named(KINDS[kind].cadence, start)
        if not self.is_made(kind, period):
            later = self.first_periods
            raise BadInput(
                "deployment",
                "actr_start" if kind in later else "history_start",
                expected=f"a {kind} period not before {later.get(kind, self.history_start)}",
                found=start,
            )
        return period

    def parents(self, kind: str, start: date) -> list[Parent]:
        """Releases that the `kind` model of the period `start` is made from; each is mandatory if its variant reads it."""
        period = self.period(kind, start)
        return [
            Parent(role=rule.role, kind=rule.kind, period=first)
            for rule in KINDS[kind].parents
            for first in self._first_days_by(rule, period)
        ]

    def certain_days(self, kind: str, start: date, *, replay_days: int) -> list[date]:
        """Days of the tables that the training of a period always reads, whether it continues an earlier model or starts again.

        Args:
            kind: the kind of model.
            start: first day of the period.
            replay_days: number of days that an ad model replays when it starts again.
        """
        period = self.period(kind, start)
        reads_days = KINDS[kind].reads_days
        if reads_days == "last_month":
            return self.natural_training_days(period.end)
        if reads_days == "replay" and start == self.first_periods.get(kind):
            return self.actr_training_days(start, replay_days=replay_days)
        return [day for day in period.days() if day >= self.history_start]

    def cpm_training_days(self, week: Period) -> list[date]:
        """Days that the CPM of this week trains on: the last month up to its end."""
        return self.natural_training_days(week.end)

    def natural_training_days(self, end: date) -> list[date]:
        """The last month of natural days before `end`, from `history_start` on."""
        length = self.settings.month_days or CALENDAR_MONTH_DAYS
        return list(days_between(max(end - timedelta(days=length), self.history_start), end))

    def bahe_training_days(self, day: date, *, first_days: int) -> list[date]:
        """Days that a BAHE of `day` trains on: only that day, but the first BAHE trains on the last `first_days` days."""
        start = max(day + ONE_DAY - timedelta(days=first_days), self.history_start) if day == self.texts_start else day
        return list(days_between(start, day + ONE_DAY))

    def snapshots_of_day(self, day: date) -> list[date | None]:
        """The three TPM months closed before `day`, newest first; None where a month precedes `history_start`."""
        months = self.settings.last_closed("month", day, TPM_SNAPSHOTS)
        return [month.start if self.exists(month) else None for month in months]

    def actr_training_days(self, day: date, *, replay_days: int) -> list[date]:
        """Ad days that an A-CTR of `day` replays when it starts again: the last `replay_days`, `day` included."""
        start = max(day + ONE_DAY - timedelta(days=replay_days), self.history_start)
        return list(days_between(start, day + ONE_DAY))

    def checkpoint_before(self, day: date) -> date | None:
        """`until_ds` of the newest feature checkpoint with `until_ds <= day`; None where there is none yet."""
        blocks = (day - self.history_start).days // CHECKPOINT_DAYS
        return self.history_start + timedelta(days=blocks * CHECKPOINT_DAYS) if blocks > 0 else None

    def _first_days_by(self, rule: ParentRule, period: Period) -> list[date]:
        if rule.which == "snapshots":
            return self._cpm_snapshots(period)
        parent = (
            self.settings.previous(period)
            if rule.which == "previous"
            else self.settings.closed_before(KINDS[rule.kind].cadence, period.start)
        )
        return [parent.start] if self.is_made(rule.kind, parent) else []

    def _cpm_snapshots(self, week: Period) -> list[date]:
        """Months for the training rows (closed before each row's own day) and for the merged table (before the week)."""
        needed = {m for day in [*self.cpm_training_days(week), week.start] for m in self.snapshots_of_day(day)}
        return sorted(month for month in needed if month is not None)
