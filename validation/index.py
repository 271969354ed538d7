"""The index of all reports: a calendar of days with a mark for each table, made from the JSON files next to the reports.

A summary of the same verdicts is written as one JSON file for the page in Airflow's UI (contracts/quality.py).
"""

from __future__ import annotations

from calendar import Calendar
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path

from contracts.locations import Locations
from contracts.quality import JudgedDay, Status, judged_to_json, rows_in_words
from contracts.steps import VALIDATED_TABLES
from contracts.tables import TABLES
from lake import locks
from pages import markup
from pages.files import write_atomically
from pages.markup import NO_SIGN, SIGNS, Mark
from validation.verdict import Verdict, all_verdicts, broken_on, figures_on, range_name, speaking, status_on

Cells = dict[tuple[date, str], Verdict]

GRAVITY: tuple[Status, ...] = ("fail", "warn", "accepted", "pass")
MEANINGS: dict[Status, str] = {
    "pass": "every check held",
    "warn": "a warning",
    "fail": "a check that stops the day failed",
    "accepted": "failed, and accepted",
}


def index_path(locations: Locations) -> Path:
    """Path of the page."""
    return locations.reports / "index.html"


def write_index(locations: Locations) -> Path:
    """Makes the index again; one process at a time, so that none writes a state that another has overtaken."""
    with locks.hold([locations.locks / "reports_index.lock"]):
        others = [name for name in TABLES if name not in VALIDATED_TABLES and (locations.reports / name).is_dir()]
        verdicts = list(all_verdicts(locations, [*VALIDATED_TABLES, *others]))
        model_reports = [path.stem for path in locations.model_reports.glob("*.html") if not path.name.startswith(".")]
        write_atomically(index_path(locations), render_index(verdicts, model_reports))
        write_atomically(locations.judged_days, judged_to_json(judged_days(verdicts)))
    return index_path(locations)


def judged_days(verdicts: Sequence[Verdict]) -> list[JudgedDay]:
    """What speaks for each table and day, by day and table."""
    newest = _newest(verdicts)
    return [
        JudgedDay(
            table=table,
            day=day,
            status=status_on(verdict, day),
            rows=figures_on(verdict, day).rows,
            broken=tuple(broken_on(verdict, day)),
            judged_ts=verdict.run_ts,
            report=_address(verdict, newest),
            ads_from=figures_on(verdict, day).ads_from,
        )
        for (day, table), verdict in sorted(speaking(verdicts).items())
    ]


def render_index(verdicts: Iterable[Verdict], model_reports: Sequence[str] = ()) -> str:
    """The page; `model_reports` are the names of those that there are, `<first day>_<last day>`."""
    known = list(verdicts)
    cells, newest = speaking(known), _newest(known)
    present = {table for _, table in cells}
    tables = [*(name for name in VALIDATED_TABLES if name in present), *sorted(present - set(VALIDATED_TABLES))]
    statuses = [status_on(verdict, day) for (day, _), verdict in cells.items()]
    months = sorted({(day.year, day.month) for day, _ in cells}, reverse=True)
    return markup.render(
        "validation/templates/index.html.jinja",
        days=sorted({day for day, _ in cells}),
        tables=tables,
        model_reports=model_reports,
        counts=[f"{statuses.count(status)} {status}" for status in MEANINGS if status in statuses],
        meanings=MEANINGS,
        newest_days=[_newest_day(table, cells, newest) for table in tables],
        months=[
            [
                [_square(day, tables, cells, newest) if day.month == month else None for day in week]
                for week in Calendar().monthdatescalendar(year, month)
            ]
            for year, month in months
        ],
    )


def _newest_day(table: str, cells: Cells, newest: Cells) -> tuple[str, date, Verdict, int, str]:
    """The address of the report on a table's newest day, the day, the verdict, its rows and what is to be looked at."""
    day = max(day for day, name in cells if name == table)
    verdict = cells[day, table]
    broken = [*verdict.failed("fail"), *verdict.failed("warn")]
    found = ", ".join(result.id for result in broken[:3]) + (f" and {len(broken) - 3} more" if len(broken) > 3 else "")
    figures = figures_on(verdict, day)
    found = found or (rows_in_words(figures.rows, figures.ads_from) if figures.ads_from else "")
    return _address(verdict, newest), day, verdict, figures.rows, found


def _square(day: date, tables: Sequence[str], cells: Cells, newest: Cells) -> tuple[date, str, list[Mark]]:
    """A day, the gravest of its statuses, and a mark for each table; neither if nothing of it was judged."""
    found = [status_on(cells[day, table], day) for table in tables if (day, table) in cells]
    if not found:
        return day, "none", []
    return day, min(found, key=GRAVITY.index), [_mark(cells.get((day, table)), table, day, newest) for table in tables]


def _mark(verdict: Verdict | None, table: str, day: date, newest: Cells) -> Mark:
    """One verdict's mark; `newest` holds, by table and last day, the verdict whose files are named by that day."""
    if verdict is None:
        return Mark(kind="absent", sign=NO_SIGN, meaning=f"{table}, {day}: not judged")
    together = f", judged together with {verdict.period}" if len(verdict.days) > 1 else ""
    status, figures = status_on(verdict, day), figures_on(verdict, day)
    return Mark(
        kind=status,
        sign=SIGNS[status],
        address=_address(verdict, newest),
        meaning=f"{table}, {day}: {status}, {rows_in_words(figures.rows, figures.ads_from)}{together}",
    )


def _newest(verdicts: Iterable[Verdict]) -> Cells:
    """Returns the newest verdict for each last day and table, whose report is the one that is named by that day."""
    return {
        (verdict.last_day, verdict.table): verdict for verdict in sorted(verdicts, key=lambda verdict: verdict.run_ts)
    }


def _address(verdict: Verdict, newest: Cells) -> str:
    is_newest = newest[verdict.last_day, verdict.table] is verdict
    return f"{verdict.table}/{verdict.last_day if is_newest else range_name(verdict)}.html"
