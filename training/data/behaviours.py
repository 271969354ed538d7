"""Users' behaviours with all side information, as the lake holds them at the end of a period.

Shapes: U users, P behaviours of all users, concatenated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from lake.progress import each
from lake.reader import LakeReader
from training.data.codes import Ints, behaviour_codes, whole
from training.data.histories import unpacked
from training.data.sequences import ID_FIELDS


@dataclass(frozen=True, kw_only=True)
class Behaviours:
    """Behaviours of users, oldest first.

    Attributes:
        user_ids: U, ascending.
        offsets: U + 1; user u's behaviours are `[offsets[u], offsets[u + 1])`.
        event_us: times in microseconds, P.
        event_ids: P.
        columns: raw ids and codes, by field of `BEHAVIOUR_FIELDS`, P each.
    """

    user_ids: Ints
    offsets: Ints
    event_us: Ints
    event_ids: Ints
    columns: Mapping[str, Ints]

    @classmethod
    def from_arrow(cls, table: pa.Table, zone: str) -> Behaviours:
        """Takes rows (user_id, behaviours) of `user_histories`, one for each user; hours are those of the time zone."""
        user_ids, offsets, event_us, flat = unpacked(table)
        columns = {name: whole(pc.struct_field(flat, name)) for name in ID_FIELDS} | behaviour_codes(
            flat, event_us, offsets, zone
        )
        return cls(
            user_ids=user_ids,
            offsets=offsets,
            event_us=event_us,
            event_ids=whole(pc.struct_field(flat, "event_id")),
            columns=columns,
        )


def read_newest(reader: LakeReader, days: Sequence[date], zone: str) -> Behaviours:
    """Reads the behaviours of every user who was active on these days, as of the end of the user's last active day."""
    newest: pa.Table | None = None
    for day in each(days, description="read user histories", unit="day"):
        rows = reader.read("user_histories", columns=["user_id", "behaviours"], where={"ds": day})
        if newest is not None:
            known = newest.filter(pc.invert(pc.is_in(newest["user_id"], rows["user_id"].combine_chunks())))
            rows = pa.concat_tables([known, rows])
        newest = rows
    assert newest is not None, "a period has days"
    return Behaviours.from_arrow(newest, zone)
