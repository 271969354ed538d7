"""The page of a task's results: the tables that it judged on a day, or the models that its gate judged.

It is made from files, so it can be opened at any time, also while the task runs and after it was killed. As long as there
are no results, the page states that, and names the command that makes them.
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
from contracts.quality import JudgedDay, StaleReport
from contracts.releases import GATE, Release
from contracts.tables import TABLES
from lake.run_folders import read_release, staged_runs
from pages import markup


@dataclass(frozen=True, kw_only=True)
class GateFound:
    """The gate's verdict on one staged run; `verdict` is None until the gate has judged it."""

    release: Release
    verdict: dict[str, Any] | None


def render_day(
    tables: Sequence[str], day: date, *, judged: Sequence[JudgedDay], reports: Sequence[str], stale: StaleReport | None
) -> str:
    """The verdicts on some tables of a day.

    Args:
        tables: the tables' names.
        day: the day whose verdicts are shown.
        judged: every judged day that is known.
        reports: the reports of these tables that exist for the day. One without a verdict was written by a validation
            that was interrupted.
        stale: the result of the last search for stale partitions; None if there was none.
    """
    return markup.render(
        "plugins/quality/templates/day.html.jinja",
        day=day,
        tables=tables,
        reports=reports,
        judged={one.table: one for one in judged if one.day == day},
        stale=[one for one in (stale.days if stale else ()) if one.day == day and one.table in tables],
    )


def known_table(name: str) -> str:
    """The name of a table that there is.

    Raises:
        BadInput: there is none of this name.
    """
    if name not in TABLES:
        raise BadInput("address", "table", expected=f"one of {', '.join(TABLES)}", found=repr(name))
    return name


def read_gate(locations: Locations, kind: str, period: date) -> list[GateFound]:
    """Reads the gate's verdict on each staged run of a period.

    Raises:
        BadInput: no such kind, or nothing was staged; the message names the command that trains it.
    """
    if kind not in KINDS:
        raise BadInput("address", "kind", expected=f"one of {', '.join(KINDS)}", found=repr(kind))
    folders = staged_runs(locations, kind, period)
    return [GateFound(release=read_release(folder), verdict=_read_verdict(folder / GATE)) for folder in folders]


def render_gate(kind: str, period: date, found: Sequence[GateFound], *, model_reports: Sequence[str]) -> str:
    """The page of the gate's verdicts on a period's models; for ad models, it links the reports that cover the day too."""
    return markup.render(
        "plugins/quality/templates/gate.html.jinja",
        kind=kind,
        period=period,
        found=found,
        meaning=KINDS[kind].meaning,
        covering=[name for name in model_reports if kind == "actr" and _covers(name, period)],
    )


def render_message(title: str, message: str) -> str:
    """A page that explains why there is nothing to show."""
    return markup.render("plugins/quality/templates/message.html.jinja", title=title, message=message)


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
