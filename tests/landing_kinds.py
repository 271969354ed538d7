"""Kinds of landing files, formats times types times quirks, each with what it holds: which rows are to be kept, which rules broken."""

from __future__ import annotations

import gzip
import io
import json
import math
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from landing_rows import DAY, Row, csv_bytes, good_row

STRING_IDS = ("user_id",)
ROWS = 3  # of most kinds
EVENTS = 2_000  # event ids of a kind: none has as many rows


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A landing file.

    Attributes:
        name: of the file.
        content: its bytes.
        kept: its rows that keep every rule, as text.
        broken: rows by the first rule that they break.
    """

    name: str
    content: bytes
    kept: tuple[Row, ...]
    broken: Counter[str] = field(default_factory=Counter)

    @property
    def rows(self) -> int:
        return len(self.kept) + self.broken.total()


class Maker:
    """Collects kinds, each with event ids of its own."""

    def __init__(self) -> None:
        self.kinds: list[Kind] = []

    def rows(self, count: int = ROWS, **changes: Any) -> list[Row]:
        begin = (len(self.kinds) + 1) * EVENTS
        return [
            good_row(begin + number, **{"event_ts": f"{DAY}T10:{number % 60:02}:01.250Z", **changes})
            for number in range(count)
        ]

    def add(self, name: str, content: bytes, kept: Sequence[Row], **broken: int) -> None:
        self.kinds.append(Kind(name=name, content=content, kept=tuple(kept), broken=Counter(broken)))

    def csv(self, name: str, change: Callable[[bytes], bytes] = lambda same: same, **changes: Any) -> None:
        """Good rows, in bytes that are written in another way."""
        rows = self.rows(**changes)
        self.add(name, change(csv_bytes(rows)), rows)

    def parquet(
        self,
        name: str,
        types: dict[str, Any] | None = None,
        *,
        extra: dict[str, Any] | None = None,
        without: Sequence[str] = (),
        kept: Sequence[Row] | None = None,
        rows: list[Row] | None = None,
        broken: dict[str, int] | None = None,
        **options: Any,
    ) -> None:
        """Rows with columns of these types: name -> an array, or a type to cast the usual column to."""
        rows = self.rows() if rows is None else rows
        columns = {column: usual_column(column, rows) for column in rows[0] if column not in without}
        for column, value in (types or {}).items():
            columns[column] = value if isinstance(value, pa.Array) else columns[column].cast(value)
        self.add(
            name,
            parquet_bytes(pa.table(columns | (extra or {})), **options),
            rows if kept is None else kept,
            **(broken or {}),
        )


def usual_column(name: str, rows: Sequence[Row]) -> pa.Array:
    """With the types that a warehouse would have; user ids are strings."""
    texts = [row[name] or None for row in rows]
    if name in ("item_text", *STRING_IDS):
        return pa.array(texts, pa.string())
    if name in ("event_ts", "arrival_ts"):
        return pa.array(
            [None if text is None else datetime.fromisoformat(text) for text in texts], pa.timestamp("us", "UTC")
        )
    if name == "dwell_seconds":
        return pa.array([None if text is None else float(text) for text in texts], pa.float64())
    return pa.array([None if text is None else int(text) for text in texts], pa.int64())


def parquet_bytes(rows: pa.Table, **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(rows, file, **options)
    return file.getvalue()


def json_line(row: Row, *, text: bool = False) -> bytes:
    """Numbers as JSON numbers, empty values left out; user ids are strings."""

    def value(name: str, given: str) -> Any:
        return given if text or name in ("item_text", "event_ts", "arrival_ts", *STRING_IDS) else json.loads(given)

    return json.dumps({name: value(name, given) for name, given in row.items() if given}).encode()


def json_bytes(rows: Sequence[Row], **options: Any) -> bytes:
    return b"".join(json_line(row, **options) + b"\n" for row in rows)


def all_kinds() -> list[Kind]:
    """Each of them once."""
    maker = Maker()
    for add in (
        csv_layouts,
        csv_columns,
        csv_quotes,
        csv_bytes_and_values,
        json_lines,
        json_keys,
        file_names,
        parquet_numbers,
        parquet_texts,
        parquet_times,
        parquet_layouts,
    ):
        add(maker)
    return maker.kinds


def csv_layouts(make: Maker) -> None:
    make.csv("plain.csv")
    make.csv("cr-lf.csv", lambda content: content.replace(b"\n", b"\r\n"))
    make.csv("cr.csv", lambda content: content.replace(b"\n", b"\r"))
    make.csv("mixed-ends.csv", lambda content: content.replace(b"\n", b"\r\n", 2))
    make.csv("no-last-end.csv", lambda content: content.removesuffix(b"\n"))
    make.csv("byte-order-mark.csv", lambda content: b"\xef\xbb\xbf" + content)
    make.csv("packed.csv.gz", gzip.compress)
    make.csv("members.csv.gz", lambda content: gzip.compress(content[:200]) + gzip.compress(content[200:]))
    make.csv("blank-after-header.csv", lambda content: content.replace(b"\n", b"\n\n\n", 1))
    make.csv("blank-before-header.csv", lambda content: b"\n\n" + content)
    make.csv("blank-lines.csv", lambda content: content.replace(b"\n", b"\n\n") + b"\n\n")


def csv_columns(make: Maker) -> None:
    make.csv(
        "quoted-header.csv",
        lambda content: content.replace(b"event_id", b'"event_id"', 1).replace(b"click", b'"click"', 1),
    )
    make.csv("spaced-header.csv", lambda content: content.replace(b",click", b", click ", 1))
    own = ("_corrupt", "_metadata", "raw_user_id", "file", "ds", "c1", "path")
    for name, extra in {
        "own-names": dict.fromkeys(own, "1"),
        "marks-in-names": {"a`b": "1", "a.b": "2", "a,b": "3", 'a"b': "4", "\u00fc": "5", "'": "6", "\t": "7"},
        "other-case": dict.fromkeys(("USER_ID", "Click", "ITEM_ID", "a", "A", "b", "B"), "7"),
    }.items():
        rows = make.rows()
        make.add(f"{name}.csv", csv_bytes([row | extra for row in rows]), rows)
    rows = make.rows()
    make.add(
        "unknown-twice.csv",
        csv_bytes([row | dict.fromkeys("abcdefg", "1") for row in rows]).replace(b",a,b", b",a,a", 1),
        rows,
    )
    rows = make.rows(item_text="", arrival_ts="")
    order = [name for name in rows[0] if name not in ("item_text", "arrival_ts")][::-1]
    make.add("another-order-optional-missing.csv", csv_bytes(rows, order), rows)
    make.csv("delimiters-at-the-end.csv", lambda content: content.replace(b"\n", b",,,,,,,\n"))
    rows = make.rows()
    lines = csv_bytes(rows).splitlines(keepends=True)
    make.add("header-again.csv", b"".join([*lines, lines[0]]), rows, event_id_type=1)


def csv_quotes(make: Maker) -> None:
    make.csv("break-at-the-end.csv", item_text="two\nlines")
    rows = make.rows(item_text='two\nlines, "quoted"')
    make.add(
        "break-in-the-middle.csv",
        csv_bytes(rows, ["item_text", *(name for name in rows[0] if name != "item_text")]),
        rows,
    )
    make.csv("break-packed.csv.gz", gzip.compress, item_text="two\nlines")
    make.csv("break-cr-lf.csv", lambda content: content.replace(b"\n", b"\r\n"), item_text="two\nlines")
    make.csv(
        "break-mixed.csv",
        lambda content: content.replace(b"\n", b"\r\n").replace(b"\r\n", b"\n", 1),
        item_text="two\nlines",
    )
    make.kinds[-1] = replace_texts(make.kinds[-1], "two\r\nlines")
    make.csv("stray-quotes.csv", lambda content: content.replace(b"SIZE", b'15"'), item_text="SIZE screen")
    make.kinds[-1] = replace_texts(make.kinds[-1], '15" screen')
    rows = make.rows(5, item_text="T")
    lines = csv_bytes(rows).splitlines(keepends=True)
    lines[2] = lines[2].replace(b",T", b',"never closed')
    make.add("open-at-the-end.csv", b"".join(lines), [rows[0], *rows[2:]], columns=1)
    rows = make.rows(5, item_text="T")
    lines = csv_bytes(rows).splitlines(keepends=True)
    lines[2] = lines[2].replace(b",T", b',"one ""quoted""')
    lines[4] = lines[4].replace(b"3,3,", b'"3,3,', 1)
    make.add("open-in-the-middle.csv", b"".join(lines), [rows[0], rows[2], rows[4]], columns=2)
    rows = make.rows(3)
    lines = csv_bytes(rows).splitlines(keepends=True)
    make.add(
        "fields.csv",
        b"".join([*lines, lines[1].replace(b"\n", b",more\n"), lines[2].split(b",")[0] + b"\n"]),
        rows,
        columns=2,
    )
    for name, text in {"fields-next-to-unknown": "T", "fields-next-to-unknown-stray-quotes": '15" screen'}.items():
        rows = make.rows(3, item_text=text)
        content = csv_bytes([row | {"item_text": "T"} | dict.fromkeys("abc", "1") for row in rows])
        lines = content.replace(b",T,", f",{text},".encode()).splitlines(keepends=True)
        short = lines[2].rpartition(b",")[0] + b"\n"
        make.add(f"{name}.csv", b"".join([*lines, lines[1].replace(b"\n", b",more\n"), short]), rows, columns=2)


def replace_texts(kind: Kind, text: str) -> Kind:
    return Kind(
        name=kind.name,
        content=kind.content,
        kept=tuple(row | {"item_text": text} for row in kind.kept),
        broken=kind.broken,
    )


def csv_bytes_and_values(make: Maker) -> None:
    rows = make.rows()
    make.add("no-utf8-text.csv", csv_bytes(rows).replace(b"green", b"gr\xe9en", 1), rows[1:], item_text_encoding=1)
    rows = make.rows(user_id="K\u00fcnstler")
    make.add("no-utf8-id.csv", csv_bytes(rows).replace("\u00fc".encode(), b"\xfc"), [], user_id_type=3)
    rows = make.rows()
    make.add(
        "whole-numbers.csv",
        csv_bytes([row | {"item_id": row["item_id"] + ".0", "category_id": "3.0"} for row in rows]),
        rows,
    )
    rows = make.rows()
    make.add("nul.csv", csv_bytes([row | {"item_id": "\0"} for row in rows[:1]] + rows[1:]), rows[1:], item_id_type=1)
    rows = make.rows()
    bad = [rows[0] | {"event_id": "x", "click": "9"}, rows[1] | {"click": "9", "position": "-1", "event_ts": "soon"}]
    make.add("broken-often.csv", csv_bytes([*bad, rows[2]]), rows[2:], event_id_type=1, event_ts_type=1)


def json_lines(make: Maker) -> None:
    packings: dict[str, Callable[[bytes], bytes]] = {
        "plain.jsonl": bytes,
        "packed.jsonl.gz": gzip.compress,
        "cr-lf.jsonl": lambda content: content.replace(b"\n", b"\r\n"),
        "byte-order-mark.jsonl": lambda content: b"\xef\xbb\xbf" + content,
        "blank-lines.jsonl": lambda content: content.replace(b"\n", b"\n \t\n"),
    }
    for name, pack in packings.items():
        rows = make.rows()
        make.add(name, pack(json_bytes(rows)), rows)
    rows = make.rows()
    make.add("texts.jsonl", json_bytes(rows, text=True), rows)
    rows = make.rows(4)
    glued = b"".join(map(json_line, rows[:3]))
    make.add("glued.jsonl", glued + b"\n" + json_bytes(rows[3:]), rows[3:], columns=1)
    rows = make.rows(3)
    make.add(
        "text-behind.jsonl",
        json_line(rows[0]) + b" trailing words\n" + json_line(rows[1]) + b"}\n" + json_bytes(rows[2:]),
        rows[2:],
        columns=2,
    )
    rows = make.rows(3)
    make.add(
        "array.jsonl",
        b"[" + json_line(rows[0]) + b"," + json_line(rows[1]) + b"]\n" + json_bytes(rows[2:]),
        rows[2:],
        columns=1,
    )
    rows = make.rows(1)
    others = [b"null", b"5", b'"text"', b"[]", b'{"event_id": 1', b"{'event_id': ", b"}{", b"[" * 3000, b"{]}", b"\x00"]
    make.add("no-objects.jsonl", json_bytes(rows) + b"\n".join(others) + b"\n", rows, columns=len(others))
    rows = make.rows(item_text='a } brace {, \\ and "quotes" }{')
    make.add("braces.jsonl", json_bytes(rows), rows)
    rows = make.rows(item_text="two\nlines")
    make.add("break.jsonl", json_bytes(rows), rows)


def json_keys(make: Maker) -> None:
    rows = [row | ({"item_text": ""} if number < 1200 else {}) for number, row in enumerate(make.rows(1203))]
    make.add("late-key.jsonl", json_bytes(rows), rows)
    rows = make.rows()
    make.add(
        "other-case.jsonl",
        b"".join(json_line(row).replace(b"{", b'{"USER_ID": "x", "Click": 7, ', 1) + b"\n" for row in rows),
        rows,
    )
    rows = make.rows()
    names = {
        "_corrupt": 1,
        "_metadata": 2,
        "raw_user_id": 3,
        "file": 4,
        "ds": 5,
        "value": 6,
        "object": {"user_id": 7},
        "a`b": [8],
        "": 9,
    }
    extra = json.dumps(names).encode()[1:-1]
    make.add(
        "own-names.jsonl", b"".join(json_line(row).replace(b"{", b"{" + extra + b", ", 1) + b"\n" for row in rows), rows
    )
    for number in range(12):
        rows = make.rows(2)
        content = b"".join(
            json_line(row).replace(b"{", b'{"key-%d": {"deep": [%d]}, ' % (number, number), 1) + b"\n" for row in rows
        )
        make.add(f"keys-{number}.jsonl", content, rows)
    rows = make.rows()
    make.add(
        "twice.jsonl", b"".join(json_line(row).replace(b"{", b'{"item_id": -1, ', 1) + b"\n" for row in rows), rows
    )
    rows = make.rows()
    content = b"".join(json_line(row).replace(b'"category_id": 3', b'"category_id": 3.0') + b"\n" for row in rows)
    make.add("whole-numbers.jsonl", content.replace(b'"click": 1', b'"click": true', 1), rows[1:], click_type=1)


def file_names(make: Maker) -> None:
    for name in (
        "a[bc]",
        "ab",
        "{x,y}",
        "st*r",
        "wh?t",
        "back\\slash",
        "co:lon",
        "two words",
        "%41",
        "c#",
        "a+b",
        "\u00fc",
        "semi;colon",
        "'\"",
        "[a-z]:[0-9]",
        "new\nline",
        "$HOME",
        "a=b",
        "~",
    ):
        make.csv(f"{name}.csv")
    rows = make.rows()
    make.add("co:lon.jsonl", json_bytes(rows), rows)
    make.parquet("co:lon [1].parquet")


# Files with the same types of columns are read together; each group costs a plan of its own, so kinds share few groups.
INTEGERS = {
    "item_id": pa.int8(),
    "category_id": pa.int16(),
    "user_segment_id": pa.int32(),
    "position": pa.uint8(),
    "click": pa.uint16(),
    "action": pa.uint32(),
    "request_id": pa.uint64(),
    "user_id": pa.decimal128(20, 0),
}
LOOSE = {
    "event_id": pa.float64(),
    "item_id": pa.float64(),
    "category_id": pa.float32(),
    "user_segment_id": pa.decimal128(22, 2),
    "position": pa.string(),
    "click": pa.bool_(),
    "dwell_seconds": pa.decimal128(9, 3),
}
TEXTS = {
    "user_id": pa.binary(),
    "item_text": pa.binary(),
    "event_ts": pa.string(),
    "click": pa.string(),
    "dwell_seconds": pa.float32(),
}


def parquet_numbers(make: Maker) -> None:
    make.parquet("integers.parquet", INTEGERS)
    make.parquet("decimals.parquet", INTEGERS | {"request_id": pa.decimal128(20, 0)})
    rows = make.rows(3)
    make.parquet(
        "too-large.parquet",
        INTEGERS | {"request_id": pa.array([2**64 - 1, 5, 6], pa.uint64())},
        rows=rows,
        kept=rows[1:],
        broken={"request_id_type": 1},
    )
    loose = LOOSE | {"user_id": pa.array([12345678.0] * ROWS)}
    make.parquet("doubles.parquet", loose, rows=make.rows(user_id="12345678"))
    rows = make.rows(4, user_id="10")
    gaps = pa.array([float(rows[0]["event_id"]), None, math.nan, 2.0**60], pa.float64())
    loose["user_id"] = pa.array([10.0] * 4)
    make.parquet(
        "gap-in-ids.parquet", loose | {"event_id": gaps}, rows=rows, kept=rows[:1], broken={"event_id_type": 3}
    )
    rows = make.rows(4, user_id="10")
    make.parquet(
        "fractions.parquet",
        loose | {"item_id": pa.array([1.5, 2.0, -3.0, 1e300])},
        rows=rows,
        kept=[rows[1] | {"item_id": "2"}],
        broken={"item_id_type": 2, "item_id_range": 1},
    )
    rows = make.rows(4, user_id="10")
    values = pa.array([10.0, 10.5, math.nan, 2.0**53], pa.float64())
    make.parquet(
        "user-no-integers.parquet", loose | {"user_id": values}, rows=rows, kept=rows[:1], broken={"user_id_type": 3}
    )
    rows = make.rows(2, user_id="10", click="0", action="0")
    make.parquet(
        "flags.parquet",
        loose | {"user_id": pa.array([10.0] * 2), "click": pa.array([False, True])},
        rows=rows,
        kept=rows[:1],
        broken={"action_of_click": 1},
    )


def parquet_texts(make: Maker) -> None:
    for name, kind in {
        "large": pa.large_string(),
        "view": pa.string_view(),
        "dictionary": pa.dictionary(pa.int32(), pa.string()),
    }.items():
        make.parquet(f"texts-{name}.parquet", {"item_text": kind, "user_id": kind})
    make.parquet("texts-binary.parquet", TEXTS)
    make.parquet("texts-large-binary.parquet", TEXTS | {"user_id": pa.large_binary()})
    rows = make.rows(2)
    make.parquet(
        "no-utf8.parquet",
        TEXTS | {"user_id": pa.array([b"K\xff", b"K1"], pa.binary())},
        rows=rows,
        kept=[rows[1] | {"user_id": "K1"}],
        broken={"user_id_type": 1},
    )
    ids = [uuid.UUID(int=2**100 + number) for number in range(ROWS)]
    rows = [
        row | {"user_id": str(of_row), "event_ts": f"{DAY}T00:00:00Z", "item_text": "7", "dwell_seconds": "2"}
        for row, of_row in zip(make.rows(), ids, strict=True)
    ]
    make.parquet(
        "uuid-date-int.parquet",
        {
            "user_id": pa.array([of_row.bytes for of_row in ids], pa.uuid()),
            "event_ts": pa.array([DAY] * ROWS, pa.date32()),
            "item_text": pa.array([7] * ROWS),
            "dwell_seconds": pa.array([2] * ROWS, pa.int32()),
        },
        rows=rows,
    )


def parquet_times(make: Maker) -> None:
    fixed = {"user_id": pa.array([b"K1"] * ROWS, pa.binary(2))}
    local = {"user_id": pa.array([10] * ROWS), "arrival_ts": pa.nulls(ROWS)}
    for unit in ("s", "ms", "us", "ns"):
        with_zone: dict[str, Any] = {"event_ts": pa.timestamp(unit, "UTC")} | (fixed if unit == "ns" else {})
        own_ids: dict[str, Any] = {"user_id": "K1"} if unit == "ns" else {}
        rows = make.rows(event_ts=f"{DAY}T10:00:01Z", **own_ids)
        make.parquet(f"time-{unit}-utc.parquet", with_zone, rows=rows)
        rows = make.rows(event_ts=f"{DAY}T10:00:01Z", user_id="K1" if unit == "ns" else "10")
        times = usual_column("event_ts", rows).cast(pa.timestamp("us")).cast(pa.timestamp(unit))
        make.parquet(f"time-{unit}.parquet", {"event_ts": times} | (fixed if unit == "ns" else local), rows=rows)
    rows = make.rows(user_id="K1")
    micros = [int(datetime.fromisoformat(row["event_ts"]).timestamp() * 1_000_000) for row in rows]
    nanos = pa.array([value * 1000 + 999 for value in micros], pa.timestamp("ns", "UTC"))
    make.parquet("time-below-a-microsecond.parquet", {"event_ts": nanos} | fixed, rows=rows)
    make.parquet("time-96.parquet", use_deprecated_int96_timestamps=True)
    rows = make.rows(2)
    times = pa.array([datetime(1900, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)], pa.timestamp("us", "UTC"))
    make.parquet("time-far.parquet", {"event_ts": times}, rows=rows, kept=[], broken={"event_day": 2})


def parquet_layouts(make: Maker) -> None:
    rows = make.rows(item_text="")
    make.parquet("optional-missing.parquet", without=["item_text", "arrival_ts"], rows=rows)
    half = pa.array([1.0] * ROWS).cast(pa.float16())
    make.parquet(
        "unneeded-types.parquet",
        extra={
            "half": half,
            "clock": pa.array([1] * ROWS, pa.time64("ns")),
            "list": pa.array([[1]] * ROWS),
            "struct": pa.array([{"a": 1}] * ROWS),
            "wide": pa.array([Decimal(1)] * ROWS, pa.decimal256(50, 0)),
            "uuid": pa.array([b"0123456789abcdef"] * ROWS, pa.uuid()),
            "nanoseconds": pa.array([1] * ROWS, pa.timestamp("ns")),
            "duration": pa.array([1] * ROWS, pa.duration("ns")),
        },
    )
    make.parquet(
        "unneeded-names.parquet",
        extra={
            name: pa.array([1] * ROWS)
            for name in (
                "_corrupt",
                "_metadata",
                "file",
                "ds",
                "path",
                "raw_user_id",
                "a`b",
                "a.b",
                "row_index",
                "x",
                "X",
            )
        },
    )
    rows = make.rows()
    unneeded = {"x": pa.array(["brotli"] * ROWS)}
    make.parquet(
        "unneeded-codec.parquet",
        extra=unneeded,
        rows=rows,
        compression={name: "BROTLI" if name == "x" else "SNAPPY" for name in [*rows[0], "x"]},
    )
    for codec in ("none", "snappy", "gzip", "zstd", "lz4"):
        make.parquet(f"codec-{codec}.parquet", compression=codec)
    make.parquet(
        "pages-2.parquet",
        data_page_version="2.0",
        use_dictionary=False,
        column_encoding={
            "item_text": "DELTA_BYTE_ARRAY",
            "item_id": "DELTA_BINARY_PACKED",
            "user_id": "DELTA_LENGTH_BYTE_ARRAY",
        },
    )
    make.parquet("row-groups.parquet", rows=make.rows(10), row_group_size=3)
    rows = make.rows()
    columns = {name: usual_column(name, rows) for name in list(rows[0])[::-1]}
    make.add("another-order.parquet", parquet_bytes(pa.table(columns)), rows)
    make.add("no-rows.parquet", parquet_bytes(pa.table(columns).slice(0, 0)), [])
