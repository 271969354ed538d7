"""Where a day begins, the same for Python and Spark in every time zone; a zone on which they differ is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zoneinfo
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest
from zone_names import FIRST, LAST, zone_names

from contracts import zones
from contracts.errors import BadInput
from contracts.locations import Locations
from contracts.periods import ONE_DAY, days_between
from contracts.settings import SETTINGS_FILE, Deployment
from contracts.zones import Rules, broken_days, day_start, offset_changes, require_days, require_same

DEPLOYMENT = Deployment(day_timezone="America/Vancouver", history_start=date(2026, 1, 1), actr_start=date(2026, 2, 1))


@pytest.mark.parametrize(
    ("name", "day", "start"),
    [
        ("Africa/Cairo", date(2026, 4, 24), "2026-04-23T22:00"),  # midnight is missing: the day begins at 01:00
        ("America/Havana", date(2026, 11, 1), "2026-11-01T04:00"),  # midnight comes twice: at the first
        ("Asia/Beirut", date(2026, 10, 25), "2026-10-24T22:00"),  # 23:00 comes twice, midnight once
        ("America/Toronto", date(1919, 3, 31), "1919-03-31T04:30"),  # from 23:30 to 00:30
        ("Pacific/Apia", date(2011, 12, 31), "2011-12-30T10:00"),  # after a day that was skipped
        ("Asia/Shanghai", date(2026, 1, 1), "2025-12-31T16:00"),
    ],
)
def test_a_day_begins_at_its_first_instant(name: str, day: date, start: str) -> None:
    found = day_start(ZoneInfo(name), day)
    assert found == datetime.fromisoformat(start).replace(tzinfo=UTC)
    assert found.astimezone(ZoneInfo(name)).date() == day
    assert (found - timedelta(microseconds=1)).astimezone(ZoneInfo(name)).date() < day


def test_days_that_are_no_stretch_of_time() -> None:
    apia = ZoneInfo("Pacific/Apia")
    assert list(broken_days(apia, date(2011, 1, 1), date(2012, 1, 1))) == [date(2011, 12, 30)]
    assert broken_days(apia, date(2011, 12, 31), date(2012, 1, 1)) == {}
    cut = broken_days(ZoneInfo("America/St_Johns"), date(2010, 1, 1), date(2026, 1, 1))
    assert cut == {date(2010, 11, 7): "it comes twice: clocks go from 2010-11-07 00:00:59 back to 2010-11-06 23:01:00"}
    with pytest.raises(
        BadInput, match=r"Apia, 2011-12-30: it is skipped: clocks go from 2011-12-29 23:59:59 to 2011-12-31 00:00:00"
    ):
        require_days("Pacific/Apia", date(2011, 1, 1), date(2011, 12, 31))


def test_changes_of_offset() -> None:
    begin = int(datetime(2025, 12, 31, tzinfo=UTC).timestamp())
    assert offset_changes(ZoneInfo("Europe/Berlin"), date(2026, 1, 1), date(2026, 12, 31)) == [
        (begin, 3600),
        (int(datetime(2026, 3, 29, 1, tzinfo=UTC).timestamp()), 7200),
        (int(datetime(2026, 10, 25, 1, tzinfo=UTC).timestamp()), 3600),
    ]


def test_a_difference_names_both_versions_and_what_to_update() -> None:
    def rules(source: str, offset: int) -> Rules:
        return Rules(source=source, changes=[(0, 0), (1793523600, offset)])

    require_same("America/Vancouver", [rules("Python (wheel tzdata 2026f)", 3600), rules("Java 17.0.15 (2026f)", 3600)])
    expected = (
        r"^deployment: day_timezone: expected the same rules for America/Vancouver in Java and Python, found from 2026-11-01 09:00 "
        r"UTC on UTC-7:00:00 by Python \(wheel tzdata 2026f\) and UTC-8:00:00 by Java 17.0.15 \(2025a\)\. "
        r"Bring the older one up to date: .*TZUpdater.*wheel `tzdata`\.$"
    )
    with pytest.raises(BadInput, match=expected):
        require_same(
            "America/Vancouver", [rules("Python (wheel tzdata 2026f)", -25200), rules("Java 17.0.15 (2025a)", -28800)]
        )
    with pytest.raises(BadInput, match=r"found EST, which Java 17 \(2025a\) does not know\. Take a region's name"):
        require_same("EST", [rules("Python (2025b)", 0), Rules(source="Java 17 (2025a)", changes=None)])


def init(home: Path, zone: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "tributary",
            "init",
            "--home",
            str(home),
            "--history-start",
            "2026-01-01",
            "--actr-start",
            "2026-02-01",
            "--day-timezone",
            zone,
        ],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | env,
    )


@pytest.mark.slow
@pytest.mark.parametrize("zone", ["EST", "localtime", "posix/Europe/Berlin", "right/Europe/Berlin"])
def test_init_refuses_a_zone_that_java_does_not_know(tmp_path: Path, zone: str) -> None:
    try:
        ZoneInfo(zone)
    except zoneinfo.ZoneInfoNotFoundError:
        pytest.skip(f"this machine's Python does not know {zone} either")
    done = init(tmp_path, zone)
    assert done.returncode == 2 and f"found {zone}, which Java" in done.stderr, done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def other_rules(tmp_path: Path) -> dict[str, str]:
    """Environment in which Python reads, for Vancouver, rules that no Java has: those of Kathmandu."""
    folder = tmp_path / "zoneinfo"
    (folder / "America").mkdir(parents=True)
    source = next(
        (Path(path) / "Asia/Kathmandu" for path in zoneinfo.TZPATH if (Path(path) / "Asia/Kathmandu").is_file()), None
    )
    if source is None:
        import tzdata

        source = Path(tzdata.__file__).parent / "zoneinfo/Asia/Kathmandu"
    (folder / "America/Vancouver").write_bytes(source.read_bytes())
    (folder / "+VERSION").write_text("2099z\n")
    return {"PYTHONTZPATH": str(folder)}


@pytest.mark.slow
def test_init_and_a_server_refuse_a_zone_on_which_java_and_python_differ(
    tmp_path: Path, other_rules: dict[str, str]
) -> None:
    home = tmp_path / "home"
    done = init(home, "America/Vancouver", **other_rules)
    assert (
        done.returncode == 2
        and "2099z) and UTC-8:00:00 by Java" in done.stderr
        and "UTC+5:45:00 by Python" in done.stderr
    ), done.stderr
    assert not home.exists()
    home.mkdir()
    (home / SETTINGS_FILE).write_text(DEPLOYMENT.to_toml())
    server = subprocess.run(
        [sys.executable, "-m", "lake.server", "--home", str(home), "--port", "1"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | other_rules,
    )
    assert server.returncode == 2 and "expected the same rules for America/Vancouver" in server.stderr, server.stderr
    assert not Locations(home).lake_lock.exists()


def test_init_without_java_leaves_the_comparison_to_spark(tmp_path: Path) -> None:
    done = init(tmp_path / "home", "Europe/Berlin", JAVA_HOME=str(tmp_path))
    assert (
        done.returncode == 0
        and "Java's rules for Europe/Berlin are compared with Python's when Spark starts" in done.stderr
    )
    assert Deployment.load(tmp_path / "home").day_timezone == "Europe/Berlin"


@pytest.mark.spark
def test_a_session_compares_the_rules(spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lake.zones import require_same_days

    locations = Locations(tmp_path)
    require_same_days(locations, spark._jvm)  # no deployment here: nothing to compare
    (tmp_path / SETTINGS_FILE).write_text(DEPLOYMENT.to_toml())
    other = offset_changes(ZoneInfo("Asia/Kathmandu"), *(DEPLOYMENT.history_start, date(2029, 12, 31)))
    monkeypatch.setattr(zones, "offset_changes", lambda zone, first, last: other)
    with pytest.raises(BadInput, match="expected the same rules for America/Vancouver in Java and Python"):
        require_same_days(locations, spark._jvm)


@pytest.mark.spark
def test_spark_and_python_agree_on_every_day_of_every_zone_that_is_not_refused(spark: Any, tmp_path: Path) -> None:
    from pyspark.sql import functions as F

    from lake.zones import java_rules

    refused, rows = {}, []
    for name in zone_names():
        try:
            require_days(name, FIRST, LAST)
            require_same(name, [zones.python_rules(name, FIRST, LAST), java_rules(spark._jvm, name, FIRST, LAST)])
        except BadInput as error:
            refused[name] = error.found
            continue
        starts = [day_start(ZoneInfo(name), day) for day in days_between(FIRST, LAST + 2 * ONE_DAY)]
        rows.append((name, starts))
    print(json.dumps({"zones": len(zone_names()), "refused": refused}, indent=1))
    days = list(days_between(FIRST, LAST + ONE_DAY))
    instants = pa.timestamp("us", "UTC")
    table = pa.table(
        {
            "zone": pa.array([name for name, _ in rows for _ in days]),
            "day": pa.array([day for _ in rows for day in days], pa.date32()),
            "begin": pa.array([start for _, starts in rows for start in starts[:-1]], instants),
            "end": pa.array([start for _, starts in rows for start in starts[1:]], instants),
        }
    )
    pa_parquet.write_table(table, tmp_path / "days.parquet")
    last = F.col("end") - F.make_dt_interval(secs=F.lit(0.000001))
    local = [F.to_date(F.from_utc_timestamp(instant, F.col("zone"))) for instant in (F.col("begin"), last)]
    midnight = F.to_utc_timestamp(F.col("day").cast("timestamp"), F.col("zone"))
    agree = (local[0] == F.col("day")) & (local[1] == F.col("day")) & (midnight == F.col("begin"))
    found = spark.read.parquet(str(tmp_path / "days.parquet")).where(~agree).limit(20).collect()
    assert found == [] and len(rows) >= len(zone_names()) - 20
