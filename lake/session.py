"""The Spark session, which is opened only here.

In this order: the Spark Connect server that SPARK_REMOTE names; the server that already writes to this lake; a session
of our own (SPARK_MASTER, else local[*]), which then holds the lake's lock, since Delta commits of two JVMs on a plain
file system overwrite each other.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from contracts.errors import BadInput
from contracts.locations import Locations
from contracts.settings import (
    SETTINGS_FILE,
    Deployment,
    executor_memory,
    jars_folder,
    lake_address,
    spark_host,
    spark_master,
    spark_memory,
    spark_remote,
    store_endpoint,
    store_region,
)
from contracts.tables import TABLES
from lake import locks, zones
from lake.java import require_java, spark_home
from lake.persisted import drop_persisted

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

DELTA_PACKAGE = "io.delta:delta-spark_4.2_2.13:4.4.0"
AVRO_PACKAGE = "org.apache.spark:spark-avro_2.13:4.2.0"  # Spark's own reader of Avro files, which its jars leave out
STORE_PACKAGE = (
    "org.apache.hadoop:hadoop-aws:3.5.0"  # of the Hadoop that Spark 4.2 carries; 650 MB, only for what lies in a store
)
USER = "tributary"


def jars_cache(store: bool) -> Path:
    """Where Ivy keeps the jars for all deployments of this user; those with a store's client have another folder."""
    return Path.home() / ".cache" / "tributary" / ("ivy-store" if store else "ivy")


def uses_store(locations: Locations) -> bool:
    """Whether Spark needs the client of an S3-compatible store: for the lake, or for landing files."""
    if lake_address() is not None:
        return True
    return (locations.home / SETTINGS_FILE).is_file() and Deployment.load(locations.home).landing.is_in_store


def _packages(store: bool) -> str:
    return ",".join((DELTA_PACKAGE, AVRO_PACKAGE, *((STORE_PACKAGE,) if store else ())))


def _jar_confs(store: bool) -> dict[str, str]:
    """Where the jars come from: a folder (TRIBUTARY_JARS), else Maven Central by Spark's own mechanism, once.

    Once fetched they are named as files, so that later starts need neither resolution nor network.
    """
    folder = jars_folder()
    if folder is not None:
        jars = sorted(folder.glob("*.jar"))
        if not any(jar.name.startswith("delta-spark_") for jar in jars):
            raise BadInput(
                folder,
                "TRIBUTARY_JARS",
                expected=f"a folder with the jars of {DELTA_PACKAGE}",
                found=f"{len(jars)} jars, delta-spark not among them",
            )
        return {"spark.jars": ",".join(map(str, jars))}
    fetched = _fetched_jars(store)
    if fetched:
        return {"spark.jars": ",".join(fetched)}
    settings = Path(__file__).with_name("ivysettings.xml")
    return {
        "spark.jars.packages": _packages(store),
        "spark.jars.ivySettings": str(settings),
        "spark.jars.ivy": str(jars_cache(store)),
    }


def _complete_marker(store: bool) -> Path:
    return jars_cache(store) / f"{hashlib.sha256(_packages(store).encode()).hexdigest()[:16]}.complete"


def _fetched_jars(store: bool) -> list[str]:
    """The jars of a finished fetch; [] if there was none, or if one of the jars is missing."""
    marker = _complete_marker(store)
    jars = marker.read_text().split() if marker.is_file() else []
    return jars if all(Path(jar).is_file() for jar in jars) else []


def spark_confs(locations: Locations) -> dict[str, str]:
    """Settings of all our sessions and servers; Spark's defaults are for large data and make a small day slow."""
    cores, store = os.cpu_count() or 2, uses_store(locations)
    log4j = Path(__file__).with_name("log4j2.properties")
    return {
        "spark.jars": ",".join(fetch_jars(store)),
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.session.timeZone": "UTC",
        # A day of jobs and checks compiles more than the default of 100, daily.
        "spark.sql.codegen.cache.maxEntries": "2000",
        # Otherwise the right side of AND and OR, where it stands twice, is computed for every row: regular
        # expressions only bad rows need.
        "spark.sql.subexpressionElimination.skipForShortcutExpr": "true",
        # A number of a JSON line reads the same whether Spark's reader or its function from_json reads it.
        "spark.sql.json.enableExactStringParsing": "false",
        "spark.sql.shuffle.partitions": str(max(2, cores)),
        # Files of a few days are listed faster than a job starts.
        "spark.sql.sources.parallelPartitionDiscovery.threshold": "2000",
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": str(
            4 * cores
        ),  # VACUUM starts this many tasks; 10,000 by default
        "spark.sql.warehouse.dir": str(locations.home / "spark-warehouse"),
        # Jobs name their days explicitly; pruning by joined tables skips nothing more and makes a plan of six joins
        # ten times larger.
        "spark.sql.optimizer.dynamicPartitionPruning.enabled": "false",
        # The default of 50 runs 50 tasks on each read of a tiny table.
        "spark.databricks.delta.snapshotPartitions": "1",
        "spark.driver.memory": spark_memory(),
        "spark.executor.memory": executor_memory(),
        "spark.driver.host": spark_host(),
        "spark.driver.bindAddress": spark_host(),
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        # The parallel collector: its pauses do no harm here, and a job of months takes a twelfth less than with
        # Java's default.
        "spark.driver.extraJavaOptions": "-XX:+UseParallelGC -XX:ReservedCodeCacheSize=512m -XX:-DontCompileHugeMethods "
        f"-Dlog4j2.configurationFile={log4j}",
    } | (_store_confs() if store else {})


