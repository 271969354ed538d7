"""Landing days of any size, made by numpy in parts: uniform users, items of falling popularity, five candidates a request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet

from contracts.features import LOGS, Log
from contracts.locations import Locations
from contracts.settings import SETTINGS_FILE, Deployment

CANDIDATES = 5
SHARES: dict[Log, float] = {"natural": 0.8, "ad": 0.2}
CLICK_RATES: dict[Log, float] = {"natural": 0.3, "ad": 0.1}
CATEGORIES = 40
PART_ROWS = 1_000_000
DAY_US = 86_400_000_000


@dataclass(frozen=True, kw_only=True)
class Size:
    """Of a made log: impressions a day over both logs, and who and what is in them."""

    rows: int
    users: int
    items: int = 5_000
    seed: int = 7


def make_home(locations: Locations, first: date, last: date) -> Deployment:
    """Writes the settings of a deployment whose history begins on `first`."""
    deployment = Deployment(history_start=first, actr_start=last, source="benchmark")
    locations.home.mkdir(parents=True, exist_ok=True)
    (locations.home / SETTINGS_FILE).write_text(deployment.to_toml())
    return deployment


def write_landing(locations: Locations, day: date, size: Size) -> int:
    """Writes the landing files of one day, Parquet; returns their bytes."""
    written = 0
    for log in LOGS:
        folder = locations.landing_day(log, day)
        folder.mkdir(parents=True, exist_ok=True)
        for number, part in enumerate(parts_of_day(log, day, size)):
            path = folder / f"part-{number:05d}.parquet"
            pa_parquet.write_table(part, path)
            written += path.stat().st_size
    return written


def parts_of_day(log: Log, day: date, size: Size) -> Iterator[pa.Table]:
    """One log's impressions of a day, in order of time, a million rows at a time at most."""
    requests = int(size.rows * SHARES[log]) // CANDIDATES
    per_part = PART_ROWS // CANDIDATES
    for number, begin in enumerate(range(0, requests, per_part)):
        yield _part(log, day, size, begin, min(per_part, requests - begin), requests, number)


def _part(log: Log, day: date, size: Size, begin: int, count: int, requests: int, number: int) -> pa.Table:
    rng = np.random.default_rng([size.seed, LOGS.index(log), day.toordinal(), number])
    request = np.repeat(np.arange(begin, begin + count), CANDIDATES)
    position = np.tile(np.arange(CANDIDATES), count)
    start = (
        int(datetime(day.year, day.month, day.day).replace(tzinfo=None).toordinal() - date(1970, 1, 1).toordinal())
        * DAY_US
    )
    event_us = (
        start
        + np.repeat(np.arange(begin, begin + count) * (DAY_US - 10_000_000) // requests, CANDIDATES)
        + position * 1000
    )
    user = np.repeat(rng.integers(0, size.users, count), CANDIDATES)
    item = np.minimum((size.items * rng.random(len(request)) ** 2).astype(np.int64), size.items - 1)
    click = (rng.random(len(request)) < CLICK_RATES[log]).astype(np.int64)
    base = (day - date(2020, 1, 1)).days * 200_000_000 + LOGS.index(log) * 100_000_000
    texts = pa.array([f"article {number}, made for a benchmark" for number in range(size.items)])
    columns = {
        "event_id": base + request * CANDIDATES + position,
        "event_ts": pa.array(event_us, pa.timestamp("us", "UTC")),
        "request_id": base + request,
        "user_id": user,
        "item_id": item,
        "category_id": item % CATEGORIES,
        "user_segment_id": user % 8,
        "position": position,
        **({"campaign_id": item % 200, "advertiser_id": item % 50} if log == "ad" else {}),
        "click": click,
        "action": click,
        "dwell_seconds": np.round(rng.exponential(5.0, len(request)), 1),
        "item_text": pa.DictionaryArray.from_arrays(pa.array(item, pa.int32()), texts),
    }
    return pa.table(columns)


def days_before(day: date, count: int) -> list[date]:
    """The `count` days before `day`, oldest first."""
    return [day - timedelta(days=back) for back in range(count, 0, -1)]
