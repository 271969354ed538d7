"""Two deployments' tables, compared row by row."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from lake_fixture import write_table

from contracts.errors import BadInput
from contracts.locations import Locations
from contracts.tables import TABLES
from lake.reader import LakeReader
from spark_jobs.cli import main
from spark_jobs.compare_tables import Compared, compare

NAME = "quarantine"
DAYS = (date(2026, 1, 1), date(2026, 1, 2))


def write(home: Path, rows: list[tuple[date, str]], *, run: str) -> None:
    """Rows of (day, raw line); all else is the same, but for the volatile run id."""
    kinds = {
        "string": pa.string(),
        "bigint": pa.int64(),
        "int": pa.int32(),
        "timestamp": pa.timestamp("us", "UTC"),
        "date": pa.date32(),
    }
    contract = TABLES[NAME]
    values: dict[str, list[Any]] = {column.name: [None] * len(rows) for column in contract.columns}
    values |= {
        "ds": [day for day, _ in rows],
        "raw": [raw for _, raw in rows],
        "log": ["ad"] * len(rows),
        "run_id": [run] * len(rows),
    }
    write_table(
        Locations(home),
        NAME,
        pa.table({name: pa.array(values[name], kinds[contract.column(name).type]) for name in values}),
    )


def compared(tmp_path: Path, mine: list[tuple[date, str]], theirs: list[tuple[date, str]]) -> Compared:
    write(tmp_path / "a", mine, run="1")
    write(tmp_path / "b", theirs, run="2")
    first, second = (LakeReader(Locations(tmp_path / name)) for name in "ab")
    return compare(first, second, TABLES[NAME])


def test_equal_but_for_what_differs_between_equal_runs(tmp_path: Path) -> None:
    found = compared(tmp_path, [(DAYS[0], "x"), (DAYS[1], "y")], [(DAYS[1], "y"), (DAYS[0], "x")])
    assert found.is_equal and (found.rows, found.other_rows, found.first) == (2, 2, "")


@pytest.mark.parametrize(
    ("mine", "missing", "surplus"),
    [
        ([(DAYS[0], "x"), (DAYS[1], "y"), (DAYS[1], "y")], 0, 1),  # doubled
        ([(DAYS[0], "x")], 1, 0),
        ([(DAYS[0], "x"), (DAYS[1], "z")], 1, 1),
    ],
)
def test_what_differs(tmp_path: Path, mine: list[tuple[date, str]], missing: int, surplus: int) -> None:
    found = compared(tmp_path, mine, [(DAYS[0], "x"), (DAYS[1], "y")])
    assert not found.is_equal and (found.missing, found.surplus) == (missing, surplus)
    assert found.first == "ds=2026-01-02,log=ad"


def test_the_command_says_so_by_its_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compared(tmp_path, [(DAYS[0], "x")], [(DAYS[0], "x"), (DAYS[0], "x")])
    (tmp_path / "a" / "deployment.toml").write_text("history_start = 2026-01-01\nactr_start = 2026-01-02\n")
    options = ["compare_tables", "--home", str(tmp_path / "a"), "--table", NAME]
    assert main([*options, "--with", str(tmp_path / "a")]) == 0
    assert main([*options, "--with", str(tmp_path / "b")]) == 1
    assert "ds=2026-01-01,log=ad" in capsys.readouterr().out
    with pytest.raises(BadInput, match="--with: expected a deployment's folder with a lake"):
        main([*options, "--with", str(tmp_path / "none")])
