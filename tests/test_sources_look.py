"""`tributary sources look`: what lies somewhere, and settings that read it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from contracts.errors import BadInput
from contracts.settings import SETTINGS_FILE, Deployment
from sources.cli import main as sources
from sources.proposal import guesses, profiles_of, settings_text, string_ids, time_unit
from sources.sample import Sample, sample_of

DAY = date(2026, 1, 31)
START = datetime(2026, 1, 31, 10, tzinfo=UTC)


def rows(count: int = 60) -> list[dict[str, Any]]:
    return [
        {
            "impression": n,
            "time_ms": int((START + timedelta(seconds=n)).timestamp() * 1000),
            "customer": f"K{n % 20:05}",
            "payload": {"item": {"id": n % 30, "category": n % 12}},
            "slot": n % 9,
            "clicked": n % 3 == 0,
            "kinds": [n],
        }
        for n in range(count)
    ]


def deployment_of(sample: Sample, log: Any = "natural") -> Deployment:
    return Deployment.from_toml(settings_text(sample, log))


def test_hourly_parquet_folders_give_settings_that_read_them(tmp_path: Path) -> None:
    for day in ("2026-01-31", "2026-02-01"):
        for hour in ("07", "23"):
            folder = tmp_path / f"dt={day}" / f"hour={hour}"
            folder.mkdir(parents=True)
            pq.write_table(pa.Table.from_pylist(rows()), folder / "part-0.parquet")
            (folder / "_SUCCESS").write_bytes(b"")
    sample = sample_of(str(tmp_path))
    assert sample.place == {"path": f"{tmp_path}/dt={{day}}/hour={{hour}}/"}
    assert list(sample.days) == [DAY, date(2026, 2, 1)]
    profiles = {one.name: one for one in profiles_of(sample)}
    assert profiles["customer"].examples == ("x99999",), "users are shown by their shape"
    assert profiles["time_ms"].may_be == ("event_ts (milliseconds)",)
    assert profiles["dt"].type == "folder"
    source = deployment_of(sample).landing.natural
    assert {name: source.columns.get(name) for name in ("event_id", "event_ts", "user_id", "item_id", "click")} == {
        "event_id": "impression",
        "event_ts": "timestamp_millis(time_ms)",
        "user_id": "customer",
        "item_id": "payload.item.id",
        "click": "cast(try_cast(clicked AS boolean) AS int)",
    }
    assert source.columns["category_id"] == "payload.item.category"
    assert source.columns["request_id"] == "concat_ws('_', customer, time_ms)"
    assert set(deployment_of(sample).string_ids) == {"user_id", "request_id"}
    assert settings_text(replace(sample, rows=[{"slot": 1}], types={"slot": "int64"}), "ad").count("NOT FOUND") == 6


def test_text_files_tell_their_delimiter_header_and_format(tmp_path: Path) -> None:
    lines = ["2026-01-31T10:00:00Z;7;1;0", "2026-01-31T10:00:01Z;8;2;1"]
    (tmp_path / "feed-20260131.txt").write_text("\n".join(["time;uid;video_id;is_click", *lines]) + "\n")
    (tmp_path / "feed-20260201.txt").write_text("\n".join(["time;uid;video_id;is_click", *lines]) + "\n")
    sample = sample_of(str(tmp_path))
    path = f"{tmp_path}/feed-{{day:%Y%m%d}}.txt"
    assert sample.place == {"path": path, "format": "csv", "delimiter": ";"}
    assert len(sample.rows) == 2 and list(sample.days) == [DAY, date(2026, 2, 1)]
    assert guesses(sample, "natural") == {
        "event_ts": "time",
        "user_id": "uid",
        "item_id": "video_id",
        "click": "is_click",
    }

    (tmp_path / "bare.csv").write_text("1\t2\n3\t4\n")
    sample = sample_of(str(tmp_path / "bare.csv"))
    assert (sample.place["header"], sample.place["delimiter"], sample.columns) == (False, "\t", ["_c0", "_c1"])
    assert len(sample.rows) == 2

    (tmp_path / "lines").write_text("".join(json.dumps(row) + "\n" for row in rows(5)))
    sample = sample_of(str(tmp_path / "lines"))
    assert sample.place["format"] == "jsonl" and sample.types["payload.item.id"] == "integer"
    proposed = deployment_of(sample)
    assert proposed.landing.natural.day == "to_date(timestamp_millis(time_ms))"
    assert proposed.history_start == DAY


def test_an_index_without_a_name_and_hashes_that_read_as_numbers(tmp_path: Path) -> None:
    """A CSV file as pandas writes it; of the columns named after a user neither a constant nor flags can tell users apart."""
    lines = [f"{n},2019-11-24 00:00:{n:02}.5+00:00,{n % 7},0.0,{n % 2},12e456{n % 9},{n % 2}" for n in range(40)]
    (tmp_path / "a.csv").write_text(",timestamp,item_id,user_score,user_is_new,user_hash,click\n" + "\n".join(lines))
    sample = sample_of(str(tmp_path / "a.csv"))
    assert list(sample.columns)[:3] == ["", "timestamp", "item_id"] and "header" not in sample.place
    assert next(one for one in profiles_of(sample) if one.name == "user_hash").may_be == ("user_id",)
    found = guesses(sample, "natural")
    assert (found["user_id"], found["click"], found["event_ts"]) == ("user_hash", "click", "timestamp")


def test_a_delta_table_tells_its_day_column(tmp_path: Path) -> None:
    for day in (20260131, 20260201):
        table = pa.Table.from_pylist(rows()).drop(["payload"])
        write_deltalake(
            tmp_path / "t", table.append_column("dt", pa.array([day] * 60)), mode="append", partition_by=["dt"]
        )
    sample = sample_of(str(tmp_path / "t"))
    assert sample.place == {"table": str(tmp_path / "t"), "day": "dt"}
    assert list(sample.days) == [DAY, date(2026, 2, 1)]
    assert deployment_of(sample, "ad").landing.ad.table == str(tmp_path / "t")


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        ([1769853600, 1769853700], "seconds"),
        (["1769853600123"], "milliseconds"),
        ([1769853600123456], "microseconds"),
        ([1769853600123456789], "nanoseconds"),
        (["2026-01-31T10:00:00+01:00", "2026-01-31 10:00"], "text"),
        ([START], "time"),
        ([1769853600, 7], None),
        ([], None),
        (["K1"], None),
    ],
)
def test_units_of_times(values: list[Any], unit: str | None) -> None:
    assert time_unit(values) == unit


def test_numbers_as_text_are_made_times_without_ending_the_day() -> None:
    sample = Sample(place={}, rows=[{"ts": "1769853600123456789"}], types={"ts": "text"}, looked_at="x")
    assert guesses(sample, "natural") == {"event_ts": "timestamp_micros(try_cast(ts AS bigint) div 1000)"}
    assert string_ids(sample, {}) == []


def test_the_command_writes_a_proposal_and_never_over_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "2026-01-31").mkdir()
    pq.write_table(pa.Table.from_pylist(rows()), tmp_path / "2026-01-31" / "a.parquet")
    home = tmp_path / "home"
    assert sources(["look", str(tmp_path), "--home", str(home)]) == 0
    settings = (home / SETTINGS_FILE).read_text()
    assert Deployment.from_toml(settings).landing.natural.path == f"{tmp_path}/{{day}}/"
    assert f"next: tributary sources check --home {home} --log natural --ds 2026-01-31" in capsys.readouterr().out
    assert sources(["look", str(tmp_path / "2026-01-31"), "--home", str(home), "--log", "ad"]) == 0
    assert (home / SETTINGS_FILE).read_text() == settings
    assert "[landing.ad]" in (home / "proposed-ad.toml").read_text()


def test_what_is_not_there_or_not_whole_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"nowhere: path: expected a file, a folder with files, or a Delta table"):
        sample_of(str(tmp_path / "nowhere"))
    (tmp_path / "a.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(BadInput, match=r"a\.parquet: file: expected a whole file of the format parquet"):
        sample_of(str(tmp_path / "a.parquet"))
    (tmp_path / "empty.csv").write_bytes(b"")
    with pytest.raises(BadInput, match=r"empty\.csv: file: expected a header and rows"):
        sample_of(str(tmp_path / "empty.csv"))
