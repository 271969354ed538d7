"""When a landing day may be read: the settings, the decision by each rule and in each kind of place, and the command."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake
from pyarrow import orc
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from contracts.completeness import Completeness, Readiness
from contracts.errors import EXIT_NOT_YET, EXIT_OK, BadInput, run_command
from contracts.features import LOGS
from contracts.landing import HOME, LandingSettings, LandingSource
from contracts.locations import Locations
from contracts.settings import SETTINGS_FILE, Deployment
from contracts.steps import begin_steps
from lake import landing_counts, store_files
from lake.completeness import missing
from lake.landing_counts import rows_of, table_rows
from sources.cli import main as sources

DAY = date(2026, 1, 31)
BEFORE = [DAY - timedelta(days=number) for number in range(1, 10)]
BASE = Deployment(history_start=date(2026, 1, 1), actr_start=date(2026, 1, 20), day_timezone="Europe/Berlin")
LATER = datetime(2026, 6, 1, tzinfo=UTC)
START = "history_start = 2026-01-01\nactr_start = 2026-01-20\n"


def rules(landing: LandingSettings | None = None, **values: Any) -> Deployment:
    return replace(BASE, completeness=Completeness(**values), landing=landing or LandingSettings())


def both(source: LandingSource) -> LandingSettings:
    return LandingSettings(natural=source, ad=source)


def only_natural(path: str, **values: Any) -> LandingSettings:
    """The natural log of a path; the ad log stays in the home folder."""
    return LandingSettings(natural=LandingSource(path=path, **values))


class TestSettings:
    def test_are_written_and_read_back(self) -> None:
        deployment = rules(marker="_SUCCESS", least_share=0.5, delay_minutes=90, deadline_hours=6)
        assert Deployment.from_toml(deployment.to_toml()) == deployment
        assert "completeness" not in BASE.to_toml()
        assert Deployment.from_toml(START + "[completeness]\n").completeness == Completeness()
        assert Deployment.from_toml(START + "[completeness]\nleast_share = 1\n").completeness == Completeness(
            least_share=1.0
        )

    @pytest.mark.parametrize(
        ("section", "message"),
        [
            ('marker = "a/_SUCCESS"', r"\[completeness\]: marker: expected the name of a file .* found 'a/_SUCCESS'"),
            ('marker = "*"', "marker: expected the name of a file"),
            ('marker = ""', "marker: expected the name of a file"),
            ("marker = true", "marker: expected a text in quotation marks, found True"),
            ("least_share = 0", "least_share: expected a number > 0 and <= 1, found 0"),
            ("least_share = 1.5", "least_share: expected a number > 0 and <= 1, found 1.5"),
            ("least_share = nan", "least_share: expected a number > 0 and <= 1, found nan"),
            ('least_share = "0.5"', "least_share: expected a number, unquoted, found '0.5'"),
            ("delay_minutes = -1", "delay_minutes: expected a number >= 0, found -1"),
            ("deadline_hours = 0", "deadline_hours: expected a number >= 1, found 0"),
            ("hours = 1", "hours: expected one of .*, found an unknown setting"),
            ('marker = "done.csv"', r"marker: expected a name that \[landing.natural\] does not read"),
            (
                'marker = "_OK"\n[landing.ad]\ntable = "/a"\nday = "dt"',
                r"marker: expected none, since \[landing.ad\] names a Delta table",
            ),
            (
                'marker = "_OK"\n[landing.ad]\npath = "/a/{day}.csv"',
                r"marker: expected a path of \[landing.ad\] with a folder of its own for each day",
            ),
            ('marker = "_OK"\n[landing.ad]\npath = "/a/{day:%Y-%m}/{day:%d}.csv"', "marker: expected a path of"),
            ('marker = "_OK"\n[landing.ad]\npath = "/a/*/{day}/"', "marker: expected a path of"),
            ('marker = "_OK"\n[landing.ad]\npath = "/a/"\nday = "to_date(ts)"', "marker: expected a path of"),
            ('marker = "done"\n[landing.ad]\npath = "/a/{day}/"\nformat = "csv"', r"a name that \[landing.ad\] does"),
            ('marker = "_OK"\n[landing.ad]\npath = "/a/{day}/_*"\nformat = "csv"', r"a name that \[landing.ad\] does"),
            (
                'least_share = 0.5\n[landing.ad]\npath = "/a/"\nday = "to_date(ts)"',
                r"least_share: expected none, since the days of the rows of \[landing.ad\] follow from an expression",
            ),
        ],
    )
    def test_rules_that_cannot_hold_are_refused_by_name(self, section: str, message: str) -> None:
        with pytest.raises(BadInput, match=message):
            Deployment.from_toml(f"{START}[completeness]\n{section}\n")

    @pytest.mark.parametrize(
        ("marker", "section"),
        [
            ("done", '[landing.ad]\npath = "/a/{day:%Y/%m/%d}/*.csv"'),
            ("_OK", '[landing.ad]\npath = "s3a://abc/{day}/{hour}/"'),
            ("done", ""),
        ],
    )
    def test_markers_of_every_other_place_are_taken(self, marker: str, section: str) -> None:
        Deployment.from_toml(f'{START}[completeness]\nmarker = "{marker}"\n{section}\n')


def test_only_deployments_with_rules_wait() -> None:
    assert begin_steps("logs_daily", has_completeness=False) == ()
    assert [str(one) for one in begin_steps("logs_daily", has_completeness=True)] == ["sources ready"]
    for either in (False, True):
        assert [one.name for one in begin_steps("features_daily", has_completeness=either)] == ["check_partials"]


def write(path: Path, rows: int = 10) -> Path:
    """A CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("event_id\n" + "".join(f"{number}\n" for number in range(rows)))
    return path


