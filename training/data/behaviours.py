"""Users' behaviours with all side information, as the lake holds them at the end of a period.

Shapes: U users, P behaviours, end to end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contracts.features import LOGS
from lake.progress import each
from lake.reader import LakeReader
from training.data.histories import Ints
from training.data.sequences import dwell_codes, gap_codes

_DAY = 86_400_000_000  # microseconds


@dataclass(frozen=True, kw_only=True)
class Behaviours:
    """Behaviours of users, oldest first.

    Attributes:
        user_ids: U, ascending.
        offsets: U + 1.
        event_us, event_ids: P.
        columns: raw ids and codes by field of `BEHAVIOUR_FIELDS`, P each.
    """

    user_ids: Ints
    offsets: Ints
    event_us: Ints
    event_ids: Ints
    columns: Mapping[str, Ints]

    @property
    def day(self) -> Ints:
        """Ordinal number of each behaviour's day, P, in UTC: when an id was seen last."""
        return self.event_us // _DAY + date(1970, 1, 1).toordinal()

    @classmethod
    def from_arrow(cls, table: pa.Table, zone: str) -> Behaviours:
        """From rows (user_id, behaviours) of `user_histories`, one a user; hours are those of the time zone."""
        table = table.sort_by("user_id")
        column = table["behaviours"].combine_chunks() if table.num_rows else pa.array([], table.schema.field("behaviours").type)
        offsets = np.concatenate([[0], np.cumsum(pc.fill_null(pc.list_value_length(column), 0).to_numpy())]).astype(np.int64)
        flat = column.flatten()

        def numbers(name: str) -> Ints:
            return np.asarray(pc.cast(pc.struct_field(flat, name), pa.int64()).to_numpy(zero_copy_only=False), np.int64)

        times = pc.cast(pc.struct_field(flat, "event_ts"), pa.timestamp("us", "UTC"))
        event_us = np.asarray(pc.cast(times, pa.int64()).to_numpy(zero_copy_only=False), np.int64)
        local = pc.cast(times, pa.timestamp("us", str(ZoneInfo(zone))))
        dwell = np.asarray(pc.struct_field(flat, "dwell_seconds").to_numpy(zero_copy_only=False), np.float64)
        logs = pc.index_in(pc.struct_field(flat, "log"), pa.array(LOGS))
        columns = {
            "item_id": numbers("item_id"), "category_id": numbers("category_id"), "action": numbers("action"), "dwell": dwell_codes(dwell),
            "gap": gap_codes(event_us, offsets), "hour": pc.hour(local).to_numpy(zero_copy_only=False).astype(np.int64),
            "log": logs.to_numpy(zero_copy_only=False).astype(np.int64),
        }
        return cls(user_ids=np.asarray(table["user_id"].to_numpy(), np.int64), offsets=offsets, event_us=event_us,
                   event_ids=numbers("event_id"), columns=columns)


def read_newest(reader: LakeReader, days: Sequence[date], zone: str) -> Behaviours:
    """Behaviours of every user who was active in these days, as they were known at the end of the last such day of each."""
    newest: pa.Table | None = None
    for day in each(days, description="read user histories", unit="day"):
        rows = reader.read("user_histories", columns=["user_id", "behaviours"], where={"ds": day})
        if newest is not None:
            known = newest.filter(pc.invert(pc.is_in(newest["user_id"], rows["user_id"].combine_chunks())))
            rows = pa.concat_tables([known, rows])
        newest = rows
    assert newest is not None, "a period has days"
    return Behaviours.from_arrow(newest, zone)
