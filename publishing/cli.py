"""`tributary publishing`: audit staged runs, look at releases, ask for neighbours, wait for parents."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from contracts.commands import add_command, add_home, day, deployment_of, stage, table_text
from contracts.errors import NotYet
from contracts.kinds import KINDS
from contracts.releases import DEFAULT_VARIANT, Served

if TYPE_CHECKING:
    from lake.registry import Registry

TABLES = tuple(kind.vectors for kind in KINDS.values())


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tributary publishing", description="From staged runs to releases that others read.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in ("audit", "parents"):
        command = add_command(commands, "publishing", name)
        add_home(command)
        command.add_argument("--kind", required=True, choices=tuple(KINDS))
        command.add_argument("--period", required=True, type=day, help="first day of the period")
        if name == "parents":
            command.add_argument("--json", action="store_true", help="also print what is missing as JSON, a line each")
    releases = add_command(commands, "publishing", "releases")
    add_home(releases)
    near = add_command(commands, "publishing", "neighbours")
    add_home(near)
    near.add_argument("--table", default="actr_embeddings", choices=TABLES, help="whose vectors (default: actr_embeddings)")
    near.add_argument("--id", required=True, type=int, help="raw id")
    near.add_argument("--entity", default="item", choices=("item", "user"),
                      help="items are asked of the index, users compared with all users of the release (default: item)")
    near.add_argument("--variant", default=None, help="transfer setting of an A-CTR (default: the deployment's last)")
    near.add_argument("--release", default=None, help="a release by its id (default: the current one)")
    near.add_argument("--count", type=int, default=10)
    options = parser.parse_args(argv)
    return _COMMANDS[options.command](options)


def _audit(options: argparse.Namespace) -> int:
    from lake.run_folders import gated_runs
    from publishing.audit import audit

    locations, deployment = deployment_of(options)
    deployment.lineage.period(options.kind, options.period)
    for folder in gated_runs(locations, options.kind, options.period):
        with stage(f"audit {folder.name}"):
            checks = audit(locations, deployment, folder)
        print(table_text(("check", "verdict", "expected", "found"), [(c.name, c.verdict, c.expected, c.found) for c in checks]))
    print(f"next: tributary spark_jobs publish_release --kind {options.kind} --period {options.period}")
    return 0


def _parents(options: argparse.Namespace) -> int:
    from lake.reader import LakeReader
    from publishing.parents import missing_inputs

    locations, deployment = deployment_of(options)
    missing = missing_inputs(LakeReader(locations), deployment, options.kind, options.period)
    if missing:
        if options.json:
            print(*(one.line() for one in missing), sep="\n")
        raise NotYet(f"{options.kind} {options.period} waits for " + "; and for ".join(map(str, missing)))
    print(f"all parents of {options.kind} {options.period} are there")
    return 0


def _releases(options: argparse.Namespace) -> int:
    from lake.reader import LakeReader
    from lake.registry import Registry

    locations, _ = deployment_of(options)
    registry = Registry.read(LakeReader(locations))
    stale = registry.stale()
    rows = [(str(served.period), served.kind, served.variant, registry.serving(served), _state(registry, served, stale),
             registry.releases[registry.activations[served]["release_id"]]["carries"] or "")
            for served in sorted(registry.activations, key=lambda served: (served.period, served.kind, served.variant), reverse=True)]
    print(table_text(("period", "kind", "variant", "release", "state", "carries"), rows))
    return 0


def _state(registry: Registry, served: Served, stale: Mapping[str, str]) -> str:
    release_id = registry.activations[served]["release_id"]
    words = ["current"] if registry.current(served.kind, served.variant) == release_id else []
    return "; ".join(words + ([f"stale: {stale[release_id]}"] if release_id in stale else []))


def _neighbours(options: argparse.Namespace) -> int:
    from lake.reader import LakeReader
    from publishing.neighbours import KIND_OF_TABLE, find_release, neighbours

    locations, deployment = deployment_of(options)
    reader = LakeReader(locations)
    variant = options.variant or (deployment.variants[-1] if KIND_OF_TABLE[options.table] == "actr" else DEFAULT_VARIANT)
    release_id = find_release(reader, options.table, variant, options.release)["release_id"]
    title, found = neighbours(reader, options.table, release_id, options.entity, options.id, options.count)
    print(f"{options.entity} {options.id} ({title}) in {release_id}" if options.entity == "item" else f"user {options.id} in {release_id}")
    if options.entity == "item":
        print(table_text(("id", "title", "cosine"), [(one.id, one.title, one.cosine) for one in found]))
    else:
        print(table_text(("id", "cosine"), [(one.id, one.cosine) for one in found]))
    return 0


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "audit": _audit, "parents": _parents, "releases": _releases, "neighbours": _neighbours,
}
