"""An illegal value of an optional feature costs the value, not the row: it reads as unknown, is counted by rule, and shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from landing_rows import DAY, csv_bytes, good_row, write
from test_validation_report import make_verdict, render

from contracts import tables
from contracts.locations import Locations
from contracts.periods import ONE_DAY
from contracts.settings import Deployment
from contracts.tables import owner_key
from lake.reader import LakeReader
from spark_jobs import ingest_logs
from validation.figures import DayBuilds, Measured, day_figures

DEPLOYMENT = Deployment(history_start=DAY, actr_start=DAY + ONE_DAY, ad_start=DAY + ONE_DAY)
OPTIONAL = "user_segment_id"  # is declared as a feature that may be unknown here


@pytest.fixture
def optional(monkeypatch: pytest.MonkeyPatch) -> None:
    contract = tables.TABLES["natural_log"]
    columns = tuple(
        replace(column, nullable=True) if column.name == OPTIONAL else column for column in contract.columns
    )
    monkeypatch.setitem(tables.TABLES, "natural_log", replace(contract, columns=columns))


@pytest.mark.spark
def test_an_illegal_optional_value_reads_as_unknown(spark: Any, optional: None, tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    values = ["-124"] * 8 + ["abc", "9" * 20, "", " ", "5", "0"]
    rows = [good_row(number, user_segment_id=value) for number, value in enumerate(values)]
    bad = [
        good_row(100, user_segment_id="-124", position="-1"),
        good_row(101, arrival_ts="soon"),
        good_row(102, item_text="caf\ufffd"),
    ]
    again = [good_row(0, user_segment_id="-124")]
    write(locations.landing_day("natural", DAY) / "a.csv", csv_bytes(rows + bad + again))
    ingest_logs.run(spark, locations, DEPLOYMENT, [DAY])
    reader = LakeReader(locations)
    found = {row["event_id"]: row[OPTIONAL] for row in reader.read("natural_log").to_pylist()}
    assert found == dict(enumerate([None] * 12 + [5, 0]))
    counts = reader.builds("natural_log")[owner_key(ds=DAY)]["counts"]
    # Of rows that were kept: not of the one in quarantine, which broke the rule of a required column too, and not of
    # the duplicate.
    assert {name: count for name, count in counts.items() if count} == {
        "read": 18,
        "kept": 14,
        "duplicates": 1,
        "quarantined": 3,
        f"unknown_{OPTIONAL}_range": 8,
        f"unknown_{OPTIONAL}_type": 2,
    }
    rules = sorted(row["rule"] for row in reader.read("quarantine").to_pylist())
    assert rules == ["arrival_ts_type", "item_text_encoding", "position_range"]


def test_unknown_values_are_counted_by_rule_in_the_report() -> None:
    counts = {"read": 10, "kept": 8, "duplicates": 1, "quarantined": 1, "late": 0}
    counts |= {"unknown_device_id_range": 6, "unknown_device_id_type": 0}
    build = {"counts": counts, "row_cnt": 8}
    figures = day_figures(
        tables.TABLES["natural_log"], DAY, Measured(rows=8), DayBuilds(own={DAY: build}, log={}), usual_days=7
    )
    assert figures.unknown == {"device_id_range": 6}
    assert type(figures).from_json(figures.as_json()) == figures
    page = render(make_verdict(day=DAY, days=1, rows=8))
    assert "Values read as unknown" not in page
    page = render(replace(make_verdict(day=DAY), days=(figures,)))
    assert "Values read as unknown" in page and "device_id_range" in page and "75.0 %" in page
