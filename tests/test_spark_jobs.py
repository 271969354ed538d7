"""The Spark jobs on small logs with faults, against a full recompute by pandas; few runs, many rows each."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import features_reference as reference
import pytest
from opened_tables import assert_as_declared, opened_tables

from contracts.errors import BadInput, ParentMissing
from contracts.features import LOGS
from contracts.locations import Locations
from contracts.settings import Deployment, table_address
from contracts.steps import DAY_JOBS, day_steps
from contracts.tables import TABLES, owner_key
from lake.reader import LakeReader, column_types
from lake.writing import prepare
from sources.faults import FaultRates
from sources.simulator import SimulatorSettings, simulate
from sources.world import WorldSettings
from spark_jobs import build_partials, build_samples, ingest_logs, inputs, maintain_lake
from spark_jobs.compare_tables import FEATURE_TABLES

pytestmark = pytest.mark.spark

START = date(2026, 1, 1)
JOBS = [import_module(f"spark_jobs.{name}") for name in DAY_JOBS]
NUM_DAYS = 14  # past the first checkpoint, at ten days


def make_logs(home: Path, *, num_days: int = NUM_DAYS) -> tuple[Locations, Deployment]:
    """A small simulated deployment with many faults."""
    rates = FaultRates(duplicates=0.05, malformed=0.03, late=0.04)
    simulate(
        SimulatorSettings(days=num_days, start=START, faults=rates, world=WorldSettings(users=40, items=60, seed=3)),
        home,
    )
    return Locations(home), Deployment.load(home)


def build(spark: Any, locations: Locations, deployment: Deployment, days: list[date]) -> dict[str, set[str]]:
    """Every job over these days, as range jobs; the tables that each opened, by its name."""
    opened = {}
    for name, job in zip(DAY_JOBS, JOBS, strict=True):
        with opened_tables() as opened[name]:
            job.run(spark, locations, deployment, days)
    return opened


def built_as(locations: Locations) -> dict[Any, Any]:
    """What the build records say of every partition, without their time."""
    return {
        key: {name: value for name, value in build.items() if name != "built_ts"}
        for key, build in LakeReader(locations).all_builds().items()
    }


def day(number: int) -> date:
    return START + timedelta(days=number)


@pytest.fixture(scope="module")
def built(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Locations, Deployment]:
    """All days built: by one range job each, and the last day by itself, from a checkpoint."""
    locations, deployment = make_logs(tmp_path_factory.mktemp("built"))
    opened = [
        build(spark, locations, deployment, days)
        for days in ([day(n) for n in range(NUM_DAYS - 1)], [day(NUM_DAYS - 1)])
    ]
    for step in day_steps():
        assert_as_declared(step, {table for one in opened for table in one[step.name]})
    return locations, deployment


def test_rows_read_are_kept_duplicates_or_quarantined(built: tuple[Locations, Deployment]) -> None:
    locations, _ = built
    for log in LOGS:
        for owner, record in LakeReader(locations).builds(f"{log}_log").items():
            counts = record["counts"]
            path = locations.landing_day(log, date.fromisoformat(owner.removeprefix("ds="))) / "part-00000.csv"
            landed = len(path.read_bytes().splitlines()) - 1
            assert counts["read"] == landed
            assert counts["read"] == counts["kept"] + counts["duplicates"] + counts["quarantined"]
            assert counts["kept"] == record["row_cnt"]
    totals = [record["counts"] for record in LakeReader(locations).builds("natural_log").values()]
    for name in ("duplicates", "conflicting_duplicates", "quarantined", "late"):
        assert sum(counts[name] for counts in totals) > 0, f"the logs hold no {name}, so nothing is shown"


def test_events_are_kept_once(built: tuple[Locations, Deployment]) -> None:
    rows = reference.logs(built[0])
    assert not rows["event_id"].duplicated().any()


def test_quarantine_names_field_expected_and_found(built: tuple[Locations, Deployment]) -> None:
    rows = LakeReader(built[0]).read("quarantine").to_pandas()
    clicks = rows[rows["rule"] == "click_range"]
    assert len(clicks)
    assert set(clicks["field"]) == {"click"}
    assert set(clicks["expected"]) == {"one of 0, 1"}
    assert not set(clicks["found"]) & {"0", "1"}
    assert rows["file"].str.match(r"^(natural|ad)/\d{4}-\d{2}-\d{2}/part-00000.csv$").all()


@pytest.mark.parametrize("number", [0, 5, NUM_DAYS - 3, NUM_DAYS - 1])
def test_histories_equal_a_full_recompute(built: tuple[Locations, Deployment], number: int) -> None:
    locations, deployment = built
    expected = reference.histories(reference.logs(locations), day(number), deployment)
    stored = LakeReader(locations).read("user_histories", where={"ds": day(number)}).to_pylist()
    assert {row["user_id"]: [b["event_id"] for b in row["behaviours"]] for row in stored} == expected


@pytest.mark.parametrize("number", [0, NUM_DAYS - 1])
def test_statistics_equal_a_full_recompute(built: tuple[Locations, Deployment], number: int) -> None:
    locations, _ = built
    expected = reference.statistics(reference.logs(locations), day(number))
    stored = LakeReader(locations).read("entity_statistics", where={"ds": day(number)}).to_pylist()
    found = {(row.pop("entity"), row.pop("entity_id")): {k: v for k, v in row.items() if k != "ds"} for row in stored}
    assert found == expected


@pytest.mark.parametrize("log", LOGS)
def test_samples_see_only_the_past(built: tuple[Locations, Deployment], log: str) -> None:
    locations, deployment = built
    last = day(NUM_DAYS - 1)
    stored = LakeReader(locations).read(f"{log}_samples", where={"ds": last}).to_pandas()
    assert dict(zip(stored["event_id"], stored["history_end"], strict=True)) == reference.history_ends(
        reference.logs(locations), log, last, deployment
    )
    assert stored["history_end"].max() > 0
    assert stored["held_out"].mean() < 0.2


def test_a_day_again_and_maintenance_change_no_row(spark: Any, built: tuple[Locations, Deployment]) -> None:
    locations, deployment = built
    before = {name: reference.content(locations, name) for name in FEATURE_TABLES}
    builds = built_as(locations)
    for job in (ingest_logs, build_partials, build_samples):
        job.run(spark, locations, deployment, [day(NUM_DAYS - 1)])
    assert {name: reference.content(locations, name) for name in FEATURE_TABLES} == before
    assert built_as(locations) == builds
    (of_builds,) = maintain_lake.run(spark, locations, ["builds"])
    assert of_builds.files_after < of_builds.files_before
    assert built_as(locations) == builds


def test_texts_are_kept_once_and_named_by_their_hash(built: tuple[Locations, Deployment]) -> None:
    reader = LakeReader(built[0])
    texts = {row["text_hash"]: row["text"] for row in reader.read("behaviour_texts").to_pylist()}
    rows = reference.logs(built[0])
    shown = rows[rows["item_text"].notna()]
    assert {f"Clicked {text}" for text in shown["item_text"]} == {
        text for text in texts.values() if text.startswith("Clicked ")
    }
    for action, word in ((2, "Liked "), (6, "Bought ")):
        done = shown[shown["action"] == action]["item_text"]
        assert {f"{word}{text}" for text in done} == {text for text in texts.values() if text.startswith(word)}
    assert len(set(texts.values())) == len(texts)
    behaviours = [
        b
        for row in reader.read("user_histories", where={"ds": day(NUM_DAYS - 1)}).to_pylist()
        for b in row["behaviours"]
    ]
    assert {b["text_hash"] for b in behaviours} <= set(texts)
    text_of = dict(zip(rows["event_id"], rows["item_text"], strict=True))
    for log in LOGS:
        samples = reader.read(
            f"{log}_samples", columns=["event_id", "item_text_hash"], where={"ds": day(NUM_DAYS - 1)}
        ).to_pylist()
        assert samples and all(texts[row["item_text_hash"]] == f"Clicked {text_of[row['event_id']]}" for row in samples)


def test_a_column_declared_later_reads_as_unknown(spark: Any, tmp_path: Path) -> None:
    locations, contract = Locations(tmp_path), TABLES["behaviour_texts"]
    prepare(spark, locations, replace(contract, columns=contract.columns[:1]))
    assert set(column_types(table_address(locations, contract.name))) == {"text_hash"}
    assert LakeReader(locations).read(contract.name).column_names == ["text_hash", "text"]
    prepare(spark, locations, contract)
    assert set(column_types(table_address(locations, contract.name))) == {"text_hash", "text"}


def test_missing_inputs_are_named(spark: Any, tmp_path: Path) -> None:
    locations, deployment = make_logs(tmp_path, num_days=5)
    with pytest.raises(
        ParentMissing, match=r"natural_log: expected a build of ds=2026-01-01.*tributary spark_jobs ingest_logs"
    ):
        build_partials.run(spark, locations, deployment, [START])
    missing = inputs.missing_partials(LakeReader(locations), deployment, day(1))
    assert str(missing) == (
        "partials of 2 days since history_start 2026-01-01, the first 2026-01-01: "
        "tributary dags backfill logs_daily --from 2026-01-01 --to 2026-01-02"
    )
    path = locations.landing_day("ad", day(2)) / "part-00000.csv"
    path.write_bytes(path.read_bytes().splitlines()[0] + b"\n")
    with pytest.raises(
        BadInput, match=r"2026-01-03/part-00000.csv: rows: expected at least one row on this landing day, found none"
    ):
        ingest_logs.run(spark, locations, deployment, [day(2)])
    path.write_text(path.read_text().replace("user_id,", "usr,"))
    with pytest.raises(BadInput, match=r"user_id: expected a column of this name in the header"):
        ingest_logs.run(spark, locations, deployment, [day(2)], allow_empty=True)
    path.unlink()
    with pytest.raises(BadInput, match=r"landing day: expected at least one file that ends in .csv, .* found none"):
        ingest_logs.run(spark, locations, deployment, [day(2)])


def test_kuairand_reconciles_with_pandas(spark: Any, data: Path, tmp_path: Path) -> None:
    """Rows read, kept and dropped as duplicates, each day, against a count made by pandas from the original file."""
    import pandas as pd

    from sources.kuairand import KuaiRandSettings, convert

    convert(data, tmp_path, KuaiRandSettings())
    locations, deployment = Locations(tmp_path), Deployment.load(tmp_path)
    days = [date(2022, 4, 25) + timedelta(days=n) for n in range(10)]
    ingest_logs.run(spark, locations, deployment, days)

    original = pd.read_csv(next(data.rglob("log_standard_4_25_to_5_04_pure.csv")))
    original["ds"] = pd.to_datetime(original["time_ms"], unit="ms", utc=True).dt.tz_convert("Asia/Shanghai").dt.date
    for log, tab in (("natural", 1), ("ad", 6)):
        rows = original[(original["tab"] == tab) & original["ds"].isin(days)]
        built = LakeReader(locations).builds(f"{log}_log")
        for of_day in days:
            counts, expected = built[owner_key(ds=of_day)]["counts"], rows[rows["ds"] == of_day]
            distinct = expected.drop_duplicates(["user_id", "video_id", "time_ms"])
            assert counts["read"] == len(expected)
            assert counts["quarantined"] == 0
            assert counts["kept"] == len(distinct)
            assert counts["duplicates"] == len(expected) - len(distinct)
    assert (
        sum(record["counts"]["duplicates"] for record in LakeReader(locations).builds("ad_log").values()) > 4000
    )  # half of tab 6

    for job in JOBS[1:]:
        job.run(spark, locations, deployment, days)
    for log in LOGS:
        samples, built = LakeReader(locations).builds(f"{log}_samples"), LakeReader(locations).builds(f"{log}_log")
        for owner, record in built.items():
            assert samples[owner]["row_cnt"] == record["counts"]["kept"] - record["counts"]["late"]


def test_every_table_is_plain(built: tuple[Locations, Deployment]) -> None:
    """Reader 1, writer 2: what deltalake and any other reader opens."""
    from deltalake import DeltaTable

    for name in FEATURE_TABLES:
        if name == "id_strings":  # these settings keep no strings
            assert not built[0].table(name).exists()
            continue
        protocol = DeltaTable(str(built[0].table(name))).protocol()
        assert (protocol.min_reader_version, protocol.min_writer_version) == (1, 2), name
        assert LakeReader(built[0]).builds(name)
        owner = next(iter(LakeReader(built[0]).builds(name)))
        assert (set(TABLES[name].owner) or {"ds"}) == {part.split("=")[0] for part in owner.split(",")}
        assert owner_key(ds=START) == "ds=2026-01-01"
