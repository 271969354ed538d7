"""Simulated faults of delivery: late rows, duplicates, malformed rows, at given rates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa

from contracts.errors import BadInput
from contracts.features import LONGEST_TEXT
from sources import landing

TOO_LONG = 3 * LONGEST_TEXT // 2  # characters
LATE_SPREAD_HOURS = 6  # late rows arrive within this time after midnight
_DIFFERING_SHARE = 0.1  # share of the duplicates that have the event_id of another row and another payload
_NEXT_DAY_SHARE = 0.5  # share of the exact duplicates that arrive with the next day's file


@dataclass(frozen=True, kw_only=True)
class FaultRates:
    """Shares of a day's impressions; 0 is none.

    Attributes:
        duplicates: rows delivered a second time, on the same day or the next; a tenth have another dwell time.
        malformed: extra rows, each of which breaks a rule.
        late: rows that arrive with the next day's file.
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
    "item_text is too long": ("item_text", lambda value: (f"{value} " * TOO_LONG)[:TOO_LONG]),
}
# Kind of malformed line: what becomes of a row's line of CSV, which has so many fields, the text last.
MALFORMED_LINES: dict[str, Callable[[bytes, int], bytes]] = {
    "too few fields": lambda line, _: b",".join(line.split(b",")[:5]),
    "too many fields": lambda line, _: line + b",surplus",
    "item_text is no UTF-8": lambda line, fields: b",".join([*line.split(b",", fields - 1)[:-1], b"Caf\xe9 chair"]),
}
MALFORMED_KINDS = (*MALFORMED, *MALFORMED_LINES)


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """Rows of one log as they are delivered: those that arrive on the day itself, and those in the next day's file.

    `today` and `tomorrow` count rows by what they are: `on time`, `late`, `duplicate`, `differing duplicate`, or a kind
    of `MALFORMED_KINDS`; these are the counts that ingestion must report. Both tables have the column `landing.LINE`.
    """

    rows: pa.Table
    next_rows: pa.Table
    today: Counter[str] = field(default_factory=Counter)
    tomorrow: Counter[str] = field(default_factory=Counter)


def arrivals(
    event_ts_N: np.ndarray, late_N: np.ndarray, midnight: np.datetime64, rng: np.random.Generator
) -> np.ndarray:
    """Times of arrival (N): seconds after the event and on its day; late rows within hours after `midnight`, the day's end."""
    soon_N = event_ts_N + (rng.exponential(20_000, len(event_ts_N))).astype("timedelta64[ms]")
    later_N = midnight + rng.integers(0, LATE_SPREAD_HOURS * 3_600_000, len(event_ts_N)).astype("timedelta64[ms]")
    return np.where(late_N, later_N, np.minimum(soon_N, midnight - np.timedelta64(1, "ms")))


def deliver(
    rows: pa.Table, late_N: np.ndarray, rates: FaultRates, spare_ids: range, rng: np.random.Generator
) -> Delivery:
    """Splits a day's clean rows over two landing days and adds what is faulty.

    Args:
        rows: N rows of text columns.
        late_N: which of them arrive on the next day.
        rates: shares of faulty rows.
        spare_ids: event ids that malformed rows may take; no other row has them.
        rng: generator of this log's and day's faults.
    """
    on_time = rows.filter(pa.array(~late_N))
    num_duplicates, num_malformed = np.minimum(
        rng.binomial(rows.num_rows, (rates.duplicates, rates.malformed)), on_time.num_rows
    )
    # Only rows on time are duplicated: a duplicate of a late row could arrive after the allowed lateness, and be no
    # duplicate then. No row is duplicated twice: if its copies differed, the number that differ from the first would
    # depend on their order.
    repeated_D = rng.permutation(on_time.num_rows)[:num_duplicates]
    draw_D = rng.random(num_duplicates)
    differing_D = draw_D < _DIFFERING_SHARE
    next_day_D = draw_D >= _DIFFERING_SHARE + (1 - _DIFFERING_SHARE) * (1 - _NEXT_DAY_SHARE)
    differing = _with_other_dwell(on_time.take(repeated_D[differing_D]))
    same_day = on_time.take(repeated_D[~differing_D & ~next_day_D])
    next_day = on_time.take(repeated_D[next_day_D])
    malformed, kinds = _malformed(
        on_time.take(rng.integers(0, max(on_time.num_rows, 1), num_malformed)), spare_ids, rng
    )
    late = rows.filter(pa.array(late_N))
    return Delivery(
        rows=_concatenated(on_time, differing, same_day, malformed),
        next_rows=_concatenated(late, next_day),
        today=Counter(
            {"on time": on_time.num_rows, "differing duplicate": differing.num_rows, "duplicate": same_day.num_rows}
        )
        + kinds,
        tomorrow=Counter({"late": late.num_rows, "duplicate": next_day.num_rows}),
    )


def late_mask(event_ts_N: np.ndarray, rates: FaultRates, rng: np.random.Generator) -> np.ndarray:
    """Which impressions (N) arrive late."""
    return rng.random(len(event_ts_N)) < rates.late


def _with_other_dwell(rows: pa.Table) -> pa.Table:
    other = pa.array([f"{float(value) + 1:.1f}" for value in rows["dwell_seconds"].to_pylist()], type=pa.string())
    return rows.set_column(rows.column_names.index("dwell_seconds"), "dwell_seconds", other)


def _concatenated(*parts: pa.Table) -> pa.Table:
    """All rows, with a null `LINE` where a part has none."""
    lines = [
        part
        if landing.LINE in part.column_names
        else part.append_column(landing.LINE, pa.nulls(part.num_rows, pa.binary()))
        for part in parts
    ]
    return pa.concat_tables(lines)


def _malformed(rows: pa.Table, spare_ids: range, rng: np.random.Generator) -> tuple[pa.Table, Counter[str]]:
    """Each row with a fault of its own, and how many there are of each kind."""
    chosen = [MALFORMED_KINDS[index] for index in rng.integers(0, len(MALFORMED_KINDS), rows.num_rows)]
    records = rows.to_pylist()
    for record, kind, event_id in zip(
        records, chosen, spare_ids, strict=False
    ):  # a range of ids is longer than the rows
        record["event_id"] = str(event_id)
        if kind in MALFORMED:
            column, spoil = MALFORMED[kind]
            record[column] = spoil(record[column])
    spoiled = pa.Table.from_pylist(records, schema=rows.schema)
    lines = [
        MALFORMED_LINES[kind](line, rows.num_columns) if kind in MALFORMED_LINES else None
        for kind, line in zip(chosen, landing.csv_lines(spoiled).to_pylist(), strict=True)
    ]
    return spoiled.append_column(landing.LINE, pa.array(lines, type=pa.binary())), Counter(chosen)
