"""What is wrong with a landing file is reported before anything runs, by its name, field, what was expected and what was found."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from landing_rows import DAY, csv_bytes, good_row, jsonl_bytes, write, write_parquet

from contracts.errors import BadInput
from contracts.locations import Locations
from contracts.tables import LANDING_COLUMNS
from lake.landing_files import Delivery, check_columns, columns_of, digest_of_files, landing_files

ROWS = [good_row(n) for n in range(50)]
COLUMNS = LANDING_COLUMNS["natural"]


def folder(home: Path) -> Path:
    return Locations(home).landing_day("natural", DAY)


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_every_format_names_its_columns(tmp_path: Path, name: str) -> None:
    path = folder(tmp_path) / name
    if name.endswith(".parquet"):
        write_parquet(path, ROWS)
    else:
        write(
            path,
            csv_bytes(ROWS) if ".csv" in name else jsonl_bytes([row | {"arrival_ts": row["event_ts"]} for row in ROWS]),
        )
    assert landing_files(Locations(tmp_path), "natural", DAY) == [path]
    assert set(columns_of(path)) == set(COLUMNS)
    assert check_columns(path, Delivery.of_log("natural"))[1] == ()


def test_files_on_their_way_are_not_taken(tmp_path: Path) -> None:
    write(folder(tmp_path) / ".part.csv", csv_bytes(ROWS))
    write(folder(tmp_path) / "_tmp.csv", csv_bytes(ROWS))
    write(folder(tmp_path) / "notes.txt", b"hello")
    with pytest.raises(
        BadInput, match=r"at least one file that ends in \.csv.*found \.part\.csv, _tmp\.csv, notes\.txt"
    ):
        landing_files(Locations(tmp_path), "natural", DAY)


def empty(path: Path) -> None:
    write(path / "a.csv", b"")


def header_alone(path: Path) -> None:
    write(path / "a.csv", csv_bytes(ROWS[:1]).splitlines()[0] + b"\n")


def truncated_gzip(path: Path) -> None:
    whole = gzip.compress(csv_bytes(ROWS * 100, COLUMNS))
    (path / "a.csv.gz").write_bytes(whole[: len(whole) // 2])


def truncated_parquet(path: Path) -> None:
    file = write_parquet(path / "a.parquet", ROWS)
    file.write_bytes(file.read_bytes()[:-20])


def semicolons(path: Path) -> None:
    write(path / "a.csv", csv_bytes(ROWS, delimiter=";"))


def missing_column(path: Path) -> None:
    write(path / "a.csv", csv_bytes(ROWS, [name for name in COLUMNS if name != "click"]))


def named_twice(path: Path) -> None:
    write(path / "a.csv", csv_bytes(ROWS).replace(b"item_text", b"item_id", 1))


def no_json(path: Path) -> None:
    write(path / "a.jsonl", b"hello\nworld\n")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (empty, r"a\.csv: rows: expected at least one row on this landing day, found none"),
        (header_alone, r"a\.csv: rows: expected at least one row on this landing day, found none"),
        (
            truncated_gzip,
            r"a\.csv\.gz: file: expected a whole gz file, found one that cannot be read: it ends in the middle.*deliver it again",
        ),
        (truncated_parquet, r"a\.parquet: file: expected a whole parquet file, found one that cannot be read"),
        (semicolons, r"a\.csv: event_id: expected a column of this name in the header .*they seem to be by semicolons"),
        (missing_column, r"a\.csv: click: expected a column of this name in the header .*found columns event_id"),
        (named_twice, r"a\.csv: item_id: expected a column named once, found named twice"),
        (no_json, r"a\.jsonl: lines: expected a JSON object a line, found none"),
    ],
)
def test_a_file_that_cannot_be_ingested_is_named(tmp_path: Path, spoil: Callable[[Path], None], message: str) -> None:
    folder(tmp_path).mkdir(parents=True)
    spoil(folder(tmp_path))
    with pytest.raises(BadInput, match=message):
        files = landing_files(Locations(tmp_path), "natural", DAY)
        for path in files:
            check_columns(path, Delivery.of_log("natural"))
        digest_of_files(files)


def test_an_extra_column_is_named_and_optional_ones_may_be_missing(tmp_path: Path) -> None:
    rows = [row | {"mood": "good"} for row in ROWS]
    path = write(
        folder(tmp_path) / "a.csv",
        csv_bytes(rows, [name for name in rows[0] if name not in ("arrival_ts", "item_text")]),
    )
    columns, undeclared = check_columns(path, Delivery.of_log("natural"))
    assert undeclared == ("mood",)
    assert set(COLUMNS) - set(columns) == {"arrival_ts", "item_text"}


def test_an_empty_file_of_no_bytes_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b"")
    with pytest.raises(BadInput, match=r"a\.csv: file: expected a header, found an empty file \(0 bytes\)"):
        columns_of(path)


def test_a_digest_is_of_the_content_and_of_several_gzip_members(tmp_path: Path) -> None:
    first = write(tmp_path / "a.csv", csv_bytes(ROWS))
    other = write(tmp_path / "b.csv", csv_bytes(ROWS))
    assert digest_of_files([first]) == digest_of_files([other])
    write(other, csv_bytes(ROWS[:-1]))
    assert digest_of_files([first]) != digest_of_files([other])
    members = tmp_path / "c.csv.gz"
    members.write_bytes(gzip.compress(csv_bytes(ROWS)) + gzip.compress(csv_bytes(ROWS)))
    assert len(digest_of_files([members])) == 64
