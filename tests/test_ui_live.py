"""A person in front of Airflow's UI, in headless Chromium: backfills a day by the form, finds out why another failed.

Also what nobody may see without signing in.
"""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from urllib.parse import quote, urlsplit

import pytest
from airflow_ui import FRAME, AirflowUi
from browser import NAMES, browser, executable
from live_fixture import BAD, BY_FORM, FailedDay, Live

from tributary import stack

pytestmark = pytest.mark.live

PAGE = "/data-quality"


@pytest.fixture(scope="module")
def ui(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowUi]:
    """A browser in which the stack's user has signed in."""
    if executable() is None:
        pytest.skip(
            f"no Chromium here ({', '.join(NAMES)}): nobody looked at the UI. Install it: apt-get install chromium"
        )
    info = stack.info(live.home)
    with browser(tmp_path_factory.mktemp("browser")) as page:
        page.show_as(width=1400, height=1000)
        found = AirflowUi(page, info.ui)
        found.sign_in(info.user, stack.password(live.home))
        yield found


def test_a_day_is_backfilled_by_the_form_and_appears_in_the_calendar(ui: AirflowUi, live: Live) -> None:
    ui.open_dags()
    for dag_id in stack.api(live.home).dag_ids():
        ui.page.wait_for(f"document.body.innerText.includes('{dag_id}')")
    ui.backfill("logs_daily", BY_FORM)
    ui.page.wait_for("document.body.innerText.includes('Backfill in progress')")
    (run,) = stack.api(live.home).wait_for_periods("logs_daily", BY_FORM, BY_FORM, timeout_seconds=900)
    ui.page.wait_for("!document.body.innerText.includes('Backfill in progress')", seconds=180)
    assert run.state == "success"

    ui.open_data_quality()
    marks = ui.page.evaluate(
        f"[...{FRAME}.querySelectorAll('a.mark')].map(one => [one.title, one.getAttribute('href')])"
    )
    assert [(title.split(":")[0], address) for title, address in marks if str(BY_FORM) in title] == [
        (f"{table}, {BY_FORM}", f"{table}/{BY_FORM}.html") for table in ("natural_log", "ad_log")
    ]
    ui.page.evaluate(
        f"{FRAME}.querySelector('a.mark[href=\"natural_log/{BY_FORM}.html\"]').click()"
    )  # in the frame, as a user would
    ui.page.wait_for(f"{FRAME}?.querySelector('h1')?.innerText?.startsWith('natural_log, {BY_FORM}')")


def test_a_failed_task_leads_to_the_report_that_says_why(ui: AirflowUi, failed_day: FailedDay) -> None:
    ui.open_links_of("logs_daily", failed_day.run_id, "validate_logs")
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
        f"/day.html?ds={BY_FORM}&table=ad_log",
        f"/gate.html?kind=actr&period={BY_FORM}",
        f"/ad_log/{BY_FORM}.html",
        f"/ad_log/{BY_FORM}.json",
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
def test_nobody_sees_anything_without_signing_in(live: Live, path: str) -> None:
    address = urlsplit(stack.info(live.home).ui)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
    for headers, refused in (({}, 401), ({"Cookie": "_token=x.y.z"}, 403)):
        connection.request("GET", PAGE + path, headers=headers)
        answer = connection.getresponse()
        assert answer.status in (refused, 401), (headers, path)
        assert b"<h1>" not in answer.read()
    connection.close()
