"""Assets: what tasks read and publish, so that Airflow's asset graph shows the lineage.

Assets start no run: the event of an asset carries no day, and several events of a backfill may start only one run. DAGs
run by their timetables, and wait for what other DAGs make (`dagkit.waiting`).
"""

from __future__ import annotations

from airflow.sdk import Asset

from contracts.kinds import KINDS
from contracts.tables import TABLES


def tables(*names: str) -> list[Asset]:
    """Returns the assets of tables of the lake, by the names that the contracts declare."""
    return [Asset(name=TABLES[name].name, group="table") for name in names]


def landing(*names: str) -> list[Asset]:
    """Returns the assets of landing files, which a team delivers, by the names of `contracts.steps.LANDING`."""
    return [Asset(name=name, group="landing") for name in names]


def releases(*kinds: str) -> list[Asset]:
    """Returns the assets of releases: one for each kind of model, whatever the variant and the period."""
    return [Asset(name=f"{KINDS[kind].name}_release", group="release") for kind in kinds]
