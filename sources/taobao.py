"""Landing files from the original files of Ali_Display_Ad_Click (Taobao's display advertisements, May 2017).

`behavior_log.csv` (700 million rows) becomes the natural log, `raw_sample.csv` (26 million) the ad log;
`ad_feature.csv` and `user_profile.csv` are joined in memory. The large files are streamed: memory holds a batch and at
most one row group of each day, whatever their size. Choices that the original does not determine:

- A behaviour names no item, only category and brand. So the item is the pair: a hash of (category, brand), for a
  behaviour and for an advertisement alike, and the two domains share items. A missing brand is brand 0; an
  advertisement that `ad_feature.csv` lacks is item, category, campaign and advertiser 0. `campaign_id` is the campaign,
  `advertiser_id` the `customer`.
- `btag`: a page view (`pv`) is an impression: click 0, action none. `cart`, `fav` and `buy` are clicks, with the
  actions click, like and purchase: a cart has no action of its own. A label thus means "took it up", not "opened its
  page"; without it the log would have no unclicked impression, since pages that nobody opened are not in it. A view and
  what followed it stay two rows, as delivered. Rows of another `btag` are left out, and counted.
- `click` of an advertisement is `clk`, its action none or click. `position` (`pid` names a place on the site, not a
  rank) and `dwell_seconds` are not known: 0. When a row arrived and what an item reads like are not known: those
  columns are left out.
- `user_segment_id` is `cms_group_id` plus 1, 0 for a user whom `user_profile.csv` lacks.
- `event_id` is a hash of what identifies a row (user, second, btag, category, brand; or user, second, advertisement,
  pid), so that a duplicate row of the original is dropped by ingestion. A request is all that a user saw in one second.
- A day is that of the epoch second in Asia/Shanghai. Behaviours cover 2017-04-22 .. 2017-05-13, impressions the last
  eight of these days; rows of other days are left out, and counted. The ad days before get a file without rows.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from contracts.errors import BadInput
from contracts.features import ACTIONS, LOGS, Log
from contracts.locations import Locations
from contracts.periods import days_between
from contracts.settings import Deployment
from contracts.tables import LANDING_COLUMNS
from lake.progress import progress
from sources import deployments, landing
from sources.day_files import DayFiles
from sources.movielens import splitmix64
from sources.original import Converted, find_folder, read_csv, require_file, whole_numbers

FOLDER_NAMES = ("Ali_Display_Ad_Click", "ali_display_ad_click", "taobao")
BEHAVIOUR_FILE, IMPRESSION_FILE, AD_FILE, USER_FILE = (
    "behavior_log.csv",
    "raw_sample.csv",
    "ad_feature.csv",
    "user_profile.csv",
)
# Columns that are read; an empty field is a missing value.
BEHAVIOUR_COLUMNS = {
    "user": pa.int64(),
    "time_stamp": pa.int64(),
    "btag": pa.string(),
    "cate": pa.int64(),
    "brand": pa.int64(),
}
IMPRESSION_COLUMNS = {
    "user": pa.int64(),
    "time_stamp": pa.int64(),
    "adgroup_id": pa.int64(),
    "pid": pa.string(),
    "clk": pa.int64(),
}
CODE_OF_ACTION = {name: code for code, name in ACTIONS.items()}
ACTION_OF_BTAG = {"pv": "none", "cart": "click", "fav": "like", "buy": "purchase"}
POSITIVE = np.uint64(0x7FFFFFFFFFFFFFFF)
SECONDS_PER_DAY = 86_400
_PRIME = (1 << 61) - 1


@dataclass(frozen=True, kw_only=True)
class TaobaoSettings:
    """Which days are written.

    Attributes:
        first, last: the first and last day, both inclusive, within the 22 days of the behaviours; the last one has
            impressions.
        batch_bytes: number of bytes of a file that are read at once.
    """

    first: date = deployments.TAOBAO_DAYS[0]
    last: date = deployments.TAOBAO_DAYS[1]
    batch_bytes: int = 16 << 20

    def __post_init__(self) -> None:
        first, last = deployments.TAOBAO_DAYS
        if not first <= self.first <= last:
            raise BadInput("taobao", "--from", expected=f"a day of {first} .. {last}", found=self.first)
        least = max(self.first, deployments.TAOBAO_FIRST_AD_DAY)
        if not least <= self.last <= last:
            raise BadInput(
                "taobao",
                "--to",
                expected=f"a day of {least} .. {last}",
                found=self.last,
                hint=f"Impressions begin on {deployments.TAOBAO_FIRST_AD_DAY}.",
            )

    @property
    def days(self) -> list[date]:
        """All days that are written."""
        return list(days_between(self.first, self.last + timedelta(days=1)))

    @property
    def days_without_ads(self) -> list[date]:
        """The days before the first with advertisements."""
        return [day for day in self.days if day < deployments.TAOBAO_FIRST_AD_DAY]


@dataclass(frozen=True, kw_only=True)
class Lookup:
    """Attributes by key: `keys_K` ascending and distinct, each of `columns` K values."""

    keys_K: np.ndarray
    columns: dict[str, np.ndarray]

    @classmethod
    def of(cls, frame: pd.DataFrame, key: str) -> Lookup:
        """The first row of each key; missing values are 0."""
        frame = frame.drop_duplicates(key).sort_values(key).fillna(0)
        return cls(
            keys_K=frame[key].to_numpy(dtype=np.int64),
            columns={str(name): frame[name].to_numpy(dtype=np.int64) for name in frame.columns if name != key},
        )

    def find(self, wanted_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Place of each wanted key (N), and whether it is there (N)."""
        if len(self.keys_K) == 0:
            return np.zeros(len(wanted_N), dtype=np.int64), np.zeros(len(wanted_N), dtype=bool)
        place_N = np.minimum(np.searchsorted(self.keys_K, wanted_N), len(self.keys_K) - 1)
        return place_N, self.keys_K[place_N] == wanted_N

    def get(self, name: str, found: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """A column's values (N) at the places that `find` returned; 0 where the key is absent."""
        place_N, known_N = found
        if len(self.keys_K) == 0:
            return np.zeros(len(place_N), dtype=np.int64)
        return np.where(known_N, self.columns[name][place_N], 0)


@dataclass(frozen=True, kw_only=True)
class Original:
    """The original files: the two large ones by path, the two small ones read."""

    folder: Path
    ads: Lookup
    users: Lookup

    @classmethod
    def read(cls, data: Path) -> Original:
        """Opens the original files in `data`, checks their columns, and reads the small ones."""
        folder = find_folder(data, FOLDER_NAMES, IMPRESSION_FILE)
        for name, columns in ((BEHAVIOUR_FILE, BEHAVIOUR_COLUMNS), (IMPRESSION_FILE, IMPRESSION_COLUMNS)):
            _require_columns(folder / name, list(columns))
        ads = read_csv(folder / AD_FILE, ["adgroup_id", "cate_id", "campaign_id", "customer", "brand"])
        users = read_csv(folder / USER_FILE, ["userid", "cms_group_id"])
        users = users.assign(segment=users["cms_group_id"] + 1)[["userid", "segment"]]  # 0 means: not known
        whole_numbers(ads, "adgroup_id", folder / AD_FILE)
        whole_numbers(users, "userid", folder / USER_FILE)
        return cls(folder=folder, ads=Lookup.of(ads, "adgroup_id"), users=Lookup.of(users, "userid"))


def convert(data: Path, home: Path, settings: TaobaoSettings) -> Converted:
    """Writes deployment settings and landing files.

    Raises:
        BadInput: a file or column is missing or malformed, or the home folder is another deployment's.
    """
    original = Original.read(data)
    deployment = deployments.taobao(first=settings.first, last=settings.last)
    locations = Locations(home)
    done = Converted()
    deployments.write(home, deployment)
    with landing.exclusive(locations):
        for log in LOGS:
            counts: Counter[str] = Counter()
            with DayFiles(locations, log, settings.days, _schema(log)) as files:
                for batch in _batches(original.folder, log, settings.batch_bytes, counts):
                    batch, day_number_N = _inside(batch, log, settings, deployment, counts)
                    columns = _natural(batch, original, counts) if log == "natural" else _ad(batch, original, counts)
                    counts["clicks"] += int(columns["click"].sum())
                    files.write(
                        pa.table({name: columns[name] for name in _schema(log).names}, schema=_schema(log)),
                        day_number_N,
                    )
            done.rows[log] = sum(files.rows)
            done.notes.append(_note(log, done.rows[log], counts, settings))
    if settings.days_without_ads:
        done.notes.append(f"{settings.first} .. {settings.days_without_ads[-1]} have no advertisements")
    return done


def item_of(category_N: np.ndarray, brand_N: np.ndarray) -> np.ndarray:
    """The item (N) that stands for a category and brand; 0 where neither is known."""
    return np.where((category_N == 0) & (brand_N == 0), 0, hashed(category_N, brand_N))


def hashed(*parts_N: np.ndarray) -> np.ndarray:
    """An id (N) >= 0 for each combination of the integers, the same on every machine."""
    mixed_N = np.zeros(len(parts_N[0]), dtype=np.uint64)
    for part_N in parts_N:
        mixed_N = splitmix64(mixed_N ^ part_N.astype(np.uint64))
    ids_N: np.ndarray = (mixed_N & POSITIVE).astype(np.int64)
    return ids_N


def _inside(
    batch: pa.RecordBatch, log: Log, settings: TaobaoSettings, deployment: Deployment, counts: Counter[str]
) -> tuple[pa.RecordBatch, np.ndarray]:
    """The rows (N) of the days that are wanted, and each one's day by its number."""
    start = int(deployment.day_start(settings.first).timestamp())  # Shanghai has had no daylight saving since 1991
    day_number_N = (_numbers(batch["time_stamp"]) - start) // SECONDS_PER_DAY
    # An impression before the published days is none of the data set's, though behaviours begin earlier.
    earliest = len(settings.days_without_ads) if log == "ad" else 0
    inside_N = (day_number_N >= earliest) & (day_number_N < len(settings.days))
    counts["outside"] += int((~inside_N).sum())
    return batch.filter(pa.array(inside_N)), day_number_N[inside_N]


def _natural(batch: pa.RecordBatch, original: Original, counts: Counter[str]) -> dict[str, np.ndarray]:
    """Landing columns of a batch of behaviours."""
    tag_N = pc.index_in(batch["btag"], pa.array(list(ACTION_OF_BTAG))).to_numpy(zero_copy_only=False).astype(np.int64)
    user_N, second_N, category_N, brand_N = (_numbers(batch[name]) for name in ("user", "time_stamp", "cate", "brand"))
    action_N = np.array([CODE_OF_ACTION[name] for name in ACTION_OF_BTAG.values()])[tag_N]
    return _common(original, counts, user_N, second_N, category_N, brand_N) | {
        "event_id": hashed(user_N, second_N, tag_N, category_N, brand_N),
        "request_id": hashed(user_N, second_N),
        "click": (action_N > 0).astype(np.int64),
        "action": action_N,
    }


def _ad(batch: pa.RecordBatch, original: Original, counts: Counter[str]) -> dict[str, np.ndarray]:
    """Landing columns of a batch of impressions."""
    user_N, second_N, ad_N, click_N = (_numbers(batch[name]) for name in ("user", "time_stamp", "adgroup_id", "clk"))
    place_N = _text_codes(batch["pid"])
    ad_places = original.ads.find(ad_N)
    counts["unknown_ad"] += int((~ad_places[1]).sum())
    category_N, brand_N = original.ads.get("cate_id", ad_places), original.ads.get("brand", ad_places)
    return _common(original, counts, user_N, second_N, category_N, brand_N) | {
        "event_id": hashed(user_N, second_N, ad_N, place_N),
        "request_id": hashed(user_N, second_N),
        "campaign_id": original.ads.get("campaign_id", ad_places),
        "advertiser_id": original.ads.get("customer", ad_places),
        "click": click_N,
        "action": (click_N > 0).astype(np.int64),
    }


def _common(
    original: Original,
    counts: Counter[str],
    user_N: np.ndarray,
    second_N: np.ndarray,
    category_N: np.ndarray,
    brand_N: np.ndarray,
) -> dict[str, np.ndarray]:
    user_places = original.users.find(user_N)
    counts["unknown_user"] += int((~user_places[1]).sum())
    return {
        "event_ts": second_N.astype("datetime64[s]").astype("datetime64[ms]"),
        "user_id": user_N,
        "item_id": item_of(category_N, brand_N),
        "category_id": category_N,
        "user_segment_id": original.users.get("segment", user_places),
        "position": np.zeros(len(user_N), dtype=np.int64),
        "dwell_seconds": np.zeros(len(user_N)),
    }


def _schema(log: Log) -> pa.Schema:
    """Landing columns that this source knows, typed."""
    kinds = {
        "event_ts": pa.timestamp("ms", tz="UTC"),
        "dwell_seconds": pa.float64(),
        "click": pa.int32(),
        "action": pa.int32(),
    }
    return pa.schema(
        [
            (name, kinds.get(name, pa.int64()))
            for name in LANDING_COLUMNS[log]
            if name not in ("arrival_ts", "item_text")
        ]
    )


def _batches(folder: Path, log: Log, batch_bytes: int, counts: Counter[str]) -> Iterator[pa.RecordBatch]:
    """A large file's rows, a batch at a time, with a bar of the bytes read; counts rows that are no row of the file.

    Raises:
        BadInput: a field that should be a number is none.
    """
    name, columns = (BEHAVIOUR_FILE, BEHAVIOUR_COLUMNS) if log == "natural" else (IMPRESSION_FILE, IMPRESSION_COLUMNS)
    path = folder / name
    mib = max(path.stat().st_size >> 20, 1)
    with pa.OSFile(str(path)) as file, progress(total=mib, description=name, unit="MiB") as bar:
        try:
            reader = pa_csv.open_csv(
                file,
                read_options=pa_csv.ReadOptions(block_size=batch_bytes, use_threads=False),
                parse_options=pa_csv.ParseOptions(invalid_row_handler=_skipping(counts)),
                convert_options=pa_csv.ConvertOptions(column_types=columns, include_columns=list(columns)),
            )
            for batch in reader:
                counts["read"] += batch.num_rows
                whole = pc.and_(pc.is_valid(batch["user"]), pc.is_valid(batch["time_stamp"]))
                counts["malformed"] += batch.num_rows - (pc.sum(whole).as_py() or 0)
                bar.update(min(file.tell() >> 20, mib) - bar.n)
                batch = batch.filter(whole)
                if log == "natural":
                    known = pc.is_in(batch["btag"], pa.array(list(ACTION_OF_BTAG)))
                    counts["other_btag"] += batch.num_rows - (pc.sum(known).as_py() or 0)
                    batch = batch.filter(known)
                yield batch
        except pa.ArrowInvalid as error:
            raise BadInput(
                path,
                "rows",
                expected=f"columns {', '.join(f'{name} {kind}' for name, kind in columns.items())}",
                found=str(error).splitlines()[0],
            ) from None
        bar.update(mib - bar.n)


def _skipping(counts: Counter[str]) -> Callable[[pa_csv.InvalidRow], str]:
    def skip(_: pa_csv.InvalidRow) -> str:
        counts["read"] += 1
        counts["malformed"] += 1
        return "skip"

    return skip


def _numbers(column: pa.Array) -> np.ndarray:
    """Integers (N); 0 where missing."""
    values_N: np.ndarray = pc.fill_null(column, 0).to_numpy(zero_copy_only=False)
    return values_N


def _text_codes(column: pa.Array) -> np.ndarray:
    """A number (N) for each text, by its bytes: equal in every batch."""
    encoded = pc.fill_null(column, "").dictionary_encode()
    codes_K = np.array(
        [int.from_bytes(text.encode(), "little") % _PRIME for text in encoded.dictionary.to_pylist()], dtype=np.int64
    )
    return codes_K[encoded.indices.to_numpy(zero_copy_only=False)] if len(column) else np.zeros(0, dtype=np.int64)


def _require_columns(path: Path, columns: Sequence[str]) -> None:
    require_file(path)
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        header = next(csv.reader([file.readline(1 << 16)]), [])
    for name in columns:
        if name not in header:
            raise BadInput(path, name, expected=f"a column {name}", found=f"columns {', '.join(header) or 'none'}")


def _note(log: Log, rows: int, counts: Counter[str], settings: TaobaoSettings) -> str:
    left_out = [
        f"{counts['outside']:,} outside {settings.first} .. {settings.last}"
        if log == "natural"
        else f"{counts['outside']:,} outside {max(settings.first, deployments.TAOBAO_FIRST_AD_DAY)} .. {settings.last}",
        f"{counts['malformed']:,} without user or time, or with other fields than the header",
    ]
    if log == "natural":
        left_out.append(f"{counts['other_btag']:,} of another btag than {', '.join(ACTION_OF_BTAG)}")
    unknown = [f"{counts['unknown_user']:,} of a user that {USER_FILE} lacks"]
    if log == "ad":
        unknown.append(f"{counts['unknown_ad']:,} of an advertisement that {AD_FILE} lacks")
    rate = counts["clicks"] / max(rows, 1)
    return (
        f"{log}: {rows:,} of {counts['read']:,} rows, click rate {rate:.3f}; left out: {', '.join(left_out)}; "
        f"with features 0: {', '.join(unknown)}"
    )
