"""What a task has found: the tables that it judged on a day, or the models that its gate judged. Made from files, at any time.

Also while the task runs, and after it was killed: the page then says that there is nothing yet, and the command that makes it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from contracts.errors import BadInput
from contracts.kinds import KINDS
from contracts.locations import Locations
from contracts.quality import JudgedDay, StaleFound
from contracts.releases import GATE, Release
from contracts.tables import TABLES
from lake.run_folders import read_release, staged_runs
from pages import markup
from plugins.quality.calendar_page import model_links

ALL = '<p><a href="index.html{query}">All tables and days</a></p>'


@dataclass(frozen=True, kw_only=True)
class GateFound:
    """What the gate said of one staged run; `verdict` is None until it has said something."""

    release: Release
    verdict: dict[str, Any] | None


def render_day(tables: Sequence[str], day: date, *, judged: Sequence[JudgedDay], reports: Sequence[str],
               stale: StaleFound | None) -> str:
    """The verdicts on some tables of a day.

    Args:
        tables: which.
        day: of which day.
        judged: every judged day that is known.
        reports: those of these tables' reports that lie there by the day's name; one without a verdict was written by a validation
            that was cut short.
        stale: what was found stale.
    """
    by_table = {one.table: one for one in judged if one.day == day}
    sections = [_table_section(table, day, by_table.get(table), f"{table}/{day}.html" in reports) for table in tables]
    behind = [one for one in (stale.days if stale else ()) if one.day == day and one.table in tables]
    if stale is not None and behind:
        sections.append(markup.section("Stale", "".join(f"<p>{markup.text(one.table)}: {markup.text(one.why)}</p>" for one in behind)))
    header = f'<header>{ALL.format(query=f"?month={day:%Y-%m}")}<h1>{day}</h1></header>'
    return markup.page(f"Quality of {day}", "\n".join([header, *sections]))


def known_table(name: str) -> str:
    """The name of a table that there is.

    Raises:
        BadInput: there is none of this name.
    """
    if name not in TABLES:
        raise BadInput("address", "table", expected=f"one of {', '.join(TABLES)}", found=repr(name))
    return name


def read_gate(locations: Locations, kind: str, period: date) -> list[GateFound]:
    """What the gate said of each staged run of a period.

    Raises:
        BadInput: no such kind, or nothing was staged; the message names the command that trains it.
    """
    if kind not in KINDS:
        raise BadInput("address", "kind", expected=f"one of {', '.join(KINDS)}", found=repr(kind))
    folders = staged_runs(locations, kind, period)
    return [GateFound(release=read_release(folder), verdict=_read_verdict(folder / GATE)) for folder in folders]


def render_gate(kind: str, period: date, found: Sequence[GateFound], *, model_reports: Sequence[str]) -> str:
    """What the gate said of a period's models; of ad models, the reports that cover the day too."""
    sections = [_gate_section(one) for one in found]
    covering = [name for name in model_reports if kind == "actr" and _covers(name, period)]
    if covering:
        sections.append(markup.section("Model reports", model_links(covering)))
    header = f'<header>{ALL.format(query="")}<h1>Gate: {markup.text(kind)}, {period}</h1><p>{markup.text(KINDS[kind].meaning)}</p></header>'
    return markup.page(f"Gate of {kind} {period}", "\n".join([header, *sections]))


def render_message(title: str, message: str) -> str:
    """A page that says why there is nothing to see."""
    return markup.page(title, f'<header>{ALL.format(query="")}<h1>{markup.text(title)}</h1></header>'
                              f"<section><p>{markup.text(message)}</p></section>")


def _table_section(table: str, day: date, judged: JudgedDay | None, report: bool) -> str:
    if judged is None:
        link = f'<p><a href="{table}/{day}.html">What a validation that was cut short has left</a></p>' if report else ""
        return (f"<section><h2>{markup.text(table)}</h2><p>Not judged yet. The task that does is waiting, at work, or was ended before "
                f"it judged. By hand:</p>{markup.listing(f'tributary validation run --table {table} --ds {day}')}{link}</section>")
    broken = f"<p>Checks that did not hold: {', '.join(f'<code>{markup.text(name)}</code>' for name in judged.broken)}</p>" \
        if judged.broken else ""
    return (f"<section><h2>{markup.text(table)} {markup.badge(judged.status)}</h2>{broken}"
            f'<p class="soft">{judged.rows_in_words} · judged {judged.judged_ts:%Y-%m-%d %H:%M:%S} UTC</p>'
            f'<p><a href="{markup.text(judged.report)}">Quality report</a></p></section>')


def _gate_section(found: GateFound) -> str:
    release, verdict = found.release, found.verdict
    name = f'<p class="soft">{markup.text(release.release_id)}</p>'
    if verdict is None:
        command = f"tributary validation gate --kind {release.kind} --period {release.period}"
        return f"<section><h2>{markup.text(release.variant)}</h2>{name}<p>Not judged yet. By hand:</p>{markup.listing(command)}</section>"
    fallback = verdict["fallback"]
    stands_in = f"<p>Released instead: {markup.text(Path(fallback).name)}</p>" if fallback else ""
    rows = [[markup.text(check["name"]), markup.badge("pass" if check["passed"] else check["severity"]), markup.text(check["expected"]),
             markup.text(check["found"])] for check in verdict["checks"]]
    badge = markup.badge("pass" if verdict["passed"] else "fail", "passed" if verdict["passed"] else "refused")
    return (f"<section><h2>{markup.text(release.variant)} {badge}</h2>{name}{stands_in}"
            f"{markup.table(['Check', 'Verdict', 'Expected', 'Found'], rows, names=(0, 1))}</section>")


def _read_verdict(path: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def _covers(report: str, day: date) -> bool:
    try:
        first, last = map(date.fromisoformat, report.split("_"))
    except ValueError:
        return False
    return first <= day <= last