def deliver(home: Path, rows: int = 10, day: date = DAY, logs: tuple[str, ...] = LOGS) -> None:
    """A file for each log in its landing folder."""
    for log in logs:
        write(Locations(home).landing_day(log, day) / "a.csv", rows)


def ingested(home: Path, rows: dict[date, int], log: str = "natural") -> None:
    """Builds of a log as ingestion records them; the newest of a day counts."""
    for number, (day, count) in enumerate(rows.items()):
        for later, read in enumerate((1_000_000, count)):
            table = pa.table(
                {
                    "table_name": [f"{log}_log"],
                    "owner": [f"ds={day}"],
                    "row_cnt": [read],
                    "digest": ["d"],
                    "inputs": pa.array([[]], pa.map_(pa.string(), pa.string())),
                    "counts": pa.array([[("read", read), ("kept", read - 1)]], pa.map_(pa.string(), pa.int64())),
                    "code_version": ["v"],
                    "built_ts": pa.array([LATER + timedelta(hours=2 * number + later)], pa.timestamp("us", "UTC")),
                }
            )
            write_deltalake(Locations(home).table("builds"), table, mode="append")


def store_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a folder stand for a store, each of its folders for a bucket."""
    monkeypatch.setattr(store_files, "_store", lambda: SubTreeFileSystem(str(folder), LocalFileSystem()))
    monkeypatch.setattr(store_files.StoreFile, "etag", lambda _: "tag")


def lacks(home: Path, deployment: Deployment, now: datetime = LATER, day: date = DAY) -> list[str]:
    return [text.replace(str(home), "") for text in missing(Locations(home), deployment, day, now)]


class TestDelivered:
    """Whatever the rules are, each log has a file with a row."""

    def test_an_empty_day_is_never_taken_for_a_quiet_one(self, tmp_path: Path) -> None:
        expected = "expected files with rows that have been delivered, found none in /landing"
        assert lacks(tmp_path, rules()) == [f"{log} log of {DAY}: {expected}/{log}/{DAY}" for log in LOGS]
        deliver(tmp_path, rows=0)
        assert lacks(tmp_path, rules()) == [
            f"{log} log of {DAY}: expected at least one row on this landing day, found none in /landing/{log}/{DAY}/a.csv"
            for log in LOGS
        ]
        assert lacks(tmp_path, rules(least_share=0.5)) == [
            f"{log} log of {DAY}: expected at least 1 row (no day of the week before has been ingested), "
            f"found 0 in /landing/{log}/{DAY}"
            for log in LOGS
        ]
        deliver(tmp_path)
        assert lacks(tmp_path, rules()) == lacks(tmp_path, rules(least_share=0.5)) == []

    def test_without_rules_nothing_is_missing(self, tmp_path: Path) -> None:
        assert lacks(tmp_path, BASE) == []

    def test_before_ad_start_no_ads_are_missing(self, tmp_path: Path) -> None:
        deliver(tmp_path, logs=("natural",))
        begins_later = replace(BASE, ad_start=DAY + timedelta(days=1), actr_start=DAY + timedelta(days=1))
        for share in (None, 0.5):
            deployment = replace(begins_later, completeness=Completeness(least_share=share))
            assert lacks(tmp_path, deployment) == []
            assert len(lacks(tmp_path, deployment, day=DAY + timedelta(days=1))) == 2
            write(Locations(tmp_path).landing_day("ad", DAY) / "a.csv", rows=0)
            assert lacks(tmp_path, deployment) == []
            (Locations(tmp_path).landing_day("ad", DAY) / "a.csv").unlink()

    def test_a_file_that_is_cut_off_has_not_been_delivered(self, tmp_path: Path) -> None:
        deliver(tmp_path)
        for name, content in (("b.csv.gz", gzip.compress(b"a" * 1000)[:-9]), ("b.parquet", b"PAR1")):
            path = Locations(tmp_path).landing_day("ad", DAY) / name
            path.write_bytes(content)
            (found,) = lacks(tmp_path, rules(least_share=0.5))
            assert f"expected a whole {path.suffix[1:]} file, found one that cannot be read" in found
            assert found.endswith(f" in /landing/ad/{DAY}/{name}")
            path.unlink()

    def test_a_place_that_does_not_exist_is_an_error(self, tmp_path: Path) -> None:
        landing = LandingSettings(ad=LandingSource(table=f"{tmp_path}/none", day="dt"))
        with pytest.raises(BadInput, match=r"\[landing.ad\]: table: expected the folder of a Delta table"):
            lacks(tmp_path, rules(landing))


@pytest.mark.parametrize(
    ("now", "delay", "waits"),
    [
        ("2026-01-31T22:59:59+00:00", 0, True),  # the day ends at 23:00 in UTC
        ("2026-01-31T23:00:00+00:00", 0, False),
        ("2026-02-01T00:29:59+00:00", 90, True),
        ("2026-02-01T00:30:00+00:00", 90, False),
        ("2026-06-01T00:00:00+00:00", 90, False),
    ],
)
def test_the_delay_after_the_days_end(tmp_path: Path, now: str, delay: int, waits: bool) -> None:
    deliver(tmp_path)
    found = lacks(tmp_path, rules(delay_minutes=delay), datetime.fromisoformat(now))
    after = "90 minutes after its end, found 2026-02-01 01:29" if delay else "its end, found 2026-01-31 23:59"
    opens = "2026-02-01 01:30" if delay else "2026-02-01 00:00"
    assert found == ([f"{DAY}: expected a time from {opens} in Europe/Berlin on, {after}"] if waits else [])


class TestMarker:
    def test_in_landing_folders(self, tmp_path: Path) -> None:
        deliver(tmp_path)
        deployment = rules(marker="_SUCCESS")
        place = f"/landing/{{}}/{DAY}/_SUCCESS"
        assert lacks(tmp_path, deployment) == [
            f"{log} log of {DAY}: expected the marker {place.format(log)}, found a folder without it" for log in LOGS
        ]
        for log in LOGS:
            (Locations(tmp_path).landing_day(log, DAY) / "_SUCCESS").touch()
        assert lacks(tmp_path, deployment) == []
        (Locations(tmp_path).landing_day("ad", DAY) / "a.csv").unlink()
        assert lacks(tmp_path, deployment) == [
            f"ad log of {DAY}: expected files with rows that have been delivered, found none in /landing/ad/{DAY}"
        ]

    def test_in_the_folder_that_the_last_place_of_the_path_names(self, tmp_path: Path) -> None:
        deliver(tmp_path, logs=("ad",))
        (Locations(tmp_path).landing_day("ad", DAY) / "done").touch()
        deployment = rules(only_natural(f"{tmp_path}/feed/{{day:%Y/%m/%d}}/*/part-{{hour}}.csv"), marker="done")
        write(tmp_path / "feed/2026/01/31/eu/part-07.csv")
        (found,) = lacks(tmp_path, deployment)
        assert found.endswith("expected the marker /feed/2026/01/31/done, found a folder without it")
        (tmp_path / "feed/2026/01/31/done").touch()
        assert lacks(tmp_path, deployment) == []

    @pytest.mark.parametrize("is_in_store", [False, True])
    def test_in_each_hours_folder_that_exists_and_in_the_last(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_in_store: bool
    ) -> None:
        deliver(tmp_path, logs=("ad",))
        (Locations(tmp_path).landing_day("ad", DAY) / "_OK").touch()
        (tmp_path / "bucket").mkdir()
        store_in(tmp_path, monkeypatch)
        start = "s3a://bucket" if is_in_store else f"{tmp_path}/bucket"
        deployment = rules(only_natural(f"{start}/dt={{day}}/{{hour}}/"), marker="_OK", least_share=0.5)
        folder = tmp_path / f"bucket/dt={DAY}"
        for hour in ("00", "05"):
            write(folder / hour / "a.csv")
        (folder / "00" / "_OK").touch()
        shown = start.removeprefix(str(tmp_path))
        of_05, of_23 = (
            f"natural log of {DAY}: expected the marker {shown}/dt={DAY}/{hour}/_OK, found {there}"
            for hour, there in (("05", "a folder without it"), ("23", "no such folder"))
        )
        assert lacks(tmp_path, deployment) == [of_05, of_23]
        (folder / "05" / "_OK").touch()
        assert lacks(tmp_path, deployment) == [of_23]
        write(folder / "23" / "_OK", rows=0)
        assert lacks(tmp_path, deployment) == []
        (folder / "06").mkdir()
        (found,) = lacks(tmp_path, deployment)
        assert found.endswith("06/_OK, found a folder without it")
        ingested(tmp_path, {BEFORE[0]: 50})
        assert lacks(tmp_path, deployment)[1:] == [
            f"natural log of {DAY}: expected at least 25 rows (0.5 of 50, the median of 1 ingested days of the week before), "
            f"found 20 in {shown}/dt={DAY}/*/"
        ]


class TestShare:
    def test_of_the_median_of_the_week_before(self, tmp_path: Path) -> None:
        deliver(tmp_path, rows=89)
        deployment = rules(least_share=0.9)
        assert lacks(tmp_path, deployment) == []  # no predecessor
        ingested(tmp_path, {BEFORE[0]: 100, BEFORE[3]: 20, BEFORE[6]: 120, BEFORE[7]: 1, BEFORE[8]: 1, DAY: 1})
        assert lacks(tmp_path, deployment) == [
            f"natural log of {DAY}: expected at least 90 rows (0.9 of 100, the median of 3 ingested days of the week before), "
            f"found 89 in /landing/natural/{DAY}"
        ]
        write(Locations(tmp_path).landing_day("natural", DAY) / "b.csv", 1)
        assert lacks(tmp_path, deployment) == []

    def test_days_before_ad_start_are_no_predecessors(self, tmp_path: Path) -> None:
        deliver(tmp_path, rows=89)
        ingested(tmp_path, {BEFORE[0]: 100} | dict.fromkeys(BEFORE[1:7], 0), "ad")
        deployment = replace(BASE, ad_start=BEFORE[0], actr_start=DAY, completeness=Completeness(least_share=0.9))
        (found,) = lacks(tmp_path, deployment)
        assert found.startswith(f"ad log of {DAY}: expected at least 90 rows (0.9 of 100, the median of 1 ingested")

    def test_a_filter_is_met_by_counting_deliveries_with_deliveries(self, tmp_path: Path) -> None:
        """A build counts only what the filter keeps; a file that holds both logs has more rows than any of them."""
        landing = both(LandingSource(path=f"{tmp_path}/feed/{{day}}.csv", where="event_id > '5'"))
        deployment = rules(landing, least_share=0.9)
        for log in LOGS:
            ingested(tmp_path, {BEFORE[0]: 10, BEFORE[1]: 10}, log)
        write(tmp_path / f"feed/{BEFORE[0]}.csv", 100)
        write(tmp_path / f"feed/{DAY}.csv", 60)
        found = lacks(tmp_path, deployment)
        assert [text.partition(": ")[2] for text in found] == [
            "expected at least 90 rows (0.9 of 100, the median of 1 ingested days of the week before), "
            f"found 60 in /feed/{DAY}.csv"
        ] * 2
        write(tmp_path / f"feed/{DAY}.csv", 90)
        assert lacks(tmp_path, deployment) == []

    @pytest.mark.parametrize("kind", ["date", "text", "number"])
    @pytest.mark.parametrize("partitioned", [True, False])
    def test_of_a_delta_table(self, tmp_path: Path, kind: str, partitioned: bool) -> None:
        written: Callable[[date], Any] = {
            "date": lambda day: day,
            "text": lambda day: f"{day:%Y%m%d}",
            "number": lambda day: int(f"{day:%Y%m%d}"),
        }[kind]
        table = str(tmp_path / "t")

        def add(rows: dict[date, int]) -> None:
            days = [written(day) for day, count in rows.items() for _ in range(count)]
            columns = {"dt": days, "event_id": list(range(len(days)))}
            write_deltalake(table, pa.table(columns), mode="append", partition_by=["dt"] if partitioned else None)

        add({BEFORE[0]: 50})
        add({BEFORE[0]: 50, BEFORE[1]: 30})
        source = LandingSource(table=table, day="dt", columns=dict.fromkeys(NATURAL, "event_id"))
        deployment = rules(LandingSettings(natural=source), least_share=0.5)
        deliver(tmp_path, logs=("ad",))
        (found,) = lacks(tmp_path, deployment)
        assert found == f"natural log of {DAY}: expected files with rows that have been delivered, found none in /t"
        add({DAY - timedelta(days=2): 1, DAY + timedelta(days=1): 1})  # a file whose statistics hold the day too
        (found,) = lacks(tmp_path, rules(deployment.landing))
        assert "found none in /t" in found if partitioned else found.endswith("at least 1 row, found 0 in /t")
        add({DAY: 20})
        ingested(tmp_path, {BEFORE[0]: 100})
        (found,) = lacks(tmp_path, deployment)
        assert "expected at least 50 rows (0.5 of 100, " in found and found.endswith("found 20 in /t")
        add({DAY: 30, BEFORE[0]: 5})
        assert [table_rows(table, "dt", day) for day in (DAY, *BEFORE[:3])] == [50, 105, 31, 0]
        assert lacks(tmp_path, deployment) == []


def test_a_tables_values_are_read_only_where_a_file_holds_several_days(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landing_counts, "_read_rows", lambda *_: -1)
    table = pa.table({"dt": [DAY] * 3 + [BEFORE[0]] * 2, "event_id": range(5)})
    write_deltalake(tmp_path / "partitioned", table, partition_by=["dt"])
    write_deltalake(tmp_path / "plain", table.slice(0, 3))
    write_deltalake(tmp_path / "mixed", table)
    assert [table_rows(str(tmp_path / name), "dt", DAY) for name in ("partitioned", "plain", "mixed")] == [3, 3, -1]


NATURAL = (
    "event_ts",
    "request_id",
    "user_id",
    "item_id",
    "category_id",
    "user_segment_id",
    "position",
    "click",
    "action",
    "dwell_seconds",
)


class TestRows:
    @pytest.mark.parametrize("is_in_store", [False, True])
    def test_of_each_format(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_in_store: bool) -> None:
        rows = [{"a": number, "b": f"x{number}"} for number in range(7)]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
        orc.write_table(pa.Table.from_pylist(rows), tmp_path / "a.orc")
        fields = [{"name": "a", "type": "int"}, {"name": "b", "type": "string"}]
        with (tmp_path / "a.avro").open("wb") as file:
            fastavro.writer(file, {"type": "record", "name": "R", "fields": fields}, rows, sync_interval=20)
        (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
        lines = "a,b\r\n\r\n" + "".join(f"{row['a']},{row['b']}\r\n" for row in rows)
        (tmp_path / "a.csv").write_text(lines)
        (tmp_path / "a.csv.gz").write_bytes(gzip.compress(lines.rstrip().encode()))
        store_in(tmp_path.parent, monkeypatch)
        folder = f"s3a://{tmp_path.name}/" if is_in_store else f"{tmp_path}/"
        found = {}
        for path in store_files.files_like(folder):
            kind = path.name.split(".")[1]
            found[path.name] = rows_of(path, LandingSource(path="/{day}", format=kind))
        assert found == dict.fromkeys(("a.avro", "a.csv", "a.csv.gz", "a.jsonl", "a.orc", "a.parquet"), 7)

    def test_of_text_are_those_that_ingestion_reads(self, tmp_path: Path) -> None:
        path = tmp_path / "a.csv"
        path.write_text('a,b\n1,"two\nlines\n\nand ""more"""\n2,3\n')
        assert rows_of(path) == 2
        path.write_text(f'a,b\n1,"{"long" * 50_000}\n"\n2,3\n')
        assert rows_of(path) == 2
        path.write_text('a,b\n1,15" wide\n2,"not closed\n3,x\n')  # read line by line
        assert rows_of(path) == 3
        path.write_text("1\n2\n")
        assert rows_of(path, replace(HOME, header=False)) == 2
        path.write_text("")
        assert rows_of(path) == 0

    def test_what_cannot_be_read_is_refused(self, tmp_path: Path) -> None:
        for kind in ("parquet", "orc", "avro"):
            path = tmp_path / f"a.{kind}"
            path.write_bytes(b"no such file" * 10)
            with pytest.raises(BadInput, match=f"a.{kind}: file: expected a whole {kind} file"):
                rows_of(path, LandingSource(path="/{day}", format=kind))


