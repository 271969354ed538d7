"""What goes wrong on the way to the landing folder: late rows, duplicates, malformed rows, at given rates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa

from contracts.errors import BadInput

LATE_SPREAD_HOURS = 6  # late rows arrive within this time after midnight
_DIFFERING_SHARE = 0.1  # of the duplicates, how many repeat an event_id with another payload
_NEXT_DAY_SHARE = 0.5  # of the exact duplicates, how many arrive with the next day's file


@dataclass(frozen=True, kw_only=True)
class FaultRates:
    """Shares of a day's impressions; 0 is none.

    Attributes:
        duplicates: delivered again; most with the same payload, the same day or the next, a tenth with another dwell time.
        malformed: extra rows that break a rule, one kind each.
        late: arrive with the next day's file.
    """

    duplicates: float = 0.01
    malformed: float = 0.002
    late: float = 0.005

    def __post_init__(self) -> None:
        for name, option in (("duplicates", "duplicate"), ("malformed", "malformed"), ("late", "late")):
            if not 0 <= getattr(self, name) < 1:
                raise BadInput("simulate", f"--{option}-rate", expected="a share in [0, 1)", found=getattr(self, name))


def _shifted(days: int) -> Callable[[str], str]:
    def shift(text: str) -> str:
        moved = datetime.fromisoformat(text) + timedelta(days=days)
        return moved.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return shift


# Kind of malformed row: the column at fault, and what becomes of its value. One holds markup: reports must escape it.
MALFORMED: dict[str, tuple[str, Callable[[str], str | None]]] = {
    "event_id missing": ("event_id", lambda _: None),
    "user_id missing": ("user_id", lambda _: None),
    "item_id negative": ("item_id", lambda value: f"-{value}"),
    "click is 7": ("click", lambda _: "7"),
    "event_ts is no time": ("event_ts", lambda _: "around noon"),
    "event_ts in the future": ("event_ts", _shifted(40)),
    "event_ts long ago": ("event_ts", _shifted(-40)),
    "dwell_seconds is text": ("dwell_seconds", lambda _: "long"),
    "category_id is markup": ("category_id", lambda _: "<script>alert(1)</script>"),
}


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """Rows of one log on their way: what arrives on the day itself, and what with the next day's file.

    `today` and `tomorrow` count rows by what they are: `on time`, `late`, `duplicate`, `differing duplicate`, or a kind of
    `MALFORMED`; together they say what ingestion must find.
    """

    rows: pa.Table
    next_rows: pa.Table
    today: Counter[str] = field(default_factory=Counter)
    tomorrow: Counter[str] = field(default_factory=Counter)


def arrivals(event_ts_N: np.ndarray, late_N: np.ndarray, midnight: np.datetime64, rng: np.random.Generator) -> np.ndarray:
    """Times of arrival (N): seconds after the event and on its day; late rows within hours after `midnight`, the day's end."""
    soon_N = event_ts_N + (rng.exponential(20_000, len(event_ts_N))).astype("timedelta64[ms]")
    later_N = midnight + rng.integers(0, LATE_SPREAD_HOURS * 3_600_000, len(event_ts_N)).astype("timedelta64[ms]")
    return np.where(late_N, later_N, np.minimum(soon_N, midnight - np.timedelta64(1, "ms")))


def deliver(rows: pa.Table, late_N: np.ndarray, rates: FaultRates, spare_ids: range, rng: np.random.Generator) -> Delivery:
    """Splits a day's clean rows over two landing days and adds what is faulty.

    Args:
        rows: N rows of text columns.
        late_N: which of them arrive on the next day.
        rates: shares of faulty rows.
        spare_ids: event ids that malformed rows may take; no other row has them.
        rng: generator of this log's and day's faults.
    """
    on_time = rows.filter(pa.array(~late_N))
    num_duplicates, num_malformed = rng.binomial(rows.num_rows, (rates.duplicates, rates.malformed))
    if on_time.num_rows == 0:
        num_duplicates = num_malformed = 0
    # Only rows on time are repeated: a late row's repetition could arrive after the allowed lateness, and be no duplicate then.
    repeated_D = rng.integers(0, max(on_time.num_rows, 1), num_duplicates)
    draw_D = rng.random(num_duplicates)
    differing_D = draw_D < _DIFFERING_SHARE
    next_day_D = draw_D >= _DIFFERING_SHARE + (1 - _DIFFERING_SHARE) * (1 - _NEXT_DAY_SHARE)
    differing = _with_other_dwell(on_time.take(repeated_D[differing_D]))
    same_day = on_time.take(repeated_D[~differing_D & ~next_day_D])
    next_day = on_time.take(repeated_D[next_day_D])
    malformed, kinds = _malformed(on_time.take(rng.integers(0, max(on_time.num_rows, 1), num_malformed)), spare_ids, rng)
    late = rows.filter(pa.array(late_N))
    return Delivery(
        rows=pa.concat_tables([on_time, differing, same_day, malformed]),
        next_rows=pa.concat_tables([late, next_day]),
        today=Counter({"on time": on_time.num_rows, "differing duplicate": differing.num_rows, "duplicate": same_day.num_rows}) + kinds,
        tomorrow=Counter({"late": late.num_rows, "duplicate": next_day.num_rows}),
    )


def late_mask(event_ts_N: np.ndarray, rates: FaultRates, rng: np.random.Generator) -> np.ndarray:
    """Which impressions (N) arrive late."""
    return rng.random(len(event_ts_N)) < rates.late


def _with_other_dwell(rows: pa.Table) -> pa.Table:
    other = pa.array([f"{float(value) + 1:.1f}" for value in rows["dwell_seconds"].to_pylist()], type=pa.string())
    return rows.set_column(rows.column_names.index("dwell_seconds"), "dwell_seconds", other)


def _malformed(rows: pa.Table, spare_ids: range, rng: np.random.Generator) -> tuple[pa.Table, Counter[str]]:
    kinds = list(MALFORMED)
    chosen = [kinds[index] for index in rng.integers(0, len(kinds), rows.num_rows)]
    records = rows.to_pylist()
    for record, kind, event_id in zip(records, chosen, spare_ids, strict=False):  # a range of ids is longer than the rows
        record["event_id"] = str(event_id)
        column, spoil = MALFORMED[kind]
        record[column] = spoil(record[column])
    return pa.Table.from_pylist(records, schema=rows.schema), Counter(chosen)


