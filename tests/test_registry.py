"""What serves, what is stale, what would be a step back; neighbours and their titles. No Spark."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lake_fixture import NOW, publish, write_builds, write_table
from staged_fixture import (
    DAYS,
    DEPLOYMENT,
    ITEMS,
    MONTH,
    Rows,
    released,
    stage_cpm,
    stage_day,
    stage_run,
    write_manifest,
    write_settings,
)

from contracts.errors import run_command
from contracts.locations import Locations
from contracts.releases import MAPPING_FILE
from contracts.settings import SETTINGS_FILE
from contracts.tables import owner_key
from lake.reader import LakeReader
from lake.registry import Registry
from lake.run_folders import read_release
from lake.xxhash import LARGEST_ID, xxhash64
from publishing.audit import audit
from publishing.cli import main
from spark_jobs.repair import _periods

LATER = NOW + timedelta(hours=1)


def registry(locations: Locations) -> Registry:
    return Registry.read(LakeReader(locations))


def test_an_older_day_that_is_published_late_is_not_current(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    cpm = released(locations, stage_cpm(locations))
    second = stage_day(locations, 1, stage_day(locations, 0, None, cpm), cpm)
    released(locations, second)
    first = released(locations, stage_day(locations, 0, None, cpm), LATER)
    found = registry(locations)
    assert found.serving(read_release(first).served) == first.name
    assert found.current("actr", "tpm+cpm") == second.name
    row = LakeReader(locations).current("actr", "tpm+cpm")
    assert row is not None
    assert row["release_id"] == second.name
    assert found.current("actr", "none") is None


def test_children_of_a_release_that_was_replaced_are_stale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    locations = write_settings(tmp_path)
    cpm = released(locations, stage_cpm(locations))
    first = released(locations, stage_day(locations, 0, None, cpm))
    second = released(locations, stage_day(locations, 1, first, cpm))
    assert registry(locations).stale() == {}
    other = released(locations, stage_cpm(locations, recipe={"lr": 2}), LATER)
    why = f"made from {cpm.name}, which no longer serves"
    assert registry(locations).stale() == {first.name: why, second.name: why}
    fresh = released(locations, stage_day(locations, 0, None, other), LATER)
    assert registry(locations).stale() == {second.name: f"made from {first.name}, which no longer serves"}
    publish(tmp_path, [cpm], LATER + timedelta(hours=1))
    assert registry(locations).stale()[fresh.name] == f"made from {other.name}, which no longer serves"
    assert registry(locations).stale()[second.name] == f"made from {first.name}, which no longer serves"
    assert main(["releases", "--home", str(tmp_path)]) == 0
    lines = {line.split()[3]: line for line in capsys.readouterr().out.splitlines()}
    assert lines[second.name].endswith(f"current; stale: made from {first.name}, which no longer serves")
    assert lines[cpm.name].endswith("current")


def test_what_lies_behind_a_stale_release_is_stale(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    cpm = released(locations, stage_cpm(locations))
    first = released(locations, stage_day(locations, 0, None, cpm))
    second = stage_run(
        locations, kind="actr", variant="tpm+cpm", period=DAYS[1], parents={"predecessor/actr/2026-01-12": first.name}
    )
    released(locations, second)
    released(locations, stage_cpm(locations, recipe={"lr": 2}), LATER)
    assert registry(locations).stale()[second.name] == f"made from {first.name}, which is stale"


def test_models_to_make_again_are_those_that_rest_on_stale_ones(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    cpm = released(locations, stage_cpm(locations))
    first = released(locations, stage_day(locations, 0, None, cpm))
    second = released(locations, stage_day(locations, 1, first, cpm))
    found = registry(locations)
    assert [(one.kind, one.period) for one in found.resting_on([first.name])] == [("actr", DAYS[0]), ("actr", DAYS[1])]
    assert [(one.kind, one.period) for one in found.resting_on([second.name])] == [("actr", DAYS[1])]
    assert list(_periods(found, [cpm.name])) == [
        ("cpm_weekly", read_release(cpm).period, read_release(cpm).period),
        ("ad_ctr_daily", DAYS[0], DAYS[1]),
    ]
    assert list(_periods(found, [])) == []


def step_back(locations: Locations, folder: Path) -> str | None:
    return registry(locations).step_back(read_release(folder), LakeReader(locations))


def test_an_older_release_does_not_come_back_by_being_published_again(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    old = released(locations, stage_run(locations))
    assert step_back(locations, old) is None, "it serves"
    new = stage_run(locations, recipe={"lr": 2})
    assert step_back(locations, new) is None
    released(locations, new, LATER)
    assert step_back(locations, old) == f"{new.name} replaced it on {LATER:%Y-%m-%d %H:%M}"
    cut_short = stage_run(locations, recipe={"lr": 3})  # its row is there, its activation is not
    publish(tmp_path, [cut_short], LATER + timedelta(hours=1))
    publish(tmp_path, [new], LATER)
    assert step_back(locations, cut_short) is None


def test_a_run_of_older_inputs_than_those_of_what_serves_is_refused(tmp_path: Path) -> None:
    locations = Locations(tmp_path)
    key = f"natural_samples/{owner_key(ds=MONTH)}"
    write_builds(locations, [("natural_samples", MONTH, "old")], NOW)
    old = stage_run(locations, inputs={key: "old"})
    write_builds(locations, [("natural_samples", MONTH, "new")], LATER)
    new = released(locations, stage_run(locations, inputs={key: "new"}))
    assert step_back(locations, old) == f"{new.name} was made from a newer build of {key}"
    write_builds(locations, [("natural_samples", MONTH, "newest")], LATER + timedelta(hours=1))
    assert step_back(locations, stage_run(locations, inputs={key: "newest"})) is None
    assert step_back(locations, stage_run(locations, recipe={"lr": 2}, inputs={key: "new"})) is None


LOG_SCHEMA = pa.schema(
    [
        ("event_id", pa.int64()),
        ("event_ts", pa.timestamp("us", "UTC")),
        ("arrival_ts", pa.timestamp("us", "UTC")),
        ("request_id", pa.int64()),
        ("user_id", pa.int64()),
        ("item_id", pa.int64()),
        ("category_id", pa.int64()),
        ("user_segment_id", pa.int64()),
        ("position", pa.int32()),
        ("click", pa.int32()),
        ("action", pa.int32()),
        ("dwell_seconds", pa.float64()),
        ("item_text", pa.string()),
        ("late", pa.bool_()),
        ("ds", pa.date32()),
    ]
)


def show(locations: Locations, day: date, item: int, text: str | None) -> None:
    """One impression of an item, in the natural log."""
    at = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    row = dict.fromkeys(LOG_SCHEMA.names, 0) | {
        "event_ts": at,
        "arrival_ts": at,
        "item_id": item,
        "category_id": item % 10,
        "dwell_seconds": 0.0,
        "item_text": text,
        "late": False,
        "ds": day,
    }
    write_table(locations, "natural_log", pa.Table.from_pylist([row], LOG_SCHEMA))
    write_builds(locations, [("natural_log", day, "1")], NOW)


@pytest.fixture
def indexed(tmp_path: Path) -> tuple[Locations, Path]:
    """A month's snapshot, released with its index; some of its items were shown."""
    locations = write_settings(tmp_path)
    folder = stage_run(locations)
    audit(locations, DEPLOYMENT, folder)
    released(locations, folder)
    show(locations, date(2026, 1, 1), 1007, "An old name")
    show(locations, date(2026, 1, 9), 1007, "Trail running shoes\x1b[31m")
    show(locations, date(2026, 1, 3), 1017, "Climbing rope")
    show(locations, date(2026, 1, 2), 1017, "A rope of the day before")
    show(locations, date(2026, 1, 2), 1027, None)
    return locations, folder


