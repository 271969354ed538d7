"""A small lake with real signal, written only by `deltalake`: for tests that need tables, and neither Spark nor a source.

Users and items have tastes; the natural and the ad log share them, unless `shared=False`. Histories, statistics and
samples are computed here by numpy, in one pass over all days, independent of the Spark jobs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from deltalake import write_deltalake
from numpy.typing import NDArray

from contracts.features import FEATURES, HISTORY_LENGTH, STATISTICS
from contracts.kinds import KINDS
from contracts.locations import Locations
from contracts.periods import PeriodSettings
from contracts.releases import MANIFEST
from contracts.settings import SETTINGS_FILE, Deployment
from contracts.tables import owner_key, table
from lake.run_folders import read_release, sha256_of

DAY_US = 86_400_000_000
NOW = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class World:
    """Sizes of the generated logs.

    Attributes:
        history_start, num_days: which days.
        shared: whether the ad log has the natural log's tastes and item qualities.
        natural_per_day, ad_per_day: impressions, a multiple of `candidates`.
        candidates: impressions of a request.
    """

    history_start: date = date(2026, 1, 1)
    num_days: int = 12
    actr_start: date = date(2026, 1, 9)
    periods: PeriodSettings = field(
        default_factory=lambda: PeriodSettings(anchor=date(2026, 1, 1), month_days=3, week_days=2)
    )
    replay_days: int = 3
    users: int = 40
    items: int = 30
    categories: int = 5
    natural_per_day: int = 240
    ad_per_day: int = 80
    candidates: int = 4
    feedback_delay_seconds: int = 600
    shared: bool = True
    seed: int = 7

    @property
    def days(self) -> list[date]:
        return [self.history_start + timedelta(days=number) for number in range(self.num_days)]

    def deployment(self) -> Deployment:
        return Deployment(
            history_start=self.history_start,
            actr_start=self.actr_start,
            periods=self.periods,
            replay_days=self.replay_days,
            feedback_delay_seconds=self.feedback_delay_seconds,
            source="fixture",
        )


def text_hash(item_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """What stands for the hash of an item's text here."""
    return item_ids + 1_000_000


def write_texts(locations: Locations, world: World) -> dict[int, str]:
    """Writes `behaviour_texts`: an item's text names its category; returns the texts by hash."""
    items = np.arange(world.items)
    hashes = text_hash(items * 11 + 3).tolist()
    texts = {of: f"Clicked film {item}, kind {item % world.categories}" for of, item in zip(hashes, items, strict=True)}
    write_table(locations, "behaviour_texts", pa.table({"text_hash": list(texts), "text": list(texts.values())}))
    return texts


def make_lake(home: Path, world: World) -> Deployment:
    """Writes settings, samples, histories and builds; returns the deployment."""
    home.mkdir(parents=True, exist_ok=True)
    deployment = world.deployment()
    (home / SETTINGS_FILE).write_text(deployment.to_toml())
    locations = Locations(home)
    log = pd.concat([_log(world, "natural"), _log(world, "ad")], ignore_index=True).sort_values(
        ["user_id", "event_us", "log", "event_id"], ignore_index=True
    )
    histories = _with_histories(world, log)
    _with_statistics(world, log)
    for name in ("natural", "ad"):
        write_table(locations, f"{name}_samples", _samples(log[log["log"] == name], f"{name}_samples"))
    write_table(locations, "user_histories", histories)
    tables = ("natural_samples", "ad_samples", "user_histories")
    write_builds(locations, [(name, day, f"{name}-{day}-{world.seed}") for name in tables for day in world.days])
    return deployment


def write_table(
    locations: Locations, name: str, rows: pa.Table, *, mode: Any = "append", predicate: str | None = None
) -> None:
    """Writes rows of a table; vectors without the strings of their ids have none, as where no setting publishes them."""
    contract = table(name)
    if {"vector", "string"} <= set(contract.column_names) and "string" not in rows.column_names:
        rows = rows.append_column("string", pa.nulls(len(rows), pa.string()))
    write_deltalake(
        str(locations.table(name)),
        rows.select(list(contract.column_names)),
        partition_by=list(contract.partition_columns),
        mode=mode,
        predicate=predicate,
    )


