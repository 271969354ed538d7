"""A user in landing files: found in every format and spelling, taken out without touching another line; and who may write meanwhile."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import uuid
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from landing_rows import csv_bytes, good_row, jsonl_bytes, write, write_parquet

from contracts.errors import BadInput
from contracts.locations import Locations
from contracts.settings import Deployment
from contracts.tables import TABLES
from lake import locks
from lake.forgotten import User
from spark_jobs.forget_landing import content_of_landing, count_rows, remove_rows
from spark_jobs.forget_tables import tables_with_users
from spark_jobs.forget_user import refuse_unsearched

PROJECT = Path(locks.__file__).parent.parent
DEPLOYMENT = Deployment(history_start=date(2026, 1, 1), actr_start=date(2026, 1, 3))
STRINGS = Deployment(history_start=date(2026, 1, 1), actr_start=date(2026, 1, 3), string_ids=("user_id",))
USER = User.of("42", DEPLOYMENT)
OTHERS = ("4", "142", "421", "7")


def rows(*users: str) -> list[dict[str, str]]:
    return [
        good_row(number, user_id=user, item_id=42) for number, user in enumerate(users)
    ]  # an item of the same number


@pytest.mark.parametrize("spelling", ["42", " 42 ", "042", "+42"])
@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_lines_of_csv_go_and_the_others_stay_byte_by_byte(tmp_path: Path, name: str, spelling: str) -> None:
    broken = b'9,too,"few"\r\n1,2,42,3\n'
    content = csv_bytes(rows("4", spelling, "142", "421", spelling)) + broken + csv_bytes(rows("7")).splitlines(True)[1]
    path = write(tmp_path / name, b"\xef\xbb\xbf" + content)
    assert count_rows(path, USER) == 3
    remove_rows(path, USER)
    kept = [line for place, line in enumerate((b"\xef\xbb\xbf" + content).splitlines(True)) if place not in (2, 5, 7)]
    found = gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()
    assert found == b"".join(kept) and b",42," in found  # the item of this number
    assert count_rows(path, USER) == 0 and [one.name for one in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_lines_of_json_go_and_the_others_stay_byte_by_byte(tmp_path: Path, name: str) -> None:
    lines = [
        *jsonl_bytes(rows("4", "42", "142")).splitlines(True),
        b'{"user_id": "42"}\n',
        b'{"user_id": "\\u0034\\u0032"}\n',
        b'{"user_id": 42, "event\n',
        b'{"item_id": 42}\n',
    ]
    path = write(tmp_path / name, b"".join(lines))
    assert count_rows(path, USER) == 4
    remove_rows(path, USER)
    assert (gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()) == b"".join(
        lines[n] for n in (0, 2, 6)
    )


@pytest.mark.parametrize("typed", [True, False])
def test_rows_of_parquet_go_and_the_others_keep_their_types(tmp_path: Path, typed: bool) -> None:
    path = write_parquet(tmp_path / "a.parquet", rows("4", "42", "", "142", "42"), typed=typed)
    before = pq.read_table(path)
    assert count_rows(path, USER) == 2
    remove_rows(path, USER)
    assert pq.read_table(path).equals(before.take([0, 2, 3]))


def test_users_that_are_strings_are_found_by_their_text(tmp_path: Path) -> None:
    user = User.of("ann,e \\1", STRINGS)
    assert user.user_id >= 0 and user.is_value(" ann,e \\1 ") and not user.is_value("Ann,e \\1")
    path = write(tmp_path / "a.csv", csv_bytes(rows("ann,e \\1", "ann")))
    remove_rows(path, user)
    assert path.read_bytes() == csv_bytes(rows("?", "ann")).replace(csv_bytes(rows("?")).splitlines(True)[1], b"")


IDS: dict[str, pa.DataType] = {
    "int8": pa.int8(),
    "uint64": pa.uint64(),
    "half": pa.float16(),
    "float": pa.float32(),
    "double": pa.float64(),
    "decimal(20,0)": pa.decimal128(20, 0),
    "decimal(22,2)": pa.decimal128(22, 2),
    "text": pa.large_string(),
    "bytes": pa.binary(),
    "dictionary": pa.dictionary(pa.int32(), pa.string()),
}


@pytest.mark.parametrize("deployment", [DEPLOYMENT, STRINGS], ids=["integers", "strings"])
@pytest.mark.parametrize("name", IDS)
def test_a_user_is_found_in_whatever_type_the_ids_have(tmp_path: Path, name: str, deployment: Deployment) -> None:
    texts = ["42", None, "4", "421", "42"] if name != "int8" else ["42", None, "4", "2", "42"]
    ids = pa.array(texts).cast(pa.binary()) if name == "bytes" else pa.array(texts)
    ids = (
        ids.dictionary_encode()
        if name == "dictionary"
        else ids
        if name in ("text", "bytes")
        else pa.array([None if text is None else int(text) for text in texts]).cast(IDS[name])
    )
    before = pa.table({"event_id": range(5), "user_id": ids})
    pq.write_table(before, tmp_path / "a.parquet")
    before = pq.read_table(tmp_path / "a.parquet")
    user = User.of("42", deployment)
    assert count_rows(tmp_path / "a.parquet", user) == 2
    remove_rows(tmp_path / "a.parquet", user)
    assert pq.read_table(tmp_path / "a.parquet").equals(before.take([1, 2, 3]))


@pytest.mark.parametrize("kind", [pa.uuid(), pa.binary(16)], ids=["uuid", "16 bytes"])
def test_a_user_is_found_by_the_text_of_a_uuid(tmp_path: Path, kind: pa.DataType) -> None:
    ids = [uuid.UUID(int=number) for number in (7, 8, 7)]
    pq.write_table(pa.table({"user_id": pa.array([one.bytes for one in ids], kind)}), tmp_path / "a.parquet")
    user = User.of(str(ids[0]), STRINGS)
    assert count_rows(tmp_path / "a.parquet", user) == 2
    remove_rows(tmp_path / "a.parquet", user)
    assert count_rows(tmp_path / "a.parquet", user) == 0 and pq.read_metadata(tmp_path / "a.parquet").num_rows == 1


def test_numbers_that_are_no_integers_are_no_user(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user_id": [42.5, float("nan"), float("inf"), 41.999999999]}), tmp_path / "a.parquet")
    assert count_rows(tmp_path / "a.parquet", USER) == 0
    assert count_rows(write(tmp_path / "a.jsonl", b'{"user_id": 42.5}\n{"user_id": 42.0}\n'), USER) == 1


def test_times_of_old_writers_stay_as_they_are(tmp_path: Path) -> None:
    """Spark and Hive write INT96, and read nothing else alike."""
    times = pa.array([1, 2], pa.timestamp("us"))
    pq.write_table(
        pa.table({"user_id": [42, 4], "event_ts": times}), tmp_path / "a.parquet", use_deprecated_int96_timestamps=True
    )
    remove_rows(tmp_path / "a.parquet", USER)
    assert pq.ParquetFile(tmp_path / "a.parquet").schema.column(1).physical_type == "INT96"


def test_a_record_goes_whole_though_a_quoted_field_breaks_its_line(tmp_path: Path) -> None:
    texts = {"42": "two\nlines", "4": 'user 42\r\nand, "more"', "7": "plain", "142": 'of 15" width'}
    content = csv_bytes(
        [good_row(n, user_id=user, item_text=text, item_id=1) for n, (user, text) in enumerate(texts.items())]
    )
    path = write(tmp_path / "a.csv", content + b'9,a quote "that never closes,42\n1,2\n')
    lines = content.splitlines(True)
    assert count_rows(path, USER) == 2
    remove_rows(path, USER)
    assert path.read_bytes() == b"".join([lines[0], *lines[3:], b"1,2\n"])


def test_files_with_other_endings_and_in_other_folders_are_looked_through_or_named(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    day = locations.landing_day("natural", date(2026, 1, 2))
    sound = csv_bytes(rows("42", "4"))
    searched = [write(day / name, sound) for name in ("a.csv", "B.CSV", "hour=11/c.csv", ".on-its-way.csv")]
    searched += [write(day / name, jsonl_bytes(rows("42", "4"))) for name in ("d.ndjson", "e.json")]
    searched += [write(locations.landing / "elsewhere.csv", sound), write(day.parent / "g.csv.gz", sound)]
    others = [write(day / name, sound) for name in ("h.csv.bz2", "i.txt", "j.avro")]
    others.append(day / "no-users.parquet")
    pq.write_table(pa.table({"user": [42]}), others[-1])
    write(day / "_SUCCESS", b"")
    checksum = write(day / ".a.csv.crc", b"crc\0 of the file that was delivered")
    (day / "link.csv").symlink_to(day / "a.csv")
    assert content_of_landing(locations) == (sorted(searched), sorted(others))
    for path in searched:
        assert count_rows(path, USER) == 1, path
        remove_rows(path, USER)
        assert count_rows(path, USER) == 0 and path.exists(), path
    assert not checksum.exists()
    with pytest.raises(
        BadInput, match=r"files: expected only files in which .*, found landing/natural/2026-01-02/h.csv.bz2"
    ):
        refuse_unsearched(locations)
    for path in others:
        path.unlink()
    refuse_unsearched(locations)


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    path = write(Locations(tmp_path).landing_day("ad", date(2026, 1, 2)) / "a.parquet", b"PAR1 and no more")
    with pytest.raises(BadInput, match=r"a\.parquet: file: expected a whole file"):
        content_of_landing(Locations(tmp_path))
    assert path.exists()


@pytest.mark.parametrize("text", ["", "ann", "-1", "4.5", "9" * 19])
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="--user: expected a user's id"):
        User.of(text, DEPLOYMENT)


def test_a_file_that_is_cut_off_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv.gz", csv_bytes(rows(*OTHERS * 500)))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(BadInput, match=r"a\.csv\.gz: file: expected a whole file"):
        count_rows(path, USER)


def test_every_table_with_users_is_known() -> None:
    telling = {"user_id", "raw", "entity"}
    assert {table.name for table in tables_with_users(USER)} == {"id_strings"} | {
        name for name, one in TABLES.items() if telling & set(one.column_names)
    }
    assert TABLES["actr_embeddings"].rows_of_user(42) == {"entity": "user", "id": 42}
    assert TABLES["id_strings"].rows_of_user(42) == {"field": "user_id", "id": 42}
    assert TABLES["builds"].rows_of_user(42) is None


def test_writers_share_and_one_writes_alone(tmp_path: Path) -> None:
    path = tmp_path / "writers.lock"
    with (
        locks.share(path),
        locks.share(path),
        pytest.raises(locks.Locked),
        locks.share(path, exclusive=True, timeout_seconds=0),
    ):
        pass
    with (
        locks.share(path, exclusive=True),
        pytest.raises(locks.Locked, match="held by process"),
        locks.share(path, timeout_seconds=0),
    ):
        pass


@pytest.mark.parametrize(
    "argv", [["forget_user", "--user", "731946285017", "--yes"], ["forget_user", "--user=731946285017"]]
)
def test_a_lock_names_no_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str]) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    with locks.hold([tmp_path / "one.lock"]):
        written = (tmp_path / "one.lock").read_text()
    assert "forget_user" in written and "731946285017" not in written


@pytest.fixture
def stub(tmp_path: Path) -> Path:
    """An interpreter in the place of a folder's: it writes down what it was given."""
    path = tmp_path / "stub"
    path.write_text(
        f"#!{sys.executable}\nimport pathlib, sys\n"
        f"pathlib.Path({str(tmp_path / 'given')!r}).open('a').write(' '.join(sys.argv[1:]) + ' < ' + sys.stdin.read())\n"
    )
    path.chmod(0o755)
    return path


def forget(stub: Path, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    env = os.environ | {"TRIBUTARY_PYTHON_SPARK_JOBS": str(stub), "PYTHONPATH": str(PROJECT)}
    return subprocess.run(
        [sys.executable, "-m", "tributary", "--home", "/h", "forget", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=env,
        cwd=PROJECT,
        input=given,
    )


def test_nobody_is_forgotten_without_being_asked(stub: Path) -> None:
    done = forget(stub, "--user", "42")
    assert (
        done.returncode == 2
        and "--yes: expected --yes or --dry-run where nobody can be asked, found neither" in done.stderr
    )
    assert not (stub.parent / "given").exists()


@pytest.mark.parametrize("more", [["--dry-run"], ["--yes"], ["--yes", "--dry-run"]])
@pytest.mark.parametrize("user", ["42", "-"])
def test_the_id_goes_by_standard_input(stub: Path, user: str, more: list[str]) -> None:
    assert forget(stub, "--user", user, *more, given="42\n").returncode == 0
    dry = " --dry-run" if "--dry-run" in more else ""
    assert (stub.parent / "given").read_text() == f"-m spark_jobs forget_user --home /h --user -{dry} < 42\n"
