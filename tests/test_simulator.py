"""The simulator is deterministic, delivers what it says, and its domains share what they should."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import replace
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from contracts.errors import BadInput
from contracts.features import LOGS
from contracts.locations import Locations
from sources import cli, simulator
from sources.faults import MALFORMED, FaultRates
from sources.simulator import Impressions, SimulatorSettings
from sources.world import World, WorldSettings

START = date(2026, 1, 1)
HIGH_RATES = FaultRates(duplicates=0.1, malformed=0.06, late=0.05)
SMALL = SimulatorSettings(days=4, world=WorldSettings(users=200, items=120, seed=3), faults=HIGH_RATES)
IDS = ("user_id", "item_id", "category_id", "user_segment_id", "position", "click", "action")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated")
    simulator.simulate(SMALL, folder)
    return folder


def digests(home: Path, *, without: tuple[str, ...] = ()) -> dict[str, str]:
    files = sorted(path for part in ("landing", "truth") for path in (home / part).rglob("*") if path.is_file())
    return {str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.name not in without}


def read(home: Path, log: str, day: date) -> pd.DataFrame:
    return pd.read_csv(Locations(home).landing_day(log, day) / "part-00000.csv", dtype="string", keep_default_na=False)


def clean(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows that no rule of the contract sends to quarantine, judged here apart from the simulator's own words."""
    numbers = {name: pd.to_numeric(frame[name], errors="coerce") for name in (*IDS, "event_id", "dwell_seconds")}
    keep = pd.concat([values.notna() & (values >= 0) for values in numbers.values()], axis=1).all(axis=1) & (numbers["click"] <= 1)
    event_day = pd.to_datetime(frame["event_ts"].str[:10], errors="coerce", format="%Y-%m-%d")
    arrival_day = pd.to_datetime(frame["arrival_ts"].str[:10])
    return frame[keep & ((arrival_day - event_day).abs() <= pd.Timedelta(days=1))]


def test_equal_settings_give_equal_bytes(home: Path, tmp_path: Path) -> None:
    simulator.simulate(SMALL, tmp_path / "again")
    assert digests(tmp_path / "again") == digests(home)
    simulator.simulate(SMALL, tmp_path / "again")  # in place
    assert digests(tmp_path / "again") == digests(home)
    simulator.simulate(replace(SMALL, world=replace(SMALL.world, seed=4)), tmp_path / "other")
    assert not set(digests(tmp_path / "other").values()) & set(digests(home).values())


def test_a_longer_simulation_begins_with_the_same_days(home: Path, tmp_path: Path) -> None:
    simulator.simulate(replace(SMALL, days=5), tmp_path)
    longer, shorter = digests(tmp_path), digests(home, without=(simulator.INJECTED_FILE,))
    assert {name: longer[name] for name in shorter} == shorter


def test_rows_are_what_the_simulator_says_it_injected(home: Path) -> None:
    injected = json.loads((home / "truth" / simulator.INJECTED_FILE).read_text())
    assert list(injected) == [str(START + timedelta(days=number)) for number in range(4)]
    kinds: Counter[str] = Counter()
    for log in LOGS:
        delivered: set[str] = set()
        payloads: set[tuple[str, ...]] = set()
        for text, counts in injected.items():
            day, said = date.fromisoformat(text), Counter(counts[log])
            frame = read(home, log, day)
            good = clean(frame)
            assert len(frame) == sum(said.values())
            assert len(frame) - len(good) == sum(said[kind] for kind in MALFORMED)
            assert not set(frame.drop(good.index)["event_id"]) & set(good["event_id"]), "a malformed row is one more, not a lost one"
            found = Counter[str]()
            for row in good.to_dict("records"):
                payload = tuple(map(str, row.values()))
                if payload in payloads:
                    found["duplicate"] += 1
                elif row["event_id"] in delivered:
                    found["differing duplicate"] += 1
                else:
                    found["late" if row["event_ts"] < text else "on time"] += 1
                payloads.add(payload)
                delivered.add(row["event_id"])
            for kind in ("on time", "late", "duplicate", "differing duplicate"):
                assert found[kind] == said[kind], (log, text, kind)
            kinds += said
    assert kinds["late"] > 20
    assert kinds["differing duplicate"] > 5
    assert kinds["duplicate"] > 50
    assert set(MALFORMED) < set(kinds), "a rate of 6 % must show every kind of malformed row"


