"""The pages inside Airflow's UI, without Airflow: what they show, that they are harmless, and which files they give away."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from contracts.errors import BadInput
from contracts.locations import Locations
from contracts.quality import JudgedDay, StaleDay, StaleReport, judged_to_json
from contracts.releases import Release
from pages import markup
from pages.files import read_judged, read_stale
from plugins.quality.calendar_page import Known, render_calendar, render_stale
from plugins.quality.files import model_reports, report_file
from plugins.quality.task_pages import GateFound, known_table, read_gate, render_day, render_gate, render_message

DAY = date(2026, 3, 9)
NOW = datetime(2026, 3, 10, 3, tzinfo=UTC)
HOSTILE = "</td><script>alert(1)</script><img src=x onerror=alert(2)>\u202e\"'&"
STALE = StaleReport(
    looked_ts=NOW - timedelta(hours=5),
    commands=("tributary spark_jobs ingest_logs --ds 2026-03-08", "second"),
    releases=(("actr-none-2026-03-08-a", "trained on other rows"),),
    periods=(("ad_ctr_daily", date(2026, 3, 8), DAY),),
    days=(
        StaleDay(table="natural_log", day=date(2026, 3, 8), why="landing/ds=2026-03-08,log=natural"),
        StaleDay(table="user_histories", day=DAY, why="what it reads is stale"),
        StaleDay(table="statistic_partials", day=DAY, why="what it reads is stale"),
    ),
)


def judged(table: str = "natural_log", day: date = DAY, **changes: object) -> JudgedDay:
    one = JudgedDay(
        table=table, day=day, status="pass", rows=1000, broken=(), judged_ts=NOW, report=f"{table}/{day}.html"
    )
    return replace(one, **changes)  # type: ignore[arg-type]


def calendar(
    *days: JudgedDay, stale: StaleReport | None = None, reports: tuple[str, ...] = (), month: date | None = None
) -> str:
    return render_calendar(Known(judged=days, stale=stale, model_reports=reports), month=month, now=NOW)


def test_a_day_before_advertisements_began_says_so() -> None:
    found = marks(calendar(judged("ad_log", rows=0, ads_from=date(2026, 3, 10))))
    assert found["ad_log, 2026-03-09: pass, no ads yet, as declared: ad_start is 2026-03-10"] == "pass"


def marks(page: str) -> dict[str, str]:
    """Marks by the text and the class that they carry."""
    body = page[page.index('<table class="days">') :]
    return {said: kind for kind, said in re.findall(r'class="mark (\w+)"[^>]*? title="([^"]*)"', body)}


def test_each_state_has_its_mark_and_a_judged_day_leads_to_its_report() -> None:
    page = calendar(
        judged(),
        judged("ad_log", status="fail", broken=("rows", "unique(event_id)")),
        judged(day=date(2026, 3, 7)),
        judged(day=date(2026, 3, 8), status="warn"),
        judged("ad_log", date(2026, 3, 8), status="accepted"),
        stale=STALE,
    )
    found = marks(page)
    assert found["natural_log, 2026-03-09: pass, 1,000 rows"] == "pass"
    assert found["ad_log, 2026-03-09: fail, 1,000 rows: rows, unique(event_id)"] == "fail"
    assert found["ad_log, 2026-03-08: accepted, 1,000 rows"] == "accepted"
    assert found["ad_log, 2026-03-07: not judged"] == "absent"
    stale = {said: kind for said, kind in found.items() if kind == "stale"}
    assert sorted(stale) == [
        "natural_log, 2026-03-08: warn, 1,000 rows; stale since then: landing/ds=2026-03-08,log=natural",
        "user_histories, 2026-03-09: not judged; stale since then: what it reads is stale",
    ]
    assert {address for address in re.findall(r'<a class="mark \w+" href="([^"]+)"', page)} == {
        "natural_log/2026-03-07.html",
        "natural_log/2026-03-08.html",
        "natural_log/2026-03-09.html",
        "ad_log/2026-03-08.html",
        "ad_log/2026-03-09.html",
    }
    assert not [
        said for said in found if "2026-03-10" in said or "2026-03-06" in said
    ]  # no day beyond the first and last judged


def test_what_failed_is_said_before_what_warned_and_the_newest_first() -> None:
    statuses = ("warn", "pass", "fail", "fail", "accepted")
    days = [judged(day=DAY - timedelta(days=back), status=status) for back, status in enumerate(statuses)]
    page = calendar(*days)
    listed = re.findall(r'<a href="natural_log/([\d-]+).html">', page[page.index("<h2>To look at</h2>") :])
    assert listed == ["2026-03-07", "2026-03-06", "2026-03-09"]


def test_a_month_shows_itself_and_the_one_before_and_leads_to_others() -> None:
    days = [judged(day=date(2026, number, 5)) for number in (1, 2, 3, 5)]
    page = calendar(*days, month=date(2026, 3, 1))
    assert re.findall(r"<caption>([^<]+)<", page) == ["March 2026", "February 2026"]
    assert re.findall(r'href="index.html\?month=([\d-]+)"', page) == ["2026-02", "2026-05"]
    assert re.findall(r"<caption>([^<]+)<", calendar(*days)) == ["May 2026", "March 2026"]
    february = calendar(judged(day=date(2026, 2, 28)), judged(day=date(2026, 2, 1)))
    assert re.findall(r'<th scope="col">(\d+)</th>', february) == [str(day) for day in range(1, 29)]


def test_what_is_stale_has_an_age_and_the_commands_that_mend_it() -> None:
    page = render_stale(STALE, NOW)
    assert "2026-03-09 22:00 UTC, 5 hours ago" in page and "trained on other rows" in page
    assert "<pre><code>tributary spark_jobs ingest_logs --ds 2026-03-08\nsecond</code></pre>" in page
    assert (
        "<pre><code>tributary dags backfill ad_ctr_daily --from 2026-03-08 --to 2026-03-09 --reprocess completed</code></pre>"
        in page
    )
    assert "statistic_partials" in page  # a table that is never judged has no row in the calendar
    assert "Nothing was stale" in render_stale(replace(STALE, days=(), releases=()), NOW)
    assert "Nobody has looked yet" in render_stale(None, NOW)


def test_an_empty_deployment_says_what_to_do() -> None:
    page = calendar()
    assert "No day has been judged yet" in page and "tributary validation run" in page and "<caption>" not in page


def test_pages_are_harmless_whatever_the_logs_and_addresses_hold() -> None:
    broken = judged(table=HOSTILE, status="fail", broken=(HOSTILE,), report=HOSTILE)
    stale = StaleReport(
        looked_ts=NOW,
        days=(StaleDay(table=HOSTILE, day=DAY, why=HOSTILE),),
        releases=((HOSTILE, HOSTILE),),
        commands=(HOSTILE,),
    )
    gate = GateFound(
        release=release(),
        verdict={
            "passed": False,
            "fallback": HOSTILE,
            "checks": [{"name": HOSTILE, "severity": "fail", "passed": False, "expected": HOSTILE, "found": HOSTILE}],
        },
    )
    pages = [
        calendar(broken, stale=stale, reports=(HOSTILE,)),
        render_message(HOSTILE, HOSTILE),
        render_day([HOSTILE], DAY, judged=[broken], reports=[], stale=stale),
        render_gate("actr", DAY, [gate], model_reports=[]),
    ]
    for page in pages:
        assert "alert(1)" in page  # it is shown, as text
        assert markup.POLICY in page
        for harmful in ("<script", "<img", "\u202e", 'src="', "<iframe", "<form", "http:", "https:"):
            assert harmful not in page


def test_a_template_without_one_of_its_values_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="'message' is undefined"):
        markup.render("plugins/quality/templates/message.html.jinja", title="title")


def test_a_day_says_what_was_found_and_what_was_not_judged() -> None:
    failed = judged("ad_log", status="fail", broken=("rows",))
    page = render_day(
        ["natural_log", "ad_log"], DAY, judged=[failed, judged(day=DAY - timedelta(days=1))], reports=[], stale=STALE
    )
    natural, ad = page.split("<section>")[1:]
    assert "Not judged yet" in natural and "tributary validation run --table natural_log --ds 2026-03-09" in natural
    assert "cut short" not in natural
    assert ">fail</span>" in ad and "<code>rows</code>" in ad and 'href="ad_log/2026-03-09.html"' in ad
    cut = render_day(["natural_log"], DAY, judged=[], reports=["natural_log/2026-03-09.html"], stale=None)
    assert 'href="natural_log/2026-03-09.html">What a validation that was cut short' in cut
    assert "landing/ds" in render_day(["natural_log"], date(2026, 3, 8), judged=[], reports=[], stale=STALE)
    with pytest.raises(BadInput, match="expected one of natural_log, ad_log"):
        known_table("../natural_log")


def release() -> Release:
    return Release(kind="actr", variant="none", period=DAY, recipe={}, parents={}, inputs={}, feature_set=())


def test_a_gate_page_says_what_was_refused_and_which_reports_cover_the_day(tmp_path: Path) -> None:
    check = {"name": "auc", "severity": "fail", "passed": False, "expected": ">= 0.6", "found": "0.5"}
    refused = GateFound(
        release=release(), verdict={"passed": False, "fallback": "runs/actr/fallback-7", "checks": [check]}
    )
    page = render_gate(
        "actr",
        DAY,
        [refused, GateFound(release=release(), verdict=None)],
        model_reports=["2026-03-01_2026-03-09", "2026-03-01_2026-03-08", "notes"],
    )
    assert ">refused</span>" in page and "Released instead: fallback-7" in page and "&gt;= 0.6" in page
    assert "tributary validation gate --kind actr --period 2026-03-09" in page
    assert re.findall(r'href="models/([^"]+)"', page) == ["2026-03-01_2026-03-09.html"]
    with pytest.raises(BadInput, match="tributary training actr --ds 2026-03-09"):
        read_gate(Locations(tmp_path), "actr", DAY)
    with pytest.raises(BadInput, match="expected one of tpm"):
        read_gate(Locations(tmp_path), "../actr", DAY)


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    folder = tmp_path / "reports"
    (folder / "natural_log").mkdir(parents=True)
    (folder / "models").mkdir()
    for path in (
        "natural_log/2026-03-09.html",
        "natural_log/2026-03-09.json",
        "natural_log/.2026-03-09.html",
        "models/a_b.html",
        "judged_days.json",
        "../secret.html",
        "../reports2.html",
    ):
        (folder / path).write_text("x")
    (folder / "natural_log" / "out.html").symlink_to(tmp_path / "secret.html")
    (folder / "natural_log" / "as_html.html").symlink_to(folder / "natural_log" / "2026-03-09.json")
    (folder / "away").symlink_to(tmp_path)
    (folder / "circle.html").symlink_to(folder / "circle.html")
    (folder / "folder.html").mkdir()
    return folder


def test_reports_are_given(reports: Path) -> None:
    assert (
        report_file(reports, "natural_log/2026-03-09.html") == (reports / "natural_log" / "2026-03-09.html").resolve()
    )
    assert report_file(reports, "models/a_b.html") is not None
    assert model_reports(Locations(reports.parent)) == ["a_b"]


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "natural_log",
        "natural_log/2026-03-09.json",
        "judged_days.json",
        "natural_log/none.html",
        "../secret.html",
        "natural_log/../../secret.html",
        "natural_log/out.html",
        "natural_log/as_html.html",
        "away/secret.html",
        "natural_log/.2026-03-09.html",
        "folder.html",
        "a\0.html",
        "%2e%2e/secret.html",
        "x" * 300 + ".html",
        "circle.html",
        "/etc/passwd",
        "//natural_log/2026-03-09.html",
        "natural_log\\..\\..\\secret.html",
    ],
)
def test_nothing_else_is_given(reports: Path, path: str) -> None:
    assert report_file(reports, path) is None


def test_an_absolute_path_is_not_given(reports: Path) -> None:
    assert report_file(reports, str(reports.parent / "secret.html")) is None
    assert report_file(reports, str(reports) + "2.html") is None  # a folder whose name begins alike


def test_the_small_files_are_read_back_and_damage_is_not_fatal(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    days = [judged(), judged("ad_log", status="fail", broken=("rows", HOSTILE))]
    path.write_text(judged_to_json(days))
    assert read_judged(path) == days
    assert read_stale(path) is None
    path.write_text(STALE.to_json())
    assert read_stale(path) == STALE
    assert read_judged(path) == []
    other_format = [text.replace('"format": 1', '"format": 0') for text in (judged_to_json(days), STALE.to_json())]
    for text in ("", "[]", "{}", judged_to_json(days)[:-20], *other_format):
        path.write_text(text)
        assert read_judged(path) == [] and read_stale(path) is None
    assert read_judged(tmp_path / "none") == [] and read_stale(tmp_path / "none") is None