def ask(locations: Locations, *options: str) -> int:
    return run_command(main, ["neighbours", "--home", str(locations.home), *options])


def test_neighbours_come_with_their_titles(indexed: tuple[Locations, Path], capsys: pytest.CaptureFixture[str]) -> None:
    locations, folder = indexed
    assert ask(locations, "--table", "tpm_embeddings", "--id", "1007", "--count", "40") == 0
    first, header, _, *lines = capsys.readouterr().out.splitlines()
    assert first == f"item 1007 (Trail running shoes\\x1b[31m) in {folder.name}"
    assert header.split() == ["id", "title", "cosine"]
    rows = {int(line.split()[0]): line.split(maxsplit=1)[1] for line in lines}
    assert rows[1017].startswith("Climbing rope ")
    assert rows[1027].startswith("category 7 ")
    assert rows[1037].startswith("- ")
    cosines = [float(line.split()[-1]) for line in lines]
    assert cosines == sorted(cosines, reverse=True)
    assert cosines[0] > 0.9


def test_users_are_compared_with_users(indexed: tuple[Locations, Path], capsys: pytest.CaptureFixture[str]) -> None:
    locations, folder = indexed
    assert ask(locations, "--table", "tpm_embeddings", "--entity", "user", "--id", "7", "--count", "3") == 0
    first, header, _, *lines = capsys.readouterr().out.splitlines()
    assert (first, header.split()) == (f"user 7 in {folder.name}", ["id", "cosine"])
    assert {int(line.split()[0]) % 10 for line in lines} == {7}
    assert ask(locations, "--table", "tpm_embeddings", "--entity", "user", "--id", "1007") == 2
    assert "id: expected an id with a vector in this release, found 1007" in capsys.readouterr().err