class TestCommand:
    def run(self, home: Path, deployment: Deployment, *options: str) -> int:
        home.mkdir(exist_ok=True)
        (home / SETTINGS_FILE).write_text(deployment.to_toml())
        return run_command(lambda _: sources(["ready", "--home", str(home), "--ds", str(DAY), *options]))

    def test_without_rules_a_day_may_be_read(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.run(tmp_path, BASE) == EXIT_OK
        assert capsys.readouterr().out == (
            f"{tmp_path}/deployment.toml has no [completeness]: a day may be read once it has ended\n"
            f"next: tributary spark_jobs ingest_logs --home {tmp_path} --ds {DAY}\n"
        )

    def test_tells_what_is_missing_and_what_to_do(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        deliver(tmp_path, logs=("natural",))
        deployment = rules(delay_minutes=30, deadline_hours=2)
        assert self.run(tmp_path, deployment, "--json") == EXIT_NOT_YET
        shown = capsys.readouterr()
        assert f"MISSING: ad log of {DAY}: expected files with rows" in shown.out
        assert (
            f"holds: natural log of {DAY}: expected files with rows that have been delivered, found 1 in " in shown.out
        )
        assert shown.err.startswith(f"error: {DAY} may not be read yet: 1 of 3 rules do not hold. The scheduler waited")
        assert "until 2026-02-01 02:30 in Europe/Berlin" in shown.err and "ingest_logs --home" in shown.err
        found = Readiness.read(shown.out.splitlines())
        assert len(found.missing) == 1 and found.missing[0].startswith(f"ad log of {DAY}: expected")
        assert (found.day, found.opens) == (DAY, datetime(2026, 1, 31, 23, 30, tzinfo=UTC))
        assert found.deadline == datetime(2026, 2, 1, 1, 30, tzinfo=UTC)

        waits_on = replace(deployment, completeness=Completeness(deadline_hours=1_000_000))
        assert self.run(tmp_path, waits_on) == EXIT_NOT_YET
        shown = capsys.readouterr()
        assert "The scheduler waits for the day until 2140-" in shown.err and "readiness" not in shown.out

        deliver(tmp_path)
        assert self.run(tmp_path, deployment, "--json") == EXIT_OK
        out = capsys.readouterr().out
        assert f"{DAY} may be read\nnext: tributary spark_jobs ingest_logs" in out and "readiness" not in out
