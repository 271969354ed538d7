"""The KuaiRand adapter: days, keys, codes and actions, on small files in the original columns and on the real ones."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest

from contracts.errors import BadInput
from contracts.features import LOGS
from contracts.locations import Locations
from contracts.settings import DATA_VARIABLE, Deployment
from sources import cli, kuairand
from sources.deployments import KUAIRAND_DAYS
from sources.kuairand import KuaiRandSettings
from sources.original import Converted

LOG_FILE = "log_standard_4_25_to_5_04_pure.csv"
MIDNIGHT = 1650816000000  # 2022-04-25 00:00 in Shanghai
DAY = 86_400_000
COLUMNS = [
    "user_id",
    "video_id",
    "date",
    "time_ms",
    "is_click",
    "is_like",
    "is_follow",
    "is_comment",
    "is_forward",
    "play_time_ms",
    "tab",
]
IMPRESSIONS = [
    #  user video date      time_ms                click like follow comment forward play  tab
    (7, 1, 20220425, MIDNIGHT - 1, 1, 0, 0, 0, 0, 900, 1),  # the 24th: left out, whatever is in `date`
    (7, 1, 20220424, MIDNIGHT, 1, 0, 0, 0, 0, 12_345, 1),
    (7, 1, 20220424, MIDNIGHT, 1, 0, 0, 0, 0, 12_345, 1),  # a raw repeat: kept
    (7, 2, 20220425, MIDNIGHT + DAY - 1, 1, 1, 1, 0, 0, 90_000_000, 1),  # like and follow; a dwell past a day
    (8, 3, 20220426, MIDNIGHT + DAY, 0, 1, 0, 0, 0, 1_000, 1),  # liked without a click
    (9, 9, 20220426, MIDNIGHT + DAY + 5, 1, 0, 0, 1, 0, 2_000, 6),  # neither user nor video is described
    (8, 2, 20220426, MIDNIGHT + DAY + 4, 0, 0, 0, 0, 0, 3_000, 6),
    (8, 2, 20220426, MIDNIGHT + DAY + 6, 1, 0, 0, 0, 0, 3_000, 2),  # another scenario
    (8, 2, 20220505, MIDNIGHT + 10 * DAY, 1, 0, 0, 0, 0, 3_000, 1),  # after the last day
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "kuairand-pure"
    folder.mkdir(parents=True)
    pd.DataFrame(IMPRESSIONS, columns=COLUMNS).to_csv(folder / LOG_FILE, index=False)
    users = pd.DataFrame({"user_id": [7, 8], "onehot_feat1": [0, None], "fans_user_num": [5, 6]})
    users.to_csv(folder / "user_features_pure.csv", index=False)
    videos = pd.DataFrame({"video_id": [1, 2, 3], "author_id": [11, 12, 13], "tag": ["0", "39,6", None]})
    videos.to_csv(folder / "video_features_basic_pure.csv", index=False)
    return tmp_path / "data"


def convert(data: Path, home: Path, **settings: int) -> Converted:
    return kuairand.convert(data, home, KuaiRandSettings(**settings))


def read(home: Path, log: str, day: str) -> list[dict[str, str]]:
    path = home / "landing" / log / day / "part-00000.csv"
    return pd.read_csv(path, dtype="string", keep_default_na=False).to_dict("records")  # type: ignore[return-value]


def test_days_keys_and_repeats(data: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    done = convert(data, home)
    assert done.rows == {"natural": 4, "ad": 2}
    assert "2 rows outside 2022-04-25 .. 2022-05-04 left out; 1 rows" in done.notes[0]
    first, repeat, last = read(home, "natural", "2022-04-25")
    assert first == repeat
    assert (first["event_id"], first["request_id"]) == (f"7_1_{MIDNIGHT}", f"7_1_{MIDNIGHT}")
    assert (last["event_id"], last["request_id"]) == (f"7_2_{MIDNIGHT + DAY - 1}", f"7_1_{MIDNIGHT + DAY - 1}")
    assert (first["event_ts"], first["arrival_ts"]) == ("2022-04-24T16:00:00.000Z",) * 2
    assert last["event_ts"] == "2022-04-25T15:59:59.999Z"
    assert [row["event_id"] for row in read(home, "ad", "2022-04-26")] == [
        f"8_2_{MIDNIGHT + DAY + 4}",
        f"9_9_{MIDNIGHT + DAY + 5}",
    ]
    assert read(home, "ad", "2022-04-25") == [] == read(home, "natural", "2022-05-04")
    assert len(list((home / "landing" / "ad").iterdir())) == 10
    assert Deployment.load(home).string_ids == ("event_id", "request_id")


def test_codes_actions_and_dwell(data: Path, tmp_path: Path) -> None:
    convert(data, tmp_path)
    first, _, followed = read(tmp_path, "natural", "2022-04-25")
    (silent,) = read(tmp_path, "natural", "2022-04-26")
    plain, undescribed = read(tmp_path, "ad", "2022-04-26")
    assert (first["category_id"], first["user_segment_id"]) == ("1", "1"), "tag 0 and group 0 are known values"
    assert (followed["category_id"], silent["category_id"], silent["user_segment_id"]) == ("40", "0", "0")
    assert (undescribed["category_id"], undescribed["user_segment_id"], undescribed["advertiser_id"]) == ("0", "0", "0")
    assert (plain["campaign_id"], plain["advertiser_id"], plain["position"]) == ("2", "12", "0")
    assert [(row["click"], row["action"]) for row in (first, followed, silent, plain, undescribed)] == [
        ("1", "1"),
        ("1", "5"),
        ("0", "0"),
        ("0", "0"),
        ("1", "3"),
    ]
    assert (first["dwell_seconds"], followed["dwell_seconds"]) == ("12.345", "86400")
    assert {row["item_text"] for row in (first, followed, silent, plain, undescribed)} == {""}, "KuaiRand has no titles"


def test_the_folder_itself_will_do_and_other_tabs_too(data: Path, tmp_path: Path) -> None:
    assert convert(data / "kuairand-pure", tmp_path, natural_tab=6, ad_tab=2).rows == {"natural": 2, "ad": 1}


@pytest.mark.parametrize(
    ("file", "column"),
    [(LOG_FILE, "is_forward"), ("user_features_pure.csv", "onehot_feat1"), ("video_features_basic_pure.csv", "tag")],
)
def test_a_missing_column_is_named(data: Path, tmp_path: Path, file: str, column: str) -> None:
    path = data / "kuairand-pure" / file
    pd.read_csv(path).drop(columns=column).to_csv(path, index=False)
    with pytest.raises(BadInput, match=rf"{file}: {column}: expected a column {column}, found columns "):
        convert(data, tmp_path / "home")
    assert not (tmp_path / "home").exists()


def test_a_field_that_is_no_number_is_named_with_its_line(data: Path, tmp_path: Path) -> None:
    path = data / "kuairand-pure" / LOG_FILE
    text = path.read_text()
    path.write_text(text.replace("12345,1", "long,1", 1))
    with pytest.raises(BadInput, match=rf"{LOG_FILE}:3: play_time_ms: expected a number, found 'long'"):
        convert(data, tmp_path)
    path.write_text(text.replace("12345,1", ",1", 1))
    with pytest.raises(BadInput, match=rf"{LOG_FILE}:3: play_time_ms: expected a whole number, found nan"):
        convert(data, tmp_path)


def test_missing_files_and_unknown_tabs_are_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"kuairand-pure: --ad-tab: expected one of \[1, 2, 6\], found 5"):
        convert(data, tmp_path, ad_tab=5)
    with pytest.raises(BadInput, match=r"--ad-tab: expected another tab than the natural log's \(1\), found 1"):
        convert(data, tmp_path, ad_tab=1)
    (data / "kuairand-pure" / "user_features_pure.csv").unlink()
    with pytest.raises(
        BadInput, match=r"user_features_pure\.csv: file: expected an original file of the data set, found no such file"
    ):
        convert(data, tmp_path)
    with pytest.raises(
        BadInput, match=r"--data: expected a folder with log_standard_\*\.csv, or its parent, found no such folder"
    ):
        convert(tmp_path / "nowhere", tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(
    DATA_VARIABLE not in os.environ, reason=f"set {DATA_VARIABLE} to the folder that holds kuairand-pure/"
)
def test_the_real_log_reconciles_with_pandas(tmp_path: Path) -> None:
    data = Path(os.environ[DATA_VARIABLE])
    assert cli.main(["kuairand", "--home", str(tmp_path), "--data", str(data)]) == 0
    original = pd.read_csv(data / "kuairand-pure" / LOG_FILE)
    original["day"] = (
        pd.to_datetime(original["time_ms"], unit="ms", utc=True).dt.tz_convert("Asia/Shanghai").dt.strftime("%Y-%m-%d")
    )
    original = original[original["day"].between(str(KUAIRAND_DAYS[0]), str(KUAIRAND_DAYS[1]))]
    for log, tab in zip(LOGS, (1, 6), strict=True):
        expected = original[original["tab"] == tab]
        folders = sorted((Locations(tmp_path).landing / log).iterdir())
        written = pd.concat([pd.read_csv(folder / "part-00000.csv").assign(day=folder.name) for folder in folders])
        assert written.groupby("day").size().to_dict() == expected.groupby("day").size().to_dict()
        assert written["click"].sum() == expected["is_click"].sum()
        assert written["event_id"].nunique() == len(expected.drop_duplicates(["user_id", "video_id", "time_ms"]))
        assert ((written["action"] >= 1) == (written["click"] == 1)).all()
        assert written["dwell_seconds"].between(0, 86_400).all()
        assert (written["category_id"] > 0).mean() > 0.95
        assert set(written["user_segment_id"]) <= set(range(1, 8))
