"""Results of checks, the verdict on a table and its days, and the JSON file kept next to each report."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

from contracts.errors import BadInput
from contracts.locations import Locations
from contracts.periods import ONE_DAY
from contracts.quality import Status
from pages.pictures import State
from validation.figures import DayFigures
from validation.suites import Severity

LATER_FILES = 31
FORMAT = 1  # of the JSON file; raised when an older one can no longer be read


@dataclass(frozen=True, kw_only=True)
class Result:
    """One check, judged: a row of `quality_results`.

    Attributes:
        figure: the figure that was judged, if one; see `DayFigures.figure`.
        low, high: its bounds.
    """

    name: str
    field: str | None
    severity: Severity
    success: bool
    expected: str
    found: str
    figure: str | None = None
    low: float | None = None
    high: float | None = None

    @property
    def id(self) -> str:
        """The check's name, with the column in brackets if it judges one."""
        return self.name if self.field is None else f"{self.name}({self.field})"


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """A person's decision to let a failed day pass as it is; void when the day is rebuilt."""

    reason: str
    accepted_ts: datetime


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A table, judged over one day or a range of days.

    Attributes:
        table: the table's name.
        first_day, last_day: the days judged, both inclusive.
        run_ts: when it was judged, in UTC.
        results: every check of the suite.
        days: figures of each day.
        digests: content digest of each partition judged, by owner key.
        acceptance: the acceptance of a failed verdict, if a person gave one.
    """

    table: str
    first_day: date
    last_day: date
    run_ts: datetime
    results: tuple[Result, ...]
    days: tuple[DayFigures, ...]
    digests: Mapping[str, str] = field(default_factory=dict)
    acceptance: Acceptance | None = None

    def failed(self, severity: Severity) -> tuple[Result, ...]:
        """Results of this severity that failed."""
        return tuple(result for result in self.results if not result.success and result.severity == severity)

    @property
    def status(self) -> Status:
        """`fail`, `accepted`, `warn` or `pass`, by the most severe failed check."""
        if self.failed("fail"):
            return "fail" if self.acceptance is None else "accepted"
        return "warn" if self.failed("warn") else "pass"

    @property
    def rows(self) -> int:
        """Number of rows of all days."""
        return sum(day.rows for day in self.days)

    @property
    def period(self) -> str:
        """The days, for people."""
        return str(self.last_day) if self.first_day == self.last_day else f"{self.first_day} .. {self.last_day}"

    def to_json(self) -> str:
        """The verdict as JSON, one line for each result and day."""
        values = {"format": FORMAT, **asdict(self), "days": [day.as_json() for day in self.days]}

        def lines(value: Any) -> str:
            if isinstance(value, (list, tuple)) and value:
                return "[\n  " + ",\n  ".join(json.dumps(item, default=str) for item in value) + "\n ]"
            return json.dumps(value, default=str)

        return "{\n " + ",\n ".join(f"{json.dumps(name)}: {lines(value)}" for name, value in values.items()) + "\n}\n"

    @classmethod
    def from_json(cls, text: str) -> Verdict:
        """Raises ValueError or KeyError for a text that `to_json` of this format did not write."""
        values: dict[str, Any] = json.loads(text)
        if values.pop("format") != FORMAT:
            raise ValueError(f"expected format {FORMAT}")
        accepted = values["acceptance"]
        return cls(
            **values
            | {
                **{name: date.fromisoformat(values[name]) for name in ("first_day", "last_day")},
                "run_ts": datetime.fromisoformat(values["run_ts"]),
                "results": tuple(Result(**result) for result in values["results"]),
                "days": tuple(DayFigures.from_json(day) for day in values["days"]),
                "acceptance": accepted
                and Acceptance(reason=accepted["reason"], accepted_ts=datetime.fromisoformat(accepted["accepted_ts"])),
            }
        )


def report_path(locations: Locations, verdict: Verdict) -> Path:
    """Path of the verdict's report."""
    return locations.report(verdict.table, verdict.last_day)


def sidecar_path(locations: Locations, table: str, day: date) -> Path:
    """Path of the verdict as JSON, next to its report; the index and the reports of later days are made from it."""
    return locations.report(table, day).with_suffix(".json")


def read_verdict(locations: Locations, table: str, day: date) -> Verdict | None:
    """The verdict whose report is named by `day`; None if there is none, or it cannot be read."""
    return _read(sidecar_path(locations, table, day))


def _read(path: Path) -> Verdict | None:
    try:
        return Verdict.from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def range_name(verdict: Verdict) -> str:
    """Name of the files of a range's verdict once a newer one has taken the last day's name."""
    return f"{verdict.first_day}_{verdict.last_day}"


