"""Java's rules of a time zone, compared with Python's before both compute with them.

Spark asks the JVM in which day an event lies; Airflow, the commands and training ask Python. Each has its own copy of
the rules of all zones, of its own version.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from typing import Any

import click

from contracts import zones
from contracts.commands import run_line, span
from contracts.errors import run_command
from contracts.locations import Locations
from contracts.settings import SETTINGS_FILE, Deployment
from contracts.zones import Rules, bounds, seconds_of
from lake.java import require_java, spark_home


def require_same_days(locations: Locations, jvm: Any = None) -> None:
    """Compares the rules for the deployment's zone over its days, from its first to its last or to three years from now.

    Args:
        locations: the deployment's paths; nothing is compared where it has no settings.
        jvm: Py4J's view of a running JVM; None starts one, which takes half a second.

    Raises:
        BadInput: Java and Python differ, or one of them does not know the zone; the message names both versions and
            what to update.
    """
    if not (locations.home / SETTINGS_FILE).is_file():
        return
    deployment = Deployment.load(locations.home)
    if deployment.day_timezone == zones.FIXED:
        return
    name, first = deployment.day_timezone, deployment.history_start
    last = zones.last_day(first, deployment.history_end)
    if jvm is None:
        with java() as started:
            of_java = java_rules(started, name, first, last)
    else:
        of_java = java_rules(jvm, name, first, last)
    zones.require_same(name, [zones.python_rules(name, first, last), of_java])


def java_rules(jvm: Any, name: str, first: date, last: date) -> Rules:
    """The rules of a zone as this JVM knows them.

    Args:
        jvm: Py4J's view of a running JVM.
        name: the zone's IANA name.
        first: the first day over which its rules are read.
        last: the last day.
    """
    provider, instant = jvm.java.time.zone.ZoneRulesProvider, jvm.java.time.Instant
    java_version, known = (
        jvm.java.lang.System.getProperty("java.version"),
        name if _knows(provider, name) else zones.FIXED,
    )
    source = f"Java {java_version} ({provider.getVersions(known).lastKey()})"
    if known != name:
        return Rules(source=source, changes=None)
    rules = provider.getRules(name, False)
    begin, end = map(seconds_of, bounds(first, last))
    changes = [(begin, rules.getOffset(instant.ofEpochSecond(begin)).getTotalSeconds())]
    change = rules.nextTransition(instant.ofEpochSecond(begin))
    while change is not None and change.toEpochSecond() <= end:
        changes.append((change.toEpochSecond(), change.getOffsetAfter().getTotalSeconds()))
        change = rules.nextTransition(change.getInstant())
    return Rules(source=source, changes=changes)


def _knows(provider: Any, name: str) -> bool:
    return bool(provider.getAvailableZoneIds().contains(name))


@contextmanager
def java() -> Iterator[Any]:
    """Starts a JVM without Spark, and gives Py4J's view of it."""
    from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway

    path = require_java()
    jar = next((spark_home() / "jars").glob("py4j-*.jar"))
    port, token = launch_gateway(
        jarpath=str(jar),
        die_on_exit=True,
        enable_auth=True,
        java_path=path,
        javaopts=["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"],
    )
    gateway = JavaGateway(gateway_parameters=GatewayParameters(port=port, auth_token=token))
    try:
        yield gateway.jvm
    finally:
        gateway.shutdown()


def main(argv: Sequence[str] | None = None) -> int:
    """Prints Java's rules as JSON: `tributary init`, which imports no `lake`, asks for them."""
    return run_line(_rules, argv)


@click.command("python -m lake.zones", help=main.__doc__)
@click.argument("name")
@span("The first day.", "The last day, included.", required=True)
def _rules(name: str, first: date, last: date) -> None:
    with java() as jvm:
        rules = java_rules(jvm, name, first, last)
    print(json.dumps({"source": rules.source, "changes": rules.changes}))


if __name__ == "__main__":
    raise SystemExit(run_command(main))
