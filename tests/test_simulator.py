"""The simulator is deterministic, delivers what it reports, and its domains share what they should."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from contracts.errors import BadInput
from contracts.features import LOGS, LONGEST_TEXT, Log
from contracts.locations import Locations
from lake.metrics import auc, gauc
from sources import cli, simulator
from sources.faults import MALFORMED_KINDS, TOO_LONG, FaultRates
from sources.simulator import Impressions, SimulatorSettings
from sources.texts import VOCABULARIES, item_texts
from sources.visits import HOUR_MS, Bursts
from sources.world import PLACES, World, WorldSettings

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
    return {
        str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name not in without
    }


def read(home: Path, log: str, day: date) -> pd.DataFrame:
    """A landing file's lines as text, each with its number of fields; surplus ones are cut, lacking ones are empty."""
    path = Locations(home).landing_day(log, day) / "part-00000.csv"
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        header, *lines = csv.reader(file)
    width = len(header)
    frame = pd.DataFrame([(line + [""] * width)[:width] for line in lines], columns=header, dtype="string")
    return frame.assign(fields=[len(line) for line in lines])


def clean(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows that no rule of the contract sends to quarantine, judged here apart from the simulator's own words."""
    numbers = {name: pd.to_numeric(frame[name], errors="coerce") for name in (*IDS, "event_id", "dwell_seconds")}
    keep = pd.concat([values.notna() & (values >= 0) for values in numbers.values()], axis=1).all(axis=1) & (
        numbers["click"] <= 1
    )
    event_day = pd.to_datetime(frame["event_ts"].str[:10], errors="coerce", format="%Y-%m-%d")
    arrival_day = pd.to_datetime(frame["arrival_ts"].str[:10], errors="coerce", format="%Y-%m-%d")
    text = frame["item_text"]
    keep &= (frame["fields"] == frame.shape[1] - 1) & (text.str.len() <= LONGEST_TEXT) & ~text.str.contains("\ufffd")
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
            assert len(frame) - len(good) == sum(said[kind] for kind in MALFORMED_KINDS)
            assert not set(frame.drop(good.index)["event_id"]) & set(good["event_id"]), (
                "a malformed row is one more, not a lost one"
            )
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
    assert set(MALFORMED_KINDS) < set(kinds), "a rate of 6 % must show every kind of malformed row"


def test_every_impression_has_its_truth_and_arrives_once(home: Path) -> None:
    truth = pd.concat(
        [
            pd.read_parquet(home / "truth" / f"{START + timedelta(days=number)}.parquet").assign(number=number)
            for number in range(4)
        ]
    )
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
        assert set(numbers["position"]) == set(PLACES[log])
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
    return world, {log: simulator.draw_impressions(world, log, START) for log in LOGS}


def test_volumes_rates_and_supply_of_the_defaults() -> None:
    world, drawn = one_day(WorldSettings())
    for log, rows, rate in (("natural", (8_000, 12_000), 0.25), ("ad", (1_000, 1_600), 0.09)):
        clicks, expected = drawn[log].columns["click"], drawn[log].probability_N
        assert rows[0] <= len(clicks) <= rows[1]
        assert abs(expected.mean() - rate) < 0.02
        deviation = np.sqrt((expected * (1 - expected)).sum())
        assert abs(clicks.sum() - expected.sum()) < 4 * deviation
    shares = {log: world.item_shares(log) for log in LOGS}
    assert (shares["ad"] > 0).sum() == 500
    assert set(drawn["ad"].item_N) <= set(np.flatnonzero(shares["ad"]))
    shown_in_both = shares["natural"][shares["ad"] > 0].sum()
    assert 0.2 < shown_in_both < 0.5, "ads are a third of the items, popular or not"
    popular = [set(np.argsort(-shares[log])[:100]) for log in LOGS]
    assert len(popular[0] & popular[1]) < 30, "the ad domain's popular items are others"
    hours = [
        np.median((drawn[log].columns["event_ts"] - np.datetime64(START)) / np.timedelta64(1, "h")) for log in LOGS
    ]
    assert hours[0] - hours[1] > 2, "ads are shown earlier in the day"


@pytest.mark.parametrize("log", LOGS)
def test_probability_falls_with_position_in_each_domain_its_own_way(log: Log) -> None:
    world, drawn = one_day(WorldSettings(users=200, items=120))
    shown, noon = drawn[log], np.full(len(drawn[log].user_N), 12 * HOUR_MS)
    logits = [
        logit(world.probability(log, shown.user_N, shown.item_N, np.full(len(noon), place), noon)).mean()
        for place in PLACES[log]
    ]
    per_place = np.diff(logits) / np.diff(PLACES[log])
    assert (per_place < 0).all()
    assert np.allclose(per_place, per_place[0]) is (log == "natural"), (
        "natural places cost the same each, ad slots ever less"
    )


def logit(probability: np.ndarray) -> np.ndarray:
    value: np.ndarray = np.log(probability / (1 - probability))
    return value


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    return float(((first - first.mean()) * (second - second.mean())).mean() / (first.std() * second.std()))


@pytest.mark.parametrize(("unrelated", "low", "high"), [(False, 0.85, 0.99), (True, -0.1, 0.1)])
def test_domains_share_tastes_unless_unrelated(unrelated: bool, low: float, high: float) -> None:
    world = World(WorldSettings(users=400, items=300, unrelated_domains=unrelated))
    rng = np.random.default_rng(0)
    user, item, place = rng.integers(0, 400, 20_000), rng.integers(0, 300, 20_000), np.zeros(20_000, dtype=np.int64)
    time = rng.integers(0, 24 * HOUR_MS, 20_000)
    logits = [logit(world.probability(log, user, item, place, time)) for log in LOGS]
    assert low < correlation(*logits) < high
    quality = [np.bincount(item, weights=values, minlength=300) / np.bincount(item, minlength=300) for values in logits]
    assert (correlation(*quality) > 0.5) is not unrelated
    bursts = [world.burst_strength(log, user, item, time) for log in LOGS]
    assert min(map(np.max, bursts)) > 0.5
    assert (correlation(*bursts) > 0.99) is not unrelated


def test_unrelated_domains_leave_the_rest_equal() -> None:
    related, unrelated = (
        World(WorldSettings(users=200, items=120, unrelated_domains=unrelated)) for unrelated in (False, True)
    )
    for _ in range(30):
        related.next_day()
        unrelated.next_day()
    assert related.catalogue.num_born_later > 5
    for name in ("category_I", "campaign_I", "advertiser_I", "text_I", "lives_I"):
        np.testing.assert_array_equal(getattr(related.catalogue, name), getattr(unrelated.catalogue, name))
    for world in (related, unrelated):
        np.testing.assert_array_equal(world.segment_U, related.segment_U)
        np.testing.assert_array_equal(world.visit_ms_UV, related.visit_ms_UV)
        np.testing.assert_array_equal(world.item_shares("ad"), related.item_shares("ad"))
    user, item = np.divmod(np.arange(200 * 120), 120)
    place, time = np.zeros_like(user), np.full(len(user), 20 * HOUR_MS)
    np.testing.assert_array_equal(
        related.probability("natural", user, item, place, time),
        unrelated.probability("natural", user, item, place, time),
    )


def test_recent_clicks_raise_probability_and_fade() -> None:
    world = World(WorldSettings(users=10, items=60, monthly_drift=0.0, burst_rate=0.0, item_turnover=0.0))
    user, item, place = np.zeros(1, dtype=np.int64), np.array([5]), np.zeros(1, dtype=np.int64)
    before = world.probability("ad", user, item, place, place)[0]
    world.remember("natural", user, item)
    fresh = world.probability("ad", user, item, place, place)[0]
    world.next_day()
    faded = world.probability("ad", user, item, place, place)[0]
    assert before < faded < fresh


def test_a_burst_begins_with_its_visit_and_is_gone_within_hours() -> None:
    start, life = 20 * HOUR_MS, 2.0 * HOUR_MS
    today = Bursts(start_ms_UV=np.array([[start]]), category_UV=np.array([[3]]), life_ms_UV=np.array([[life]]))
    none = Bursts(start_ms_UV=np.array([[0]]), category_UV=np.array([[-1]]), life_ms_UV=np.array([[life]]))

    def strength(bursts: Bursts, category: int, time: int) -> float:
        return float(bursts.strength(np.array([0]), np.array([category]), np.array([time]))[0])

    assert strength(today, 3, start - 1) == 0
    assert strength(today, 3, start) == 1
    assert strength(today, 2, start) == 0
    assert strength(today, 3, start + 2 * HOUR_MS) == pytest.approx(np.exp(-1))
    assert strength(none.and_of_yesterday(today), 3, 0) == pytest.approx(np.exp(-2)), "it lives past midnight"


def test_what_was_clicked_an_hour_ago_is_clicked_again() -> None:
    """Later impressions of a category that the user clicked within the hour before have a higher true probability."""
    world, drawn = one_day(WorldSettings(users=4000, items=300, natural_requests=3.0))
    shown = drawn["natural"]
    frame = pd.DataFrame(
        {
            "user": shown.user_N,
            "category": shown.columns["category_id"],
            "time": shown.columns["event_ts"],
            "click": shown.columns["click"],
            "request": shown.columns["request_id"],
            "p": shown.probability_N,
            "burst": world.burst_strength("natural", shown.user_N, shown.item_N, milliseconds(shown)),
        }
    )
    both = frame.merge(frame, on=["user", "category"], suffixes=("", "_before"))
    gap = (both["time"] - both["time_before"]).dt.total_seconds() / 3600
    before = both[(gap > 0) & (gap < 1) & (both["request"] != both["request_before"])]
    rates = before.groupby("click_before")["burst"].mean()
    assert len(before) > 2_000
    assert rates[1] > 1.15 * rates[0] > 0, "a click shows an interest that lasts"
    assert before["burst"].mean() < 3 * frame["burst"].mean()


def milliseconds(shown: Impressions) -> np.ndarray:
    """Times of impressions (N) since midnight."""
    return (shown.columns["event_ts"] - np.datetime64(START, "ms")).astype(np.int64) % (24 * HOUR_MS)


def test_items_are_born_ramp_up_and_end_and_ids_are_never_used_again() -> None:
    settings = SimulatorSettings(
        days=40, world=WorldSettings(users=300, items=100, item_turnover=0.5, natural_requests=3.0)
    )
    first_shown: dict[int, date] = {}
    categories: dict[int, int] = {}
    ended: set[int] = set()
    for day, world, drawn in simulator.days_of(settings):
        catalogue = world.catalogue
        assert catalogue.lives_I.sum() == 100
        assert (world.item_shares("ad") > 0).sum() == 33
        now_ended = set(np.flatnonzero(~catalogue.lives_I).tolist())
        assert ended <= now_ended, "what has ended does not come back"
        ended = now_ended
        for log in LOGS:
            shown = set(drawn[log].item_N.tolist())
            assert not shown & ended
            for item, category in zip(
                drawn[log].columns["item_id"].tolist(), drawn[log].columns["category_id"].tolist(), strict=True
            ):
                assert categories.setdefault(item, category) == category, "an id stays with its item"
            for item in shown:
                first_shown.setdefault(item, day)
    assert len(ended) > 30
    assert len(catalogue.born_I) == 100 + len(ended)
    for item, born in enumerate(catalogue.born_I.tolist()):
        assert item not in first_shown or (first_shown[item] - START).days >= born
    of_age, newborn = (
        np.flatnonzero(catalogue.lives_I & condition) for condition in (catalogue.born_I < 30, catalogue.born_I >= 39)
    )
    share = catalogue.shares("natural", 39) / catalogue.popularity_I["natural"]
    assert len(newborn)
    assert np.allclose(share[newborn] * 7, share[of_age][0]), (
        "on its first day a newborn has a seventh of its full share"
    )


def test_no_turnover_leaves_the_catalogue_as_it_is() -> None:
    world = World(WorldSettings(users=20, items=60, item_turnover=0.0))
    for _ in range(20):
        world.next_day()
    assert (world.catalogue.num_born_later, world.catalogue.num_ended) == (0, 0)


def test_texts_tell_the_category_and_a_little_of_the_quality() -> None:
    rng = np.random.default_rng(0)
    category, quality = rng.integers(0, 12, 5_000), rng.standard_normal(5_000)
    texts = item_texts(category, quality, np.random.default_rng(1))
    assert (texts == item_texts(category, quality, np.random.default_rng(1))).all()
    assert {len(text.split()) for text in texts} <= set(range(5, 16))
    assert all(text.endswith(f"({VOCABULARIES[kind].name})") for text, kind in zip(texts, category, strict=True))
    means = [
        quality[[verdict in text for text in texts]].mean()
        for verdict in (", no-name (", ", decent (", ", award winning (")
    ]
    assert means[0] < -0.7 < means[1] < 0.7 < means[2]
    assert any('"' in text for text in texts)
    assert not all(text.isascii() for text in texts)


def test_texts_arrive_as_the_items_have_them(home: Path) -> None:
    texts: dict[str, set[str]] = {}
    for log in LOGS:
        frame = clean(read(home, log, START))
        for item, text in zip(frame["item_id"], frame["item_text"], strict=True):
            texts.setdefault(item, set()).add(text)
    assert {len(of_item) for of_item in texts.values()} == {1}
    world = World(SMALL.world)
    assert all(of_item == {world.catalogue.text_I[int(item) - 1]} for item, of_item in texts.items())


def test_malformed_lines_break_what_they_say(home: Path) -> None:
    frames = [read(home, log, START + timedelta(days=number)) for log in LOGS for number in range(4)]
    fields = [count - (frame.shape[1] - 1) for frame in frames for count in frame["fields"]]
    assert {count > 0 for count in fields if count} == {True, False}
    texts = pd.concat([frame["item_text"] for frame in frames])
    assert TOO_LONG in set(texts.str.len())
    assert texts.str.contains("\ufffd").any()


def test_the_truth_orders_clicks_and_the_domains_agree(capsys: pytest.CaptureFixture[str]) -> None:
    """What the best model could reach, and what one that knows only the natural domain could."""
    parts: dict[str, list[tuple[np.ndarray, ...]]] = {log: [] for log in LOGS}
    for _, world, drawn in simulator.days_of(
        SimulatorSettings(days=8, world=WorldSettings(users=1500, ad_requests=0.9))
    ):
        for log, shown in drawn.items():
            # All on one place: what the natural domain has learnt of users and items, without its own effect of
            # positions.
            top = np.zeros_like(shown.user_N)
            as_natural = world.probability("natural", shown.user_N, shown.item_N, top, milliseconds(shown))
            parts[log].append((shown.probability_N, as_natural, shown.columns["click"], shown.user_N))
    figures: dict[str, tuple[float, ...]] = {}
    for name, of_days in parts.items():
        truth, as_natural, clicks, users = (np.concatenate(values) for values in zip(*of_days, strict=True))
        judged = (auc(truth, clicks), gauc(truth, clicks, users), gauc(as_natural, clicks, users))
        figures[name] = tuple(figure for figure in judged if figure is not None)
    with capsys.disabled():
        print(
            "  oracle:",
            ", ".join(f"{log} AUC {a:.4f} GAUC {g:.4f}, as if natural {n:.4f}" for log, (a, g, n) in figures.items()),
        )
    assert 0.76 < figures["natural"][0] < 0.80
    assert 0.74 < figures["natural"][1] < 0.78
    assert 0.77 < figures["ad"][0] < 0.82
    assert 0.75 < figures["ad"][1] < 0.81
    assert figures["ad"][1] - 0.03 < figures["ad"][2] < figures["ad"][1], "natural tastes nearly suffice for ads"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--users", "1"),
        ("--items", "17"),
        ("--days", "0"),
        ("--late-rate", "1"),
        ("--duplicate-rate", "-0.1"),
        ("--item-turnover", "1"),
        ("--burst-rate", "1.5"),
    ],
)
def test_bad_options_are_named(tmp_path: Path, option: str, value: str) -> None:
    with pytest.raises(BadInput, match=f"simulate: {option}: expected .*, found {value}"):
        cli.main(["simulate", "--home", str(tmp_path), option, value])
    assert not list(tmp_path.iterdir())


def test_the_command_says_what_it_wrote_and_what_is_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--days", "2", "--users", "20", "--items", "30", "--from", "2026-03-01", "--unrelated-domains"]
    assert cli.main(["simulate", "--home", str(tmp_path), *options]) == 0
    said = capsys.readouterr().out
    assert f"under {tmp_path / 'landing'}" in said
    assert "items: 30 at any time" in said
    assert "ingest_logs --ds 2026-03-01" in said
    assert (tmp_path / "landing" / "ad" / "2026-03-02" / "part-00000.csv").is_file()


def test_the_commands_defaults_are_the_settings() -> None:
    options = cli.commands.commands["simulate"].make_context("simulate", []).params
    del options["home"]
    assert cli.simulator_settings(**options) == SimulatorSettings()
