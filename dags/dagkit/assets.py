"""Assets: what tasks read and publish, so that Airflow's asset graph shows the lineage.

They start nothing: an asset's event has no day, and one run for several backfilled days would make none of them. DAGs run by their
timetables, and wait for each other's releases (`dagkit.waiting`).
"""

from __future__ import annotations

from airflow.sdk import Asset

from contracts.kinds import KINDS
from contracts.tables import TABLES


def tables(*names: str) -> list[Asset]:
    """Tables of the lake by their names, which the contracts declare."""
    return [Asset(name=TABLES[name].name, group="table") for name in names]


def landing(*names: str) -> list[Asset]:
    """Landing files, by the names of `contracts.steps.LANDING`: what a team delivers."""
    return [Asset(name=name, group="landing") for name in names]


def releases(*kinds: str) -> list[Asset]:
    """Releases of these kinds of model: one asset a kind, whatever the variant and the period."""
    return [Asset(name=f"{KINDS[kind].name}_release", group="release") for kind in kinds]
