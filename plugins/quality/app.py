"""Serves the pages under `/data-quality`: pages made from the results of validation, and the reports themselves. It writes nothing.

Airflow does not authenticate the requests to a plugin's app, so every route here requires a user who may see plugins,
which viewers may. The reports are served by a route too, since a mounted folder (`StaticFiles`) would be open to
everybody.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime
from typing import Annotated
from urllib.parse import urlencode

from airflow.api_fastapi.auth.managers.models.resource_details import AccessView, DagAccessEntity
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import requires_access_dag, requires_access_view
from airflow.models import DagRun
from fastapi import Depends, FastAPI, Query, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from sqlalchemy import select

from contracts.errors import BadInput
from contracts.kinds import KINDS, Cadence
from contracts.locations import Locations
from contracts.periods import Period
from contracts.runs import period_of_run
from contracts.settings import Deployment, home_folder
from pages.files import read_judged, read_stale
from pages.markup import POLICY
from plugins.quality.calendar_page import Known, render_calendar
from plugins.quality.files import model_reports, report_file
from plugins.quality.task_pages import known_table, read_gate, render_day, render_gate, render_message

HEADERS = {
    "Content-Security-Policy": f"{POLICY}; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, no-store",
}
# FastAPI's own pages about the interface would not require a user, so its description is switched off.
app = FastAPI(title="Data quality", openapi_url=None, dependencies=[Depends(requires_access_view(AccessView.PLUGINS))])


@app.middleware("http")
async def with_headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Adds to every answer, refusals too, the headers that restrict what a browser may do with it."""
    answer = await call_next(request)
    answer.headers.update(HEADERS)
    return answer


@app.exception_handler(BadInput)
def say_bad_input(_: Request, error: BadInput) -> HTMLResponse:
    """Answers a wrong address with a page that shows the error."""
    return HTMLResponse(render_message("Nothing to show", str(error)), status_code=404)


@app.get("/")
def root() -> RedirectResponse:
    """Redirects to the calendar."""
    return RedirectResponse("index.html")


@app.get("/index.html")
def calendar(month: str | None = None) -> HTMLResponse:
    """Serves the calendar of a month such as `2026-01`; of the newest by default."""
    locations = _locations()
    known = Known(
        judged=read_judged(locations.judged_days),
        stale=read_stale(locations.stale_found),
        model_reports=model_reports(locations),
    )
    return HTMLResponse(
        render_calendar(known, month=None if month is None else _day("month", f"{month}-01"), now=datetime.now(UTC))
    )


@app.get("/day.html")
def tables_of_a_day(ds: str, table: Annotated[list[str], Query()]) -> HTMLResponse:
    """Serves the verdicts on some tables of a day."""
    locations, day = _locations(), _day("ds", ds)
    tables = [known_table(name) for name in table]
    reports = [f"{name}/{day}.html" for name in tables if locations.report(name, day).is_file()]
    return HTMLResponse(
        render_day(
            tables,
            day,
            judged=read_judged(locations.judged_days),
            reports=reports,
            stale=read_stale(locations.stale_found),
        )
    )


@app.get("/gate.html")
def gate(kind: str, period: str) -> HTMLResponse:
    """Serves the gate's verdicts on the models of a period."""
    locations, start = _locations(), _day("period", period)
    return HTMLResponse(
        render_gate(kind, start, read_gate(locations, kind, start), model_reports=model_reports(locations))
    )


@app.get("/runs/{dag_id}/{run_id}", dependencies=[Depends(requires_access_dag("GET", DagAccessEntity.RUN))])
def page_of_a_run(
    dag_id: str,
    run_id: str,
    session: SessionDep,
    table: Annotated[list[str] | None, Query()] = None,
    kind: str | None = None,
) -> Response:
    """Redirects from a run, whatever its state, to the page of its day or period.

    Args:
        dag_id: the run's DAG.
        run_id: the run's id.
        session: a session of Airflow's database.
        table: the names of the tables that the run judges; None if it judges models.
        kind: the kind of the models that the run judges; None if it judges tables.

    Raises:
        BadInput: there is no such run, or no such kind.
    """
    run = session.scalar(select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
    if run is None:
        raise BadInput("address", "run", expected=f"a run of {dag_id}", found=run_id)
    if kind is not None and kind not in KINDS:
        raise BadInput("address", "kind", expected=f"one of {', '.join(KINDS)}", found=repr(kind))
    period = _period(run, "day" if kind is None else KINDS[kind].cadence)
    if period is None:
        return HTMLResponse(
            render_message("Nothing to show", "No period ends with this run's day: it had nothing to make.")
        )
    query: list[tuple[str, object]] = [("ds", period.start), *(("table", name) for name in table or ())]
    page = (
        f"day.html?{urlencode(query)}"
        if kind is None
        else f"gate.html?{urlencode({'kind': kind, 'period': period.start})}"
    )
    return RedirectResponse(f"../../{page}", status_code=303)


@app.get("/{path:path}")
def report(path: str) -> Response:
    """Serves a report, by its path below the folder of reports."""
    file = report_file(_locations().reports, path)
    if file is None:
        return HTMLResponse(
            render_message("No such report", "There is no report of this name (any more)."), status_code=404
        )
    return FileResponse(file, media_type="text/html")


def _locations() -> Locations:
    return Locations(home_folder())


def _day(field: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        expected = "a month such as 2026-01" if field == "month" else "a day such as 2026-01-31"
        raise BadInput(
            "address", field, expected=expected, found=repr(text.removesuffix("-01") if field == "month" else text)
        ) from None


def _period(run: DagRun, cadence: Cadence) -> Period | None:
    run_type = str(getattr(run.run_type, "value", run.run_type))
    return period_of_run(
        deployment=Deployment.load(home_folder()),
        cadence=cadence,
        run_type=run_type,
        ds=(run.conf or {}).get("ds"),
        data_interval_start=run.data_interval_start,
        now=datetime.now(UTC),
    )
