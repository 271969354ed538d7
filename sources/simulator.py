"""The log simulator: days of natural and ad impressions of one simulated world, with the true click probabilities.

In addition to the landing files it writes `truth/<event day>.parquet` (event_id, log, probability: what the world knew
when it drew the click) and `truth/injected.json` (rows of each landing file by what they are: on time, late, duplicate,
malformed). Equal settings give equal bytes, and a longer simulation begins with the same days as a shorter one. What
would arrive after the last day is not delivered.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet

from contracts.errors import BadInput
from contracts.features import LOGS, Log
from contracts.locations import Locations
from lake.progress import each
from sources import deployments, landing
from sources.faults import Delivery, FaultRates, arrivals, deliver, late_mask
from sources.visits import draw_times
from sources.world import PLACES, World, WorldSettings, day_instant, day_seed

INJECTED_FILE = "injected.json"
CANDIDATES = (5, 6)  # impressions per request
_IDS_PER_DAY = 100_000_000  # ids of a day and log: impressions from 0, malformed rows from three quarters on
_SPARE_IDS = 37_500_000
# Strongest action of a click and its share; only an advertisement is bought from.
_ACTIONS: dict[Log, dict[int, float]] = {
    "natural": {1: 0.80, 2: 0.12, 3: 0.03, 4: 0.02, 5: 0.03},
    "ad": {1: 0.86, 2: 0.06, 3: 0.01, 4: 0.01, 5: 0.01, 6: 0.05},
}


@dataclass(frozen=True, kw_only=True)
class SimulatorSettings:
    """What to simulate: from `start` on, `days` days."""

    start: date = date(2026, 1, 1)
    days: int = 120
    world: WorldSettings = field(default_factory=WorldSettings)
    faults: FaultRates = field(default_factory=FaultRates)

    def __post_init__(self) -> None:
        if self.days < 1:
            raise BadInput("simulate", "--days", expected="a number >= 1", found=self.days)


@dataclass(frozen=True, kw_only=True)
class Impressions:
    """One log's impressions of one day, in order of time.

    Attributes:
        columns: landing column -> N values, without `arrival_ts`.
        probability_N: true click probability.
        user_N, item_N: indexes of users and items in the world.
    """

    columns: dict[str, np.ndarray]
    probability_N: np.ndarray
    user_N: np.ndarray
    item_N: np.ndarray


@dataclass
class Simulated:
    """What a simulation wrote, for the command's summary.

    Attributes:
        rows, clicks, impressions: the number of delivered rows, of clicks and of impressions, by log.
        injected: rows of each landing file by what they are.
        items_born, items_ended: items that came and went while it ran.
    """

    rows: Counter[str] = field(default_factory=Counter)
    clicks: Counter[str] = field(default_factory=Counter)
    impressions: Counter[str] = field(default_factory=Counter)
    injected: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    items_born: int = 0
    items_ended: int = 0


def simulate(settings: SimulatorSettings, home: Path) -> Simulated:
    """Writes deployment settings, landing files and truth of all days.

    Raises:
        BadInput: the folder belongs to a deployment with other settings.
        lake.locks.Locked: another source is writing there.
    """
    locations = Locations(home)
    deployments.write(home, deployments.simulator(start=settings.start, days=settings.days))
    with landing.exclusive(locations):
        return _simulate(settings, locations)


def days_of(settings: SimulatorSettings) -> Iterator[tuple[date, World, dict[Log, Impressions]]]:
    """Each day with its impressions, and the world as it was when they were drawn."""
    world = World(settings.world)
    for number in range(settings.days):
        day = settings.start + timedelta(days=number)
        drawn = {log: draw_impressions(world, log, day) for log in LOGS}
        yield day, world, drawn
        world.next_day()
        for log, impressions in drawn.items():
            clicked_N = impressions.columns["click"] == 1
            world.remember(log, impressions.user_N[clicked_N], impressions.item_N[clicked_N])


def draw_impressions(world: World, log: Log, day: date) -> Impressions:
    """One log's impressions of the world's present day, which is `day`."""
    number, settings, catalogue = world.day_number, world.settings, world.catalogue
    rng = day_seed(settings.seed, log, number)
    user_R = np.repeat(np.arange(settings.users), rng.poisson(world.requests_U[log]))
    time_ms_R = draw_times(log, user_R, world.visit_ms_UV, rng)
    order_R = np.argsort(time_ms_R, kind="stable")
    user_R, time_ms_R = user_R[order_R], time_ms_R[order_R]
    item_RC = _distinct_choices(len(user_R), max(CANDIDATES), world.item_shares(log), rng)
    shown_RC = np.arange(max(CANDIDATES)) < rng.integers(min(CANDIDATES), max(CANDIDATES) + 1, len(user_R))[:, None]
    request_N, place_N = np.nonzero(shown_RC)
    user_N, item_N, position_N = user_R[request_N], item_RC[shown_RC], PLACES[log][place_N]
    # Candidates of a request follow each other within a second.
    event_ms_N = time_ms_R[request_N] + (150 * place_N + rng.integers(0, 150, len(user_N))) * (place_N > 0)
    assert len(user_N) <= _SPARE_IDS, "more impressions of a day than ids set aside for them"
    probability_N = world.probability(log, user_N, item_N, position_N, time_ms_R[request_N])
    click_N = (rng.random(len(user_N)) < probability_N).astype(np.int64)
    first_id = (2 * number + LOGS.index(log)) * (_IDS_PER_DAY // 2)
    columns = {
        "event_id": first_id + np.arange(len(user_N)),
        "event_ts": day_instant(day) + event_ms_N.astype("timedelta64[ms]"),
        "request_id": first_id + request_N,
        "user_id": user_N + 1,
        "item_id": item_N + 1,
        "category_id": catalogue.category_I[item_N] + 1,
        "user_segment_id": world.segment_U[user_N] + 1,
        "position": position_N,
        "campaign_id": catalogue.campaign_I[item_N],
        "advertiser_id": catalogue.advertiser_I[item_N],
        "click": click_N,
        "action": _draw_actions(log, click_N, rng),
        "dwell_seconds": _draw_dwell(click_N, world.affinity(log, user_N, item_N), rng),
        "item_text": catalogue.text_I[item_N],
    }
    return Impressions(columns=columns, probability_N=probability_N, user_N=user_N, item_N=item_N)


def _simulate(settings: SimulatorSettings, locations: Locations) -> Simulated:
    done = Simulated()
    waiting: dict[Log, Delivery | None] = {log: None for log in LOGS}
    all_days = [settings.start + timedelta(days=number) for number in range(settings.days)]
    bar = each(all_days, description="simulate", unit="day")
    for _, (day, world, drawn) in zip(bar, days_of(settings), strict=True):
        number = (day - settings.start).days
        _write_truth(locations, day, drawn)
        done.injected[str(day)] = {}
        for log in LOGS:
            delivery = _delivery(settings, log, day, number, drawn[log])
            rows, what = delivery.rows, delivery.today
            if (earlier := waiting[log]) is not None:
                rows, what = pa.concat_tables([earlier.next_rows, rows]), what + earlier.tomorrow
            landing.write_day(
                locations, log, day, rows.sort_by([("arrival_ts", "ascending"), ("event_id", "ascending")])
            )
            waiting[log] = delivery
            done.injected[str(day)][log] = dict(sorted(what.items()))
            done.rows[log] += rows.num_rows
            done.impressions[log] += len(drawn[log].probability_N)
            done.clicks[log] += int(drawn[log].columns["click"].sum())
        done.items_born, done.items_ended = world.catalogue.num_born_later, world.catalogue.num_ended
    _replace_text(locations.truth / INJECTED_FILE, json.dumps(done.injected, indent=1) + "\n")
    return done


def _delivery(settings: SimulatorSettings, log: Log, day: date, number: int, impressions: Impressions) -> Delivery:
    # A generator apart from the impressions' own, so that fault rates change no impression.
    rng = np.random.default_rng([settings.world.seed, 10 + LOGS.index(log), number])
    event_ts_N = impressions.columns["event_ts"]
    late_N = late_mask(event_ts_N, settings.faults, rng)
    arrival_N = arrivals(event_ts_N, late_N, day_instant(day + timedelta(days=1)), rng)
    rows = landing.to_rows(log, {**impressions.columns, "arrival_ts": arrival_N})
    first_spare = (2 * number + LOGS.index(log)) * (_IDS_PER_DAY // 2) + _SPARE_IDS
    return deliver(rows, late_N, settings.faults, range(first_spare, first_spare + _IDS_PER_DAY // 2 - _SPARE_IDS), rng)


def _distinct_choices(count: int, width: int, share_I: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`count` x `width` items by share, no item twice in a row: repeated ones are drawn again until none is left."""
    edges_I = np.cumsum(share_I)
    edges_I /= edges_I[-1]
    chosen_RC = np.searchsorted(edges_I, rng.random((count, width)), side="right")
    while True:
        order_RC = np.argsort(chosen_RC, axis=1, kind="stable")
        sorted_RC = np.take_along_axis(chosen_RC, order_RC, axis=1)
        again_RC = np.zeros(chosen_RC.shape, dtype=bool)
        np.put_along_axis(again_RC, order_RC[:, 1:], sorted_RC[:, 1:] == sorted_RC[:, :-1], axis=1)
        if not again_RC.any():
            return chosen_RC
        chosen_RC[again_RC] = np.searchsorted(edges_I, rng.random(int(again_RC.sum())), side="right")