def _log(world: World, log: str) -> pd.DataFrame:
    rng = np.random.default_rng([world.seed, log == "ad"])
    tastes = np.random.default_rng([world.seed, 100 + (log == "ad" and not world.shared)])
    user_taste, item_taste = tastes.normal(0, 1, (world.users, 4)), tastes.normal(0, 1, (world.items, 4))
    quality = tastes.normal(0, 0.8, world.items)
    per_day = world.natural_per_day if log == "natural" else world.ad_per_day
    requests = world.num_days * per_day // world.candidates
    popularity = 1.0 / np.arange(1, world.items + 1) ** 0.5
    user = rng.choice(world.users, requests, p=_normalised(1.0 / np.arange(1, world.users + 1) ** 0.4))
    day = np.repeat(np.arange(world.num_days), per_day // world.candidates)
    second = rng.integers(0, 86_000, requests)
    request = np.repeat(np.arange(requests), world.candidates)
    position = np.tile(np.arange(world.candidates), requests)
    item = rng.choice(world.items, len(request), p=_normalised(popularity))
    user = user[request]
    affinity = 0.6 * (user_taste[user] * item_taste[item]).sum(1)
    logit = (-0.3 if log == "natural" else -1.5) + affinity + quality[item] - 0.15 * position
    probability = 1 / (1 + np.exp(-logit))
    start = int(datetime(*world.history_start.timetuple()[:3], tzinfo=UTC).timestamp()) * 1_000_000
    sample_us = start + day[request] * DAY_US + second[request] * 1_000_000
    rows = pd.DataFrame(
        {
            "log": log,
            "day": day[request],
            "event_id": rng.permutation(len(request)) + (10**9 if log == "ad" else 0),
            "request_id": request + (10**6 if log == "ad" else 0),
            "event_us": sample_us + position * 1_000_000,
            "sample_us": sample_us,
            "user_id": user * 7 + 1,
            "item_id": item * 11 + 3,
            "category_id": (item % world.categories) + 50,
            "user_segment_id": user % 3,
            "position": position,
            "hour": second[request] // 3600,
            "campaign_id": item % 6 + 900,
            "advertiser_id": item % 4 + 800,
            "probability": probability,
            "click": (rng.random(len(request)) < probability).astype(np.int64),
            "held_out": np.isin(request % 50, (7,)),
            "item_text_hash": text_hash(item * 11 + 3),
        }
    )
    for feature in FEATURES:  # one that was declared after this was written
        if feature.name not in rows:
            rows[feature.name] = item % 3
    return rows


def _normalised(weights: np.ndarray) -> np.ndarray:
    shares: np.ndarray = weights / weights.sum()
    return shares


def _with_histories(world: World, log: pd.DataFrame) -> pa.Table:
    """Adds `history_end`; returns `user_histories` of every user with an impression on the day."""
    start_us = int(log["sample_us"].min() // DAY_US * DAY_US)
    positive = log[log["click"] == 1].reset_index(drop=True)
    scale = (world.num_days + 400) * DAY_US
    keys = positive["user_id"].to_numpy() * scale + positive["event_us"].to_numpy() - start_us

    def before(user: np.ndarray, time_us: np.ndarray) -> np.ndarray:
        count: np.ndarray = np.searchsorted(keys, user * scale + np.maximum(time_us - start_us, 0), side="left")
        return count

    pairs = log[["day", "user_id"]].drop_duplicates().sort_values(["day", "user_id"], ignore_index=True)
    user, day_us = pairs["user_id"].to_numpy(), pairs["day"].to_numpy() * DAY_US + start_us
    first = np.maximum(before(user, np.full(len(user), start_us)), before(user, day_us) - HISTORY_LENGTH)
    last = before(user, day_us + DAY_US)
    starts = pairs.assign(first=first)
    joined = log[["day", "user_id", "sample_us"]].merge(starts, on=["day", "user_id"], how="left")
    log["history_end"] = (
        before(joined["user_id"].to_numpy(), joined["sample_us"].to_numpy() - world.feedback_delay_seconds * 1_000_000)
        - joined["first"].to_numpy()
    )
    log["history_end"] = log["history_end"].clip(lower=0)
    lengths = last - first
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    at = np.arange(offsets[-1]) + np.repeat(first - offsets[:-1], lengths)
    behaviours = pa.StructArray.from_arrays(
        [
            pa.array(positive["event_us"].to_numpy()[at], pa.timestamp("us", "UTC")),
            pa.array(positive["log"].to_numpy()[at], pa.string()),
            *(pa.array(positive[name].to_numpy()[at], pa.int64()) for name in ("event_id", "item_id", "category_id")),
            pa.array(np.ones(len(at)), pa.int32()),
            pa.array(np.full(len(at), 5.0), pa.float64()),
            pa.array(text_hash(positive["item_id"].to_numpy()[at]), pa.int64()),
        ],
        names=["event_ts", "log", "event_id", "item_id", "category_id", "action", "dwell_seconds", "text_hash"],
    )
    return pa.table(
        {
            "user_id": pa.array(user, pa.int64()),
            "behaviours": pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), behaviours),
            "ds": pa.array([world.days[number] for number in pairs["day"]], pa.date32()),
        }
    )


def _with_statistics(world: World, log: pd.DataFrame) -> None:
    for statistic in STATISTICS:
        entity = f"{statistic.entity}_id"
        codes, entities = pd.factorize(log[entity])
        of_log = (log["log"] == statistic.log).to_numpy()
        for name, weight in (
            (statistic.impressions, of_log),
            (statistic.clicks, of_log & (log["click"] == 1).to_numpy()),
        ):
            daily = np.zeros((len(entities), world.num_days + 1), np.int64)
            np.add.at(daily, (codes, log["day"].to_numpy() + 1), weight)
            total = np.cumsum(daily, axis=1)
            day = log["day"].to_numpy()
            log[name] = total[codes, day] - total[codes, np.maximum(day - statistic.window_days, 0)]


