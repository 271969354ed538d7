"""Landing files from the original files of MovieLens-1M, made cross-domain.

The ad log is the share `ad_share` of the ratings of a hashed third of the movies, picked by a hash of (user, movie) and
taken out of the natural log. A natural impression is clicked when rated 4 or 5, an ad one when rated 5.

The original's time is odd (most ratings fall into a few months, and a user rates nearly all within an hour), so that
the ratings, ordered by time, user and movie, are laid on days of equal count, spread evenly over each day. Ratings of
one user in one original second are one request (cut where a day ends); they keep one instant, so that none of them
knows another.

`event_id` is the rating's place in this order; `category_id` the first genre's place in the alphabetical list, from 1;
`user_segment_id` the occupation; `campaign_id` the movie, `advertiser_id` the category; `position` and `dwell_seconds`
are not known: 0. `action` is 2 (like) for a clicked rating of 5, 1 for another click. `item_text` is title and genres
as they stand.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from contracts.errors import BadInput
from contracts.features import LOGS
from contracts.locations import Locations
from lake.progress import progress
from sources import deployments, landing
from sources.original import Converted, find_folder, require_file, write_days

FOLDER_NAMES = ("movielens-1m", "ml-1m")
GENRES = (
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
AD_ITEM_ONE_IN = 3
MILLISECONDS_PER_DAY = 86_400_000
RATINGS_FIELDS = ("user", "item", "rating", "timestamp")
MOVIES_FIELDS = ("item", "title", "genres")
USERS_FIELDS = ("user", "gender", "age", "occupation", "zip")


@dataclass(frozen=True, kw_only=True)
class MovieLensSettings:
    """How ratings become logs.

    Attributes:
        ad_share: share of the advertised movies' ratings that make the ad log.
        equal_days: number of days of equal count.
        start: the first of them.
    """

    ad_share: float = 0.12
    equal_days: int = 30
    start: date = date(2001, 1, 1)

    def __post_init__(self) -> None:
        if not 0 < self.ad_share < 1:
            raise BadInput("movielens", "--ad-share", expected="a share between 0 and 1", found=self.ad_share)
        if self.equal_days < 1:
            raise BadInput("movielens", "--equal-days", expected="a number >= 1", found=self.equal_days)


def convert(data: Path, home: Path, settings: MovieLensSettings) -> Converted:
    """Writes deployment settings and landing files.

    Raises:
        BadInput: a file is missing or malformed, or the home folder is another deployment's.
    """
    ratings = _read_ratings(find_folder(data, FOLDER_NAMES, "ratings.dat"))
    if len(ratings) < settings.equal_days:
        raise BadInput(
            "movielens",
            "--equal-days",
            expected=f"at most one day per rating ({len(ratings)})",
            found=settings.equal_days,
        )
    columns = _columns(ratings, settings)
    is_ad = _is_ad(ratings["user"].to_numpy(), ratings["item"].to_numpy(), settings.ad_share)
    click = np.where(is_ad, ratings["rating"] == 5, ratings["rating"] >= 4).astype(np.int64)
    columns |= {"click": click, "action": np.where(click == 0, 0, np.where(ratings["rating"] == 5, 2, 1))}
    day_number = _day_numbers(len(ratings), settings.equal_days)
    done = Converted()
    rows, numbers = {}, {}
    for log in LOGS:
        of_log = is_ad if log == "ad" else ~is_ad
        rows[log] = landing.to_rows(log, {name: values[of_log] for name, values in columns.items()})
        numbers[log] = day_number[of_log]
        done.rows[log] = int(of_log.sum())
        done.notes.append(f"{log}: {done.rows[log]:,} rows, click rate {click[of_log].mean():.3f}")
    days = [settings.start + timedelta(days=number) for number in range(settings.equal_days)]
    deployments.write(home, deployments.movielens(start=settings.start, days=settings.equal_days))
    write_days(Locations(home), rows, numbers, days)
    return done


def splitmix64(values: np.ndarray) -> NDArray[np.uint64]:
    """A well-mixed 64-bit hash of integers (N), the same everywhere. Source: Steele, Lea and Flood, OOPSLA 2014."""
    mixed: NDArray[np.uint64] = values.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _is_ad(user_N: np.ndarray, item_N: np.ndarray, share: float) -> NDArray[np.bool_]:
    """Which ratings (N) make the ad log."""
    advertised_N: NDArray[np.bool_] = splitmix64(item_N) % np.uint64(AD_ITEM_ONE_IN) == 0
    # The item is hashed before it is joined to the user: small ids must not collide.
    pair_N = splitmix64(splitmix64(item_N) ^ user_N.astype(np.uint64))
    return advertised_N & (pair_N < np.uint64(int(share * 2**64)))


def _day_numbers(count: int, days: int) -> np.ndarray:
    """Day of each place (N) in the order of time: counts differ by one at most."""
    return np.arange(count) * days // count


def _columns(ratings: pd.DataFrame, settings: MovieLensSettings) -> dict[str, np.ndarray]:
    """Landing columns that both logs have in common, N values each; `ratings` in order of time, user and item."""
    count = len(ratings)
    day_N = _day_numbers(count, settings.equal_days)
    first_of_day_N = np.searchsorted(day_N, day_N)
    per_day_N = np.bincount(day_N, minlength=settings.equal_days)[day_N]
    keys = (ratings["user"].to_numpy(), ratings["timestamp"].to_numpy(), day_N)
    begins_N = np.concatenate([[True], np.any([key[1:] != key[:-1] for key in keys], axis=0)])
    request_N = np.cumsum(begins_N) - 1
    place_N = np.flatnonzero(begins_N)[request_N] - first_of_day_N  # that of the request's first row
    event_ms_N = day_N * MILLISECONDS_PER_DAY + place_N * MILLISECONDS_PER_DAY // per_day_N
    event_ts_N = np.datetime64(settings.start, "ms") + event_ms_N.astype("timedelta64[ms]")
    category_N = ratings["category"].to_numpy()
    item_N = ratings["item"].to_numpy()
    unknown_N = np.zeros(count, dtype=np.int64)
    return {
        "event_id": np.arange(count),
        "event_ts": event_ts_N,
        "arrival_ts": event_ts_N,
        "request_id": request_N,
        "user_id": ratings["user"].to_numpy(),
        "item_id": item_N,
        "category_id": category_N,
        "user_segment_id": ratings["occupation"].to_numpy(),
        "position": unknown_N,
        "campaign_id": item_N,
        "advertiser_id": category_N,
        "dwell_seconds": unknown_N.astype(np.float64),
        "item_text": ratings["text"].to_numpy(),
    }


def _read_ratings(folder: Path) -> pd.DataFrame:
    """Ratings in order of time, user and item, with the user's occupation and the item's category and text."""
    bar = progress(total=3, description="read", unit="file")
    with bar:
        ratings = _read_dat(folder / "ratings.dat", RATINGS_FIELDS, numbers=RATINGS_FIELDS)
        bar.update()
        users = _read_dat(folder / "users.dat", USERS_FIELDS, numbers=("user", "occupation"))
        bar.update()
        movies = _read_dat(folder / "movies.dat", MOVIES_FIELDS, numbers=("item",))
        bar.update()
    codes = {genre: place for place, genre in enumerate(GENRES, start=1)}
    movies["category"] = movies["genres"].str.split("|").str[0].map(codes)
    if (unknown := movies["category"].isna()).any():
        row = int(np.flatnonzero(unknown.to_numpy())[0])
        raise BadInput(
            f"{folder / 'movies.dat'}:{row + 1}",
            "genres",
            expected=f"one of {', '.join(GENRES)}",
            found=repr(movies["genres"].iloc[row]),
        )
    movies["text"] = movies["title"] + ", " + movies["genres"]
    ratings = _joined(
        _joined(ratings, users[["user", "occupation"]], "user", folder),
        movies[["item", "text", "category"]],
        "item",
        folder,
    )
    return ratings.sort_values(["timestamp", "user", "item"], kind="stable", ignore_index=True)


def _joined(ratings: pd.DataFrame, other: pd.DataFrame, key: str, folder: Path) -> pd.DataFrame:
    joined = ratings.merge(other, on=key, how="left", validate="many_to_one")
    column = other.columns[-1]
    if (missing := joined[column].isna()).any():
        raise BadInput(
            folder / "ratings.dat", key, expected=f"a {key} that {key}s list", found=int(joined[key][missing].iloc[0])
        )
    joined[column] = joined[column].astype(np.int64)
    return joined


def _read_dat(path: Path, fields: tuple[str, ...], numbers: tuple[str, ...]) -> pd.DataFrame:
    """A file of fields separated by `::`, latin-1, without a header.

    Raises:
        BadInput: the file is missing, or a line has other fields; names the file, the line and the field.
    """
    require_file(path)
    # One tab instead of two colons: readers of multi-character separators are fifty times slower.
    text = path.read_bytes().replace(b"::", b"\t")
    frame: pd.DataFrame | None = None
    try:
        types = {name: pa.int64() if name in numbers else pa.string() for name in fields}
        frame = pa_csv.read_csv(
            io.BytesIO(text),
            read_options=pa_csv.ReadOptions(column_names=list(fields), encoding="latin-1"),
            parse_options=pa_csv.ParseOptions(delimiter="\t", quote_char=False),
            convert_options=pa_csv.ConvertOptions(column_types=types, strings_can_be_null=False),
        ).to_pandas()
    except pa.ArrowInvalid:
        pass
    if frame is None or frame[list(numbers)].isna().any(axis=None):
        raise _first_fault(path, text, fields, numbers)
    return frame


def _first_fault(path: Path, text: bytes, fields: tuple[str, ...], numbers: tuple[str, ...]) -> BadInput:
    """The error for the first line that does not fit; it is slow, and called only when there is one."""
    for number, line in enumerate(text.decode("latin-1").split("\n"), start=1):
        values = line.rstrip("\r").split("\t")
        if values == [""]:
            continue
        if len(values) != len(fields):
            return BadInput(
                f"{path}:{number}", "fields", expected=f"{'::'.join(fields)}", found=repr("::".join(values))
            )
        for name, value in zip(fields, values, strict=True):
            if name in numbers and re.fullmatch("-?[0-9]{1,18}", value) is None:
                return BadInput(f"{path}:{number}", name, expected="a whole number", found=repr(value))
    return BadInput(path, "file", expected=f"lines of {'::'.join(fields)}", found="no such line")
