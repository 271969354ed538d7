"""Deletes every trace of a user: landing files, tables with their old versions, and by `training forget_user` models and their files.

It writes exclusively: it waits for running jobs, and other jobs wait for it. It may be killed at any point; the same
command finishes it. At the end it prints what remains: weights that were learnt from the user's rows, and copies that
were made outside of the home folder.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from contracts.commands import stage, table_text
from contracts.errors import BadInput, TributaryError
from contracts.kinds import KINDS
from contracts.locations import Locations
from contracts.releases import MANIFEST, REWRITTEN
from contracts.settings import Deployment, folder_python, table_address
from contracts.tables import TABLES, landing_key
from lake.forgotten import User, hash_of, salt_of
from lake.progress import each
from lake.reader import LakeReader
from lake.run_folders import sha256_of
from lake.session import writing_session
from lake.writing import insert_new, write_partitions
from spark_jobs import forget_landing, forget_tables
from spark_jobs.forget_tables import Owners
from spark_jobs.staleness import landing_day_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

TABLE = "forgotten"
LONGEST_LIST = 20  # names of files in a message


@dataclass(kw_only=True)
class Work:
    """What a user's forgetting rewrites; it is kept on disk until all is done, and names nobody.

    Attributes:
        partitions: rows of the user by table and owner key.
        landing: rows of the user by landing file, under the home folder.
        digests: former digests of the landing days, by their keys among a build's inputs.
    """

    partitions: dict[str, Owners] = field(default_factory=dict)
    landing: dict[str, int] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)

    @classmethod
    def find(cls, locations: Locations, user: User) -> Work:
        """Finds what there is to do, without Spark."""
        work = cls(partitions=forget_tables.find_rows(locations, user))
        searched, _ = forget_landing.content_of_landing(locations)
        for path in each(searched, description="look through landing files", unit="file"):
            count = forget_landing.count_rows(path, user)
            if count:
                work.landing[str(path.relative_to(locations.home))] = count
        days = {
            of_file for name in work.landing if (of_file := forget_landing.day_of(locations, locations.home / name))
        }
        keys = [landing_key(log, day) for log, day in days]
        work.digests |= {key: forget_landing.digest_of_day(locations.landing_day(*landing_day_of(key))) for key in keys}
        return work

    @classmethod
    def resumed(cls, locations: Locations, user: User) -> Work:
        """Finds what there is to do, and adds what an interrupted command has left."""
        work, path = cls.find(locations, user), locations.forgetting
        if path.is_file():
            left = cls(**json.loads(path.read_text()))
            for name, owners in left.partitions.items():
                work.partitions[name] = owners | work.partitions.get(name, {})
            work.landing, work.digests = left.landing | work.landing, work.digests | left.digests
        return work

    def keep(self, locations: Locations) -> None:
        """Writes what is still to do into the home folder, so that an interrupted command can be continued."""
        temporary = locations.forgetting.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(vars(self)))
        temporary.replace(locations.forgetting)


def command(locations: Locations, deployment: Deployment, text: str, *, dry_run: bool) -> int:
    """Forgets a user, or with `dry_run` prints what would be done; prints what was removed where.

    Raises:
        BadInput: no id of this deployment, or a landing file that cannot be read; after all is done, files that were
            not looked through.
    """
    user = User.of(text, deployment)
    if dry_run:
        print(
            _table("would remove", Work.find(locations, user), _truth_rows(locations, _event_ids(locations, user))),
            flush=True,
        )
        _forget_files(locations, user, dry_run=True)
        refuse_unsearched(locations)
        return 0
    with (
        stage("forget_user"),
        writing_session(
            locations, app="forget_user", partitions={"releases": [f"kind={kind}" for kind in KINDS]}, exclusive=True
        ) as spark,
    ):
        run(spark, locations, deployment, user)
    refuse_unsearched(locations)
    return 0


def refuse_unsearched(locations: Locations) -> None:
    """Names what lies below the landing folder and no user can be looked for in, such as files with other endings.

    Raises:
        BadInput: there is some.
    """
    _, others = forget_landing.content_of_landing(locations)
    if others:
        names = ", ".join(str(path.relative_to(locations.home)) for path in others[:LONGEST_LIST])
        more = f" and {len(others) - LONGEST_LIST:,} more" if len(others) > LONGEST_LIST else ""
        raise BadInput(
            locations.landing,
            "files",
            expected="only files in which a user can be looked for",
            found=names + more,
            hint="They were not looked through, everything else was. Look for the user in them, delete what holds rows of the "
            "user, and move the others out of the landing folder.",
        )


def run(spark: SparkSession, locations: Locations, deployment: Deployment, user: User) -> None:
    """Forgets a user; the caller holds the lake exclusively. First, old files are kept from bringing the user back."""
    remember(spark, locations, deployment, user)
    work = Work.resumed(locations, user)
    work.keep(locations)
    truth = _truth_rows(locations, _event_ids(locations, user))
    for path, ids in truth.items():
        rows = pq.read_table(locations.home / path)
        _write_table(
            locations,
            path,
            rows.filter(pa.array([event not in ids for event in rows["event_id"].to_pylist()], pa.bool_())),
        )
    for name in each(work.landing, description="rewrite", unit="file"):
        if (locations.home / name).is_file():
            forget_landing.remove_rows(locations.home / name, user)
    builds = forget_tables.remove_rows(
        spark, locations, user, {name: list(owners) for name, owners in work.partitions.items()}
    )
    followed = forget_tables.record(spark, locations, builds, work.partitions, _landing_changes(locations, work))
    print(_table("removed", work, truth), flush=True)
    _forget_files(locations, user, dry_run=False)
    adopt_rewritten_runs(spark, locations)
    forget_tables.vacuum(spark, locations, forget_tables.tables_with_users(user))
    locations.forgetting.unlink()
    print(
        f"\nforgotten. {followed} partitions that nothing was removed from are recorded as built from the others as they are now: none "
        "became stale. Old versions of these tables can no longer be read."
    )
    _print_traces(locations, work)


def remember(spark: SparkSession, locations: Locations, deployment: Deployment, user: User) -> None:
    """Keeps the user's events up to today from coming in again."""
    today = datetime.now(UTC).astimezone(deployment.timezone).date()
    row = (hash_of(salt_of(locations), user.user_id), today)
    insert_new(spark, locations, TABLE, spark.createDataFrame([row], TABLES[TABLE].ddl), by="forgotten_on")


