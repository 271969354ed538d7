"""The index of all reports: a row a day, a column a table. Made again from the JSON files beside the reports."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from itertools import groupby
from pathlib import Path

from contracts.locations import Locations
from contracts.tables import TABLES, VALIDATED_TABLES
from lake import locks
from validation import markup
from validation.verdict import Verdict, all_verdicts, range_name, write_atomically

Cells = dict[tuple[date, str], Verdict]


def index_path(locations: Locations) -> Path:
    return locations.reports / "index.html"


def write_index(locations: Locations) -> Path:
    """Makes the index again; one process at a time, so that none writes a state that another has overtaken."""
    with locks.hold([locations.locks / "reports_index.lock"]):
        others = [name for name in TABLES if name not in VALIDATED_TABLES and (locations.reports / name).is_dir()]
        verdicts = list(all_verdicts(locations, [*VALIDATED_TABLES, *others]))
        write_atomically(index_path(locations), render_index(verdicts))
    return index_path(locations)


def cells_of(verdicts: Iterable[Verdict]) -> Cells:
    """Which verdict speaks for a day of a table: the one over the fewest days, then the newest."""
    cells: Cells = {}
    for verdict in verdicts:
        for day in verdict.days:
            known = cells.get((day.ds, verdict.table))
            if known is None or (len(verdict.days), -verdict.run_ts.timestamp()) < (len(known.days), -known.run_ts.timestamp()):
                cells[day.ds, verdict.table] = verdict
    return cells


def render_index(verdicts: Iterable[Verdict]) -> str:
    """The page."""
    known = list(verdicts)
    cells = cells_of(known)
    newest = {(verdict.last_day, verdict.table): verdict for verdict in sorted(known, key=lambda verdict: verdict.run_ts)}
    if not cells:
        return markup.page("Data quality", "<header><h1>Data quality</h1><p>Nothing has been judged yet: "
                                         "<code>tributary validation run --ds DAY</code></p></header>")
    days = sorted({day for day, _ in cells}, reverse=True)
    present = {table for _, table in cells}
    tables = [*(name for name in VALIDATED_TABLES if name in present), *sorted(present - set(VALIDATED_TABLES))]
    titles = "".join(f'<th scope="col">{markup.text(table)}</th>' for table in tables)
    body = []
    for month, in_month in groupby(days, key=lambda day: f"{day:%B %Y}"):
        body.append(f'<tr class="month"><th colspan="{len(tables) + 1}" scope="rowgroup">{markup.text(month)}</th></tr>')
        body += [f'<tr><th scope="row">{day:%a} {day}</th>' + "".join(
            f"<td>{_cell(cells.get((day, table)), day, newest)}</td>" for table in tables) + "</tr>" for day in in_month]
    statuses = [verdict.status for verdict in cells.values()]
    summary = ", ".join(f"{statuses.count(status)} {status}" for status in ("pass", "warn", "fail", "accepted") if status in statuses)
    header = (f"<header><h1>Data quality</h1><p>{len(days)} days, {days[-1]} .. {days[0]} · tables and days: {summary}</p>"
              '<p class="soft">Each verdict leads to its report, with the rows of that day beside it; '
              "↔ marks a report that covers several days.</p></header>")
    grid = (f'<table class="index"><thead><tr><th scope="col">Day</th>{titles}</tr></thead><tbody>\n'
            + "\n".join(body) + "\n</tbody></table>")
    return markup.page("Data quality", f"{header}\n<section>{grid}</section>")


def _cell(verdict: Verdict | None, day: date, newest: Cells) -> str:
    """One verdict; `newest` says by table and last day which one has the files named by that day."""
    if verdict is None:
        return '<span class="rows">not judged</span>'
    rows = next(figures.rows for figures in verdict.days if figures.ds == day)
    several = f' <span title="covers {markup.text(verdict.period)}">↔</span>' if len(verdict.days) > 1 else ""
    is_newest = newest[verdict.last_day, verdict.table] is verdict
    address = f"{verdict.table}/{verdict.last_day if is_newest else range_name(verdict)}.html"
    return f'<a href="{markup.text(address)}">{markup.badge(verdict.status)}</a>{several}<span class="rows">{rows:,} rows</span>'
