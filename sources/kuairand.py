"""Landing files from the original files of KuaiRand-Pure (short videos; Gao et al., CIKM 2022).

The standard log's `tab` is the scenario that an impression was shown in: one becomes the natural log, a sparse one with
a low click rate stands in for the ad log. Choices that the original does not determine:

- Rows are not deduplicated: the raw log has duplicates, which ingestion drops. Keys are strings, which ingestion
  hashes: `event_id` is `user_video_time`, `request_id` is `user_tab_time`, with the time in milliseconds.
- A day is that of `time_ms` in Asia/Shanghai; the `date` column disagrees with it on some rows and is not used. Rows
  before 2022-04-25 (a few from the last minutes of the 24th) or after 2022-05-04 are left out, and counted.
- `click` is `is_click`. `action` is the strongest of click, like, comment, forward, follow, on clicked rows only: where
  a video was liked or the like without `is_click` (0.4 % of tab 1), the label keeps its meaning and the row counts as
  no behaviour; these rows are counted.
- `category_id` is the first `tag` plus 1; `user_segment_id` is `onehot_feat1` (seven groups of like size) plus 1, one
  of the only user attributes that are not activity statistics of the whole period; 0 means missing in both.
- `position` is not known: 0. `campaign_id` is the video, `advertiser_id` its author. A row arrives when it happens.
- There are no titles: `item_text` is null.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from contracts.errors import BadInput
from contracts.features import ACTIONS, LOGS, Log
from contracts.locations import Locations
from lake.progress import each
from sources import deployments, landing
from sources.original import Converted, find_folder, read_csv, whole_numbers, write_days

FOLDER_NAMES = ("kuairand-pure", "KuaiRand-Pure", "KuaiRand-Pure/data", "data")
LOG_PATTERN = "log_standard_*.csv"
USER_FILE = "user_features_pure.csv"
VIDEO_FILE = "video_features_basic_pure.csv"
SEGMENT_COLUMN = "onehot_feat1"
LONGEST_DWELL_SECONDS = 86_400.0
MILLISECONDS_PER_DAY = 86_400_000
# Actions beyond a click, from least to most.
STRONGER = {"is_like": "like", "is_comment": "comment", "is_forward": "forward", "is_follow": "follow"}
LOG_COLUMNS = ("user_id", "video_id", "time_ms", "is_click", *STRONGER, "play_time_ms", "tab")


@dataclass(frozen=True, kw_only=True)
class KuaiRandSettings:
    """Which scenario (`tab`) becomes which log."""

    natural_tab: int = 1
    ad_tab: int = 6

    def __post_init__(self) -> None:
        if self.natural_tab == self.ad_tab:
            raise BadInput(
                "kuairand",
                "--ad-tab",
                expected=f"another tab than the natural log's ({self.natural_tab})",
                found=self.ad_tab,
            )


def convert(data: Path, home: Path, settings: KuaiRandSettings) -> Converted:
    """Writes deployment settings and landing files.

    Raises:
        BadInput: a file or column is missing or malformed, a tab has no rows, or the home folder is another
            deployment's.
    """
    folder = find_folder(data, FOLDER_NAMES, LOG_PATTERN)
    impressions = _read_impressions(folder)
    first, last = deployments.KUAIRAND_DAYS
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    deployment = deployments.kuairand()
    start_ms = int(deployment.day_start(first).timestamp() * 1000)  # Shanghai has had no daylight saving since 1991
    impressions["day_number"] = (impressions["time_ms"] - start_ms) // MILLISECONDS_PER_DAY
    inside = impressions["day_number"].between(0, len(days) - 1)
    done = Converted()
    tabs: dict[Log, int] = {"natural": settings.natural_tab, "ad": settings.ad_tab}
    chosen: dict[Log, pd.DataFrame] = {}
    for log, tab in tabs.items():
        of_tab = impressions["tab"] == tab
        if not (of_tab & inside).any():
            raise BadInput(
                folder, f"--{log}-tab", expected=f"one of {sorted(impressions['tab'].unique().tolist())}", found=tab
            )
        chosen[log] = impressions[of_tab & inside]
        done.rows[log] = len(chosen[log])
        silent = int((_strongest(chosen[log]) > 1)[chosen[log]["is_click"] == 0].sum())
        done.notes.append(
            f"{log}: {len(chosen[log]):,} rows of tab {tab}, click rate {chosen[log]['is_click'].mean():.3f}, raw repeats "
            f"included; {int((of_tab & ~inside).sum())} rows outside {first} .. {last} left out; {silent} rows "
            "with a like or more but no click count as not clicked"
        )
    deployments.write(home, deployment)
    write_days(
        Locations(home),
        {log: landing.to_rows(log, _columns(chosen[log])) for log in LOGS},
        {log: chosen[log]["day_number"].to_numpy() for log in LOGS},
        days,
    )
    return done


def _read_impressions(folder: Path) -> pd.DataFrame:
    """All rows of the standard log, in order of time, with category, author and segment joined."""
    parts = []
    for path in each(sorted(folder.glob(LOG_PATTERN)), description="read", unit="file"):
        part = read_csv(path, LOG_COLUMNS)
        parts.append(pd.DataFrame({name: whole_numbers(part, name, path) for name in LOG_COLUMNS}))
    impressions = pd.concat(parts, ignore_index=True).sort_values(
        ["time_ms", "user_id", "video_id"], kind="stable", ignore_index=True
    )
    users = read_csv(folder / USER_FILE, ["user_id", SEGMENT_COLUMN])
    videos = read_csv(folder / VIDEO_FILE, ["video_id", "author_id"], ["tag"])
    users["user_segment_id"] = _code(users[SEGMENT_COLUMN])
    videos["category_id"] = _code(pd.to_numeric(videos["tag"].str.split(",").str[0], errors="coerce"))
    impressions["user_segment_id"] = _looked_up(users, "user_id", "user_segment_id", impressions["user_id"])
    impressions["category_id"] = _looked_up(videos, "video_id", "category_id", impressions["video_id"])
    impressions["author_id"] = _looked_up(videos, "video_id", "author_id", impressions["video_id"])
    return impressions


def _code(values: pd.Series) -> np.ndarray:
    """Codes (N) shifted by one, so that 0 means missing."""
    return (values.fillna(-1) + 1).to_numpy(dtype=np.int64)


def _looked_up(table: pd.DataFrame, key: str, column: str, wanted: pd.Series) -> np.ndarray:
    """`column` of each wanted key (N); 0 where the table lacks it."""
    values = table.drop_duplicates(key).set_index(key)[column]
    return values.reindex(wanted).fillna(0).to_numpy(dtype=np.int64)


def _strongest(rows: pd.DataFrame) -> np.ndarray:
    """Code of the strongest action of each row (N), whether or not it was clicked."""
    code_of = {name: code for code, name in ACTIONS.items()}
    strongest = np.where(rows["is_click"] == 1, code_of["click"], code_of["none"])
    for column, action in STRONGER.items():
        strongest = np.where(rows[column] == 1, np.maximum(strongest, code_of[action]), strongest)
    return strongest


def _columns(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Landing columns of one log; both logs' are given, `landing.to_rows` takes what the log has."""
    event_ts = rows["time_ms"].to_numpy().astype("datetime64[ms]")
    user, video, tab, time = (rows[name].astype(str) for name in ("user_id", "video_id", "tab", "time_ms"))
    click = rows["is_click"].to_numpy()
    return {
        "event_id": (user + "_" + video + "_" + time).to_numpy(),
        "event_ts": event_ts,
        "arrival_ts": event_ts,
        "request_id": (user + "_" + tab + "_" + time).to_numpy(),
        "user_id": rows["user_id"].to_numpy(),
        "item_id": rows["video_id"].to_numpy(),
        "category_id": rows["category_id"].to_numpy(),
        "user_segment_id": rows["user_segment_id"].to_numpy(),
        "position": np.zeros(len(rows), dtype=np.int64),
        "campaign_id": rows["video_id"].to_numpy(),
        "advertiser_id": rows["author_id"].to_numpy(),
        "click": click,
        "action": np.where(click == 1, _strongest(rows), 0),
        "dwell_seconds": np.minimum(rows["play_time_ms"].to_numpy() / 1000, LONGEST_DWELL_SECONDS),
    }