def test_every_impression_has_its_truth_and_arrives_once(home: Path) -> None:
    truth = pd.concat([pd.read_parquet(home / "truth" / f"{START + timedelta(days=number)}.parquet").assign(number=number)
                       for number in range(4)])
    assert list(truth.columns[:3]) == ["event_id", "log", "probability"]
    assert truth["event_id"].is_unique
    assert truth["probability"].between(0.0, 1.0, inclusive="neither").all()
    for log in LOGS:
        arrived = pd.concat([clean(read(home, log, START + timedelta(days=number))) for number in range(4)])
        of_log = truth[truth["log"] == log]
        ids = set(arrived["event_id"].astype("int64"))
        assert ids <= set(of_log["event_id"])
        missing = of_log[~of_log["event_id"].isin(ids)]
        assert set(missing["number"]) <= {3}, "only late rows of the last day are still on their way"
        assert len(missing) < 0.1 * (of_log["number"] == 3).sum()


def test_rows_keep_the_contract(home: Path) -> None:
    for log in LOGS:
        frame = clean(read(home, log, START)).drop_duplicates("event_id")
        numbers = frame[list(IDS)].astype("int64")
        assert ((numbers["action"] >= 1) == (numbers["click"] == 1)).all()
        assert set(numbers["position"]) == set(range(6))
        assert (frame["event_ts"] <= frame["arrival_ts"]).all()
        assert frame["event_ts"].str.fullmatch(r"2026-01-01T\d\d:\d\d:\d\d\.\d{3}Z").all()
        times = pd.to_datetime(frame["event_ts"])
        by_request = frame.assign(time=times, **numbers).groupby("request_id")
        assert (by_request["user_id"].nunique() == 1).all()
        assert (by_request["item_id"].nunique() == by_request.size()).all()
        assert by_request["time"].agg(lambda group: (group.max() - group.min()).total_seconds()).max() < 1.0
        assert by_request.size().max() == 6


def test_fault_rates_change_no_impression(home: Path, tmp_path: Path) -> None:
    simulator.simulate(replace(SMALL, faults=FaultRates(duplicates=0, malformed=0, late=0)), tmp_path)
    truths = [name for name in digests(home) if name.endswith(".parquet")]
    assert len(truths) == 4
    assert {name: digests(home)[name] for name in truths} == {name: digests(tmp_path)[name] for name in truths}
    for log in LOGS:
        frame = read(tmp_path, log, START)
        assert frame["event_id"].is_unique
        assert len(clean(frame)) == len(frame)


def one_day(settings: WorldSettings) -> tuple[World, dict[str, Impressions]]:
    world = World(settings)
    return world, {log: simulator.draw_impressions(world, log, START, 0) for log in LOGS}


def test_volumes_rates_and_supply_of_the_defaults() -> None:
    world, drawn = one_day(WorldSettings())
    for log, rows, rate in (("natural", (8_000, 12_000), 0.25), ("ad", (1_000, 1_600), 0.09)):
        clicks, expected = drawn[log].columns["click"], drawn[log].probability_N
        assert rows[0] <= len(clicks) <= rows[1]
        assert abs(expected.mean() - rate) < 0.02
        deviation = np.sqrt((expected * (1 - expected)).sum())
        assert abs(clicks.sum() - expected.sum()) < 4 * deviation
    assert (world.supply["ad"].popularity_I > 0).sum() == 500
    assert set(drawn["ad"].item_N) <= set(np.flatnonzero(world.supply["ad"].popularity_I))
    shown_in_both = world.supply["natural"].popularity_I[world.supply["ad"].popularity_I > 0].sum()
    assert 0.2 < shown_in_both < 0.5, "ads are a third of the items, popular or not"
    popular = [set(np.argsort(-world.supply[log].popularity_I)[:100]) for log in LOGS]
    assert len(popular[0] & popular[1]) < 30, "the ad domain's popular items are others"


