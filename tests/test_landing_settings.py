"""Settings of where logs lie: what is read back, what is refused, and which files a day's pattern finds."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from contracts.errors import BadInput
from contracts.landing import LandingSettings, LandingSource, columns_read
from contracts.settings import Deployment
from contracts.tables import LANDING_COLUMNS
from lake import store_files
from lake.delivered_tables import as_day
from lake.landing_files import partition_values
from lake.store_files import changed_at, files_like

DAY = date(2026, 1, 31)


def test_sections_are_written_and_read_back() -> None:
    natural = LandingSource(
        path="s3a://logs/feed/dt={day:%Y%m%d}/h={hour}/",
        format="csv",
        delimiter="\t",
        quote="'",
        header=False,
        types={"_c1": "double"},
        where="kind = 'a \"b\"'",
        columns={"click": "CASE WHEN kind = 'x' THEN 1 ELSE 0 END"},
    )
    ad = LandingSource(table="/lake/ads", day="dt")
    deployment = Deployment(
        history_start=DAY, actr_start=DAY, landing=LandingSettings(natural=natural, ad=ad), notify="/opt/tell"
    )
    assert Deployment.from_toml(deployment.to_toml()) == deployment
    plain = Deployment(history_start=DAY, actr_start=DAY)
    assert "landing" not in plain.to_toml()


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ('path = "logs/{day}/"', r"\[landing\.ad\]: path: expected an absolute path .* found 'logs/\{day\}/'"),
        ('path = "/a/{day}/"\ntable = "/b"', "table: expected either a path or a table, found both"),
        ('path = "/a/{dy}/"', r"path: expected no other braces than \{day\} and \{hour\}"),
        ('path = "/a/{hour}/"', r"path: expected a \{day\} before the \{hour\}"),
        ('path = "/a/"', "day: expected the day of a row.* found nothing"),
        ('path = "/a/{day}/"\nday = "dt"', "day: expected none, since the path of a file tells it"),
        ('table = "/a"\nday = "to_date(dt)"', "day: expected the name of a column of the table"),
        ('format = "csv"', "path: expected where the rows lie"),
        ('path = "/a/{day}/"\nformat = "delta"', "format: expected one of csv, jsonl, parquet, orc, avro"),
        ('path = "/a/{day}/"\ndelimiter = "||"', "delimiter: expected one character"),
        ('path = "/a/{day}/"\nheader = 1', "header: expected true or false, unquoted, found 1"),
        ('path = "/a/{day}/"\nfolder = "x"', "folder: expected one of .*, found an unknown setting"),
        ('columns = "click"', "columns: expected a section of texts"),
        ('[landing.ad.columns]\nclicks = "1"', "columns.clicks: expected one of the landing columns event_id, .*"),
        ('[landing.ad.columns]\nclick = "1 +"', "columns.click: expected an SQL expression"),
        ('[landing.ad.columns]\nclick = "now()"', r"columns.click: expected an SQL .* only, found now in 'now\(\)'"),
        ('[landing.ad.columns]\nclick = "current_date"', "columns.click: .* found current_date"),
        ('[landing.ad.columns]\nclick = "unix_timestamp()"', r"columns.click: .* found unix_timestamp\(\)"),
        ('[landing.ad.columns]\nclick = "(SELECT 1)"', "columns.click: .* found a subquery"),
        ('[landing.ad.columns]\nclick = "count(a) OVER (ORDER BY b)"', "columns.click: .* found a window function"),
        ('[landing.ad.columns]\nclick = "max(a)"', "columns.click: .* found an aggregate"),
        ('[landing.ad.columns]\nclick = "explode(a)"', "columns.click: .*: one value, found explode"),
        ('[landing.ad.columns]\nclick = "a AS click"', "columns.click: .* found AS"),
        ('where = "DROP TABLE a"', "where: expected an SQL expression"),
        ('where = "a = 1; b = 2"', "where: expected an SQL expression"),
    ],
)
def test_settings_that_cannot_hold_are_refused_by_name(section: str, message: str) -> None:
    text = f"history_start = {DAY}\nactr_start = {DAY}\n[landing.ad]\n{section}\n"
    with pytest.raises(BadInput, match=message):
        Deployment.from_toml(text.replace("[landing.ad]\n[landing.ad.columns]", "[landing.ad.columns]"))


def test_names_that_look_like_functions_are_columns() -> None:
    source = LandingSource(
        path="/a/{day}/", columns={"user_id": "user", "item_id": "payload.now", "click": "'now()' = `uuid`"}
    )
    source.check_columns(LANDING_COLUMNS["natural"], (), "settings")
    assert source.names_read() == {"user", "payload", "uuid"}
    assert columns_read("transform(list, x -> x.a + slot)") >= {"list", "slot"}


def test_a_pattern_finds_the_files_of_a_day_and_passes_over_what_is_on_its_way(tmp_path: Path) -> None:
    for name in (
        "dt=2026-01-31/hour=07/a.parquet",
        "dt=2026-01-31/hour=07/_SUCCESS",
        "dt=2026-01-31/hour=07/.b.parquet.crc",
        "dt=2026-01-31/hour=23/part[1].parquet",
        "dt=2026-01-31/_temporary/0/c.parquet",
        "dt=2026-02-01/hour=00/d.parquet",
        "single-20260131.csv",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")

    def found(path: str) -> list[str]:
        source = LandingSource(path=f"{tmp_path}/{path}")
        return [
            str(file).removeprefix(f"{tmp_path}/")
            for pattern, _ in source.patterns(DAY)
            for file in files_like(pattern)
        ]

    of_hours = ["dt=2026-01-31/hour=07/a.parquet", "dt=2026-01-31/hour=23/part[1].parquet"]
    assert found("dt={day}/hour={hour}/") == of_hours
    assert found("dt={day}/*/") == of_hours
    assert found("dt={day}/*/*.parquet") == of_hours
    assert found("single-{day:%Y%m%d}.csv") == ["single-20260131.csv"]
    assert found("dt={day}/") == []


def test_days_are_told_from_dates_texts_and_numbers() -> None:
    assert [as_day(value) for value in (DAY, "2026-01-31", "20260131", 20260131)] == [DAY] * 4
    for value in ("2026-0131", "2026-02-30", "31.01.2026", datetime(2026, 1, 31), None, 2026):
        assert as_day(value) is None, value


def test_partition_columns_are_those_of_the_folders() -> None:
    path = Path("/data/dt=2026-01-31/city=S%C3%A3o%2FPaulo/=x/part=1.parquet")
    assert partition_values(path) == {"dt": "2026-01-31", "city": "S\u00e3o/Paulo"}


def test_a_file_that_is_moved_counts_as_changed_then(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"x")
    os.utime(tmp_path / "a.csv", (0, 0))
    before = datetime.now(UTC) - timedelta(seconds=1)  # the clock of a file system is coarser
    (tmp_path / "a.csv").rename(tmp_path / "b.csv")
    assert changed_at(tmp_path / "b.csv") >= before


class Refusing(BaseHTTPRequestHandler):
    """A store that answers every request with what S3 says to a key without permission."""

    def do_GET(self) -> None:
        body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        self.send_response(403)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


def test_a_bucket_without_permission_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    Thread(target=server.serve_forever, daemon=True).start()
    for name, value in (
        ("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    store_files._store.cache_clear()
    try:
        with pytest.raises(
            BadInput, match=r"s3a://logs/feed/dt=2026-01-31/: path: expected a folder of a bucket .*"
        ) as error:
            files_like(f"s3a://logs/feed/dt={DAY}/")
        assert "ACCESS_DENIED" in str(error.value) or "Access Denied" in str(error.value)
    finally:
        store_files._store.cache_clear()
        server.shutdown()
        server.server_close()
