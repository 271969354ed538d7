"""Histories, statistics and samples of a small log, recomputed in full by pandas: what the Spark jobs are compared with."""

from __future__ import annotations

from datetime import date, timedelta
from itertools import product
from typing import Any

import pandas as pd
import pytest

from contracts.features import ENTITIES, HISTORY_LENGTH, LOGS, SMOOTHING_IMPRESSIONS, STATISTIC_WINDOWS, WHOLE_LOG
from contracts.locations import Locations
from contracts.settings import Deployment
from contracts.tables import TABLES
from lake.reader import LakeReader


def logs(locations: Locations) -> pd.DataFrame:
    """All kept rows of both logs, with a column `log`."""
    reader = LakeReader(locations)
    frames: list[pd.DataFrame] = [reader.read(f"{log}_log").to_pandas().assign(log=log) for log in LOGS]
    return pd.concat(frames, ignore_index=True)


def known(rows: pd.DataFrame, deployment: Deployment) -> pd.Series:
    """When each row is known to a request, less the feedback delay: its event's time, unless it arrived later than the delay after it."""
    arrived = pd.to_datetime(rows["arrival_ts"], utc=True) - pd.Timedelta(seconds=deployment.feedback_delay_seconds)
    return rows["event_ts"].where(~(arrived > rows["event_ts"]), arrived)


def histories(rows: pd.DataFrame, day: date, deployment: Deployment) -> dict[int, list[int]]:
    """user_id -> event ids, oldest first: the last 200 positives known before the day, and those of the day or first known on it."""
    rows = rows.assign(known=known(rows, deployment)).sort_values(["known", "log", "event_id"])
    start, end = (pd.Timestamp(deployment.day_start(one)) for one in (day, day + timedelta(days=1)))
    found = {}
    for _, of_user in rows[rows["ds"] <= day].groupby("user_id"):
        if not (of_user["ds"] == day).any():
            continue
        positives = of_user[of_user["action"] >= 1]
        is_before = (positives["ds"] < day) & (positives["known"] < start)
        before, today = positives[is_before].tail(HISTORY_LENGTH), positives[~is_before & (positives["known"] < end)]
        both = pd.concat([before, today]).sort_values(["known", "log", "event_id"])
        if len(both):
            found[int(of_user["user_id"].iloc[0])] = both["event_id"].tolist()
    return found


def statistics(rows: pd.DataFrame, day: date) -> dict[tuple[str, int], dict[str, Any]]:
    """(entity, id) -> counts and smoothed rates over each window before the day, by scanning the whole log."""
    rows = rows.assign(all_id=0)
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for log, days in product(LOGS, STATISTIC_WINDOWS):
        window = rows[(rows["log"] == log) & (rows["ds"] < day) & (rows["ds"] >= day - timedelta(days=days))]
        prior = window["click"].mean()
        for entity in (*ENTITIES, WHOLE_LOG):
            counted = window.groupby(f"{entity}_id")["click"].agg(["size", "sum"])
            for entity_id in rows[rows["ds"] == day][f"{entity}_id"].unique():
                impressions, clicks = counted.loc[entity_id] if entity_id in counted.index else (0, 0)
                figures = found.setdefault((entity, int(entity_id)), {})
                figures[f"{log}_impressions_{days}d_cnt"], figures[f"{log}_clicks_{days}d_cnt"] = (
                    int(impressions),
                    int(clicks),
                )
                rate = (clicks + SMOOTHING_IMPRESSIONS * prior) / (impressions + SMOOTHING_IMPRESSIONS)
                figures[f"{log}_smoothed_ctr_{days}d"] = None if len(window) == 0 else pytest.approx(rate, abs=1e-12)
    return found


def history_ends(rows: pd.DataFrame, log: str, day: date, deployment: Deployment) -> dict[int, int]:
    """event_id -> number of behaviours of the user's history of the day that its sample may see."""
    stored = histories(rows, day, deployment)
    times = rows.assign(known=known(rows, deployment)).set_index("event_id")["known"]
    of_day = rows[(rows["log"] == log) & (rows["ds"] == day) & ~rows["late"]]
    delay = pd.Timedelta(seconds=deployment.feedback_delay_seconds)
    found = {}
    for _, request in of_day.groupby(["request_id", "user_id"]):
        start = request["event_ts"].min()
        visible = sum(times[event] + delay < start for event in stored.get(int(request["user_id"].iloc[0]), []))
        found.update(dict.fromkeys(request["event_id"].tolist(), visible))
    return found


def content(locations: Locations, name: str, **where: Any) -> list[str]:
    """A table's non-volatile columns as sorted text, one line a row: equal for equal tables."""
    rows = LakeReader(locations).read(name, columns=TABLES[name].stable_columns, where=where or None)
    return sorted(map(str, rows.to_pylist()))
