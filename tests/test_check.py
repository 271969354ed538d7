"""`tributary sources check`: what ingestion would make of landing files, printed for people; it writes nothing."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from landing_rows import DAY, csv_bytes, good_row, jsonl_bytes, write, write_parquet

from contracts.errors import BadInput
from contracts.locations import Locations
from contracts.settings import Deployment
from lake.landing_files import Delivery, LandingFile, look_at
from lake.xxhash import xxhash64
from spark_jobs import check_landing
from spark_jobs.check_landing import Checked, Example, by_day, check_files
from spark_jobs.landing_lines import lines_of

BEFORE = date(2026, 1, 1)
DEPLOYMENT = Deployment(
    history_start=BEFORE, actr_start=date(2026, 1, 3), day_timezone="Asia/Shanghai", string_ids=("request_id",)
)
# Of Spark 4.2: `select xxhash64(...)` of one text each.
SPARK_HASHES = {
    "": -7444071767201028348,
    "a": -8582455328737087284,
    "Spark": -4294468057691064905,
    "tributary": 5057089280714065884,
    "x" * 31: -1716462135722163746,
    "x" * 32: 1299777543150008824,
    "\u00fc" * 40: -7293016135497780812,
    "0123456789" * 10: 6379203369694145893,
}


def test_hashes_are_those_of_spark() -> None:
    assert {text: xxhash64(text) for text in SPARK_HASHES} == {
        text: value % 2**64 for text, value in SPARK_HASHES.items()
    }


def folder(home: Path, log: str = "natural", day: date = DAY) -> Path:
    return home / "landing" / log / str(day)


def test_files_are_of_the_log_and_day_that_their_path_or_the_options_tell(tmp_path: Path) -> None:
    natural = write(folder(tmp_path) / "a.csv", b"x")
    write(folder(tmp_path) / "hour=11" / "b.csv", b"x")
    write(folder(tmp_path) / "_half.csv", b"x")
    write(folder(tmp_path).parent / ".2026-01-03.tmp" / "part.csv", b"x")
    ad = write(folder(tmp_path, "ad") / "a.csv", b"x")
    elsewhere = write(tmp_path / "exports" / "c.jsonl", b"x")
    assert by_day([tmp_path / "landing"], None, None) == {("ad", DAY): [ad], ("natural", DAY): [natural]}
    assert by_day([elsewhere], "ad", None) == {("ad", None): [elsewhere]}
    assert by_day([elsewhere, natural], "ad", BEFORE) == {("ad", BEFORE): [elsewhere, natural]}
    for path, message in (
        (elsewhere, r"c\.jsonl: --log: expected natural or ad"),
        (tmp_path / "no", "no: path: .* found no such file"),
        (write(tmp_path / "d.txt", b"x"), r"d\.txt: path: expected a file that ends in \.csv"),
    ):
        with pytest.raises(BadInput, match=message):
            by_day([path], None, None)


def looked_at(path: Path) -> LandingFile:
    return look_at(path, Delivery.of_log("natural"), Locations(path.parent), ())


def raw_of(row: dict[str, str]) -> str:
    return json.dumps({name: value for name, value in row.items() if value})


def test_lines_of_rows_are_found_in_every_format_of_text(tmp_path: Path) -> None:
    rows = [good_row(number) for number in range(5)]
    content = csv_bytes(rows).replace(b"\n", b"\n\n", 1)
    broken = json.dumps({"line": content.splitlines()[4].decode() + ",more"})
    for name, pack in {
        "a.csv": bytes,
        "b.csv": lambda same: same.replace(b"\n", b"\r\n"),
        "c.csv.gz": gzip.compress,
    }.items():
        path = tmp_path / name
        path.write_bytes(pack(content.replace(content.splitlines()[4], content.splitlines()[4] + b",more")))
        assert lines_of(looked_at(path), {raw_of(rows[0]), raw_of(rows[4]), broken}) == {
            raw_of(rows[0]): 3,
            broken: 5,
            raw_of(rows[4]): 7,
        }
    spanning = [row | {"item_text": "two\nlines"} for row in rows]
    path = write(tmp_path / "d.csv", csv_bytes(spanning))
    assert lines_of(looked_at(path), {raw_of(spanning[0]), raw_of(spanning[2])}) == {
        raw_of(spanning[0]): 2,
        raw_of(spanning[2]): 6,
    }
    path = write(tmp_path / "e.jsonl", b"\n" + jsonl_bytes(rows) + b'{"event_id": 7 \n')
    cut = json.dumps({"line": '{"event_id": 7 '})
    assert lines_of(looked_at(path), {raw_of(rows[1]), cut}) == {raw_of(rows[1]): 3, cut: 7}


def test_the_findings_are_printed_with_a_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    counts = Counter(read=10, kept=8, quarantined=1, duplicates=1, late=1)
    done = Checked(log="ad", day=DAY, files={"a.csv": counts, "b.csv": Counter(read=2, quarantined=2), "c.csv": None})
    done.problems += ["c.csv: file: cut off"]
    done.broken["click_range"], done.expected["click_range"] = 3, "one of 0, 1"
    done.examples["click_range"].append(Example(file="a.csv", line=3, found="7"))
    check_landing._print(done, strict=False)
    out = capsys.readouterr().out
    assert "click_range     3  one of 0, 1  a.csv     3  7" in out
    assert [line.split()[-1] for line in out.splitlines() if line[:2] in ("a.", "b.", "c.")] == [
        "ingested",
        "quarantined",
        "refused",
    ]
    assert "warning: 3 of 12 rows would go to quarantine" in out and "verdict: cannot be ingested" in out
    assert done.exit_code(strict=False) == 2
    sound = Checked(log="ad", day=None, files={"a.csv": Counter(read=2, kept=2)})
    check_landing._print(sound, strict=True)
    out = capsys.readouterr().out
    assert "landing day unknown: whether events are of that day is not judged" in out and "verdict: sound" in out
    late = Checked(log="ad", day=DAY, files={"a.csv": Counter(read=2, kept=1, quarantined=1)})
    assert (late.exit_code(strict=False), late.exit_code(strict=True)) == (0, 2)


def test_values_are_shown_without_control_characters_and_ids_by_their_shape() -> None:
    assert check_landing.shown_value("K-12\x1b[2J", masked=True) == "x-99\\x1b[9x"
    assert check_landing.shown_value("x" * 100, masked=False) == "x" * 60 + "..."
    assert check_landing.shown_value("", masked=False) == check_landing.shown_value(None, masked=True) == "nothing"


@pytest.mark.spark
def test_days_that_are_given_together_are_judged_together(spark: Any, tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    rows = [good_row(number, day=BEFORE) for number in range(4)]
    write(folder(tmp_path, day=BEFORE) / "a.csv", csv_bytes(rows))
    again = [rows[0], rows[1] | {"item_text": "another"}, rows[2] | {"click": "5", "user_id": "-7"}, good_row(9)]
    write(folder(tmp_path) / "a.csv", csv_bytes(again))
    write(tmp_path / "exports" / "far.csv", csv_bytes([good_row(1, event_ts="1999-01-01T00:00:00Z")]))
    far = [good_row(number, log="ad", event_ts="1999-01-01T00:00:00Z") for number in range(2)]
    typed = write_parquet(tmp_path / "exports" / "far.parquet", [far[0], far[1] | {"user_id": "-7"}])
    given = by_day([tmp_path / "landing"], None, None) | {("ad", None): [typed]}
    done = {(checked.log, checked.day): checked for checked in check_files(spark, locations, DEPLOYMENT, given)}
    assert +done["natural", BEFORE].counts == Counter(read=4, kept=4)
    found = done["natural", DAY]
    assert +found.counts == Counter(read=4, kept=1, duplicates=2, conflicting_duplicates=1, quarantined=1)
    assert +found.broken == Counter(click_range=1, user_id_range=1, action_of_click=1)
    assert found.examples["user_id_range"] == [Example(file="a.csv", line=4, found="-9")]
    assert +done["ad", None].counts == Counter(read=2, kept=1, quarantined=1)  # its day is not known
    assert done["ad", None].examples["user_id_range"] == [Example(file="far.parquet", line=2, found="-9")]
    alone = check_files(spark, locations, DEPLOYMENT, by_day([folder(tmp_path)], None, None))
    assert +alone[0].counts == Counter(read=4, kept=3, late=2, quarantined=1)
    assert sorted(os.listdir(tmp_path)) == ["exports", "landing"]


@pytest.mark.spark
def test_the_command_needs_no_lake_and_no_lock(tmp_path: Path) -> None:
    (tmp_path / "deployment.toml").write_text(DEPLOYMENT.to_toml())
    write(folder(tmp_path) / "a.csv", csv_bytes([good_row(1), good_row(2, click="7")]))
    from lake import locks

    with locks.hold([Locations(tmp_path).lake_lock]):
        done = subprocess.run(
            [sys.executable, "-m", "tributary", "--home", str(tmp_path), "sources", "check", "--strict", "landing"],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        )
    assert done.returncode == 2, done.stderr
    assert re.search(r"^click_range +1  one of 0, 1 +a\.csv +3  7$", done.stdout, re.M), done.stdout
    assert "verdict: can be ingested, with 1 warning: refused, since --strict" in done.stdout
    assert "check 1 landing files" in done.stderr and not (tmp_path / "lake").exists()