def test_probability_falls_with_position() -> None:
    world, drawn = one_day(WorldSettings(users=200, items=120))
    natural, hour = drawn["natural"], np.full(len(drawn["natural"].user_N), 12)
    by_place = [world.probability("natural", natural.user_N, natural.item_N, np.full(len(hour), place), hour).mean() for place in range(6)]
    assert all(above > below for above, below in pairwise(by_place))


def logit(probability: np.ndarray) -> np.ndarray:
    return np.log(probability / (1 - probability))


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    return float(((first - first.mean()) * (second - second.mean())).mean() / (first.std() * second.std()))


@pytest.mark.parametrize(("unrelated", "low", "high"), [(False, 0.85, 0.99), (True, -0.1, 0.1)])
def test_domains_share_tastes_unless_unrelated(unrelated: bool, low: float, high: float) -> None:
    world = World(WorldSettings(users=400, items=300, unrelated_domains=unrelated))
    rng = np.random.default_rng(0)
    user, item, place = rng.integers(0, 400, 20_000), rng.integers(0, 300, 20_000), np.zeros(20_000, dtype=np.int64)
    logits = [logit(world.probability(log, user, item, place, place)) for log in LOGS]
    assert low < correlation(*logits) < high
    quality = [np.bincount(item, weights=values, minlength=300) / np.bincount(item, minlength=300) for values in logits]
    assert (correlation(*quality) > 0.5) is not unrelated


def test_unrelated_domains_leave_the_rest_equal() -> None:
    related, unrelated = (World(WorldSettings(users=200, items=120, unrelated_domains=unrelated)) for unrelated in (False, True))
    for name in ("segment_U", "category_I", "campaign_I", "advertiser_I"):
        np.testing.assert_array_equal(getattr(related, name), getattr(unrelated, name))
    np.testing.assert_array_equal(related.supply["ad"].popularity_I, unrelated.supply["ad"].popularity_I)


def test_recent_clicks_raise_probability_and_fade() -> None:
    world = World(WorldSettings(users=10, items=60, monthly_drift=0.0))
    user, item, place = np.zeros(1, dtype=np.int64), np.array([5]), np.zeros(1, dtype=np.int64)
    before = world.probability("ad", user, item, place, place)[0]
    world.remember("natural", user, item)
    fresh = world.probability("ad", user, item, place, place)[0]
    world.next_day(0)
    faded = world.probability("ad", user, item, place, place)[0]
    assert before < faded < fresh


@pytest.mark.parametrize(("option", "value"), [("--users", "1"), ("--items", "17"), ("--days", "0"), ("--late-rate", "1"),
                                               ("--duplicate-rate", "-0.1")])
def test_bad_options_are_named(tmp_path: Path, option: str, value: str) -> None:
    with pytest.raises(BadInput, match=f"simulate: {option}: expected .*, found {value}"):
        cli.main(["simulate", "--home", str(tmp_path), option, value])
    assert not list(tmp_path.iterdir())


def test_the_command_says_what_it_wrote_and_what_is_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--days", "2", "--users", "20", "--items", "30", "--start", "2026-03-01", "--unrelated-domains"]
    assert cli.main(["simulate", "--home", str(tmp_path), *options]) == 0
    said = capsys.readouterr().out
    assert f"under {tmp_path / 'landing'}" in said
    assert "ingest_logs --ds 2026-03-01" in said
    assert (tmp_path / "landing" / "ad" / "2026-03-02" / "part-00000.csv").is_file()
