"""What a user did with an item, as codes of few values: the behaviour side of `BEHAVIOUR_FIELDS`.

Shapes: P behaviours, S sequences, end to end.
"""

from __future__ import annotations

from datetime import date
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from contracts.features import BEHAVIOUR_FIELDS, DWELL_BUCKETS, GAP_BUCKETS, LOGS

Ints = NDArray[np.int64]

CODES = {field.name: field.codes for field in BEHAVIOUR_FIELDS if field.codes is not None}
_DAY = 86_400_000_000  # microseconds


def behaviour_codes(behaviours: pa.ChunkedArray, event_us: Ints, offsets: Ints, zone: str) -> dict[str, Ints]:
    """Codes of P behaviours, by field.

    Args:
        behaviours: structs of `BEHAVIOUR_TYPE`, P.
        event_us: their times in microseconds, P.
        offsets: S + 1, of the sequences.
        zone: whose hours they are.
    """
    local = pc.cast(pa.array(event_us, pa.timestamp("us", "UTC")), pa.timestamp("us", str(ZoneInfo(zone))))
    return {
        "action": whole(pc.struct_field(behaviours, "action")),
        "dwell": dwell_codes(np.asarray(_plain(pc.struct_field(behaviours, "dwell_seconds")), np.float64)),
        "gap": gap_codes(event_us, offsets),
        "hour": whole(pc.hour(local)),
        "log": whole(pc.index_in(pc.struct_field(behaviours, "log"), pa.array(LOGS))),
    }


def whole(column: pa.Array | pa.ChunkedArray) -> Ints:
    """A column as int64."""
    return np.asarray(_plain(pc.cast(column, pa.int64())), np.int64)


def _plain(column: pa.Array | pa.ChunkedArray) -> NDArray[np.generic]:
    values: NDArray[np.generic] = (column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(zero_copy_only=False))
    return values


def ordinal_days(event_us: Ints) -> Ints:
    """Ordinal number of the day of each time, in UTC."""
    return event_us // _DAY + date(1970, 1, 1).toordinal()


def dwell_codes(seconds: NDArray[np.float64]) -> Ints:
    """Bucket of each dwell time (P, seconds; NaN counts as 0)."""
    return np.searchsorted(np.array(DWELL_BUCKETS), np.nan_to_num(seconds), side="right").astype(np.int64)


def gap_codes(event_us: Ints, offsets: Ints) -> Ints:
    """Bucket of the time since the behaviour before, P; 0 of each sequence's first.

    Args:
        event_us: P, microseconds, ascending in each sequence.
        offsets: S + 1.
    """
    gaps = np.diff(event_us, prepend=event_us[:1]) // 1_000_000
    codes = np.searchsorted(np.array(GAP_BUCKETS), gaps, side="right") + 1
    codes[offsets[:-1][np.diff(offsets) > 0]] = 0
    return codes.astype(np.int64)
