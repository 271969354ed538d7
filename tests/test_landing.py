"""Landing files appear whole or not at all, in the contract's columns; settings of a source are not mixed up."""

from __future__ import annotations

import csv
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from contracts.errors import EXIT_BAD_INPUT, BadInput, run_command
from contracts.features import LOGS
from contracts.locations import Locations
from contracts.settings import Deployment
from contracts.tables import LANDING_COLUMNS
from lake.locks import Locked
from sources import cli, deployments, landing

DAY = date(2026, 1, 2)


def columns(count: int = 2) -> dict[str, np.ndarray]:
    values: dict[str, np.ndarray] = {name: np.arange(count) for name in LANDING_COLUMNS["ad"] if name != "item_text"}
    times = np.datetime64("2026-01-02T10:00:00.123", "ms") + np.arange(count).astype("timedelta64[s]")
    return {**values, "event_ts": times, "arrival_ts": times, "dwell_seconds": np.arange(count) + 0.5}


def read(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("log", LOGS)
def test_columns_are_the_contracts_in_order(tmp_path: Path, log: str) -> None:
    path = landing.write_day(Locations(tmp_path), log, DAY, landing.to_rows(log, columns()))  # type: ignore[arg-type]
    assert path == tmp_path / "landing" / log / "2026-01-02" / "part-00000.csv"
    header, first, second = read(path)
    assert header == list(LANDING_COLUMNS[log])  # type: ignore[index]
    row = dict(zip(header, second, strict=True))
    assert row["event_ts"] == row["arrival_ts"] == "2026-01-02T10:00:01.123Z"
    assert (row["user_id"], row["dwell_seconds"]) == ("1", "1.5")
    assert len(first) == len(header)
    assert row["item_text"] == "", "an optional column that a source does not have is null"


def test_texts_are_quoted_where_needed_and_hold_no_line_break(tmp_path: Path) -> None:
    texts = ["plain", 'a "15"" screen', "one, two", '"', "", None, " caf\u00e9\r\n\u2028au lait\x85\n", ",", "\n"]
    rows = landing.to_rows("ad", columns(len(texts)) | {"item_text": np.array(texts, dtype=object)})
    path = landing.write_day(Locations(tmp_path), "ad", DAY, rows)
    written = path.read_text(encoding="utf-8")
    assert written.endswith("\n")
    assert [line.split(",", 14)[14] for line in written.split("\n")[1:-1]] == [
        "plain",
        '"a ""15"""" screen"',
        '"one, two"',
        '""""',
        "",
        "",
        " caf\u00e9 au lait ",
        '","',
        " ",
    ]
    assert [row[14] for row in read(path)[1:]] == [
        "plain",
        'a "15"" screen',
        "one, two",
        '"',
        "",
        "",
        " caf\u00e9 au lait ",
        ",",
        " ",
    ]
    again = landing.to_rows("ad", columns(len(texts)) | {"item_text": np.array(texts, dtype=object)})
    assert landing.write_day(Locations(tmp_path / "again"), "ad", DAY, again).read_bytes() == path.read_bytes()


def test_slices_and_chunks_are_written_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = np.array(
        [f"text {number}{' long' * number}{', quoted' if number > 36 else ''}" for number in range(40)], dtype=object
    )
    rows = landing.to_rows("natural", columns(40) | {"item_text": texts})
    whole = landing.write_day(Locations(tmp_path / "whole"), "natural", DAY, rows).read_bytes()
    monkeypatch.setattr(landing, "_BATCH_ROWS", 7)
    chunked = pa.concat_tables([rows.slice(0, 3), rows.slice(3, 1), rows.slice(4, 30), rows.slice(34)])
    assert landing.write_day(Locations(tmp_path / "parts"), "natural", DAY, chunked).read_bytes() == whole
    assert whole.count(b"\n") == 41


def test_a_line_stands_in_a_rows_place(tmp_path: Path) -> None:
    rows = landing.to_rows("ad", columns(3)).append_column(
        landing.LINE, pa.array([None, b"\xff,x", None], type=pa.binary())
    )
    header, first, second, third = landing.write_day(Locations(tmp_path), "ad", DAY, rows).read_bytes().splitlines()
    assert header.decode() == ",".join(LANDING_COLUMNS["ad"])
    assert (first[:2], second, third[:2]) == (b"0,", b"\xff,x", b"2,")


def test_a_null_is_an_empty_field(tmp_path: Path) -> None:
    rows = landing.to_rows("natural", columns(1))
    rows = rows.set_column(4, "user_id", pa.array([None], type=pa.string()))
    _, row = read(landing.write_day(Locations(tmp_path), "natural", DAY, rows))
    assert row[4] == ""


def test_a_day_without_rows_is_a_header_alone(tmp_path: Path) -> None:
    path = landing.write_day(Locations(tmp_path), "ad", DAY, landing.to_rows("ad", columns(0)))
    assert read(path) == [list(LANDING_COLUMNS["ad"])]


def test_a_killed_write_leaves_no_half_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locations, rows = Locations(tmp_path), landing.to_rows("ad", columns(50))
    other_day = date(2026, 1, 3)
    before = landing.write_day(locations, "ad", DAY, rows).read_bytes()

    def die_half_way(_rows: pa.Table, path: Path) -> None:
        path.write_text("event_id,eve")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(landing, "_write", die_half_way)
        for day in (DAY, other_day):
            with pytest.raises(KeyboardInterrupt):
                landing.write_day(locations, "ad", day, rows.slice(0, 9))
    assert (locations.landing_day("ad", DAY) / landing.PART).read_bytes() == before
    assert not locations.landing_day("ad", other_day).exists()
    assert len(read(landing.write_day(locations, "ad", other_day, rows))) == 51
    assert sorted(path.name for path in (tmp_path / "landing" / "ad").iterdir() if path.name != f".{DAY}.tmp") == [
        str(DAY),
        str(other_day),
    ]


def test_a_rewritten_day_replaces_the_old_one(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    landing.write_day(locations, "ad", DAY, landing.to_rows("ad", columns(5)))
    path = landing.write_day(locations, "ad", DAY, landing.to_rows("ad", columns(3)))
    assert len(read(path)) == 4
    assert [other.name for other in path.parent.parent.iterdir()] == [str(DAY)]


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    locations, rows = Locations(tmp_path), landing.to_rows("ad", columns())
    folder = landing.write_day(locations, "ad", DAY, rows).parent
    (folder / "part-00001.csv").write_text("someone else's")
    with pytest.raises(BadInput, match=r"2026-01-02: files: expected only part-00000\.csv.*found part-00001\.csv"):
        landing.write_day(locations, "ad", DAY, rows)


def test_two_sources_do_not_write_at_once(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    with landing.exclusive(locations), pytest.raises(Locked, match=r"landing\.lock"), landing.exclusive(locations):
        pass
    with landing.exclusive(locations):
        pass


def test_settings_are_written_once_and_a_difference_is_named(tmp_path: Path) -> None:
    deployment = deployments.simulator(start=date(2026, 1, 1), days=119)
    assert (deployment.actr_start, deployment.feedback_delay_seconds) == (date(2026, 4, 27), 600)
    path = deployments.write(tmp_path, deployment)
    path.write_text("# our own remark\n" + path.read_text())
    deployments.write(tmp_path, deployment)
    assert path.read_text().startswith("# our own remark")
    assert Deployment.load(tmp_path) == deployment
    with pytest.raises(BadInput, match=r"deployment\.toml: actr_start: expected 2026-04-28, found 2026-04-27"):
        deployments.write(tmp_path, deployments.simulator(start=date(2026, 1, 1), days=120))
    with pytest.raises(BadInput, match="source: expected kuairand, found simulator"):
        deployments.write(tmp_path, deployments.kuairand())


def test_settings_of_each_source_come_back_from_their_file(tmp_path: Path) -> None:
    for name, deployment in (
        ("kuairand", deployments.kuairand()),
        ("movielens", deployments.movielens(start=date(2001, 1, 1), days=30)),
    ):
        deployments.write(tmp_path / name, deployment)
        assert Deployment.load(tmp_path / name) == deployment
    assert deployment.actr_start == date(2001, 1, 27)


def test_the_command_tells_bad_input_by_its_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(cli.main, ["simulate", "--home", str(tmp_path), "--days", "0"]) == EXIT_BAD_INPUT
    assert "simulate: --days: expected a number >= 1, found 0" in capsys.readouterr().err
    assert run_command(cli.main, ["movielens", "--home", str(tmp_path), "--data", str(tmp_path)]) == EXIT_BAD_INPUT
    assert (
        f"{tmp_path}: --data: expected a folder with ratings.dat, or its parent, found an empty folder"
        in capsys.readouterr().err
    )
    assert run_command(cli.main, ["simulate", "--from", "soon"]) == EXIT_BAD_INPUT
    assert "expected a day such as 2026-01-31, found 'soon'" in capsys.readouterr().err
