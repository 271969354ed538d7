"""A KuaiRand day in pandas: rows kept once, histories, statistics, samples; reads the landing files of all days up to it."""

from __future__ import annotations

import sys
from datetime import date, timedelta
from pathlib import Path

import pandas as pd

from contracts.features import ENTITIES, HISTORY_LENGTH, LOGS, STATISTIC_WINDOWS
from contracts.locations import Locations
from contracts.settings import Deployment


def main(home: Path, day: date, out: Path) -> None:
    locations, deployment = Locations(home), Deployment.load(home)
    out.mkdir(parents=True, exist_ok=True)
    rows = pd.concat([read_log(locations, log, day) for log in LOGS], ignore_index=True)
    positives = rows[rows["action"] >= 1].sort_values(["user_id", "event_ts", "log", "event_id"])
    histories = pd.concat(
        [positives[positives["ds"] < day].groupby("user_id").tail(HISTORY_LENGTH), positives[positives["ds"] == day]]
    )
    of_day = rows[rows["ds"] == day]
    histories = histories[histories["user_id"].isin(of_day["user_id"])].sort_values(
        ["user_id", "event_ts", "log", "event_id"]
    )
    histories.to_parquet(out / "user_histories.parquet")
    statistics = {entity: window_sums(rows, of_day, f"{entity}_id", day) for entity in ENTITIES}
    for entity, table in statistics.items():
        table.to_parquet(out / f"{entity}_statistics.parquet")
    for log in LOGS:
        samples = of_day[of_day["log"] == log].copy()
        samples["sample_ts"] = samples.groupby(["request_id", "user_id"])["event_ts"].transform("min")
        samples = with_history_end(samples, histories, deployment.feedback_delay_seconds)
        for entity, table in statistics.items():
            samples = samples.merge(
                table.add_prefix(f"{entity}_"), left_on=f"{entity}_id", right_index=True, how="left"
            )
        samples.to_parquet(out / f"{log}_samples.parquet")


def read_log(locations: Locations, log: str, day: date) -> pd.DataFrame:
    folders = sorted(path for path in (locations.landing / log).iterdir() if path.name <= str(day))
    rows = pd.concat(
        [
            pd.read_csv(folder / "part-00000.csv", parse_dates=["event_ts"]).assign(ds=date.fromisoformat(folder.name))
            for folder in folders
        ],
        ignore_index=True,
    )
    good = (
        (rows["user_id"] >= 0)
        & (rows["item_id"] >= 0)
        & rows["click"].isin([0, 1])
        & rows["dwell_seconds"].between(0, 86_400)
    )
    return rows[good].drop_duplicates("event_id").assign(log=log)


def window_sums(rows: pd.DataFrame, of_day: pd.DataFrame, key: str, day: date) -> pd.DataFrame:
    table = pd.DataFrame(index=pd.Index(of_day[key].unique(), name=key))
    for log in LOGS:
        for window in STATISTIC_WINDOWS:
            inside = rows[(rows["log"] == log) & (rows["ds"] < day) & (rows["ds"] >= day - timedelta(days=window))]
            counted = inside.groupby(key)["click"].agg(["size", "sum"]).reindex(table.index, fill_value=0)
            table[f"{log}_impressions_{window}d_cnt"], table[f"{log}_clicks_{window}d_cnt"] = (
                counted["size"],
                counted["sum"],
            )
    return table


def with_history_end(samples: pd.DataFrame, histories: pd.DataFrame, delay_seconds: int) -> pd.DataFrame:
    """How many behaviours are older than the request by more than the delay, by one merge in time."""
    known = histories[["user_id", "event_ts"]].assign(seen=histories.groupby("user_id").cumcount() + 1)
    known["event_ts"] += pd.Timedelta(seconds=delay_seconds)
    merged = pd.merge_asof(
        samples.sort_values("sample_ts"),
        known.sort_values("event_ts").rename(columns={"event_ts": "known_ts"}),
        left_on="sample_ts",
        right_on="known_ts",
        by="user_id",
        allow_exact_matches=False,
    )
    return merged.assign(history_end=merged["seen"].fillna(0).astype(int)).drop(columns=["seen", "known_ts"])


if __name__ == "__main__":
    main(Path(sys.argv[1]), date.fromisoformat(sys.argv[2]), Path(sys.argv[3]))
