"""The index of all reports: a calendar of days with a mark for each table, made from the JSON files next to the reports.

A summary of the same verdicts is written as one JSON file for the page in Airflow's UI (contracts/quality.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path

from contracts.locations import Locations
from contracts.periods import ONE_DAY
from contracts.quality import JudgedDay, Status, judged_to_json, rows_in_words
from contracts.steps import VALIDATED_TABLES
from contracts.tables import TABLES
from lake import locks
from pages import markup
from pages.files import write_atomically
from validation.verdict import Verdict, all_verdicts, broken_on, figures_on, range_name, speaking, status_on

Cells = dict[tuple[date, str], Verdict]

SIGNS: dict[Status, str] = {"pass": "✓", "warn": "!", "fail": "✕", "accepted": "≈"}
NO_SIGN = "·"
GRAVITY: tuple[Status, ...] = ("fail", "warn", "accepted", "pass")
MEANINGS: dict[Status, str] = {
    "pass": "every check held", "warn": "a warning", "fail": "a check that stops the day failed", "accepted": "failed, and accepted"}
STYLE = """.months { display: grid; grid-template-columns: repeat(auto-fill, minmax(310px, 1fr)); gap: 22px 26px; align-items: start; }
.calendar { table-layout: fixed; border-collapse: separate; border-spacing: 3px; }
.calendar caption { text-align: left; font-weight: 600; padding: 0 0 4px 3px; }
.calendar th { padding: 0; text-align: center; border: 0; font-size: 12px; }
.calendar td { border: 1px solid var(--line); border-radius: 6px; padding: 2px 3px 4px; height: 52px; }
.calendar td.none { border-color: transparent; }
.calendar td.pass, .calendar td.warn, .calendar td.fail, .calendar td.accepted { border-color: currentColor; }
.date { display: block; font-size: 12px; font-variant-numeric: tabular-nums; line-height: 1.4; }
.none .date { color: var(--soft); }
.marks { display: grid; grid-template-columns: repeat(2, 1fr); gap: 2px; }
.mark { display: block; border-radius: 4px; text-align: center; font-size: 12px; font-weight: 700; line-height: 18px; min-height: 18px;
  text-decoration: none; background: var(--paper); }
