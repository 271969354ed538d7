"""A person in front of Airflow's UI, in headless Chromium: backfills a day by the form, finds out why another failed.

Also what nobody may see without signing in.
"""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from airflow_ui import FRAME, AirflowUi
from browser import NAMES, browser, executable
from test_live import free_port

from contracts.locations import Locations
from sources.faults import FaultRates
from sources.simulator import SimulatorSettings, simulate
from sources.world import WorldSettings
from tributary import stack
from tributary.airflow_api import RunFailed

pytestmark = pytest.mark.live

GOOD, BAD = date(2026, 1, 1), date(2026, 1, 2)
PAGE = "/data-quality"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A running stack; half of the second day's natural rows have no event id."""
    if executable() is None:
        pytest.skip(
            f"no Chromium here ({', '.join(NAMES)}): the UI was not looked at. Install it: apt-get install chromium"
        )
    folder = tmp_path_factory.mktemp("ui") / "home"
    simulate(
        SimulatorSettings(start=GOOD, days=2, world=WorldSettings(users=80, items=90, seed=11), faults=FaultRates()),
        folder,
    )
    path = Locations(folder).landing_day("natural", BAD) / "part-00000.csv"
    header, *rows = path.read_text(errors="replace").splitlines()
    path.write_text(
        "\n".join([header, *(row if place % 2 else "," + row.split(",", 1)[1] for place, row in enumerate(rows))])
        + "\n"
    )
    stack.up(folder, ui_port=free_port(), spark_port=free_port())
    try:
        yield folder
    finally:
        stack.down(folder)


@pytest.fixture(scope="module")
def ui(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowUi]:
    """A browser in which the stack's user has signed in."""
    info = stack.info(home)
    with browser(tmp_path_factory.mktemp("browser")) as page:
        page.show_as(width=1400, height=1000)
        found = AirflowUi(page, info.ui)
        found.sign_in(info.user, stack.password(home))
        yield found


def test_a_day_is_backfilled_by_the_form_and_appears_in_the_calendar(ui: AirflowUi, home: Path) -> None:
    ui.open_dags()
    for dag_id in stack.api(home).dag_ids():
        ui.page.wait_for(f"document.body.innerText.includes('{dag_id}')")
    ui.backfill("logs_daily", GOOD)
    ui.page.wait_for("document.body.innerText.includes('Backfill in progress')")
    (run,) = stack.api(home).wait_for_periods("logs_daily", GOOD, GOOD, timeout_seconds=900)
    ui.page.wait_for("!document.body.innerText.includes('Backfill in progress')", seconds=180)
    assert run.state == "success"

    ui.open_data_quality()
    marks = ui.page.evaluate(
        f"[...{FRAME}.querySelectorAll('a.mark')].map(one => [one.title, one.getAttribute('href')])"
    )
    assert [(title.split(":")[0], address) for title, address in marks] == [
        (f"{table}, {GOOD}", f"{table}/{GOOD}.html") for table in ("natural_log", "ad_log")
    ]
    ui.page.evaluate(f"{FRAME}.querySelector('a.mark').click()")  # in the frame, as a user would
    ui.page.wait_for(f"{FRAME}?.querySelector('h1')?.innerText?.startsWith('natural_log, {GOOD}')")


def test_a_failed_task_leads_to_the_report_that_says_why(ui: AirflowUi, home: Path) -> None:
    api = stack.api(home)
    api.unpause("logs_daily")
    api.create_backfill("logs_daily", BAD, BAD)
    with pytest.raises(RunFailed):
        api.wait_for_periods("logs_daily", BAD, BAD, timeout_seconds=900)
    (run,) = api.runs("logs_daily", BAD, BAD)
    ui.open_links_of("logs_daily", run.run_id, "validate_logs")
    ui.page.click("Quality report")
    ui.page.wait_for(f"document.querySelector('h1')?.innerText === '{BAD}'")
    natural, ad = ui.page.evaluate("[...document.querySelectorAll('section')].map(one => one.innerText)")
    assert natural.startswith("natural_log fail") and "Checks that did not hold" in natural and ad.startswith("ad_log")
    ui.page.click("Quality report")
    ui.page.wait_for(f"document.querySelector('h1')?.innerText?.startsWith('natural_log, {BAD}')")
    assert "event_id_type" in ui.page.evaluate("document.body.textContent")  # the quarantine may be folded


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/index.html",
        f"/day.html?ds={GOOD}&table=ad_log",
        f"/gate.html?kind=actr&period={GOOD}",
        f"/ad_log/{GOOD}.html",
        f"/ad_log/{GOOD}.json",
        "/judged_days.json",
        "/models/x.html",
        "/index.html/",
        f"/runs/logs_daily/{quote('backfill__2026-01-02T00:00:00+00:00')}?table=ad_log",
        "/docs",
        "/openapi.json",
        "/..%2fdeployment.toml",
        "/../../deployment.toml",
        "//etc/passwd",
    ],
)
def test_nobody_sees_anything_without_signing_in(home: Path, path: str) -> None:
    address = urlsplit(stack.info(home).ui)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
    for headers, refused in (({}, 401), ({"Cookie": "_token=x.y.z"}, 403)):
        connection.request("GET", PAGE + path, headers=headers)
        answer = connection.getresponse()
        assert answer.status in (refused, 401), (headers, path)
        assert b"<h1>" not in answer.read()
    connection.close()