def _store_confs() -> dict[str, str]:
    """How Spark reaches an S3-compatible store; Spark itself reads the keys, from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."""
    endpoint = store_endpoint()
    confs = {"spark.hadoop.fs.s3a.endpoint.region": store_region()}
    if endpoint is None:
        return confs
    return confs | {"spark.hadoop.fs.s3a.endpoint": endpoint, "spark.hadoop.fs.s3a.path.style.access": "true"}


def server_command(locations: Locations, port: int, token: str) -> list[str]:
    """The command line of a Spark Connect server that asks for `token`, on loopback unless TRIBUTARY_SPARK_HOST names another host.

    Its settings go into a file that only the user reads: a command line is open to everybody on the machine.
    """
    confs = spark_confs(locations) | {
        "spark.connect.grpc.binding.address": spark_host(),
        "spark.connect.grpc.binding.port": str(port),
        "spark.connect.authenticate.token": token,
    }
    path = locations.stack / "spark-connect.conf"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.writelines(f"{name} {value}\n" for name, value in confs.items())
    return [
        str(spark_home() / "bin" / "spark-submit"),
        "--master",
        spark_master(),
        "--properties-file",
        str(path),
        "--class",
        "org.apache.spark.sql.connect.service.SparkConnectServer",
        "--name",
        "tributary-connect",
        "spark-internal",
    ]


@contextmanager
def spark_session(locations: Locations, *, app: str, session_id: str | None = None) -> Iterator[SparkSession]:
    """A session on this deployment's lake.

    Args:
        locations: the deployment's paths.
        app: name of the application in Spark's lists.
        session_id: id for a new Spark Connect session, so that a lock can name it; ignored where a session is started
            here.

    Raises:
        BadInput: there is no Java, its rules of the deployment's time zone differ from Python's, or another JVM writes
            to the lake.
    """
    address = server_address(locations)
    if address is not None:
        spark = _connect(locations, address, session_id or str(uuid.uuid4()))
        try:
            yield spark
        finally:
            spark.stop()
        return
    require_java()
    lock = locks.try_lock(locations.lake_lock)
    if lock is None:
        holder = locks.read_holder(locations.lake_lock)
        raise BadInput(
            locations.lake,
            "lake",
            expected="no other writer",
            found=f"process {holder.get('pid', '?')} ({holder.get('command', 'unknown')})",
            hint="Wait for it to end, or start the shared server with `tributary up --only spark`.",
        )
    with lock:
        locks.write_holder(lock)
        spark = _start(locations, app)
        try:
            yield spark
        finally:
            spark.stop()


@contextmanager
def reading_session(locations: Locations, *, app: str) -> Iterator[SparkSession]:
    """A session that only reads the lake: on the server if there is one, else started here without taking the lake's lock."""
    if server_address(locations) is not None:
        with spark_session(locations, app=app) as spark:
            yield spark
        return
    require_java()
    spark = _start(locations, app)
    try:
        yield spark
    finally:
        spark.stop()


