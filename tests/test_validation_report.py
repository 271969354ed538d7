"""Reports and their index: harmless whatever the logs hold, and honest about what they cover."""

from __future__ import annotations

import base64
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
from contracts.tables import TABLES
from validation import cli, markup
from validation.figures import DayFigures
from validation.index import cells_of, render_index, write_index
from validation.masking import LONGEST_SHOWN, shown
from validation.quarantine import ROWS_SHOWN, read_quarantined
from validation.report import nice_ticks, render_report, write_report
from validation.results import refuse_failed, result_rows
from validation.suites import derive_suite
from validation.verdict import Acceptance, Result, Verdict, earlier_days, read_verdict, sidecar_path

DAY = date(2026, 1, 9)
NOW = datetime(2026, 1, 10, 3, tzinfo=UTC)
HOSTILE = "</td><script>alert(1)</script><img src=x onerror=alert(2)>\u202e\x1b[31m\"'&"


def make_verdict(table: str = "natural_log", *, broken: tuple[str, ...] = (), day: date = DAY, days: int = 1, rows: int = 1000,
                 **changes: Any) -> Verdict:
    results = tuple(Result(name=check.name, field=check.field, severity=check.severity, expected=check.expected,
                           success=check.id not in broken, found="12 rows" if check.id in broken else "fine")
                    for check in derive_suite(TABLES[table]))
    figures = tuple(DayFigures(ds=day - timedelta(days=days - 1 - i), rows=rows + i, rows_off_build=0, click_rate=0.25)
                    for i in range(days))
    return replace(Verdict(table=table, first_day=figures[0].ds, last_day=day, run_ts=NOW, results=results, days=figures), **changes)


def put_quarantine(locations: Locations, rows: list[dict[str, Any]]) -> None:
    common = {"expected": "a number", "file": "natural/part.csv", "raw": "{}", "run_id": "r", "log": "natural", "ds": DAY}
    write_deltalake(str(locations.table("quarantine")), pa.Table.from_pylist([common | row for row in rows]), partition_by=["ds", "log"])