def adopt_rewritten_runs(spark: SparkSession, locations: Locations) -> int:
    """Makes `releases` name the manifests that run folders have since a user was taken out of them; returns how many."""
    from pyspark.sql import functions as F

    now: dict[str, str] = {}
    rows = LakeReader(locations).releases()
    for release_id, row in rows.items():
        folder = locations.home / row["artifact"]
        before = json.loads((folder / REWRITTEN).read_text())["before"] if (folder / REWRITTEN).is_file() else []
        if row["sha256"] in before:
            now[release_id] = sha256_of(folder / MANIFEST)
    if not now:
        return 0
    sha256 = F.create_map(*(F.lit(text) for pair in now.items() for text in pair))
    released = (
        spark.read.format("delta").load(table_address(locations, "releases")).where(F.col("release_id").isin(*now))
    )
    write_partitions(
        spark,
        locations,
        "releases",
        released.withColumn("sha256", sha256[F.col("release_id")]),
        owners=[{"kind": rows[release_id]["kind"], "release_id": release_id} for release_id in now],
    )
    return len(now)


def _landing_changes(locations: Locations, work: Work) -> dict[str, tuple[str, str]]:
    return {
        key: (before, forget_landing.digest_of_day(locations.landing_day(*landing_day_of(key))))
        for key, before in work.digests.items()
    }


def _event_ids(locations: Locations, user: User) -> set[int]:
    reader = LakeReader(locations)
    return {
        event
        for name in ("natural_log", "ad_log")
        for event in reader.read(name, columns=["event_id"], where=TABLES[name].rows_of_user(user.user_id))[
            "event_id"
        ].to_pylist()
    }


def _truth_rows(locations: Locations, events: set[int]) -> dict[str, set[int]]:
    """The simulator's true probabilities of these events, by file."""
    rows = {}
    for path in sorted(locations.truth.glob("*.parquet")) if events else []:
        there = events & set(pq.read_table(path, columns=["event_id"])["event_id"].to_pylist())
        if there:
            rows[str(path.relative_to(locations.home))] = there
    return rows


def _write_table(locations: Locations, name: str, rows: pa.Table) -> None:
    path = locations.home / name
    temporary = path.with_suffix(f".{os.getpid()}")
    pq.write_table(rows, temporary)
    temporary.replace(path)


def _forget_files(locations: Locations, user: User, *, dry_run: bool) -> None:
    """Models and their files, by the folder that makes them; the id goes by its standard input, which no list of processes shows."""
    argv = [
        folder_python("training") or sys.executable,
        "-m",
        "training",
        "forget_user",
        "--home",
        str(locations.home),
        "--user",
        "-",
        *(["--dry-run"] if dry_run else []),
    ]
    code = subprocess.run(argv, input=f"{user.user_id}\n", text=True, check=False).returncode
    if code:
        error = TributaryError(
            f"tributary training forget_user: exit code {code}. Nothing was lost: run the same command again."
        )
        error.exit_code = code
        raise error


def _table(title: str, work: Work, truth: dict[str, set[int]]) -> str:
    logs = Counter[str]()
    for name, count in work.landing.items():
        logs["/".join(name.split("/")[:2])] += count
    rows = [
        (name, f"{sum(name == '/'.join(file.split('/')[:2]) for file in work.landing)} files", count)
        for name, count in logs.items()
    ]
    rows += [("truth", f"{len(truth)} files", sum(map(len, truth.values())))] if truth else []
    rows += [(name, f"{len(owners)} partitions", sum(owners.values())) for name, owners in work.partitions.items()]
    return table_text((title, "of", "rows"), rows) if rows else "no landing file and no table holds a row of this user"


def _print_traces(locations: Locations, work: Work) -> None:
    """Which models that serve have learnt from the user's rows."""
    keys = {f"{name}/{owner}" for name, owners in work.partitions.items() for owner in owners}
    reader = LakeReader(locations)
    active: dict[str, list[dict[str, Any]]] = {kind: list(reader.active_releases(kind).values()) for kind in KINDS}
    learnt = [
        (kind, len(of_kind), str(max(row["period"] for row in of_kind)))
        for kind, rows in active.items()
        if (of_kind := [row for row in rows if keys & set(row["inputs"])])
    ]
    if learnt:
        print(
            "\nModels that serve and were trained on the user's rows, among others. None knows the id any more; what their other "
            "weights have learnt stays until they are trained again, or one that starts afresh replaces them (an ad model: with its next "
            "CPM)."
        )
        print(table_text(("kind", "releases", "newest"), learnt))
    print("Copies outside of the home folder (backups, exports, files delivered from) are yours to delete.")
