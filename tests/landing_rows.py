"""Landing rows for tests: good ones, and each way to spoil one with the rule that it breaks."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pa_parquet

from contracts.features import Log
from contracts.tables import LANDING_COLUMNS

Row = dict[str, Any]
DAY = date(2026, 1, 2)


def good_row(event_id: int, *, day: date = DAY, log: Log = "natural", **changes: Any) -> Row:
    """A row that keeps every rule, as text."""
    seen = datetime(day.year, day.month, day.day, 10) + timedelta(seconds=event_id)
    row: Row = dict.fromkeys(LANDING_COLUMNS[log], "3")
    row |= {
        "event_id": str(event_id),
        "event_ts": f"{seen.isoformat()}.250Z",
        "arrival_ts": "",
        "request_id": str(event_id // 5),
        "user_id": str(event_id % 7),
        "item_id": str(event_id % 11),
        "click": "1",
        "action": "1",
        "dwell_seconds": "1.5",
        "item_text": 'Tea, "green", 100 g',
    }
    return row | {name: value if value is None else str(value) for name, value in changes.items()}


# What is changed in a good row, and the rule that it breaks then.
SPOILED: list[tuple[Row, str]] = [
    ({"event_id": ""}, "event_id_type"),
    ({"event_id": "-5"}, "event_id_range"),
    ({"event_id": "abc"}, "event_id_type"),
    ({"user_id": ""}, "user_id_type"),
    ({"user_id": "-1"}, "user_id_range"),
    ({"item_id": "1.5"}, "item_id_type"),
    ({"item_id": "99999999999999999999"}, "item_id_type"),
    ({"category_id": "<script>alert(1)</script>"}, "category_id_type"),
    ({"position": "10001"}, "position_range"),
    ({"event_ts": "around noon"}, "event_ts_type"),
    ({"event_ts": ""}, "event_ts_type"),
    ({"event_ts": "2026-13-45T00:00:00Z"}, "event_ts_type"),
    ({"event_ts": "2026-01-03T00:00:00.000Z"}, "event_day"),
    ({"event_ts": "2025-12-31T23:59:59.999Z"}, "event_day"),
    ({"event_ts": "1926-01-02T10:00:00Z"}, "event_day"),
    ({"arrival_ts": "soon"}, "arrival_ts_type"),
    ({"click": "2", "action": "1"}, "click_range"),
    ({"click": "yes"}, "click_type"),
    ({"action": "0"}, "action_of_click"),
    ({"action": "9"}, "action_range"),
    ({"dwell_seconds": "-1"}, "dwell_seconds_range"),
    ({"dwell_seconds": "NaN"}, "dwell_seconds_range"),
    ({"dwell_seconds": "1e9"}, "dwell_seconds_range"),
    ({"item_text": "x" * 5_000_000}, "item_text_length"),
    ({"item_text": "caf\ufffd"}, "item_text_encoding"),
]


def csv_bytes(rows: Sequence[Row], columns: Sequence[str] | None = None, delimiter: str = ",") -> bytes:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(
        file, list(columns or rows[0]), delimiter=delimiter, extrasaction="ignore", lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def jsonl_bytes(rows: Sequence[Row]) -> bytes:
    """Numbers as JSON numbers, empty values left out."""

    def value(text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError:
            return text

    return b"".join(
        json.dumps({name: value(text) for name, text in row.items() if text}).encode() + b"\n" for row in rows
    )


def write_parquet(path: Path, rows: Sequence[Row], *, typed: bool = True) -> Path:
    """With the types that a warehouse would have, or all as text."""

    def column(name: str) -> pa.Array:
        texts = [row[name] or None for row in rows]
        if not typed or name == "item_text":
            return pa.array(texts, pa.string())
        if name in ("event_ts", "arrival_ts"):
            return pa.array(
                [None if text is None else datetime.fromisoformat(text) for text in texts], pa.timestamp("us", "UTC")
            )
        kind: Callable[[str], Any] = float if name == "dwell_seconds" else int
        return pa.array(
            [None if text is None else kind(text) for text in texts], pa.float64() if kind is float else pa.int64()
        )

    path.parent.mkdir(parents=True, exist_ok=True)
    pa_parquet.write_table(pa.table({name: column(name) for name in rows[0]}), path)
    return path


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path