def _draw_actions(log: Log, click_N: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Strongest action of each impression: none without a click, at least `click` with one."""
    shares = _ACTIONS[log]
    return np.where(click_N == 1, rng.choice(list(shares), len(click_N), p=list(shares.values())), 0)


def _draw_dwell(click_N: np.ndarray, affinity_N: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Seconds, log-normal: about a second and a half without a click, longer with one and the better the item suits."""
    scale_N = np.where(click_N == 1, 3.0 + 0.3 * affinity_N, 0.4)
    return np.round(np.minimum(np.exp(scale_N + 0.7 * rng.standard_normal(len(click_N))), 3_600.0), 1)


def _write_truth(locations: Locations, day: date, drawn: dict[Log, Impressions]) -> None:
    table = pa.table(
        {
            "event_id": np.concatenate([drawn[log].columns["event_id"] for log in LOGS]),
            "log": pa.array(LOGS).take(
                pa.array(np.repeat(np.arange(len(LOGS)), [len(drawn[log].probability_N) for log in LOGS]))
            ),
            "probability": np.concatenate([drawn[log].probability_N for log in LOGS]),
        }
    )
    locations.truth.mkdir(parents=True, exist_ok=True)
    temporary = locations.truth / f".{day}.tmp"
    pa_parquet.write_table(table, temporary)
    temporary.replace(locations.truth / f"{day}.parquet")


def _replace_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
