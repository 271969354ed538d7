"""What the pages about quality in Airflow's UI are made from: the content of two small JSON files beside the reports (`pages/files.py`).

Whoever shows a day must not need what judged it: validation leaves each day's verdict here, and whoever looked for stale
partitions leaves what it found, when, and the commands that mend it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any, Literal

Status = Literal["pass", "warn", "fail", "accepted"]
UNKNOWN = "unknown_"  # begins the counts of a log's build that say how many values a rule made unknown
FORMAT = 1  # of both files; raised when an older one can no longer be read


def rows_in_words(rows: int, ads_from: date | None) -> str:
    """How many rows a day has; of one before advertisements began, why it has none."""
    return f"{rows:,} rows" if ads_from is None else f"no ads yet, as declared: ad_start is {ads_from}"


@dataclass(frozen=True, kw_only=True)
class JudgedDay:
    """What a table's day came to.

    Attributes:
        table, day: which.
        status: of the day, as far as the verdict that speaks for it is about it.
        rows: of the day.
        broken: checks that failed, the gravest first.
        judged_ts: when, in UTC.
        report: its report's path below the reports' folder; several days that were judged together share one.
        ads_from: the declared first day with advertisements, of a day before it that has no row; None of every other day.
    """

    table: str
    day: date
    status: Status
    rows: int
    broken: tuple[str, ...]
    judged_ts: datetime
    report: str
    ads_from: date | None = None

    @property
    def rows_in_words(self) -> str:
        return rows_in_words(self.rows, self.ads_from)


@dataclass(frozen=True, kw_only=True)
class StaleDay:
    """A partition that no longer is what its job would make now.

    Attributes:
        table, day: which; of a checkpoint, the day before which it ends.
        why: the input that has changed, or that what it reads is stale.
    """

    table: str
    day: date
    why: str


@dataclass(frozen=True, kw_only=True)
class StaleFound:
    """What somebody who looked for stale partitions has found.

    Attributes:
        looked_ts: when, in UTC.
        days: stale partitions; none if all are as they would be made now.
        releases: active releases that rest on rows or parents that have changed since, with what is wrong with each.
        commands: mend all partitions, in this order.
        periods: the periods whose models have to be made again, once all partitions are mended, by DAG and in order: first and last.
    """

    looked_ts: datetime
    days: tuple[StaleDay, ...]
    releases: tuple[tuple[str, str], ...]
    commands: tuple[str, ...]
    periods: tuple[tuple[str, date, date], ...] = ()

    @property
    def backfills(self) -> list[str]:
        """Commands that make the models again, in this order."""
        return [f"tributary dags backfill {dag} --from {first} --to {last} --reprocess completed" for dag, first, last in self.periods]

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self)}, default=str, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> StaleFound:
        """Reads what `to_json` wrote.

        Raises:
            ValueError, KeyError, TypeError: it is something else, or in a format of another version.
        """
        values = _values(text)
        periods = tuple((dag, date.fromisoformat(first), date.fromisoformat(last)) for dag, first, last in values["periods"])
        days = tuple(StaleDay(**_with_times(day)) for day in values["days"])
        return cls(looked_ts=datetime.fromisoformat(values["looked_ts"]), days=days,
                   releases=tuple((name, why) for name, why in values["releases"]), commands=tuple(values["commands"]), periods=periods)


def judged_to_json(days: Iterable[JudgedDay]) -> str:
    """A line a table and day."""
    lines = ",\n".join(json.dumps(asdict(day), default=str) for day in days)
    return f'{{"format": {FORMAT}, "days": [\n{lines}\n]}}\n'


def judged_from_json(text: str) -> list[JudgedDay]:
    """Reads what `judged_to_json` wrote.

    Raises:
        ValueError, KeyError, TypeError: it is something else, or in a format of another version.
    """
    return [JudgedDay(**{**_with_times(day, "judged_ts"), "broken": tuple(day["broken"]), "ads_from": _optional_day(day.get("ads_from"))})
            for day in _values(text)["days"]]


def _values(text: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(text)
    if values["format"] != FORMAT:
        raise ValueError(f"expected format {FORMAT}")
    return values


def _optional_day(text: str | None) -> date | None:
    return None if text is None else date.fromisoformat(text)


def _with_times(values: dict[str, Any], *instants: str) -> dict[str, Any]:
    return {**values, "day": date.fromisoformat(values["day"]), **{name: datetime.fromisoformat(values[name]) for name in instants}}
