"""`tributary publishing`: audit staged runs, look at releases, ask for neighbours, wait for parents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING

import click

from contracts.commands import folder_group, run_line, stage, table_text, with_deployment, with_period
from contracts.errors import NotYet
from contracts.kinds import KINDS
from contracts.locations import Locations
from contracts.releases import DEFAULT_VARIANT, Served
from contracts.settings import Deployment
from contracts.tables import VECTOR_ENTITIES, VectorEntity

if TYPE_CHECKING:
    from lake.registry import Registry

TABLES = tuple(kind.vectors for kind in KINDS.values())

commands = folder_group("publishing")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; see `tributary publishing --help`."""
    return run_line(commands, argv)


@commands.add("audit")
@with_deployment
@with_period
def _audit(locations: Locations, deployment: Deployment, kind: str, period: date) -> None:
    from lake.run_folders import gated_runs
    from publishing.audit import audit

    deployment.lineage.period(kind, period)
    for folder in gated_runs(locations, kind, period):
        with stage(f"audit {folder.name}"):
            checks = audit(locations, deployment, folder)
        print(
            table_text(
                ("check", "verdict", "expected", "found"), [(c.name, c.verdict, c.expected, c.found) for c in checks]
            )
        )
    print(f"next: tributary spark_jobs publish_release --kind {kind} --period {period}")


@commands.add("parents")
@with_deployment
@with_period
@click.option("--json", "as_json", is_flag=True, help="Also print what is missing as JSON, a line each.")
def _parents(locations: Locations, deployment: Deployment, kind: str, period: date, as_json: bool) -> None:
    from lake.reader import LakeReader
    from publishing.parents import missing_inputs

    missing = missing_inputs(LakeReader(locations), deployment, kind, period)
    if missing:
        if as_json:
            print(*(one.line() for one in missing), sep="\n")
        raise NotYet(f"{kind} {period} waits for " + "; and for ".join(map(str, missing)))
    print(f"all parents of {kind} {period} are there")


@commands.add("releases")
@with_deployment
def _releases(locations: Locations, _: Deployment) -> None:
    from lake.reader import LakeReader
    from lake.registry import Registry

    registry = Registry.read(LakeReader(locations))
    stale = registry.stale()
    rows = [
        (
            str(served.period),
            served.kind,
            served.variant,
            registry.serving(served),
            _state(registry, served, stale),
            registry.releases[registry.activations[served]["release_id"]]["carries"] or "",
        )
        for served in sorted(
            registry.activations, key=lambda served: (served.period, served.kind, served.variant), reverse=True
        )
    ]
    print(table_text(("period", "kind", "variant", "release", "state", "carries"), rows))


def _state(registry: Registry, served: Served, stale: Mapping[str, str]) -> str:
    release_id = registry.activations[served]["release_id"]
    words = ["current"] if registry.current(served.kind, served.variant) == release_id else []
    return "; ".join(words + ([f"stale: {stale[release_id]}"] if release_id in stale else []))


@commands.add("neighbours")
@with_deployment
@click.option("--table", default="actr_embeddings", type=click.Choice(TABLES), metavar="TABLE", help="Whose vectors.")
@click.option("--id", "of", required=True, help="The id as the landing files hold it, or the number in the tables.")
@click.option(
    "--entity",
    default="item",
    type=click.Choice(VECTOR_ENTITIES),
    help="Items are asked of the index, users compared with all users of the release.",
)
@click.option("--variant", help="Transfer setting of an A-CTR (default: the deployment's last).")
@click.option("--release", help="A release by its id (default: the current one).")
@click.option("--count", type=int, default=10, help="How many.")
def _neighbours(
    locations: Locations,
    deployment: Deployment,
    *,
    table: str,
    of: str,
    entity: VectorEntity,
    variant: str | None,
    release: str | None,
    count: int,
) -> None:
    from lake.reader import LakeReader
    from publishing.neighbours import KIND_OF_TABLE, Neighbour, entity_id, find_release, neighbours

    reader = LakeReader(locations)
    variant = variant or (deployment.variants[-1] if KIND_OF_TABLE[table] == "actr" else DEFAULT_VARIANT)
    release_id = find_release(reader, table, variant, release)["release_id"]
    known_as = entity_id(reader, deployment, table, release_id, entity, of)
    itself, found = neighbours(reader, table, release_id, entity, known_as, count)
    columns: dict[str, Callable[[Neighbour], object]] = {
        "id": lambda one: one.id,
        **({"string": lambda one: one.string or "-"} if any(one.string for one in (itself, *found)) else {}),
        **({"title": lambda one: one.title} if entity == "item" else {}),
        "cosine": lambda one: one.cosine,
    }
    string = "" if itself.string is None else f" = {itself.string}"
    title = f" ({itself.title})" if entity == "item" else ""
    print(f"{entity} {itself.id}{string}{title} in {release_id}")
    print(table_text(tuple(columns), [tuple(value(one) for value in columns.values()) for one in found]))