def _samples(log: pd.DataFrame, name: str) -> pa.Table:
    arrow = {
        "bigint": pa.int64(),
        "int": pa.int32(),
        "boolean": pa.bool_(),
        "timestamp": pa.timestamp("us", "UTC"),
        "date": pa.date32(),
    }
    source = {"event_ts": "event_us", "sample_ts": "sample_us", "ds": "event_us"}
    columns = {}
    for column in table(name).columns:
        values = log[source.get(column.name, column.name)].to_numpy()
        columns[column.name] = pa.array(
            (values // DAY_US).astype(np.int32) if column.name == "ds" else values, arrow[column.type]
        )
    return pa.table(columns)


def write_builds(locations: Locations, days: Iterable[tuple[str, date, str]], built: datetime = NOW) -> None:
    """Records days of tables as built: each a table, a day and the digest of its rows."""
    rows = [
        {
            "table_name": name,
            "owner": owner_key(ds=day),
            "row_cnt": 1,
            "digest": digest,
            "inputs": [],
            "counts": [],
            "code_version": "1",
            "built_ts": built,
        }
        for name, day, digest in days
    ]
    schema = pa.schema(
        [
            ("table_name", pa.string()),
            ("owner", pa.string()),
            ("row_cnt", pa.int64()),
            ("digest", pa.string()),
            ("inputs", pa.map_(pa.string(), pa.string())),
            ("counts", pa.map_(pa.string(), pa.int64())),
            ("code_version", pa.string()),
            ("built_ts", pa.timestamp("us", "UTC")),
        ]
    )
    write_table(locations, "builds", pa.Table.from_pylist(rows, schema))


def publish(home: Path, folders: Sequence[Path], now: datetime = NOW) -> None:
    """Writes the rows that make runs the active releases of their periods; stands in for publishing."""
    locations = Locations(home)
    strings = pa.map_(pa.string(), pa.string())
    release_schema = pa.schema(
        [
            ("release_id", pa.string()),
            ("kind", pa.string()),
            ("variant", pa.string()),
            ("period", pa.date32()),
            ("recipe", pa.string()),
            ("parents", strings),
            ("absent_parents", pa.list_(pa.string())),
            ("inputs", strings),
            ("model_version", pa.int32()),
            ("artifact", pa.string()),
            ("sha256", pa.string()),
            ("feature_set", pa.list_(pa.string())),
            ("metrics", pa.map_(pa.string(), pa.float64())),
            ("carries", pa.string()),
            ("created_ts", pa.timestamp("us", "UTC")),
        ]
    )
    activation_schema = pa.schema(
        [
            ("kind", pa.string()),
            ("variant", pa.string()),
            ("period", pa.date32()),
            ("release_id", pa.string()),
            ("activated_ts", pa.timestamp("us", "UTC")),
        ]
    )
    releases, activations = [], []
    for folder in folders:
        release = read_release(folder)
        names = {
            "release_id": release.release_id,
            "kind": release.kind,
            "variant": release.variant,
            "period": release.period,
        }
        releases.append(
            names
            | {
                "recipe": json.dumps(release.recipe),
                "parents": list(release.parents.items()),
                "absent_parents": list(release.absent_parents),
                "inputs": list(release.inputs.items()),
                "model_version": release.model_version,
                "artifact": str(folder.relative_to(home)),
                "sha256": sha256_of(folder / MANIFEST),
                "feature_set": list(release.feature_set),
                "metrics": list(release.metrics.items()),
                "carries": release.carries,
                "created_ts": now,
            }
        )
        activations.append(names | {"activated_ts": now})
    write_table(locations, "releases", pa.Table.from_pylist(releases, release_schema))
    for row in activations:
        there = locations.table("activations").exists()
        served = f"kind = '{row['kind']}' AND variant = '{row['variant']}' AND period = '{row['period']}'"
        write_table(
            locations,
            "activations",
            pa.Table.from_pylist([row], activation_schema),
            mode="overwrite" if there else "append",
            predicate=served if there else None,
        )


def train_quick(home: Path, kind: str, period: date, *more: str) -> None:
    """Runs the training command of a kind by the recipe `quick`, on the CPU; `more` are further options."""
    from training.cli import main

    main(
        [
            kind,
            KINDS[kind].period_option,
            str(period),
            "--home",
            str(home),
            "--recipe",
            "quick",
            "--device",
            "cpu",
            *more,
        ]
    )


def publish_staged(home: Path, kind: str, period: date) -> list[Path]:
    """Publishes the runs that a training task staged; returns their folders."""
    staged = json.loads(Locations(home).staged(kind, period).read_text())
    folders = [home / name for name in staged["runs"]]
    publish(home, folders)
    return folders
