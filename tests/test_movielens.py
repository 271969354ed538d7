"""The MovieLens adapter: which ratings are ads, equal days, requests that do not know themselves."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from contracts.errors import BadInput
from contracts.features import LOGS
from contracts.settings import DATA_VARIABLE
from sources import cli, deployments, movielens
from sources.movielens import MovieLensSettings

SMALL = MovieLensSettings(ad_share=0.5, equal_days=4)
RATINGS = 602  # not a multiple of 4


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twenty users who rate forty movies in bursts, several within a second, two users at a time."""
    rng = np.random.default_rng(1)
    pairs = rng.permutation(20 * 40)[:RATINGS]
    user, item = pairs // 40 + 1, pairs % 40 + 1
    second = 978300000 + user // 2 * 50 + rng.integers(0, 15, RATINGS)
    folder = tmp_path / "data" / "ml-1m"
    folder.mkdir(parents=True)
    lines = (f"{u}::{i}::{rng.integers(1, 6)}::{s}" for u, i, s in zip(user, item, second, strict=True))
    (folder / "ratings.dat").write_text("\n".join(lines) + "\n")
    (folder / "users.dat").write_text("".join(f"{u}::F::25::{u}::00000\n" for u in range(1, 21)))
    genres = ("Drama", "Action|Drama", "Western")
    movies = "".join(f'{i}::"Caf\u00e9, {i} (1995)::{genres[i % 3]}\n' for i in range(1, 41))
    (folder / "movies.dat").write_bytes(movies.encode("latin-1"))
    return tmp_path / "data"


def written(home: Path, log: str) -> pd.DataFrame:
    folders = sorted((home / "landing" / log).iterdir())
    return pd.concat(
        [pd.read_csv(folder / "part-00000.csv").assign(day=folder.name) for folder in folders], ignore_index=True
    )


@pytest.fixture
def logs(data: Path, tmp_path: Path) -> pd.DataFrame:
    movielens.convert(data, tmp_path / "home", SMALL)
    return pd.concat([written(tmp_path / "home", log).assign(log=log) for log in LOGS]).sort_values(
        "event_id", ignore_index=True
    )


def original(data: Path) -> pd.DataFrame:
    return pd.DataFrame(
        [tuple(map(int, line.split("::"))) for line in (data / "ml-1m" / "ratings.dat").read_text().splitlines()],
        columns=["user_id", "item_id", "rating", "second"],
    ).sort_values(["second", "user_id", "item_id"], ignore_index=True)


def test_hash_gives_the_published_values() -> None:
    # First output of the reference generator for the seeds 0 and 1234567.
    assert movielens.splitmix64(np.array([0, 1234567])).tolist() == [0xE220A8397B1DCDAF, 6457827717110365317]


def test_every_rating_is_in_one_log_in_order_of_time(data: Path, logs: pd.DataFrame) -> None:
    expected = original(data)
    assert logs["event_id"].tolist() == list(range(RATINGS))
    assert logs[["user_id", "item_id"]].equals(expected[["user_id", "item_id"]])
    liked = np.where(logs["log"] == "ad", expected["rating"] == 5, expected["rating"] >= 4)
    assert (logs["click"] == liked).all()
    assert (logs["action"] == np.where(liked, np.where(expected["rating"] == 5, 2, 1), 0)).all()
    assert (logs["user_segment_id"] == logs["user_id"]).all()
    assert set(zip(logs["item_id"] % 3, logs["category_id"], strict=True)) == {(0, 8), (1, 1), (2, 18)}
    genres = logs["item_id"].mod(3).map({0: "Drama", 1: "Action|Drama", 2: "Western"})
    assert (logs["item_text"] == '"Caf\u00e9, ' + logs["item_id"].astype(str) + " (1995), " + genres).all()
    ads = logs[logs["log"] == "ad"]
    assert (ads["campaign_id"] == ads["item_id"]).all()
    assert (ads["advertiser_id"] == ads["category_id"]).all()
    advertised = logs[movielens.splitmix64(logs["item_id"].to_numpy()) % np.uint64(3) == 0]
    assert set(ads["item_id"]) <= set(advertised["item_id"])
    assert 0.4 < len(ads) / len(advertised) < 0.6


def test_days_have_equal_counts_and_even_times(logs: pd.DataFrame) -> None:
    assert sorted(logs.groupby("day").size()) == [150, 150, 151, 151]
    assert sorted(logs["day"].unique()) == ["2001-01-01", "2001-01-02", "2001-01-03", "2001-01-04"]
    times = pd.to_datetime(logs["event_ts"])
    assert times.is_monotonic_increasing
    assert (times.dt.strftime("%Y-%m-%d") == logs["day"]).all()
    first = logs.groupby("day")["event_ts"].min()
    assert (first == first.index + "T00:00:00.000Z").all()
    assert times.groupby(logs["day"]).max().dt.hour.min() >= 22


