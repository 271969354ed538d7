"""Finds the nearest neighbours of an entity in a release, with the titles of items."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from contracts.errors import BadInput
from contracts.features import HISTORY_DAYS, LOGS
from contracts.kinds import KINDS
from contracts.masking import printable
from lake.reader import LakeReader
from publishing.index import Vectors, nearest, nearest_exactly

KIND_OF_TABLE = {kind.vectors: kind.name for kind in KINDS.values()}
LONGEST_TITLE = 80


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """A neighbour of an entity; its title is the newest `item_text` of the logs, else its category, else a dash."""

    id: int
    title: str
    cosine: float


def find_release(reader: LakeReader, table: str, variant: str, release_id: str | None) -> dict[str, Any]:
    """Returns the row of a release of `releases`.

    Args:
        reader: reads the tables of the deployment.
        table: the table of vectors to which the release publishes.
        variant: the variant whose current release is wanted.
        release_id: a release, which need not be served; None for the current one.

    Raises:
        BadInput: there is none, or it publishes to another table.
    """
    kind = KIND_OF_TABLE[table]
    if release_id is None:
        row = reader.current(kind, variant)
        if row is None:
            raise BadInput(
                "releases",
                "release",
                expected=f"a current release of {kind} ({variant})",
                found="none",
                hint="See `tributary publishing releases`.",
            )
        return row
    row = reader.releases().get(release_id)
    if row is None or row["kind"] != kind:
        raise BadInput(
            "releases",
            "--release",
            expected=f"a release of {table}",
            found=release_id,
            hint="See `tributary publishing releases`.",
        )
    return row


def neighbours(
    reader: LakeReader, table: str, release_id: str, entity: str, entity_id: int, count: int
) -> tuple[str, list[Neighbour]]:
    """Returns the title of an entity, and its neighbours in the same release, nearest first.

    Items are looked up in the release's index. Users have no index, since nobody looks up users by the thousand: a user
    is compared exactly with all users of the release, which reads their vectors once. A user is never compared with
    items: both are inputs of a network, not points of one space.

    Args:
        reader: reads the tables of the deployment.
        table: the table of vectors to which the release publishes.
        release_id: the release.
        entity: `user` or `item`.
        entity_id: the entity whose neighbours are wanted.
        count: how many to return at most.

    Raises:
        BadInput: the entity has no vector in this release.
    """
    if entity == "item":
        found = nearest(reader.locations.index(release_id), entity_id, count)
        titles = item_titles(reader, [entity_id, *(i for i, _ in found)])
    else:
        rows = reader.read(table, columns=["id", "vector", "dim"], where={"release_id": release_id, "entity": entity})
        found, titles = nearest_exactly(Vectors.of(rows), entity_id, count), {}
    return titles.get(entity_id, "-"), [
        Neighbour(id=i, title=titles.get(i, "-"), cosine=round(cosine, 4)) for i, cosine in found
    ]


def item_titles(reader: LakeReader, ids: Iterable[int]) -> dict[int, str]:
    """Returns the titles of items, each from the newest of the last 180 days of the logs that shows the item; others are absent.

    Days are read from the newest backwards, twice as many at each step, until all items are found.
    """
    missing, titles = set(ids), dict[int, str]()
    days = sorted(
        {date.fromisoformat(owner.removeprefix("ds=")) for log in LOGS for owner in reader.builds(f"{log}_log")},
        reverse=True,
    )
    days, block = days[:HISTORY_DAYS], 1
    while missing and days:
        block_days, days, block = days[:block], days[block:], 2 * block
        shown = pa.concat_tables([_shown(reader, f"{log}_log", missing, block_days) for log in LOGS])
        for row in shown.sort_by([("event_ts", "ascending")]).to_pylist():
            named = row["item_text"] is not None
            if named or row["item_id"] not in titles:
                titles[row["item_id"]] = (
                    printable(row["item_text"], LONGEST_TITLE) if named else f"category {row['category_id']}"
                )
        missing -= titles.keys()
    return titles


def _shown(reader: LakeReader, log: str, ids: set[int], days: list[date]) -> pa.Table:
    """Rows item_id, item_text, category_id, event_ts of these items on these days."""
    rows = reader.read(
        log, columns=["item_id", "item_text", "category_id", "event_ts"], where={"ds": days, "item_id": sorted(ids)}
    )
    kinds = (pa.int64(), pa.string(), pa.int64(), pa.timestamp("us", "UTC"))
    return pa.table({name: pc.cast(rows[name], kind) for name, kind in zip(rows.column_names, kinds, strict=True)})