def test_hostile_content_is_shown_harmless(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    put_quarantine(locations, [{"rule": HOSTILE, "field": name, "found": HOSTILE, "file": HOSTILE} for name in (HOSTILE, "click")])
    broken = make_verdict(broken=("range(user_id)",), acceptance=Acceptance(reason=HOSTILE, accepted_ts=NOW))
    results = tuple(replace(result, found=HOSTILE) for result in broken.results)
    text = write_report(locations, replace(broken, results=results)).read_text()
    assert "alert(1)" in text  # it is shown, as text
    for harmful in ("<script", "<img src=x", "\u202e", "\x1b", "javascript:"):
        assert harmful not in text
    assert len(re.findall(r"<img ", text)) == len(re.findall(r'<img [^>]*src="data:image/svg\+xml;base64,', text)) == 2


def test_pages_are_self_contained_and_forbid_the_rest(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    pages = [write_report(locations, make_verdict()).read_text(), write_index(locations).read_text(), render_index([])]
    for text in pages:
        assert markup.text(markup.POLICY) == "default-src &#x27;none&#x27;; style-src &#x27;unsafe-inline&#x27;; img-src data:"
        assert '<meta http-equiv="Content-Security-Policy" content="' + markup.POLICY + '">' in text
        assert text.index("Content-Security-Policy") < text.index("<style>")
        for outside in ("http:", "https:", "<link", "@import", "url(", 'src="/', "<script", "<iframe", "<form"):
            assert outside not in text
    for image in re.findall(r"base64,([^\"]+)", pages[0]):
        drawing = base64.b64decode(image).decode()
        assert drawing.startswith("<svg ") and re.findall(r"https?://[^\"]+", drawing) == ["http://www.w3.org/2000/svg"]


def test_user_ids_are_masked(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    put_quarantine(locations, [
        {"rule": "user_id_range", "field": "user_id", "found": "-48213"},
        {"rule": "columns", "field": "*", "found": "7,user48213,1"},
        {"rule": "click_range", "field": "click", "found": "17"},
    ])
    text = write_report(locations, make_verdict()).read_text()
    assert "48213" not in text
    assert "-99999" in text and "9,xxxx99999,9" in text and ">17<" in text


def test_long_and_missing_values() -> None:
    assert len(shown("a" * 5000, fields=["click"], columns=["click"])) <= LONGEST_SHOWN + 3
    assert shown(None, fields=["user_id"], columns=["user_id"]) == "nothing"


def test_quarantine_counts_all_rows_and_shows_some_of_every_rule(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    put_quarantine(locations, [{"rule": "common", "field": "click", "found": str(i)} for i in range(50)]
                   + [{"rule": "rare", "field": "item_id", "found": "x"},
                      {"rule": "other log", "field": "click", "found": "0", "log": "ad"}])
    quarantined = read_quarantined(locations, "natural_log", [DAY])
    assert quarantined is not None
    assert quarantined.rules == (("common", "click", 50), ("rare", "item_id", 1))
    assert len(quarantined.rows) == ROWS_SHOWN and {row[0] for row in quarantined.rows} == {"common", "rare"}
    assert "20 of 51 rows" in render_report(make_verdict(), history=list(make_verdict().days), quarantined=quarantined)
    assert read_quarantined(locations, "natural_samples", [DAY]) is None


def test_a_report_shows_broken_checks_first_and_says_their_severity() -> None:
    verdict = make_verdict(broken=("click_rate(click)", "unique(event_id)"))
    text = render_report(verdict, history=list(verdict.days), quarantined=None)
    order = [text.index(part) for part in (">unique<", ">click_rate<", f"{len(verdict.results) - 2} checks held", ">columns<")]
    assert order == sorted(order)
    assert '<span class="badge fail">fail</span>' in text and '<span class="badge warn">warn</span>' in text


def test_a_range_says_what_it_covers() -> None:
    verdict = make_verdict(days=3)
    text = render_report(verdict, history=list(verdict.days), quarantined=None)
    assert "This report covers 2026-01-07 .. 2026-01-09." in text
    assert all(f"<td class=\"number\">{rows:,}</td>" in text for rows in (1000, 1001, 1002))


def test_a_verdict_survives_its_file_and_damage_is_not_fatal(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    verdict = make_verdict(broken=("rows",), days=2, digests={"ds=2026-01-09": "1"},
                           acceptance=Acceptance(reason="known outage", accepted_ts=NOW))
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
    for verdict in (make_verdict(days=3), make_verdict("ad_log", broken=("rows",)), make_verdict("ad_log", day=DAY - timedelta(days=40))):
        path = write_report(locations, verdict)
        assert path.is_file()
    text = write_index(locations).read_text()
    links = re.findall(r'href="([^"]+)"', text)
    assert sorted(set(links)) == ["ad_log/2025-11-30.html", "ad_log/2026-01-09.html", "natural_log/2026-01-09.html"]
    assert links.count("natural_log/2026-01-09.html") == 3  # each day that it covers
    assert all((locations.reports / link).is_file() for link in links)
    assert text.count('<th scope="row">') == 4 and "November 2025" in text
    days = re.findall(r'<th scope="row">... ([-0-9]+)<', text)
    assert days == sorted(days, reverse=True)


def test_judging_the_last_day_of_a_range_again_does_not_lose_the_others(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    write_report(locations, make_verdict(days=3))
    write_report(locations, make_verdict(broken=("rows",), run_ts=NOW + timedelta(hours=1)))
    links = re.findall(r'href="([^"]+)"', write_index(locations).read_text())
    assert links == ["natural_log/2026-01-09.html", *["natural_log/2026-01-07_2026-01-09.html"] * 2]
    assert all((locations.reports / link).is_file() for link in links)
    assert "covers 2026-01-07" in (locations.reports / links[-1]).read_text()


def test_the_narrower_verdict_speaks_for_a_day_then_the_newer() -> None:
    whole, alone = make_verdict(days=3), make_verdict(day=DAY - timedelta(days=1))
    later = replace(alone, run_ts=NOW + timedelta(hours=1))
    for order in ([whole, alone, later], [later, alone, whole]):
        cells = cells_of(order)
        assert cells[DAY, "natural_log"] == whole
        assert cells[DAY - timedelta(days=1), "natural_log"] == later


def test_a_report_plots_the_days_judged_before(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    write_report(locations, make_verdict(day=DAY - timedelta(days=1), days=2, rows=500))
    write_report(locations, make_verdict(day=DAY - timedelta(days=20), rows=7))
    write_report(locations, make_verdict(day=DAY - timedelta(days=12), days=3, rows=20))
    write_report(locations, make_verdict(day=DAY + timedelta(days=1), rows=8))
    assert [figures.rows for figures in earlier_days(locations, make_verdict(), 14)] == [21, 22, 500, 501, 1000]
    text = write_report(locations, make_verdict()).read_text()
    assert 'alt="Rows a day: Dec 27 21, Dec 28 22, Jan 7 500, Jan 8 501, Jan 9 1000"' in text


@pytest.mark.parametrize(("largest", "top"), [(0, 1.0), (0.31, 0.4), (1, 1.0), (1234, 2000.0), (9.9, 10.0), (6.1e6, 8e6)])
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
    arguments = cli._parser().parse_args(["accept", "--table", "natural_log", "--ds", str(DAY), "--reason", "r"])
    with pytest.raises(BadInput, match="nothing to accept"):
        arguments.command(Locations(tmp_path), arguments)
