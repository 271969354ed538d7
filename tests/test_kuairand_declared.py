"""KuaiRand by settings only: its CSV files, hourly folders of Parquet in a bucket, and Delta tables give the adapter's logs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest
import tomli_w
from deltalake import write_deltalake
from natively import MOTO
from pyarrow.fs import S3FileSystem

from contracts.features import LOGS
from contracts.locations import Locations
from contracts.settings import DATA_VARIABLE, SETTINGS_FILE, data_folder
from lake.reader import LakeReader
from sources import cli
from sources.deployments import KUAIRAND_DAYS

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(DATA_VARIABLE not in os.environ, reason=f"set {DATA_VARIABLE} to the folder of kuairand-pure/"),
]

EXAMPLE = Path(__file__).parent.parent / "docs/examples/kuairand.toml"
BIN = Path(sys.executable).parent
BUCKET = "s3a://kuairand"


@pytest.fixture(scope="module")
def files() -> Path:
    data = data_folder()
    assert data is not None
    return data / "kuairand-pure"


@pytest.fixture(scope="module")
def expected(files: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], tuple[int, str]]:
    """What the adapter's landing files become."""
    home = tmp_path_factory.mktemp("adapter")
    assert cli.main(["kuairand", "--home", str(home), "--data", str(files.parent)]) == 0
    return ingested(home)


def ingested(home: Path, **env: str) -> dict[tuple[str, str], tuple[int, str]]:
    """Rows and digest of each day of both logs, once they have been ingested."""
    first, last = map(str, KUAIRAND_DAYS)
    command = [
        sys.executable,
        "-m",
        "tributary",
        "spark_jobs",
        "ingest_logs",
        "--home",
        home,
        "--from",
        first,
        "--to",
        last,
    ]
    done = subprocess.run(list(map(str, command)), env=os.environ | env, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr[-3000:]
    builds = LakeReader(Locations(home)).all_builds()
    return {
        (table, owner): (build["row_cnt"], build["digest"])
        for (table, owner), build in builds.items()
        if table in (f"{log}_log" for log in LOGS)
    }


def declared(home: Path, **changes: dict[str, Any]) -> Path:
    """Writes the example's settings, with other values in sections of `landing`; None leaves a setting out."""
    settings = tomllib.loads(EXAMPLE.read_text())
    for section, values in changes.items():
        of_section = settings["landing"][section] | values
        settings["landing"][section] = {name: value for name, value in of_section.items() if value is not None}
    home.mkdir(parents=True)
    (home / SETTINGS_FILE).write_text(tomli_w.dumps(settings))
    return home


def impressions(files: Path) -> pd.DataFrame:
    """The log of all scenarios, with `dt` and `hour`, day and hour in Shanghai."""
    rows = pd.read_csv(next(files.glob("log_standard_*.csv")))
    local = pd.to_datetime(rows["time_ms"], unit="ms", utc=True).dt.tz_convert("Asia/Shanghai")
    return rows.assign(dt=local.dt.strftime("%Y-%m-%d"), hour=local.dt.strftime("%H"))


def test_the_original_files(files: Path, expected: dict[tuple[str, str], tuple[int, str]], tmp_path: Path) -> None:
    logs = {"path": f"{files}/log_standard_*.csv"}
    home = declared(
        tmp_path / "home",
        natural=logs,
        ad=logs,
        users={"path": f"{files}/user_features_pure.csv"},
        items={"path": f"{files}/video_features_basic_pure.csv"},
    )
    assert len(expected) == 2 * ((KUAIRAND_DAYS[1] - KUAIRAND_DAYS[0]) // timedelta(days=1) + 1)
    assert ingested(home) == expected


def test_delta_tables(files: Path, expected: dict[tuple[str, str], tuple[int, str]], tmp_path: Path) -> None:
    """Users as rows that hold from a time: the whole of 2022, and, with other values, from 2023 on."""
    rows = impressions(files).drop(columns="hour")
    write_deltalake(tmp_path / "log", pa.Table.from_pandas(rows, preserve_index=False), partition_by=["dt"])
    users = pd.read_csv(files / "user_features_pure.csv")[["user_id", "onehot_feat1"]]
    of_times = [
        users.assign(since=pd.Timestamp(year, 1, 1, tz=UTC), onehot_feat1=users["onehot_feat1"] + added)
        for year, added in ((2022, 0), (2023, 1))
    ]
    write_deltalake(tmp_path / "users", pa.Table.from_pandas(pd.concat(of_times), preserve_index=False))
    items = pd.read_csv(files / "video_features_basic_pure.csv")[["video_id", "author_id", "tag"]]
    write_deltalake(tmp_path / "items", pa.Table.from_pandas(items, preserve_index=False))
    logs = {"path": None, "table": f"{tmp_path}/log", "day": "dt", "types": None}
    home = declared(
        tmp_path / "home",
        natural=logs,
        ad=logs,
        users={"path": None, "table": f"{tmp_path}/users", "since": "since", "types": None},
        items={"path": None, "table": f"{tmp_path}/items"},
    )
    assert ingested(home) == expected


def test_hourly_folders_in_a_bucket(
    files: Path, expected: dict[tuple[str, str], tuple[int, str]], tmp_path: Path
) -> None:
    """Side tables as snapshots of the day before the first."""
    with bucket(tmp_path) as (store, env):
        for (day, hour), rows in impressions(files).groupby(["dt", "hour"]):
            folder = f"kuairand/log/dt={day}/hour={hour}"
            write_parquet(store, rows.drop(columns=["dt", "hour"]), f"{folder}/part-0.parquet")
            with store.open_output_stream(f"{folder}/_SUCCESS"):
                pass
        day = KUAIRAND_DAYS[0] - timedelta(days=1)
        for name, file in (("users", "user_features_pure.csv"), ("items", "video_features_basic_pure.csv")):
            write_parquet(store, pd.read_csv(files / file), f"kuairand/{name}/{day:%Y%m%d}/all.parquet")
        logs = {"path": f"{BUCKET}/log/dt={{day}}/hour={{hour}}/", "day": None, "types": None}
        sides = {name: {"path": f"{BUCKET}/{name}/{{day:%Y%m%d}}/", "types": None} for name in ("users", "items")}
        home = declared(tmp_path / "home", natural=logs, ad=logs, **sides)
        assert ingested(home, **env) == expected


def write_parquet(store: S3FileSystem, rows: pd.DataFrame, path: str) -> None:
    pa_parquet.write_table(pa.Table.from_pandas(rows, preserve_index=False), path, filesystem=store)


@contextmanager
def bucket(folder: Path) -> Iterator[tuple[S3FileSystem, dict[str, str]]]:
    """A bucket of an S3-compatible store, and the environment by which commands reach it."""
    server = folder / "moto"
    for command in (
        ("venv", "--python", sys.executable, str(server)),
        ("pip", "install", "--python", str(server), MOTO),
    ):
        subprocess.run([str(BIN / "uv"), *command], check=True, capture_output=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    serve = [str(server / "bin" / "moto_server"), "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(serve, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(f"{endpoint}/moto-api/", timeout=1)
                break
            except OSError:
                time.sleep(0.2)
        store = S3FileSystem(
            access_key="test",
            secret_key="test",
            endpoint_override=endpoint,
            region="us-east-1",
            scheme="http",
            allow_bucket_creation=True,
        )
        store.create_dir(BUCKET.removeprefix("s3a://"))
        yield (
            store,
            {
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_REGION": "us-east-1",
                "AWS_ENDPOINT_URL": endpoint,
                "AWS_ALLOW_HTTP": "true",
            },
        )
    finally:
        process.terminate()
        process.wait(30)
