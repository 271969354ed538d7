"""Encodes what a user did with an item in codes of few values: the behaviour side of `BEHAVIOUR_FIELDS`.

Shapes: P behaviours of S sequences, concatenated.
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
_DAY = 86_400_000_000  # In microseconds.


def behaviour_codes(behaviours: pa.ChunkedArray, event_us: Ints, offsets: Ints, zone: str) -> dict[str, Ints]:
    """Returns the codes of P behaviours, by field.

    Args:
        behaviours: structs of `BEHAVIOUR_TYPE`, P.
        event_us: their times in microseconds, P.
        offsets: the offsets of the sequences, S + 1.
        zone: the time zone of the hours.
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
    """Returns a column as int64."""
    return np.asarray(_plain(pc.cast(column, pa.int64())), np.int64)


def _plain(column: pa.Array | pa.ChunkedArray) -> NDArray[np.generic]:
    values: NDArray[np.generic] = (
        column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(zero_copy_only=False)
    )
    return values


def ordinal_days(event_us: Ints) -> Ints:
    """Returns the ordinal number of the UTC day of each time in microseconds."""
    return event_us // _DAY + date(1970, 1, 1).toordinal()


def dwell_codes(seconds: NDArray[np.float64]) -> Ints:
    """Returns the bucket of each dwell time (P, in seconds; NaN counts as 0)."""
    return np.searchsorted(np.array(DWELL_BUCKETS), np.nan_to_num(seconds), side="right").astype(np.int64)


def gap_codes(event_us: Ints, offsets: Ints) -> Ints:
    """Returns the bucket of the time since the behaviour before, P; 0 for the first of each sequence.

    Args:
        event_us: times in microseconds, ascending in each sequence, P.
        offsets: the offsets of the sequences, S + 1.
    """
    gaps = np.diff(event_us, prepend=event_us[:1]) // 1_000_000
    codes = np.searchsorted(np.array(GAP_BUCKETS), gaps, side="right") + 1
    codes[offsets[:-1][np.diff(offsets) > 0]] = 0
    return codes.astype(np.int64)
