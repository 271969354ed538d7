"""Activates a release that was published before: the deliberate way back to an older one."""

from __future__ import annotations

from contracts.commands import stage, table_text
from contracts.errors import BadInput
from contracts.kinds import KINDS
from contracts.locations import Locations
from contracts.releases import Served
from contracts.tables import owner_key
from lake.index_files import index_manifest
from lake.reader import LakeReader
from lake.registry import Registry
from lake.run_folders import released_folder
from lake.session import writing_session
from spark_jobs.publish_release import activate


def command(locations: Locations, release_id: str) -> int:
    """Activates a release; prints what served before, what serves now, and which releases are stale by it.

    Raises:
        BadInput: there is no such release, or its files are no longer those that were released.
    """
    served = released(locations, release_id)
    before = Registry.read(LakeReader(locations))
    locks = {
        "releases": [owner_key(kind=served.kind)],
        "activations": [owner_key(kind=served.kind, period=served.period)],
    }
    with (
        stage(f"activate_release {release_id}"),
        writing_session(locations, app="activate_release", partitions=locks) as spark,
    ):
        activate(spark, locations, {served: release_id})
    after = Registry.read(LakeReader(locations))
    print(
        table_text(
            ("period", "kind", "variant", "served before", "serves now", "current"),
            [
                (
                    served.period,
                    served.kind,
                    served.variant,
                    before.serving(served),
                    after.serving(served),
                    after.current(served.kind, served.variant),
                )
            ],
        )
    )
    _print_stale(after)
    return 0


def released(locations: Locations, release_id: str) -> Served:
    """The kind, variant and period of a release, after checking that its run folder and its index, if any, are complete.

    Raises:
        BadInput: it was never released, or its folder or its index is not what it was.
    """
    row = LakeReader(locations).releases().get(release_id)
    if row is None:
        raise BadInput(
            "releases",
            "--release",
            expected="the id of a release that was published",
            found=release_id,
            hint="The ids are the names of the folders in <home>/indexes, and in the table `releases`.",
        )
    released_folder(locations, row, hint="Put the run folder back that was released.")
    if locations.index(release_id).exists():
        index_manifest(locations.index(release_id))
    return Served(kind=row["kind"], variant=row["variant"], period=row["period"])


def _print_stale(registry: Registry) -> None:
    stale = registry.stale()
    if not stale:
        print("no release is stale: each was made from releases that serve")
        return
    of = {row["release_id"]: served for served, row in registry.activations.items()}
    print(table_text(("stale", "why"), list(stale.items())))
    print("rebuild them, in this order:")
    for served in dict.fromkeys((of[name].period, of[name].kind) for name in stale):
        period, kind = served
        print(f"  tributary dags backfill {KINDS[kind].dag} --from {period} --to {period} --reprocess completed")
