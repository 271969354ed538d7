"""`tributary publishing`: audit staged runs, look at releases, ask for neighbours, wait for parents."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from contracts.commands import add_home, day, deployment_of, stage, table_text
from contracts.errors import BadInput, NotYet
from contracts.releases import staged_runs
from contracts.transfer import TRANSFER_SETTINGS

KINDS = ("tpm", "cpm", "actr")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tributary publishing", description="From staged runs to releases that others read.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, what in (("audit", "judge the staged runs of a period and build their indexes"),
                       ("parents", "are the releases and samples there that a period needs? exit 75: not yet")):
        command = commands.add_parser(name, help=what, description=what)
        add_home(command)
        command.add_argument("--kind", required=True, choices=KINDS)
        command.add_argument("--period", required=True, type=day, help="first day of the period")
    releases = commands.add_parser("releases", help="the releases that serve, newest first")
    add_home(releases)
    near = commands.add_parser("neighbours", help="the items nearest to an item, from a release's index")
    add_home(near)
    near.add_argument("--item", required=True, type=int, help="raw item id")
    near.add_argument("--kind", default="actr", choices=KINDS)
    near.add_argument("--variant", default=None, help="transfer setting (default: the deployment's last)")
    near.add_argument("--count", type=int, default=10)
    options = parser.parse_args(argv)
    return _COMMANDS[options.command](options)


def _audit(options: argparse.Namespace) -> int:
    from publishing.audit import audit

    locations, deployment = deployment_of(options)
    deployment.lineage.period(options.kind, options.period)
    for folder in staged_runs(locations, options.kind, options.period):
        with stage(f"audit {folder.name}"):
            checks = audit(locations, deployment, folder)
        print(table_text(("check", "expected", "found"), [(c.name, c.expected, c.found) for c in checks]))
    print(f"next: tributary spark_jobs publish_release --kind {options.kind} --period {options.period}")
    return 0


def _parents(options: argparse.Namespace) -> int:
    from lake.reader import LakeReader
    from publishing.parents import missing_inputs

    locations, deployment = deployment_of(options)
    missing = missing_inputs(LakeReader(locations), deployment, options.kind, options.period)
    if missing:
        raise NotYet(f"{options.kind} {options.period} waits for " + "; and for ".join(missing))
    print(f"all parents of {options.kind} {options.period} are there")
    return 0


def _releases(options: argparse.Namespace) -> int:
    from lake.reader import LakeReader

    locations, _ = deployment_of(options)
    reader = LakeReader(locations)
    active = reader.read("activations").to_pylist()
    rows = sorted(((str(r["period"]), r["kind"], r["variant"], r["release_id"]) for r in active), reverse=True)
    print(table_text(("period", "kind", "variant", "release"), rows))
    return 0


def _neighbours(options: argparse.Namespace) -> int:
    from lake.reader import LakeReader
    from publishing.index import neighbours

    locations, deployment = deployment_of(options)
    variant = options.variant or (deployment.variants[-1] if options.kind == "actr" else "default")
    release = LakeReader(locations).current(options.kind, variant)
    if release is None:
        raise BadInput("releases", "release", expected=f"a current release of {options.kind} ({variant})", found="none",
                       hint=f"Variants: {', '.join((*TRANSFER_SETTINGS, 'default'))}; see `tributary publishing releases`.")
    found, manifest = neighbours(locations.index(release["release_id"]), options.item, options.count)
    print(table_text(("item", "cosine"), [(item, round(score, 4)) for item, score in found]))
    print(f"from {manifest['release_id']}")
    return 0


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "audit": _audit, "parents": _parents, "releases": _releases, "neighbours": _neighbours,
}