@contextmanager
def writing_session(
    locations: Locations, *, app: str, partitions: Mapping[str, Iterable[str]], exclusive: bool = False
) -> Iterator[SparkSession]:
    """A session that holds the locks of the partitions it is about to write.

    Args:
        locations: the deployment's paths.
        app: name of the application in Spark's lists.
        partitions: owner keys by table, e.g. `{"natural_log": ["ds=2026-01-01"]}`.
        exclusive: whether to wait until all other writing sessions have ended, and let no other begin meanwhile.
    """
    session_id = str(uuid.uuid4())
    ended: list[str] = []

    def end(old: str) -> None:
        if old not in ended:
            end_session(locations, old)
            ended.append(old)

    with ExitStack() as stack:
        stack.enter_context(locks.share(locations.writers_lock, exclusive=exclusive))
        paths = {locations.locks / table / f"{owner}.lock" for table, owners in partitions.items() for owner in owners}
        if exclusive:  # a killed client that left its lock file may still have a query running in the server
            paths |= {path for table in TABLES for path in (locations.locks / table).glob("*.lock")}
        stack.enter_context(locks.hold(paths, session_id=session_id, end_session=end))
        stack.enter_context(locks.hold_session(locations.writing_sessions, session_id))
        for old in locks.sessions_left_behind(locations.writing_sessions):
            end(old)
        spark = stack.enter_context(spark_session(locations, app=app, session_id=session_id))
        _clear_away(spark, ended)
        yield spark
        _clear_away(
            spark, ended
        )  # again, since the server may have served a dead client's last request after the first call
        for old in ended:
            locks.release_session(locations.writing_sessions, old)


def _clear_away(spark: SparkSession, ended: Iterable[str]) -> None:
    for old in ended:
        drop_persisted(spark, old)


def server_address(locations: Locations) -> str | None:
    """Address of the Spark Connect server to use, or None: SPARK_REMOTE, else the one that holds the lake's lock."""
    remote = spark_remote()
    if remote is not None:
        return remote
    if not locks.is_held(locations.lake_lock):
        return None
    return locks.read_holder(locations.lake_lock).get("address")


def end_session(locations: Locations, session_id: str) -> None:
    """Interrupts what a dead client left running in the server, and closes its session for good."""
    address = server_address(locations)
    if address is None:
        return  # the server has ended, and its queries with it
    from pyspark.errors import PySparkException

    left_behind = _open(locations, address, session_id)
    try:
        left_behind.interruptAll()
    except PySparkException as error:
        if "SESSION_CLOSED" not in str(error) and "SESSION_NOT_FOUND" not in str(error):
            raise
    finally:
        # Else it stays this process's active session, from which PySpark's functions take their settings.
        left_behind.stop()


def _connect(locations: Locations, address: str, session_id: str) -> SparkSession:
    spark = _open(locations, address, session_id)
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    return spark


def _open(locations: Locations, address: str, session_id: str) -> SparkSession:
    from pyspark.sql import SparkSession

    if locations.connect_token.is_file() and spark_remote() is None:
        os.environ["SPARK_CONNECT_AUTHENTICATE_TOKEN"] = locations.connect_token.read_text().strip()
    separator = "" if address.rstrip("/").count("/") > 2 else "/"
    url = (
        address
        if "session_id=" in address
        else f"{address.rstrip(';')}{separator};session_id={session_id};user_id={USER}"
    )
    return SparkSession.builder.remote(url).create()


def _start(locations: Locations, app: str) -> SparkSession:
    from pyspark.sql import SparkSession

    os.environ.setdefault(
        "PYSPARK_PYTHON", sys.executable
    )  # else workers start the PATH's python, without our packages
    builder = SparkSession.builder.master(spark_master()).appName(app)
    for name, value in spark_confs(locations).items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    try:
        zones.require_same_days(locations, spark._jvm)
    except BadInput:
        spark.stop()
        raise
    return spark


def fetch_jars(store: bool) -> list[str]:
    """Fetches the jars of Delta and Avro unless they are already here, and returns their paths; one process at a time.

    Args:
        store: whether those of a store's client are needed too.

    Raises:
        BadInput: there is no Java, or TRIBUTARY_JARS names a folder without the jars.
    """
    require_java()
    if jars_folder() is not None:
        return _jar_confs(store)["spark.jars"].split(",")
    with locks.hold([jars_cache(store) / "fetch.lock"]):
        if not _fetched_jars(store):
            _resolve_jars(store)
        return _fetched_jars(store)


def _resolve_jars(store: bool) -> None:
    """Lets spark-submit resolve the package without running a job; its long output is shown only if it fails."""
    confs = [arg for name, value in _jar_confs(store).items() for arg in ("--conf", f"{name}={value}")]
    command = [
        str(spark_home() / "bin" / "spark-submit"),
        *confs,
        "--class",
        "org.apache.spark.sql.SparkSession",
        "spark-internal",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    jars = sorted((jars_cache(store) / "jars").glob("*.jar"))
    if not any(jar.name.startswith("io.delta_delta-spark_") for jar in jars):
        raise BadInput(
            "Maven Central", DELTA_PACKAGE, expected="its jars", found=f"{len(jars)} jars", hint=done.stderr[-1500:]
        )
    _complete_marker(store).write_text("\n".join(map(str, jars)))