def test_a_request_is_a_user_and_second_and_later_than_all_before(data: Path, logs: pd.DataFrame) -> None:
    keys = pd.DataFrame({"user": logs["user_id"], "second": original(data)["second"], "day": logs["day"]})
    expected = keys.groupby(["user", "second", "day"]).ngroup()
    pairs = set(zip(logs["request_id"], expected, strict=True))
    assert len(pairs) == logs["request_id"].nunique() == expected.nunique()
    assert (logs.groupby("request_id")["event_ts"].nunique() == 1).all(), (
        "its rows share one instant, so that none knows another"
    )
    assert logs.groupby("request_id")["log"].nunique().max() == 2, "the fixture must hold requests of both logs"
    by_request = logs.groupby("request_id")["event_ts"].min().sort_index()
    assert by_request.is_monotonic_increasing
    assert by_request.is_unique


def test_a_rerun_gives_equal_bytes(data: Path, tmp_path: Path) -> None:
    def contents(home: Path) -> dict[str, bytes]:
        return {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*.csv")}

    for name in ("one", "two", "two"):
        movielens.convert(data, tmp_path / name, SMALL)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert len(contents(tmp_path / "one")) == 8


@pytest.mark.parametrize(
    ("days", "month", "week"),
    [(119, (date(2001, 1, 6), 5), (date(2001, 1, 6), 5)), (120, (date(2001, 2, 1), 28), (date(2001, 1, 8), 7))],
)
def test_months_and_weeks_are_the_calendars_where_there_are_days_enough(
    days: int, month: tuple[date, int], week: tuple[date, int]
) -> None:
    settings = deployments.movielens(start=date(2001, 1, 1), days=days).periods
    found = [
        (one.start, len(one.days()))
        for one in (settings.containing("month", month[0]), settings.containing("week", week[0]))
    ]
    assert found == [month, week]


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("ratings.dat", "1::2::five::978300000", r"ratings\.dat:603: rating: expected a whole number, found 'five'"),
        (
            "ratings.dat",
            "1::2::5",
            r"ratings\.dat:603: fields: expected user::item::rating::timestamp, found '1::2::5'",
        ),
        ("ratings.dat", "1::::5::978300000", r"ratings\.dat:603: item: expected a whole number, found ''"),
        ("ratings.dat", "99::2::5::978300000", r"ratings\.dat: user: expected a user that users list, found 99"),
        (
            "movies.dat",
            "41::Other (1990)::Cooking",
            r"movies\.dat:41: genres: expected one of Action, .*, found 'Cooking'",
        ),
    ],
)
def test_a_bad_line_is_named(data: Path, tmp_path: Path, file: str, line: str, message: str) -> None:
    with (data / "ml-1m" / file).open("a") as opened:
        opened.write(line + "\n")
    with pytest.raises(BadInput, match=message):
        movielens.convert(data, tmp_path / "home", SMALL)
    assert not (tmp_path / "home").exists()


def test_bad_options_and_files_are_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="--ad-share: expected a share between 0 and 1, found 1"):
        MovieLensSettings(ad_share=1)
    with pytest.raises(BadInput, match=r"--equal-days: expected at most one day per rating \(602\), found 603"):
        movielens.convert(data, tmp_path, MovieLensSettings(equal_days=603))
    (data / "ml-1m" / "users.dat").unlink()
    with pytest.raises(
        BadInput, match=r"users\.dat: file: expected an original file of the data set, found no such file"
    ):
        movielens.convert(data, tmp_path, SMALL)


@pytest.mark.slow
@pytest.mark.skipif(
    DATA_VARIABLE not in os.environ, reason=f"set {DATA_VARIABLE} to the folder that holds movielens-1m/"
)
def test_the_real_ratings_split_as_meant(tmp_path: Path) -> None:
    assert cli.main(["movielens", "--home", str(tmp_path), "--data", os.environ[DATA_VARIABLE]]) == 0
    natural, ads = (written(tmp_path, log) for log in LOGS)
    assert len(natural) + len(ads) == 1_000_209
    assert 35_000 < len(ads) < 45_000
    texts = natural.set_index("item_id")["item_text"]
    assert texts[1].iloc[0] == "Toy Story (1995), Animation|Children's|Comedy"
    assert texts[73].iloc[0] == "Mis\u00e9rables, Les (1995), Drama|Musical"
    assert (abs(natural["click"].mean() - 0.58) < 0.01, abs(ads["click"].mean() - 0.22) < 0.02) == (True, True)
    counts = pd.concat([natural, ads]).groupby("day").size()
    assert (len(counts), set(counts)) == (30, {33_340, 33_341})
    assert not set(zip(natural["user_id"], natural["item_id"], strict=True)) & set(
        zip(ads["user_id"], ads["item_id"], strict=True)
    )
