"""Reports and their index: harmless whatever the logs hold, and honest about what they cover."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from contracts.errors import EXIT_BAD_INPUT, EXIT_PARENT_MISSING, BadInput, QualityFailed, run_command
from contracts.locations import Locations
from contracts.masking import LONGEST_SHOWN, shown
from contracts.tables import TABLES
from pages import markup
from pages.files import read_judged
from pages.pictures import nice_ticks, sparkline, strip
from validation import cli
from validation.figures import DayFigures
from validation.index import render_index, write_index
from validation.quarantine import ROWS_SHOWN, finder, read_quarantined
from validation.report import render_report, write_report
from validation.results import refuse_failed, result_rows
from validation.suites import derive_suite
from validation.verdict import Acceptance, Result, Verdict, history_of, read_verdict, sidecar_path, speaking

DAY = date(2026, 1, 9)
NOW = datetime(2026, 1, 10, 3, tzinfo=UTC)
HOSTILE = "</td><script>alert(1)</script><img src=x onerror=alert(2)>\u202e\x1b[31m\"'&"


def make_verdict(
    table: str = "natural_log",
    *,
    broken: tuple[str, ...] = (),
    day: date = DAY,
    days: int = 1,
    rows: int = 1000,
    **changes: Any,
) -> Verdict:
    results = tuple(
        Result(
            name=check.name,
            field=check.field,
            severity=check.severity,
            expected=check.expected,
            success=check.id not in broken,
            found="12 rows" if check.id in broken else "fine",
            figure=check.figure,
            low=check.arguments.get("min_value"),
            high=check.arguments.get("max_value"),
        )
        for check in derive_suite(TABLES[table])
    )
    figures = tuple(
        DayFigures(ds=day - timedelta(days=days - 1 - i), rows=rows + i, rows_off_build=0, click_rate=0.25)
        for i in range(days)
    )
    return replace(
        Verdict(table=table, first_day=figures[0].ds, last_day=day, run_ts=NOW, results=results, days=figures),
        **changes,
    )


def render(verdict: Verdict, quarantined: Any = None) -> str:
    return render_report(verdict, history={day.ds: verdict for day in verdict.days}, quarantined=quarantined)


def put_quarantine(locations: Locations, rows: list[dict[str, Any]]) -> None:
    common = {
        "expected": "a number",
        "file": "natural/part.csv",
        "raw": "{}",
        "run_id": "r",
        "log": "natural",
        "ds": DAY,
    }
    write_deltalake(
        str(locations.table("quarantine")),
        pa.Table.from_pylist([common | row for row in rows]),
        partition_by=["ds", "log"],
    )


def test_hostile_content_is_shown_harmless(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    put_quarantine(
        locations, [{"rule": HOSTILE, "field": name, "found": HOSTILE, "file": HOSTILE} for name in (HOSTILE, "click")]
    )
    broken = make_verdict(broken=("range(user_id)",), acceptance=Acceptance(reason=HOSTILE, accepted_ts=NOW))
    results = tuple(replace(result, found=HOSTILE) for result in broken.results)
    text = write_report(locations, replace(broken, results=results)).read_text()
    assert "alert(1)" in text  # it is shown, as text
    for harmful in ("<script", "<img src=x", "\u202e", "\x1b", "javascript:"):
        assert harmful not in text
    assert "<img" not in text and set(re.findall(r"<(svg|/svg)", text)) == {"svg", "/svg"}


def test_pages_are_self_contained_and_forbid_the_rest(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    pages = [write_report(locations, make_verdict()).read_text(), write_index(locations).read_text(), render_index([])]
    for text in pages:
        assert '<meta http-equiv="Content-Security-Policy" content="' + markup.POLICY + '">' in text
        assert text.index("Content-Security-Policy") < text.index("<style>")
        for outside in ("http:", "https:", "<link", "@import", "url(", 'src="/', "<script", "<iframe", "<form"):
            assert outside not in text
    for drawing in re.findall(r"<svg.*?</svg>", pages[0]):
        assert set(re.findall(r"<(\w+)", drawing)) <= {"svg", "line", "rect", "circle", "polyline", "polygon", "text"}
        assert (
            "style" not in drawing and "#" not in drawing
        )  # colours are the page's, so that they follow light and dark


def test_user_ids_are_masked(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    put_quarantine(
        locations,
        [
            {"rule": "user_id_range", "field": "user_id", "found": "-48213"},
            {"rule": "columns", "field": "*", "found": "7,user48213,1"},
            {"rule": "click_range", "field": "click", "found": "17"},
        ],
    )
    text = write_report(locations, make_verdict()).read_text()
    assert "48213" not in text
    assert "-99999" in text and "9,xxxx99999,9" in text and ">17<" in text


def test_long_and_missing_values() -> None:
    assert len(shown("a" * 5000, fields=["click"], columns=["click"])) <= LONGEST_SHOWN + 3
    assert shown(None, fields=["user_id"], columns=["user_id"]) == "nothing"


def test_quarantine_counts_all_rows_and_shows_some_of_every_rule(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    put_quarantine(
        locations,
        [{"rule": "common", "field": "click", "found": str(i)} for i in range(50)]
        + [
            {"rule": "rare", "field": "item_id", "found": "x"},
            {"rule": "other log", "field": "click", "found": "0", "log": "ad"},
        ],
    )
    quarantined = read_quarantined(locations, "natural_log", [DAY])
    assert quarantined is not None
    assert [(rule.rule, rule.field, rule.count, len(rule.rows)) for rule in quarantined.rules] == [
        ("common", "click", 50, ROWS_SHOWN - 1),
        ("rare", "item_id", 1, 1),
    ]
    assert quarantined.rules[0].rows[:3] == tuple((str(i), "natural/part.csv", str(DAY)) for i in (0, 1, 10))
    assert "20 of 51 rows are shown" in render(make_verdict(), quarantined)
    assert read_quarantined(locations, "natural_samples", [DAY]) is None


@pytest.mark.parametrize("rule", ["click_range", HOSTILE, "back\\slash'", "\\'\"", "😀\u202e"])
def test_the_line_that_finds_quarantined_rows_is_python_and_sql_whatever_the_rule(tmp_path: Path, rule: str) -> None:
    line = finder(Locations(tmp_path), "natural", [DAY], rule)
    assert line.isascii() and line.isprintable()
    load, where = (ast.literal_eval(text) for text in re.findall(r'\.(?:load|where)\(("(?:[^"\\]|\\.)*")\)', line))
    assert load == str(tmp_path / "lake" / "quarantine")
    quoted = re.fullmatch(r"ds = '2026-01-09' AND log = 'natural' AND rule = '((?:[^'\\]|\\.)*)'", where)
    assert quoted is not None and re.sub(r"\\(.)", r"\1", quoted[1]) == rule


def test_a_range_is_found_whole_and_a_rule_of_two_fields_by_both(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    put_quarantine(locations, [{"rule": "range", "field": field, "found": "-1"} for field in ("item_id", "user_id")])
    quarantined = read_quarantined(locations, "natural_log", [DAY - timedelta(days=1), DAY])
    assert quarantined is not None
    assert quarantined.rules[0].finder.endswith(
        """.where("ds BETWEEN '2026-01-08' AND '2026-01-09' AND log = 'natural' AND rule = 'range' AND field = 'item_id'")"""
    )


def test_a_report_shows_broken_checks_first_and_says_their_severity() -> None:
    verdict = make_verdict(broken=("click_rate(click)", "unique(event_id)"))
    text = render(verdict)
    order = [
        text.index(part)
        for part in (">unique <", ">click_rate <", f"{len(verdict.results) - 2} checks held", ">columns<")
    ]
    assert order == sorted(order)
    assert '<span class="badge fail">fail</span>' in text and '<span class="badge warn">warn</span>' in text


def test_a_range_says_what_it_covers() -> None:
    verdict = make_verdict(days=3)
    text = render(verdict)
    assert "This report covers 2026-01-07 .. 2026-01-09." in text
    assert all(f'data-label="rows"><span>{rows:,}</span>' in text for rows in (1000, 1001, 1002))


def with_profile(figures: DayFigures) -> DayFigures:
    return replace(
        figures,
        users=40,
        items=7,
        impressions_mean={"user": 25.0, "item": 142.857},
        impressions_p50={"user": 20.0, "item": 100.0},
        impressions_p95={"user": 61.0, "item": 400.0},
        impressions_max={"user": 93, "item": 512},
        hours=(*[0] * 9, 10, *[0] * 14),
        unknown_share={"user_segment_id": 0.25, "position": 0.0},
        missing_share={"item_text": 1.0, "arrival_ts": 0.5},
        constant={"position": "0", "user_id": "48213"},
        constant_columns=2,
    )


def test_a_log_shows_its_users_items_hours_and_columns(tmp_path: Path) -> None:
    verdict = make_verdict(days=2)
    days = tuple(map(with_profile, verdict.days))
    days = (replace(days[0], unknown_share={"user_segment_id": 0.75}, constant={}), days[1])
    text = write_report(Locations(tmp_path), replace(verdict, days=days)).read_text()
    assert read_verdict(Locations(tmp_path), "natural_log", DAY) == replace(verdict, days=days)
    cells = [re.findall(r"<span>(.*?)</span>", row) for row in re.findall(r"<tr>(.*?)</tr>", text, re.DOTALL)]
    assert ["users", "40", "25", "20", "61", "93"] in cells
    assert ["items", "7", "142.86", "100", "400", "512"] in cells
    assert "Impressions by hour of the day: 0:00 0" in text and "9:00 20" in text
    assert ["<code>user_segment_id</code>", "49.99 %", ""] in cells  # of 1,000 rows 75 %, of 1,001 25 %
    assert ["<code>position</code>", "0.00 %", "always 0, on 1 of 2 days"] in cells
    assert ["<code>item_text</code>", "100.00 %", "never delivered"] in cells
    assert ["<code>arrival_ts</code>", "50.00 %", ""] in cells and "48213" not in text


def test_a_table_that_is_no_log_and_a_verdict_from_before_have_no_profile() -> None:
    samples = make_verdict("natural_samples")
    samples = replace(samples, days=tuple(map(with_profile, samples.days)))
    assert "Users, items, requests and hours" not in render(samples) + render(make_verdict())


def test_a_verdict_survives_its_file_and_damage_is_not_fatal(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    verdict = make_verdict(
        broken=("rows",),
        days=2,
        digests={"ds=2026-01-09": "1"},
        acceptance=Acceptance(reason="known outage", accepted_ts=NOW),
    )
    path = write_report(locations, verdict)
    assert read_verdict(locations, "natural_log", DAY) == verdict
    assert [file.name for file in sorted(path.parent.iterdir())] == ["2026-01-09.html", "2026-01-09.json"]
    sidecar_path(locations, "natural_log", DAY).write_text(verdict.to_json().replace('"format": 1', '"format": 0'))
    assert read_verdict(locations, "natural_log", DAY) is None
    assert "Nothing has been judged" in write_index(locations).read_text()


def test_status_follows_the_gravest_broken_check() -> None:
    assert make_verdict().status == "pass"
    assert make_verdict(broken=("click_rate(click)",)).status == "warn"
    failed = make_verdict(broken=("click_rate(click)", "rows"))
    assert failed.status == "fail"
    assert replace(failed, acceptance=Acceptance(reason="r", accepted_ts=NOW)).status == "accepted"


def test_the_index_has_a_row_a_day_and_leads_to_each_report(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    for verdict in (
        make_verdict(days=3),
        make_verdict("ad_log", broken=("rows",)),
        make_verdict("ad_log", day=DAY - timedelta(days=40)),
    ):
        path = write_report(locations, verdict)
        assert path.is_file()
    text = write_index(locations).read_text()
    links = re.findall(r'href="([^"]+)"', text)
    assert sorted(set(links)) == ["ad_log/2025-11-30.html", "ad_log/2026-01-09.html", "natural_log/2026-01-09.html"]
    assert all((locations.reports / link).is_file() for link in links)
    marks = re.findall(r'<a class="mark (\w+)" href="([^"]+)"', text)
    assert marks.count(("pass", "natural_log/2026-01-09.html")) == 3  # each day that it covers
    assert marks.count(("fail", "ad_log/2026-01-09.html")) == 1


def test_the_index_leaves_each_day_in_short_for_the_ui(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    for verdict in (
        make_verdict(days=2),
        make_verdict(broken=("click_rate(click)", "rows"), run_ts=NOW + timedelta(hours=1)),
    ):
        write_report(locations, verdict)
    write_index(locations)
    range_left, alone = read_judged(locations.judged_days)
    assert (range_left.day, range_left.status, range_left.broken, range_left.rows) == (
        DAY - timedelta(days=1),
        "pass",
        (),
        1000,
    )
    assert (
        range_left.report == "natural_log/2026-01-08_2026-01-09.html"
        and (locations.reports / range_left.report).is_file()
    )
    assert (alone.day, alone.status, alone.broken) == (DAY, "fail", ("rows", "click_rate(click)"))
    assert (alone.report, alone.judged_ts) == ("natural_log/2026-01-09.html", NOW + timedelta(hours=1))


def test_a_day_of_a_range_has_its_own_colour() -> None:
    verdict = make_verdict(days=3)
    figures = tuple(replace(day, click_rate=rate) for day, rate in zip(verdict.days, (0.25, 0.97, 0.25), strict=True))
    warned = replace(
        verdict, days=figures, results=tuple(replace(r, success=r.id != "click_rate(click)") for r in verdict.results)
    )
    duplicated = make_verdict("ad_log", days=3, broken=("unique(event_id)",))  # of which day, nobody asked
    marks = re.findall(r'<a class="mark (\w+)" href="(\w+)/', render_index([warned, duplicated]))
    assert [status for status, table in marks if table == "natural_log"] == ["pass", "warn", "pass"]
    assert [status for status, table in marks if table == "ad_log"] == ["fail"] * 3


def test_the_calendar_has_a_grid_a_month_and_a_square_a_day(tmp_path: Path) -> None:
    text = render_index(
        [make_verdict(days=3), make_verdict("ad_log", broken=("rows",)), make_verdict("ad_log", day=date(2025, 11, 30))]
    )
    months = re.findall(r'<table class="calendar"><caption>([^<]+)</caption>(.*?)</table>', text, re.DOTALL)
    assert [name for name, _ in months] == ["January 2026", "November 2025"]
    for (_, grid), days, blanks in zip(months, (31, 30), (3, 5), strict=True):
        weeks = re.findall(r"<tr>(<td.*?)</tr>", grid, re.DOTALL)
        assert all(week.count("<td") == 7 for week in weeks)
        assert re.findall(r'class="date">(\d+)<', grid) == [str(day) for day in range(1, days + 1)]
        assert weeks[0].count('<td class="none"></td>') == blanks  # a Thursday, a Saturday
    january = months[0][1]
    assert january.count('<td class="pass">') == 2 and january.count('<td class="fail">') == 1
    (square,) = re.findall(r'<td class="fail">.*?</td>', january)
    assert re.findall(r">(.)</a>", square) == [
        "✓",
        "✕",
    ]  # a status has a sign too; the signs are in the order of the tables
    assert january.count("ad_log, 2026-01-08: not judged") == 1


def test_judging_the_last_day_of_a_range_again_does_not_lose_the_others(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    write_report(locations, make_verdict(days=3))
    write_report(locations, make_verdict(broken=("rows",), run_ts=NOW + timedelta(hours=1)))
    links = re.findall(r'<a class="mark \w+" href="([^"]+)"', write_index(locations).read_text())
    assert links == [*["natural_log/2026-01-07_2026-01-09.html"] * 2, "natural_log/2026-01-09.html"]
    assert all((locations.reports / link).is_file() for link in links)
    assert "covers 2026-01-07" in (locations.reports / links[0]).read_text()


def test_the_narrower_verdict_speaks_for_a_day_then_the_newer() -> None:
    whole, alone = make_verdict(days=3), make_verdict(day=DAY - timedelta(days=1))
    later = replace(alone, run_ts=NOW + timedelta(hours=1))
    for order in ([whole, alone, later], [later, alone, whole]):
        cells = speaking(order)
        assert cells[DAY, "natural_log"] == whole
        assert cells[DAY - timedelta(days=1), "natural_log"] == later


def test_a_report_plots_the_days_judged_before(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    write_report(locations, make_verdict(day=DAY - timedelta(days=1), days=2, rows=500))
    write_report(locations, make_verdict(day=DAY - timedelta(days=20), rows=7))
    write_report(locations, make_verdict(day=DAY - timedelta(days=12), days=3, rows=20))
    write_report(locations, make_verdict(day=DAY + timedelta(days=1), rows=8))
    assert [str(day)[5:] for day in history_of(locations, make_verdict(), 14)] == [
        "12-27",
        "12-28",
        "01-07",
        "01-08",
        "01-09",
    ]
    text = write_report(locations, make_verdict()).read_text()
    assert (
        'aria-label="Rows a day: Dec 20 7, Dec 26 20, Dec 27 21, Dec 28 22, Jan 7 500, Jan 8 501, Jan 9 1000"' in text
    )


def test_each_check_has_a_picture_of_its_last_days(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    write_report(locations, make_verdict(day=DAY - timedelta(days=2), broken=("unique(event_id)",)))
    write_report(locations, make_verdict(day=DAY - timedelta(days=29), broken=("unique(event_id)",)))
    write_report(locations, make_verdict(day=DAY - timedelta(days=30), broken=("unique(event_id)",)))
    verdict = make_verdict()
    text = write_report(locations, verdict).read_text()
    assert text.count('<svg class="spark"') == len(verdict.results)
    row = next(line for line in text.splitlines() if ">unique <" in line)
    assert 'aria-label="3 of 30 days judged, 0 warned, 2 failed"' in row and row.count("<rect") == 3
    row = next(line for line in text.splitlines() if ">rows_as_built<" in line)
    assert row.count('class="past"') == 2 and row.count('class="now"') == 1  # three days apart: its figure, as dots


def test_a_day_of_a_range_is_pictured_by_its_own_figure() -> None:
    verdict = make_verdict(days=3)
    figures = tuple(replace(day, click_rate=rate) for day, rate in zip(verdict.days, (0.25, 0.97, 0.25), strict=True))
    broken = tuple(replace(r, success=r.id != "click_rate(click)") for r in verdict.results)
    row = next(
        line for line in render(replace(verdict, days=figures, results=broken)).splitlines() if ">click_rate <" in line
    )
    assert "3 of 30 days judged, 1 warned, 0 failed" in row and row.count('class="warned"') == 1


def test_pictures_tell_a_failure_by_shape_and_leave_gaps() -> None:
    drawn = sparkline([1, None, 2, 3], ["pass", None, "warn", "fail"], low=0, high=2.5, spoken="<b>")
    assert "<polygon" in drawn and "<rect" in drawn and 'aria-label="&lt;b&gt;"' in drawn
    assert drawn.count("<polyline") == 2 and drawn.count('class="bound"') == 2
    heights = [
        float(height) for height in re.findall(r'height="([0-9.]+)"', strip(["pass", "warn", "fail", None], spoken=""))
    ]
    assert len(heights) == 3 and heights == sorted(set(heights))


@pytest.mark.parametrize(
    ("largest", "top"), [(0, 1.0), (0.31, 0.4), (1, 1.0), (1234, 2000.0), (9.9, 10.0), (6.1e6, 8e6)]
)
def test_ticks_are_round_and_cover_the_values(largest: float, top: float) -> None:
    ticks = nice_ticks(largest)
    assert ticks[0] == 0 and ticks[-1] == pytest.approx(top)


def test_a_failed_check_ends_with_the_address_of_the_report(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    refuse_failed(locations, [make_verdict(broken=("click_rate(click)",))])  # a warning does not stop the day
    with pytest.raises(QualityFailed) as caught:
        refuse_failed(locations, [make_verdict(broken=("rows", "unique(event_id)"))])
    message = str(caught.value)
    assert message.endswith((tmp_path / "reports/natural_log/2026-01-09.html").as_uri())
    assert "rows: expected at least one row" in message and "and 1 more" in message
    accepted = Acceptance(reason="r", accepted_ts=NOW)
    refuse_failed(locations, [make_verdict(broken=("rows",), acceptance=accepted)])


def test_rows_of_quality_results_have_the_contracts_columns() -> None:
    verdict = make_verdict(broken=("rows",), acceptance=Acceptance(reason="known outage", accepted_ts=NOW))
    rows = result_rows(verdict)
    assert all(set(row) == set(TABLES["quality_results"].column_names) for row in rows)
    assert [row["check_name"] for row in rows if not row["success"]] == ["rows"]
    assert rows[-1]["check_name"] == "accepted" and rows[-1]["found"] == "known outage"


def command(*arguments: str) -> int:
    return run_command(cli.main, list(arguments))


def test_commands_refuse_what_they_cannot_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = ("--home", str(tmp_path))
    assert command("run", "--table", "ad_log", *home) == EXIT_BAD_INPUT
    assert command("run", "--table", "ad_log", "--from", "2026-01-02", *home) == EXIT_BAD_INPUT
    assert command("run", "--table", "ad_log", "--from", "2026-01-02", "--to", "2026-01-01", *home) == EXIT_BAD_INPUT
    assert command("run", "--table", "builds", "--ds", "2026-01-02", *home) == EXIT_BAD_INPUT
    assert command("show", "--table", "ad_log", "--ds", "2026-01-02", *home) == EXIT_BAD_INPUT
    capsys.readouterr()
    assert command("run", "--table", "ad_log", "--ds", "2026-01-02", *home) == EXIT_PARENT_MISSING
    assert capsys.readouterr().err.strip().endswith("tributary spark_jobs ingest_logs --ds 2026-01-02")


def test_show_and_index_tell_what_was_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_report(Locations(tmp_path), make_verdict(broken=("rows",)))
    assert command("show", "--table", "natural_log", "--ds", str(DAY), "--home", str(tmp_path)) == 0
    assert re.search(r"^FAIL +rows +expected at least one row", capsys.readouterr().out, re.MULTILINE)
    assert command("index", "--home", str(tmp_path)) == 0
    assert (tmp_path / "reports/index.html").as_uri() in capsys.readouterr().out


def test_a_day_that_passed_is_not_accepted(tmp_path: Path) -> None:
    write_report(Locations(tmp_path), make_verdict())
    with pytest.raises(BadInput, match="nothing to accept"):
        cli.main(["accept", "--table", "natural_log", "--ds", str(DAY), "--reason", "r", "--home", str(tmp_path)])


def test_the_index_leads_to_the_model_reports(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    for first, last in ((1, 3), (2, 9), (4, 9)):
        path = locations.model_report(date(2026, 1, first), date(2026, 1, last))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a report")
    for text in (write_index(locations).read_text(), render_index([make_verdict()], ["2026-01-01_2026-01-03"])):
        assert 'href="models/2026-01-01_2026-01-03.html">2026-01-01 .. 2026-01-03<' in text
    assert re.findall(r'href="models/([^"]+)\.html"', write_index(locations).read_text()) == [
        "2026-01-04_2026-01-09",
        "2026-01-02_2026-01-09",
        "2026-01-01_2026-01-03",
    ]
