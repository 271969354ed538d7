"""Which partitions were built from inputs that have changed since, and the jobs that repair them, in order; needs no Spark.

A build records the digest of every partition and landing day that it read. It is stale if one of them has another
digest now, or if it reads a partition that is stale.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, cast

from contracts.features import LOGS, Log
from contracts.landing import SideName
from contracts.locations import Locations
from contracts.periods import ONE_DAY
from contracts.settings import Deployment
from contracts.steps import rebuilt_steps, step
from contracts.tables import TABLES
from lake.landing_days import Deliveries
from lake.progress import each
from lake.reader import LakeReader
from lake.side_tables import SideTable, side_tables
from spark_jobs.days import span_option

# Jobs in the order in which a change flows through them, each with the tables that it writes.
JOBS = {step.name: step.writes for step in rebuilt_steps()}
JOB_OF = {table: job for job, tables in JOBS.items() for table in tables}


@dataclass(frozen=True, kw_only=True)
class Stale:
    """A stale partition: one that its job would now write with other rows.

    Attributes:
        table, owner: the partition.
        changed: inputs whose digest differs from the one that it read; none if it only reads stale partitions.
    """

    table: str
    owner: str
    changed: tuple[str, ...]

    @property
    def day(self) -> date:
        """Its ds, or the day before which a checkpoint ends."""
        return date.fromisoformat(dict(part.split("=") for part in self.owner.split(","))[self.day_column])

    @property
    def day_column(self) -> str:
        """Name of the owner column that holds the day."""
        return "until_ds" if "until_ds=" in self.owner else "ds"


def find_stale(locations: Locations) -> list[Stale]:
    """Every stale partition, directly or through its inputs, in the order of the jobs."""
    builds = LakeReader(locations).all_builds()
    digests = {f"{table}/{owner}": build["digest"] for (table, owner), build in builds.items()} | landing_digests(
        locations, builds
    )
    for contract in TABLES.values():
        digests |= contract.rules_input
    found: dict[str, Stale] = {}
    for job_tables in JOBS.values():
        for (table, owner), build in builds.items():
            if table not in job_tables:
                continue
            changed = tuple(sorted(key for key, digest in build["inputs"].items() if digests.get(key) != digest))
            if not TABLES[table].is_current(dict(build["inputs"])):
                changed = (*changed, *TABLES[table].rules_input)
            if changed or any(key in found for key in build["inputs"]):
                found[f"{table}/{owner}"] = Stale(table=table, owner=owner, changed=changed)
    return list(found.values())


def stale_releases(locations: Locations) -> list[tuple[str, tuple[str, ...]]]:
    """Active releases that were trained on partitions whose content has changed since: release id and these partitions."""
    reader = LakeReader(locations)
    digests = {
        f"{table}/{owner}": build["digest"] for (table, owner), build in LakeReader(locations).all_builds().items()
    }
    active = {row["release_id"] for row in reader.read("activations").to_pylist()}
    changed = {
        name: tuple(sorted(key for key, digest in release["inputs"].items() if digests.get(key) != digest))
        for name, release in reader.releases().items()
        if name in active
    }
    return sorted((name, keys) for name, keys in changed.items() if keys)


def spans(days: Iterable[date]) -> list[tuple[date, date]]:
    """Groups consecutive days: the first and last day of each group."""
    runs: list[tuple[date, date]] = []
    for day in sorted(set(days)):
        if runs and runs[-1][1] + ONE_DAY == day:
            runs[-1] = (runs[-1][0], day)
        else:
            runs.append((day, day))
    return runs


def repair_commands(stale: Sequence[Stale]) -> list[str]:
    """The commands that repair all of these partitions, in order."""
    commands = []
    for job in JOBS:
        days = sorted({item.day for item in stale if JOB_OF[item.table] == job})
        if step("spark_jobs", job).span == "until":
            commands += [f"tributary spark_jobs {job} --ds {day}" for day in days]
            continue
        for span in spans(days):
            commands.append(f"tributary spark_jobs {job} {span_option(*span)}")
            if (made := step("spark_jobs", job)).judged:
                commands.append(f"tributary {' '.join(made.check_command)} {span_option(*span)}")
    return commands


def landing_digests(locations: Locations, builds: Mapping[tuple[str, str], Mapping[str, Any]]) -> dict[str, str]:
    """The present digests of the landing days that builds have read.

    A day whose files are older than every build that read it is not read again. One that no longer exists keeps its
    recorded digest: old landing files may be archived, and nothing could be built from them anyway.
    """
    recorded: dict[str, tuple[str, datetime]] = {}
    differing: set[str] = set()
    for build in builds.values():
        for key, digest in build["inputs"].items():
            if not key.startswith("landing/"):
                continue
            built = build["built_ts"] if build["built_ts"].tzinfo else build["built_ts"].replace(tzinfo=UTC)
            before = recorded.get(key)
            if before is not None and before[0] != digest:
                differing.add(key)
            recorded[key] = (digest, min(built, before[1]) if before else built)
    deployment = Deployment.load(locations.home)
    deliveries: dict[str, Deliveries | SideTable] = {log: Deliveries(locations, deployment, log) for log in LOGS}
    deliveries.update((name, table) for name, table in side_tables(locations, deployment).items())
    current = {}
    suspect = []
    for key, (digest, built) in recorded.items():
        current[key] = digest
        name, day = landing_day_of(key)
        if name not in deliveries:  # a side table that the settings name no more
            continue
        if not deliveries[name].is_bare(day) and (key in differing or deliveries[name].changed_since(day, built)):
            suspect.append(key)
    for key in each(suspect, description="look at landing files", unit="day") if suspect else []:
        name, day = landing_day_of(key)
        current[key] = deliveries[name].digest(day)
    return current


def landing_day_of(key: str) -> tuple[Log | SideName, date]:
    """The log or side table, and the day of a landing day, by its key among a build's inputs."""
    values = dict(part.split("=") for part in key.removeprefix("landing/").split(","))
    return cast(Log | SideName, values["log"]), date.fromisoformat(values["ds"])
