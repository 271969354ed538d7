"""The adapter of Taobao's display advertisements, on small files in the original columns that the test makes."""

from __future__ import annotations

from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest

from contracts.errors import BadInput
from contracts.features import ACTIONS
from contracts.locations import Locations
from contracts.periods import days_between
from contracts.settings import Deployment
from contracts.tables import LANDING_COLUMNS, owner_key
from lake.reader import LakeReader
from sources import cli, day_files, taobao
from sources.day_files import DayFiles
from sources.taobao import TaobaoSettings, hashed, item_of

MIDNIGHT = 1492790400  # 2017-04-22 00:00 in Shanghai
DAY = 86_400
AD_START = MIDNIGHT + 14 * DAY  # 2017-05-06
BEHAVIOURS = [
    # user time                     btag    cate  brand
    (1, MIDNIGHT - 1, "pv", 10, 100),  # the 21st
    (1, MIDNIGHT, "pv", 10, 100),
    (1, MIDNIGHT + DAY - 1, "cart", 10, 100),
    (1, MIDNIGHT + DAY, "fav", 10, 101),
    (2, MIDNIGHT + DAY, "buy", 11, ""),  # no brand; a user without a profile
    (1, MIDNIGHT + DAY, "ipv", 11, 100),  # no behaviour that we know
    (1, MIDNIGHT + 22 * DAY - 1, "pv", 10, 100),
    (1, MIDNIGHT + 22 * DAY, "pv", 10, 100),  # the 14th of May
    ("", MIDNIGHT + DAY, "pv", 10, 100),  # nobody
]
IMPRESSIONS = [
    # user time         ad   pid            nonclk clk
    (1, AD_START - 1, 7, "430548_1007", 1, 0),  # before the published days
    (1, AD_START, 7, "430548_1007", 0, 1),
    (1, AD_START, 7, "430539_1007", 1, 0),  # the same but for its place
    (1, AD_START, 8, "430548_1007", 1, 0),  # an ad without a brand
    (2, AD_START + DAY, 9, "430548_1007", 1, 0),  # neither ad nor user is described
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "Ali_Display_Ad_Click"
    folder.mkdir(parents=True)
    behaviours = pd.DataFrame(BEHAVIOURS, columns=["user", "time_stamp", "btag", "cate", "brand"])
    behaviours.to_csv(folder / "behavior_log.csv", index=False)
    with (folder / "behavior_log.csv").open("a") as file:
        file.write("1,1492790400\n")  # cut off
    impressions = pd.DataFrame(IMPRESSIONS, columns=["user", "time_stamp", "adgroup_id", "pid", "nonclk", "clk"])
    impressions.to_csv(folder / "raw_sample.csv", index=False)
    (folder / "ad_feature.csv").write_text(
        "adgroup_id,cate_id,campaign_id,customer,brand,price\n8,11,81,82,NULL,1.5\n7,10,71,72,100,2.0\n"
    )
    (folder / "user_profile.csv").write_text(
        "userid,cms_segid,cms_group_id,final_gender_code,age_level,pvalue_level,shopping_level,"
        "occupation,new_user_class_level \n1,5,0,2,3,,3,0,\n"
    )
    return tmp_path / "data"


def read(home: Path, log: str, day: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = pa_parquet.read_table(
        home / "landing" / log / day / "part-00000.parquet", partitioning=None
    ).to_pylist()
    return rows


def test_behaviours_become_the_natural_log(data: Path, tmp_path: Path) -> None:
    done = taobao.convert(data, tmp_path, TaobaoSettings())
    viewed, carted = read(tmp_path, "natural", "2017-04-22")
    liked, bought = read(tmp_path, "natural", "2017-04-23")
    assert len(read(tmp_path, "natural", "2017-05-13")) == 1
    assert [(row["click"], ACTIONS[int(str(row["action"]))]) for row in (viewed, carted, liked, bought)] == [
        (0, "none"),
        (1, "click"),
        (1, "like"),
        (1, "purchase"),
    ]
    assert pd.Timestamp(str(viewed["event_ts"])) == pd.Timestamp("2017-04-21T16:00:00Z")
    assert (viewed["user_segment_id"], bought["user_segment_id"]) == (1, 0), "group 0 is a known one"
    assert viewed["item_id"] == carted["item_id"] != liked["item_id"]
    assert (bought["category_id"], bought["item_id"]) == (11, int(item_of(np.array([11]), np.array([0]))[0]))
    assert viewed["request_id"] != carted["request_id"] and viewed["event_id"] != carted["event_id"]
    assert done.rows["natural"] == 5
    assert (
        "natural: 5 of 10 rows, click rate 0.600; left out: 2 outside 2017-04-22 .. 2017-05-13, 2 without user or time"
        in done.notes[0]
    )
    assert "1 of another btag than pv, cart, fav, buy; with features 0: 1 of a user" in done.notes[0]


def test_impressions_become_the_ad_log_and_share_items(data: Path, tmp_path: Path) -> None:
    done = taobao.convert(data, tmp_path, TaobaoSettings())
    clicked, elsewhere, unbranded = read(tmp_path, "ad", "2017-05-06")
    (unknown,) = read(tmp_path, "ad", "2017-05-07")
    assert [(row["click"], row["action"]) for row in (clicked, elsewhere)] == [(1, 1), (0, 0)]
    assert (clicked["campaign_id"], clicked["advertiser_id"], clicked["category_id"]) == (71, 72, 10)
    assert clicked["item_id"] == read(tmp_path, "natural", "2017-04-22")[0]["item_id"]
    assert unbranded["item_id"] == read(tmp_path, "natural", "2017-04-23")[1]["item_id"], (
        "no brand is one item in both logs"
    )
    assert (
        clicked["event_id"] != elsewhere["event_id"]
        and clicked["request_id"] == elsewhere["request_id"] == unbranded["request_id"]
    )
    assert [
        unknown[name] for name in ("item_id", "category_id", "campaign_id", "advertiser_id", "user_segment_id")
    ] == [0] * 5
    assert "1 outside 2017-05-06 .. 2017-05-13" in done.notes[1]
    assert "1 of a user that user_profile.csv lacks, 1 of an advertisement that ad_feature.csv lacks" in done.notes[1]
    assert "2017-04-22 .. 2017-05-05 have no advertisements" in done.notes[2]
    assert read(tmp_path, "ad", "2017-05-05") == []


def test_all_days_are_there_and_the_deployment_fits(data: Path, tmp_path: Path) -> None:
    taobao.convert(data, tmp_path, TaobaoSettings())
    for log in ("natural", "ad"):
        assert len(list((tmp_path / "landing" / log).iterdir())) == 22
        columns = pa_parquet.read_schema(tmp_path / "landing" / log / "2017-05-07" / "part-00000.parquet").names
        assert [name for name in LANDING_COLUMNS[log] if name not in ("arrival_ts", "item_text")] == columns
    deployment = Deployment.load(tmp_path)
    assert (deployment.day_timezone, str(deployment.actr_start), deployment.string_ids) == (
        "Asia/Shanghai",
        "2017-05-10",
        (),
    )
    first_actr = deployment.lineage.parents("actr", deployment.actr_start)
    assert [(parent.kind, str(parent.period)) for parent in first_actr] == [
        ("cpm", "2017-05-08"),
        ("fg_bert", "2017-05-08"),
        ("bahe", "2017-05-09"),
    ]
    assert len(deployment.lineage.parents("cpm", first_actr[0].period)) == 3, "three whole months lie before"


def test_a_range_of_days(data: Path, tmp_path: Path) -> None:
    assert (
        cli.main(["taobao", "--home", str(tmp_path), "--data", str(data), "--from", "2017-05-06", "--to", "2017-05-07"])
        == 0
    )
    assert sorted(path.name for path in (tmp_path / "landing" / "natural").iterdir()) == ["2017-05-06", "2017-05-07"]
    assert len(read(tmp_path, "ad", "2017-05-06")) == 3
    wrongs: tuple[dict[str, Any], ...] = (
        {"first": date(2017, 4, 21)},
        {"last": date(2017, 5, 5)},
        {"first": date(2017, 5, 10), "last": date(2017, 5, 9)},
    )
    for wrong in wrongs:
        with pytest.raises(BadInput, match=r"taobao: --(from|to): expected a day of"):
            TaobaoSettings(**wrong)


def many_rows(folder: Path, count: int) -> None:
    rng = np.random.default_rng(1)
    pd.DataFrame(
        {
            "user": rng.integers(1, 50, count),
            "time_stamp": MIDNIGHT + rng.integers(-DAY, 23 * DAY, count),
            "btag": rng.choice(["pv", "cart", "fav", "buy"], count),
            "cate": rng.integers(1, 9, count),
            "brand": rng.integers(1, 9, count),
        }
    ).to_csv(folder / "behavior_log.csv", index=False)


def test_tiny_batches_give_the_files_of_large_ones(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many_rows(data / "Ali_Display_Ad_Click", 3000)
    monkeypatch.setattr(day_files.DayFiles.__init__, "__kwdefaults__", {"row_group": 50})
    for home, batch_bytes in (("small", 300), ("large", 1 << 24)):
        taobao.convert(data, tmp_path / home, TaobaoSettings(batch_bytes=batch_bytes))
    files = sorted(path.relative_to(tmp_path / "small") for path in (tmp_path / "small").rglob("*.parquet"))
    assert len(files) == 44
    for file in files:
        assert (tmp_path / "small" / file).read_bytes() == (tmp_path / "large" / file).read_bytes(), file
    groups = pa_parquet.ParquetFile(tmp_path / "small" / "landing/natural/2017-04-25/part-00000.parquet").metadata
    assert [groups.row_group(number).num_rows for number in range(groups.num_row_groups - 1)] == [50] * (
        groups.num_row_groups - 1
    )
    assert groups.num_row_groups > 1


def test_no_day_holds_more_than_a_row_group(tmp_path: Path) -> None:
    days = [pd.Timestamp("2017-05-06").date(), pd.Timestamp("2017-05-07").date()]
    with DayFiles(Locations(tmp_path), "ad", days, pa.schema([("a", pa.int64())]), row_group=10) as files:
        for begin in range(0, 1000, 7):
            files.write(pa.table({"a": np.arange(begin, begin + 7)}), np.arange(7) % 2)
            held = [sum(table.num_rows for table in day) for day in files._held]
            assert max(held) < 10
            alive = sum(table.get_total_buffer_size() for day in files._held for table in day)
            assert alive <= 8 * sum(held), "no batch is kept alive by its slices"
    assert sum(files.rows) == 1001


def test_files_appear_together_or_not_at_all(data: Path, tmp_path: Path) -> None:
    folder = data / "Ali_Display_Ad_Click"
    with (folder / "behavior_log.csv").open("a") as file:
        file.write(f"1,{MIDNIGHT},pv,ten,100\n")
    with pytest.raises(BadInput, match=r"behavior_log\.csv: rows: expected columns user int64, .* found .*'ten'"):
        taobao.convert(data, tmp_path / "home", TaobaoSettings(batch_bytes=200))
    assert list((tmp_path / "home" / "landing").rglob("*.parquet")) == []
    assert list((tmp_path / "home" / "landing" / "natural").iterdir()) == []


def test_a_landing_day_with_other_files_is_left_alone(data: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "landing" / "natural" / "2017-04-25" / "mine.csv"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("event_id\n")
    with pytest.raises(BadInput, match=r"2017-04-25: files: expected only part-00000\.parquet, .* found mine\.csv"):
        taobao.convert(data, tmp_path, TaobaoSettings())
    foreign.unlink()
    taobao.convert(data, tmp_path, TaobaoSettings())
    taobao.convert(data, tmp_path, TaobaoSettings())
    assert len(read(tmp_path, "natural", "2017-04-22")) == 2, "written again, it is the same"


@pytest.mark.parametrize(
    ("file", "column"),
    [
        ("behavior_log.csv", "btag"),
        ("raw_sample.csv", "pid"),
        ("ad_feature.csv", "customer"),
        ("user_profile.csv", "cms_group_id"),
    ],
)
def test_a_missing_column_is_named(data: Path, tmp_path: Path, file: str, column: str) -> None:
    path = data / "Ali_Display_Ad_Click" / file
    path.write_text(path.read_text().replace(column, "other", 1))
    with pytest.raises(BadInput, match=rf"{file}: {column}: expected a column {column}, found columns "):
        taobao.convert(data, tmp_path / "home", TaobaoSettings())
    assert not (tmp_path / "home").exists()


def test_hashes_are_ids_and_stay_what_they_are() -> None:
    assert hashed(np.array([1, -1]), np.array([255, -1])).tolist() == [4529732208878289558, 7136257342804621622]
    ids = hashed(np.arange(100_000) % 300, np.arange(100_000) // 300)
    assert len(np.unique(ids)) == 100_000 and ids.min() >= 0
    assert item_of(np.array([0, 5]), np.array([0, 0])).tolist()[0] == 0


@pytest.mark.spark
def test_all_jobs_take_it(spark: Any, data: Path, tmp_path: Path) -> None:
    """Days before the first advertisement included: nobody has to say that they are empty."""
    from contracts.steps import DAY_JOBS

    with (data / "Ali_Display_Ad_Click" / "behavior_log.csv").open("a") as file:
        file.writelines(f"3,{MIDNIGHT + day * DAY},pv,10,100\n" for day in range(22))
        file.write(f"1,{MIDNIGHT + 12 * DAY},fav,10,100\n")
    with (data / "Ali_Display_Ad_Click" / "raw_sample.csv").open("a") as file:
        file.writelines(f"3,{AD_START + day * DAY},7,430548_1007,1,0\n" for day in range(8))
    first, last = date(2017, 5, 4), date(2017, 5, 7)
    done = taobao.convert(data, tmp_path, TaobaoSettings(first=first, last=last))
    locations, deployment = Locations(tmp_path), Deployment.load(tmp_path)
    days = list(days_between(first, date(2017, 5, 8)))
    for job in DAY_JOBS:
        import_module(f"spark_jobs.{job}").run(spark, locations, deployment, days)
    reader = LakeReader(locations)
    for log in ("natural", "ad"):
        built = reader.builds(f"{log}_log", [owner_key(ds=day) for day in days]).values()
        assert (
            sum(build["counts"]["kept"] for build in built) == done.rows[log] == reader.read(f"{log}_samples").num_rows
        )
        assert sum(build["counts"]["quarantined"] for build in built) == 0
    assert reader.read("ad_samples", where={"ds": date(2017, 5, 5)}).num_rows == 0
    assert sorted(
        reader.read("ad_samples", columns=["history_end"], where={"user_id": 1})["history_end"].to_pylist()
    ) == [1, 1, 1]
