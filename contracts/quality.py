"""Two small JSON files next to the reports, from which the pages about quality in Airflow's UI are made (`pages/files.py`).

A page must not need the libraries that judged a day: validation writes each day's verdict here, and the search for
stale partitions writes its result, the time, and the commands that repair the partitions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any, Literal

Status = Literal["pass", "warn", "fail", "accepted"]
UNKNOWN = "unknown_"  # prefix of the counts, in a log's build, of values that a rule made unknown
FORMAT = 1  # of both files; raised when an older one can no longer be read


def rows_in_words(rows: int, ads_from: date | None) -> str:
    """A day's number of rows in words; for a day before advertisements began, why it has none."""
    return f"{rows:,} rows" if ads_from is None else f"no ads yet, as declared: ad_start is {ads_from}"


@dataclass(frozen=True, kw_only=True)
class JudgedDay:
    """The verdict on one day of a table.

    Attributes:
        table, day: the table and its day.
        status: the day's status, by the verdict over the fewest days that include it, and of these the newest.
        rows: number of rows of the day.
        broken: names of the checks that failed, the most severe first.
        judged_ts: when the day was judged, in UTC.
        report: path of its report below the reports' folder; days that were judged together share one.
        ads_from: the declared first day with advertisements, for a day before it without rows; None for every other
            day.
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
        """The day's number of rows in words, as pages show it."""
        return rows_in_words(self.rows, self.ads_from)


@dataclass(frozen=True, kw_only=True)
class StaleDay:
    """A stale partition: one that its job would now write with other rows.

    Attributes:
        table, day: the table and its day; for a checkpoint, the day before which it ends.
        why: the input that has changed, or the stale input that it reads.
    """

    table: str
    day: date
    why: str


@dataclass(frozen=True, kw_only=True)
class StaleReport:
    """The result of one search for stale partitions.

    Attributes:
        looked_ts: when the search ran, in UTC.
        days: the stale partitions; none if all are up to date.
        releases: active releases whose rows or parents have changed since, each with the reason.
        commands: the commands that repair all partitions, in this order.
        periods: (DAG, first, last) of the periods whose models have to be rebuilt after that, in this order.
    """

    looked_ts: datetime
    days: tuple[StaleDay, ...]
    releases: tuple[tuple[str, str], ...]
    commands: tuple[str, ...]
    periods: tuple[tuple[str, date, date], ...] = ()

    @property
    def backfills(self) -> list[str]:
        """Commands that rebuild the models, in this order."""
        return [
            f"tributary dags backfill {dag} --from {first} --to {last} --reprocess completed"
            for dag, first, last in self.periods
        ]

    def to_json(self) -> str:
        """The JSON text that `from_json` reads."""
        return json.dumps({"format": FORMAT, **asdict(self)}, default=str, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> StaleReport:
        """Reads what `to_json` wrote.

        Raises:
            ValueError, KeyError, TypeError: it is something else, or in a format of another version.
        """
        values = _values(text)
        periods = tuple(
            (dag, date.fromisoformat(first), date.fromisoformat(last)) for dag, first, last in values["periods"]
        )
        days = tuple(StaleDay(**_with_times(day)) for day in values["days"])
        return cls(
            looked_ts=datetime.fromisoformat(values["looked_ts"]),
            days=days,
            releases=tuple((name, why) for name, why in values["releases"]),
            commands=tuple(values["commands"]),
            periods=periods,
        )


def judged_to_json(days: Iterable[JudgedDay]) -> str:
    """JSON text of the verdicts, one line for each table and day."""
    lines = ",\n".join(json.dumps(asdict(day), default=str) for day in days)
    return f'{{"format": {FORMAT}, "days": [\n{lines}\n]}}\n'


def judged_from_json(text: str) -> list[JudgedDay]:
    """Reads what `judged_to_json` wrote.

    Raises:
        ValueError, KeyError, TypeError: it is something else, or in a format of another version.
    """
    return [
        JudgedDay(
            **{
                **_with_times(day, "judged_ts"),
                "broken": tuple(day["broken"]),
                "ads_from": _optional_day(day.get("ads_from")),
            }
        )
        for day in _values(text)["days"]
    ]


def _values(text: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(text)
    if values["format"] != FORMAT:
        raise ValueError(f"expected format {FORMAT}")
    return values


def _optional_day(text: str | None) -> date | None:
    return None if text is None else date.fromisoformat(text)


def _with_times(values: dict[str, Any], *instants: str) -> dict[str, Any]:
    return {
        **values,
        "day": date.fromisoformat(values["day"]),
        **{name: datetime.fromisoformat(values[name]) for name in instants},
    }
