"""Finds the nearest neighbours of an entity in a release, with the titles of items and the strings of hashed ids."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from contracts.errors import BadInput
from contracts.features import HISTORY_DAYS, LOGS
from contracts.kinds import KINDS
from contracts.masking import printable
from contracts.settings import Deployment
from contracts.tables import STRINGS_JOINED_BY, VectorEntity
from lake.reader import LakeReader
from lake.xxhash import LARGEST_ID, string_id
from publishing.index import Vectors, nearest, nearest_exactly

KIND_OF_TABLE = {kind.vectors: kind.name for kind in KINDS.values()}
LONGEST_TITLE = 80


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """A neighbour of an entity.

    Attributes:
        id: its id in the tables.
        title: of an item, the newest `item_text` of the logs, else its category; a dash where there is neither.
        string: the string that was hashed into the id, where it is kept; if there are several, all of them.
        cosine: how near it is.
    """

    id: int
    title: str
    string: str | None
    cosine: float


def entity_id(
    reader: LakeReader, deployment: Deployment, table: str, release_id: str, entity: VectorEntity, text: str
) -> int:
    """Returns the id in the tables of an entity that a person typed.

    Where the entity's ids are strings, the text is hashed as ingestion does; if no vector has this id, and the text is
    a number, it is taken for the id itself.

    Args:
        reader: reads the tables of the deployment.
        deployment: the deployment's settings, of which this takes `string_ids`.
        table: the table of vectors to which the release publishes.
        release_id: the release.
        entity: whether it is a user or an item.
        text: what the person typed: the string as it was delivered, or the number.

    Raises:
        BadInput: the text is no id, or no entity of the release has it.
    """
    number = int(text) if re.fullmatch("[0-9]{1,19}", text) and int(text) <= LARGEST_ID else None
    if f"{entity}_id" not in deployment.string_ids:
        if number is None:
            raise BadInput("command line", "--id", expected=f"the number of an {entity}, >= 0", found=repr(text))
        return number
    known = [string_id(text), *([] if number is None else [number])]
    rows = reader.read(table, columns=["id"], where={"release_id": release_id, "entity": entity, "id": known})
    there = set(rows["id"].to_pylist())
    known_id = next((one for one in known if one in there), None)
    if known_id is None:
        raise BadInput(
            "command line",
            "--id",
            expected=f"{entity} with a vector in {release_id}: the string as it was delivered, or its hash, a number",
            found=f"{text!r} (hash {known[0]})",
        )
    return known_id


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
    reader: LakeReader, table: str, release_id: str, entity: VectorEntity, of: int, count: int
) -> tuple[Neighbour, list[Neighbour]]:
    """Returns an entity, and its neighbours in the same release, nearest first.

    Items are looked up in the release's index. Users have no index, since nobody looks up users by the thousand: a user
    is compared exactly with all users of the release, which reads their vectors once. A user is never compared with
    items: both are inputs of a network, not points of one space.

    Args:
        reader: reads the tables of the deployment.
        table: the table of vectors to which the release publishes.
        release_id: the release.
        entity: what is looked for.
        of: the id of the entity whose neighbours are wanted.
        count: how many to return at most.

    Raises:
        BadInput: the entity has no vector in this release.
    """
    if entity == "item":
        found = nearest(reader.locations.index(release_id), of, count)
    else:
        rows = reader.read(table, columns=["id", "vector", "dim"], where={"release_id": release_id, "entity": entity})
        found = nearest_exactly(Vectors.of(rows), of, count)
    ids = [of, *(one for one, _ in found)]
    titles, strings = item_titles(reader, ids) if entity == "item" else {}, kept_strings(reader, entity, ids)
    itself, *others = (
        Neighbour(id=one, title=titles.get(one, "-"), string=strings.get(one), cosine=round(cosine, 4))
        for one, cosine in [(of, 1.0), *found]
    )
    return itself, others


def kept_strings(reader: LakeReader, entity: VectorEntity, ids: Sequence[int]) -> dict[int, str]:
    """Returns the strings that were hashed into these ids, where they were kept; several strings with one hash are joined."""
    rows = reader.read("id_strings", columns=["id", "string"], where={"field": f"{entity}_id", "id": ids}).to_pylist()
    strings: dict[int, list[str]] = {}
    for row in rows:
        strings.setdefault(row["id"], []).append(printable(row["string"], LONGEST_TITLE))
    return {one: STRINGS_JOINED_BY.join(sorted(of_id)) for one, of_id in strings.items()}


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