def keep_wider(locations: Locations, verdict: Verdict) -> None:
    """Renames the files that this verdict is about to replace, if they speak for days that it does not cover."""
    old = read_verdict(locations, verdict.table, verdict.last_day)
    if old is not None and old.first_day < verdict.first_day:
        for path in (report_path(locations, old), sidecar_path(locations, old.table, old.last_day)):
            if path.exists():
                os.replace(path, path.with_name(range_name(old) + path.suffix))


def require_verdict(locations: Locations, table: str, day: date) -> Verdict:
    """As `read_verdict`.

    Raises:
        BadInput: there is none.
    """
    verdict = read_verdict(locations, table, day)
    if verdict is None:
        raise BadInput(
            sidecar_path(locations, table, day),
            "file",
            expected="the results of a validation",
            found="none that can be read",
            hint=f"Make them with: tributary validation run --table {table} --ds {day}",
        )
    return verdict


def all_verdicts(locations: Locations, tables: Sequence[str]) -> Iterator[Verdict]:
    """Every verdict of these tables that can be read."""
    for table in tables:
        for path in sorted((locations.reports / table).glob("*.json")):
            verdict = _read(path)
            if verdict is not None:
                yield verdict


def speaking(verdicts: Iterable[Verdict]) -> dict[tuple[date, str], Verdict]:
    """Which verdict speaks for a day of a table: the one over the fewest days, then the newest."""
    chosen: dict[tuple[date, str], Verdict] = {}
    for verdict in verdicts:
        for day in verdict.days:
            known = chosen.get((day.ds, verdict.table))
            if known is None or (len(verdict.days), -verdict.run_ts.timestamp()) < (
                len(known.days),
                -known.run_ts.timestamp(),
            ):
                chosen[day.ds, verdict.table] = verdict
    return chosen


def verdicts_by_day(locations: Locations, table: str, first: date, last: date) -> dict[date, Verdict]:
    """The verdict that speaks for each day `first` .. `last`, both inclusive, of those that were judged.

    A file is named by its last day: those of later ones are opened, a month on at most, while a day is missing, since
    a range may reach back.
    """
    named = sorted(
        (_last_day(path), path) for path in (locations.reports / table).glob("*.json") if _last_day(path) >= first
    )
    verdicts = [_read(path) for day, path in named if day <= last]
    days: dict[date, Verdict] = {}
    later = iter([path for day, path in named if last < day <= last + ONE_DAY * LATER_FILES])
    while True:
        chosen = speaking(verdict for verdict in verdicts if verdict is not None)
        days = {day: verdict for (day, _), verdict in chosen.items() if first <= day <= last}
        path = next(later, None) if len(days) <= (last - first).days else None
        if path is None:
            return dict(sorted(days.items()))
        verdicts.append(_read(path))


def _last_day(path: Path) -> date:
    """The last day that a file speaks for, by its name; the first of all for a name that is none of ours."""
    try:
        return date.fromisoformat(path.stem.rpartition("_")[2])
    except ValueError:
        return date.min


def history_of(locations: Locations, verdict: Verdict, days: int) -> dict[date, Verdict]:
    """The verdicts on up to `days` days that end with this one's last, its own among them."""
    first = verdict.last_day - ONE_DAY * (days - 1)
    known = verdicts_by_day(locations, verdict.table, first, verdict.last_day)
    own = {figures.ds: verdict for figures in verdict.days if figures.ds >= first}
    return dict(sorted((known | own).items()))


def figures_on(verdict: Verdict, day: date) -> DayFigures:
    """A verdict's figures of one of its days."""
    return next(figures for figures in verdict.days if figures.ds == day)


def state_on(verdict: Verdict, check: str, day: date) -> State | None:
    """What a check came to on one day of a verdict; of days judged together, by the day's own figure if it has one."""
    result = next((result for result in verdict.results if result.id == check), None)
    return None if result is None else _state(verdict, result, day)


def status_on(verdict: Verdict, day: date) -> Status:
    """The status of one of a verdict's days."""
    if len(verdict.days) == 1:
        return verdict.status
    states = {_state(verdict, result, day) for result in verdict.results}
    if "fail" in states:
        return "fail" if verdict.acceptance is None else "accepted"
    return "warn" if "warn" in states else "pass"


def broken_on(verdict: Verdict, day: date) -> list[str]:
    """Checks that one of a verdict's days broke, those that stop the day first."""
    is_single = len(verdict.days) == 1
    broken = [
        result
        for result in verdict.results
        if not (result.success if is_single else _state(verdict, result, day) == "pass")
    ]
    return [result.id for result in sorted(broken, key=lambda result: result.severity)]


def _state(verdict: Verdict, result: Result, day: date) -> State:
    value = figures_on(verdict, day).judged(result.figure) if result.figure else None
    if value is None:
        return "pass" if result.success else result.severity
    inside = (result.low is None or value >= result.low) and (result.high is None or value <= result.high)
    return "pass" if inside else result.severity