def named_by_strings(locations: Locations, known: dict[str, int]) -> None:
    """A release of item vectors whose ids are the hashes of strings, and whose deployment keeps the strings."""
    settings = replace(DEPLOYMENT, string_ids=("item_id", "user_id"), kept_strings=("item_id",))
    (locations.home / SETTINGS_FILE).write_text(settings.to_toml())
    numbers = dict(zip(range(1000, 1000 + ITEMS), known.values(), strict=True))

    def hash_ids(rows: Rows) -> None:
        rows["id"] = [numbers.get(one, one) for one in rows["id"]]

    folder = stage_run(locations, change=hash_ids)
    rows = pq.read_table(folder / MAPPING_FILE).to_pydict()
    hash_ids(rows)
    pq.write_table(pa.table(rows), folder / MAPPING_FILE)
    write_manifest(folder, read_release(folder))
    audit(locations, DEPLOYMENT, folder)
    released(locations, folder)
    kept = [("item_id", number, text) for text, number in known.items() if text != "N13"]
    kept += [("item_id", known["N17"], "its twin\x1b[31m"), ("user_id", known["N3"], "not an item")]
    fields = ("field", "id", "string")
    write_table(locations, "id_strings", pa.Table.from_pylist([dict(zip(fields, row, strict=True)) for row in kept]))


def test_an_item_is_asked_for_by_its_string_or_its_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    locations = write_settings(tmp_path)
    known = {f"N{n}": xxhash64(f"N{n}") & LARGEST_ID for n in range(ITEMS)}
    named_by_strings(locations, known)
    show(locations, date(2026, 1, 3), known["N13"], "Climbing rope")
    answers = []
    for text in ("N3", " N3", str(known["N3"])):
        assert ask(locations, "--table", "tpm_embeddings", "--id", text, "--count", "40") == 0
        answers.append(capsys.readouterr().out)
    assert len(set(answers)) == 1
    first, header, _, *lines = answers[0].splitlines()
    assert first.startswith(f"item {known['N3']} = N3 (-) in tpm-")
    assert header.split() == ["id", "string", "title", "cosine"]
    rows = {int(line.split()[0]): line.split(maxsplit=1)[1] for line in lines}
    assert rows[known["N23"]].startswith("N23 ")
    assert rows[known["N13"]].startswith("- ") and "Climbing rope" in rows[known["N13"]]
    assert ask(locations, "--table", "tpm_embeddings", "--id", "N7", "--count", "40") == 0
    assert "N17 | its twin\\x1b[31m" in capsys.readouterr().out
    assert ask(locations, "--table", "tpm_embeddings", "--id", "N34700") == 2
    assert f"'N34700' (hash {xxhash64('N34700') & LARGEST_ID})" in capsys.readouterr().err


def test_a_string_is_no_id_where_ids_are_numbers(
    indexed: tuple[Locations, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for text in ("N1007", "-1007", str(2**63), "9" * 5000):
        assert ask(indexed[0], "--table", "tpm_embeddings", f"--id={text}") == 2
        assert f"--id: expected the number of an item, >= 0, found '{text}'" in capsys.readouterr().err


def test_a_release_can_be_asked_by_its_id(indexed: tuple[Locations, Path], capsys: pytest.CaptureFixture[str]) -> None:
    locations, folder = indexed
    released(locations, stage_run(locations, recipe={"lr": 2}), LATER)
    assert ask(locations, "--table", "tpm_embeddings", "--id", "1007", "--release", folder.name) == 0
    assert folder.name in capsys.readouterr().out
    assert ask(locations, "--table", "merged_embeddings", "--id", "1007", "--release", folder.name) == 2
    assert f"--release: expected a release of merged_embeddings, found {folder.name}" in capsys.readouterr().err
    assert ask(locations, "--table", "actr_embeddings", "--id", "1") == 2
    assert "expected a current release of actr (tpm+cpm), found none" in capsys.readouterr().err


def test_a_command_reads_what_serves_once_and_of_the_kinds_that_it_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locations = write_settings(tmp_path)
    cpm = released(locations, stage_cpm(locations))
    days = [released(locations, stage_day(locations, 0, None, cpm))]
    days.append(released(locations, stage_day(locations, 1, days[0], cpm)))
    read: list[tuple[str, object]] = []
    original = LakeReader.read

    def noting(self: LakeReader, name: str, **options: Any) -> pa.Table:
        read.append((name, options.get("where")))
        return original(self, name, **options)

    monkeypatch.setattr(LakeReader, "read", noting)
    reader = LakeReader(locations)
    for place, folder in enumerate(days):
        row = reader.active("actr", "tpm+cpm", DAYS[place])
        assert row is not None and row["release_id"] == folder.name
    assert reader.active("tpm", "default", MONTH) is None and reader.current("actr", "tpm+cpm") == row
    assert read == [("activations", None), ("releases", {"kind": "actr"})]
    assert set(reader.releases()) == {cpm.name, *(folder.name for folder in days)}