a.mark:hover { outline: 2px solid currentColor; }
.mark.absent { background: transparent; color: var(--soft); }
.legend { display: flex; flex-wrap: wrap; gap: 14px 34px; align-items: flex-start; }
.legend ul { list-style: none; margin: 0; padding: 0; }
.legend li { display: flex; gap: 8px; align-items: center; margin: 3px 0; font-size: 13.5px; }
.legend .mark { width: 26px; border: 1px solid currentColor; }
.legend li.pass, .legend li.warn, .legend li.fail, .legend li.accepted { background: transparent; }
"""
WEEKDAYS = ("Mo", "Tu", "We", "Th", "Fr", "Sa", "Su")


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
    return [JudgedDay(table=table, day=day, status=status_on(verdict, day), rows=figures_on(verdict, day).rows,
                      broken=tuple(broken_on(verdict, day)), judged_ts=verdict.run_ts, report=_address(verdict, newest),
                      ads_from=figures_on(verdict, day).ads_from)
            for (day, table), verdict in sorted(speaking(verdicts).items())]


def render_index(verdicts: Iterable[Verdict], model_reports: Sequence[str] = ()) -> str:
    """The page; `model_reports` are the names of those that there are, `<first day>_<last day>`."""
    known = list(verdicts)
    cells = speaking(known)
    models = _models(model_reports)
    if not cells:
        return markup.page("Data quality", "<header><h1>Data quality</h1><p>Nothing has been judged yet: "
                                         f"<code>tributary validation run --ds DAY</code></p></header>\n{models}")
    newest = _newest(known)
    days = sorted({day for day, _ in cells}, reverse=True)
    present = {table for _, table in cells}
    tables = [*(name for name in VALIDATED_TABLES if name in present), *sorted(present - set(VALIDATED_TABLES))]
    statuses = [status_on(verdict, day) for (day, _), verdict in cells.items()]
    summary = ", ".join(f"{statuses.count(status)} {status}" for status in ("pass", "warn", "fail", "accepted") if status in statuses)
    header = (f"<header><h1>Data quality</h1><p>{len(days)} days, {days[-1]} .. {days[0]}</p>"
              f"<p>Tables and days: {summary}</p></header>")
    months = sorted({day.replace(day=1) for day in days}, reverse=True)
    grids = "\n".join(_month(first, tables, cells, newest) for first in months)
    return markup.page("Data quality", "\n".join([
        header, markup.section("Newest day of each table", _newest_days(tables, cells, newest)), models,
        markup.section("Calendar", f'{_legend(tables)}<div class="months">\n{grids}\n</div>')]), style=STYLE)


def _models(reports: Sequence[str]) -> str:
    """Links to the reports of ad models, those of the newest days first."""
    newest_first = sorted(reports, key=lambda name: name.split("_")[::-1], reverse=True)
    links = [f'<li><a href="models/{markup.text(name)}.html">{markup.text(name.replace("_", " .. "))}</a></li>' for name in newest_first]
    return markup.section("Ad models: what they scored", f"<ul>{''.join(links)}</ul>") if links else ""


def _newest_days(tables: Sequence[str], cells: Cells, newest: Cells) -> str:
    rows = []
    for table in tables:
        day = max(day for day, name in cells if name == table)
        verdict = cells[day, table]
        broken = [*verdict.failed("fail"), *verdict.failed("warn")]
        found = ", ".join(result.id for result in broken[:3]) + (f" and {len(broken) - 3} more" if len(broken) > 3 else "")
        figures = figures_on(verdict, day)
        found = found or (rows_in_words(figures.rows, figures.ads_from) if figures.ads_from else "")
        rows.append([f'<a href="{markup.text(_address(verdict, newest))}">{markup.text(table)}</a>', markup.text(day),
                     markup.badge(verdict.status), f"{figures.rows:,}", markup.text(found)])
    return markup.table(["Table", "Day", "Verdict", "Rows", "To look at"], rows, numbers=(3,), names=(0, 1, 2))


def _legend(tables: Sequence[str]) -> str:
    signs = [f'<li class="{status}"><span class="mark">{SIGNS[status]}</span>{MEANINGS[status]}</li>' for status in SIGNS]
    signs.append(f'<li><span class="mark absent">{NO_SIGN}</span>not judged</li>')
    places = [f'<li><span class="mark absent">{place}</span>{markup.text(table)}</li>' for place, table in enumerate(tables, 1)]
    return (f'<div class="legend"><ul>{"".join(signs)}</ul><ul>{"".join(places)}</ul>'
            '<p class="soft">A day has a mark for each table, in this order from left to right and down, and the colour of the '
            "gravest of them. A mark leads to its report.</p></div>")


def _month(first: date, tables: Sequence[str], cells: Cells, newest: Cells) -> str:
    """A month as a grid of weeks, Monday first."""
    after = (first.replace(day=28) + ONE_DAY * 4).replace(day=1)
    squares = ['<td class="none"></td>'] * first.weekday()
    squares += [_square(first + ONE_DAY * i, tables, cells, newest) for i in range((after - first).days)]
    squares += ['<td class="none"></td>'] * (-len(squares) % 7)
    weeks = "\n".join(f"<tr>{''.join(squares[i:i + 7])}</tr>" for i in range(0, len(squares), 7))
    titles = "".join(f'<th scope="col">{name}</th>' for name in WEEKDAYS)
    return (f'<table class="calendar"><caption>{markup.text(f"{first:%B %Y}")}</caption>'
            f"<thead><tr>{titles}</tr></thead><tbody>\n{weeks}\n</tbody></table>")


def _square(day: date, tables: Sequence[str], cells: Cells, newest: Cells) -> str:
    found = [status_on(cells[day, table], day) for table in tables if (day, table) in cells]
    if not found:
        return f'<td class="none"><span class="date">{day.day}</span></td>'
    gravest = next(status for status in GRAVITY if status in found)
    marks = "".join(_mark(cells.get((day, table)), table, day, newest) for table in tables)
    return f'<td class="{gravest}"><span class="date">{day.day}</span><span class="marks">{marks}</span></td>'


def _mark(verdict: Verdict | None, table: str, day: date, newest: Cells) -> str:
    """One verdict's mark; `newest` holds, by table and last day, the verdict whose files are named by that day."""
    if verdict is None:
        return f'<span class="mark absent" title="{markup.text(f"{table}, {day}: not judged")}">{NO_SIGN}</span>'
    together = f", judged together with {verdict.period}" if len(verdict.days) > 1 else ""
    status = status_on(verdict, day)
    figures = figures_on(verdict, day)
    said = markup.text(f"{table}, {day}: {status}, {rows_in_words(figures.rows, figures.ads_from)}{together}")
    return (f'<a class="mark {status}" href="{markup.text(_address(verdict, newest))}" title="{said}" aria-label="{said}">'
            f"{SIGNS[status]}</a>")


def _newest(verdicts: Iterable[Verdict]) -> Cells:
    """By last day and table, the verdict whose files are named by that day."""
    return {(verdict.last_day, verdict.table): verdict for verdict in sorted(verdicts, key=lambda verdict: verdict.run_ts)}


def _address(verdict: Verdict, newest: Cells) -> str:
    is_newest = newest[verdict.last_day, verdict.table] is verdict
    return f"{verdict.table}/{verdict.last_day if is_newest else range_name(verdict)}.html"
