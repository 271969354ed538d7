"""What was found: results of checks, the verdict on a table and its days, and the JSON file kept beside each report."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal

from contracts.errors import BadInput
from contracts.locations import Locations
from contracts.periods import ONE_DAY, days_between
from validation.figures import DayFigures
from validation.suites import Severity

Status = Literal["pass", "warn", "fail", "accepted"]
FORMAT = 1  # of the JSON file; raised when an older one can no longer be read


@dataclass(frozen=True, kw_only=True)
class Result:
    """One check, judged: a row of `quality_results`."""

    name: str
    field: str | None
    severity: Severity
    success: bool
    expected: str
    found: str

    @property
    def id(self) -> str:
        return self.name if self.field is None else f"{self.name}({self.field})"


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """Somebody looked at a failed day and lets it pass as it is; void when the day is built again."""

    reason: str
    accepted_ts: datetime


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A table, judged over one day or a range of days.

    Attributes:
        table: the table's name.
        first_day, last_day: the days judged, both inclusive.
        run_ts: when, in UTC.
        results: every check of the suite.
        days: figures of each day.
        digests: content digest of each partition judged, by owner key.
        acceptance: of a failed verdict, if one was given.
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
        return tuple(result for result in self.results if not result.success and result.severity == severity)

    @property
    def status(self) -> Status:
        if self.failed("fail"):
            return "fail" if self.acceptance is None else "accepted"
        return "warn" if self.failed("warn") else "pass"

    @property
    def rows(self) -> int:
        return sum(day.rows for day in self.days)

    @property
    def period(self) -> str:
        """The days, for people."""
        return str(self.last_day) if self.first_day == self.last_day else f"{self.first_day} .. {self.last_day}"

    def to_json(self) -> str:
        values = asdict(self) | {"format": FORMAT, "days": [day.as_json() for day in self.days]}
        return json.dumps(values, default=str, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Verdict:
        """Raises ValueError or KeyError for a text that `to_json` of this format did not write."""
        values: dict[str, Any] = json.loads(text)
        if values.pop("format") != FORMAT:
            raise ValueError(f"expected format {FORMAT}")
        accepted = values["acceptance"]
        return cls(**values | {
            **{name: date.fromisoformat(values[name]) for name in ("first_day", "last_day")},
            "run_ts": datetime.fromisoformat(values["run_ts"]),
            "results": tuple(Result(**result) for result in values["results"]),
            "days": tuple(DayFigures.from_json(day) for day in values["days"]),
            "acceptance": accepted and Acceptance(reason=accepted["reason"],
                                                  accepted_ts=datetime.fromisoformat(accepted["accepted_ts"])),
        })


def report_path(locations: Locations, verdict: Verdict) -> Path:
    return locations.report(verdict.table, verdict.last_day)


def sidecar_path(locations: Locations, table: str, day: date) -> Path:
    """The verdict as JSON, beside its report: what the index, and the reports of later days, are made from."""
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
        raise BadInput(sidecar_path(locations, table, day), "file", expected="the results of a validation", found="none that can be read",
                       hint=f"Make them with: tributary validation run --table {table} --ds {day}")
    return verdict


def all_verdicts(locations: Locations, tables: Sequence[str]) -> Iterator[Verdict]:
    """Every verdict of these tables that can be read."""
    for table in tables:
        for path in sorted((locations.reports / table).glob("*.json")):
            verdict = _read(path)
            if verdict is not None:
                yield verdict


def earlier_days(locations: Locations, verdict: Verdict, days: int) -> list[DayFigures]:
    """Figures of the verdict's own days, and of up to `days` days that end with its last one, from earlier verdicts."""
    first = verdict.last_day - ONE_DAY * (days - 1)
    known: dict[date, DayFigures] = {}
    for day in days_between(first, verdict.last_day):
        earlier = read_verdict(locations, verdict.table, day)
        if earlier is not None:
            known |= {figures.ds: figures for figures in earlier.days if figures.ds >= first}
    known |= {figures.ds: figures for figures in verdict.days}
    return [known[day] for day in sorted(known)]


def write_atomically(path: Path, text: str) -> None:
    """A reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
