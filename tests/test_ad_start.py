"""Days before advertisements began: no ad folder is needed, everything that follows works, and every page states why they are empty."""

from __future__ import annotations

from datetime import date, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from landing_rows import csv_bytes, good_row, write

from contracts.errors import BadInput
from contracts.locations import Locations
from contracts.settings import SETTINGS_FILE, Deployment
from contracts.steps import DAY_JOBS
from contracts.tables import owner_key
from lake.reader import LakeReader
from pages.files import read_judged
from spark_jobs import ingest_logs
from spark_jobs.staleness import find_stale
from tributary.cli import main as tributary

BEFORE, FIRST = date(2026, 1, 1), date(2026, 1, 2)
DEPLOYMENT = Deployment(history_start=BEFORE, actr_start=FIRST, ad_start=FIRST)


@pytest.mark.spark
def test_a_day_before_advertisements_began_needs_no_ad_folder(spark: Any, tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    (tmp_path / SETTINGS_FILE).write_text(DEPLOYMENT.to_toml())
    for number, day in enumerate((BEFORE, FIRST)):
        write(
            locations.landing_day("natural", day) / "a.csv",
            csv_bytes([good_row(100 * number + n, day=day) for n in range(40)]),
        )
    with pytest.raises(BadInput, match="found no such folder"):
        ingest_logs.run(spark, locations, Deployment(history_start=BEFORE, actr_start=FIRST), [BEFORE])
    ingest_logs.run(spark, locations, DEPLOYMENT, [BEFORE])  # by itself there is no file at all to read
    assert LakeReader(locations).builds("ad_log")[owner_key(ds=BEFORE)]["counts"] == dict.fromkeys(
        (*ingest_logs.STATUS_COUNTS, "undeclared_columns"), 0
    )
    with pytest.raises(BadInput, match=r"ad/2026-01-02: landing day: .* found no such folder"):
        ingest_logs.run(spark, locations, DEPLOYMENT, [FIRST])
    write(
        locations.landing_day("ad", FIRST) / "a.csv", csv_bytes([good_row(n, day=FIRST, log="ad") for n in range(30)])
    )
    for name in DAY_JOBS:
        import_module(f"spark_jobs.{name}").run(spark, locations, DEPLOYMENT, [BEFORE, FIRST])
    reader = LakeReader(locations)
    assert {
        (name, day): reader.builds(name)[owner_key(ds=day)]["row_cnt"]
        for name in ("natural_samples", "ad_log", "ad_samples")
        for day in (BEFORE, FIRST)
    } == {
        ("natural_samples", BEFORE): 40,
        ("natural_samples", FIRST): 40,
        ("ad_log", BEFORE): 0,
        ("ad_log", FIRST): 30,
        ("ad_samples", BEFORE): 0,
        ("ad_samples", FIRST): 30,
    }
    locations.landing_day("ad", BEFORE).mkdir(parents=True)  # a folder without a file is none either
    assert not find_stale(locations)


@pytest.mark.spark
@pytest.mark.filterwarnings("default")  # Great Expectations warns of itself
def test_the_pages_of_such_a_day_say_why_it_is_empty(spark: Any, tmp_path: Path) -> None:
    from validation.index import write_index
    from validation.report import write_report
    from validation.runner import run_range

    locations = Locations(tmp_path)
    for day in (BEFORE, FIRST):
        write(locations.landing_day("natural", day) / "a.csv", csv_bytes([good_row(1, day=day)]))
    rows = [good_row(n, day=FIRST, log="ad", **({} if n % 2 else {"click": "0", "action": "0"})) for n in range(30)]
    write(locations.landing_day("ad", FIRST) / "a.csv", csv_bytes(rows))
    ingest_logs.run(spark, locations, DEPLOYMENT, [BEFORE, FIRST])
    verdict = run_range(spark, locations, "ad_log", BEFORE, FIRST, deployment=DEPLOYMENT)
    assert verdict.status == "pass" and [day.ads_from for day in verdict.days] == [FIRST, None]
    assert (
        "2026-01-01 .. 2026-01-01: no ads yet, as declared: ad_start is 2026-01-02."
        in write_report(locations, verdict).read_text()
    )
    index = write_index(locations).read_text()
    assert "ad_log, 2026-01-01: pass, no ads yet, as declared: ad_start is 2026-01-02" in index
    said = {(day.table, day.day): day.rows_in_words for day in read_judged(locations.judged_days)}
    assert said == {("ad_log", BEFORE): "no ads yet, as declared: ad_start is 2026-01-02", ("ad_log", FIRST): "30 rows"}


@pytest.mark.spark
def test_what_is_delivered_before_advertisements_began_is_read(spark: Any, tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    for log in ("natural", "ad"):
        write(
            locations.home / "landing" / log / str(BEFORE) / "a.csv",
            csv_bytes([good_row(n, day=BEFORE, log=log) for n in range(3)]),
        )
    builds = {
        build.owner: build
        for build in ingest_logs.run(spark, locations, DEPLOYMENT, [BEFORE])
        if build.table_name == "ad_log"
    }
    assert builds[owner_key(ds=BEFORE)].row_cnt == 3


def test_init_takes_the_first_day_with_advertisements(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = tmp_path / "home"
    argv = ["init", "--home", str(home), "--history-start", str(BEFORE), "--actr-start", str(FIRST + timedelta(days=3))]
    assert tributary([*argv, "--ad-start", str(FIRST)]) == 0
    assert Deployment.load(home).ad_start == FIRST and f"ad_start = {FIRST}" in (home / SETTINGS_FILE).read_text()
    assert tributary([*argv, "--force", "--ad-start", "2025-12-31"]) == 2
    assert "ad_start: expected a day of history_start" in capsys.readouterr().err
