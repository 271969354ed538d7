"""A few rows of a team's own files or table, and how their place would be written in the settings."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from contracts.errors import BadInput
from contracts.landing import STORE, LandingSource
from lake.delivered_tables import as_day
from lake.landing_files import columns_of, format_of, open_text, partition_values
from lake.store_files import AnyFile, files_below, files_like, parquet_source

SAMPLED_ROWS = 5000
DELIMITERS = ",;\t|"
_FILES_LISTED = 10_000
_MAGIC = {b"PAR1": "parquet", b"ORC": "orc", b"Obj\x01": "avro"}
# How a day is written in the name of a folder or file, and as a place in the settings.
_DAYS = (
    (re.compile(r"(?<!\d)\d{4}-\d\d-\d\d(?!\d)"), "{day}"),
    (re.compile(r"(?<!\d)\d{4}/\d\d/\d\d(?!\d)"), "{day:%Y/%m/%d}"),
    (re.compile(r"(?<!\d)\d{4}_\d\d_\d\d(?!\d)"), "{day:%Y_%m_%d}"),
    (re.compile(r"(?<!\d)\d{8}(?!\d)"), "{day:%Y%m%d}"),
)
_HOUR = re.compile(r"(?<=/)((?:h|hh|hour|hr)=)?([01]\d|2[0-3])(?=/)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Rows of a team's own files or table.

    Attributes:
        place: settings that say where they lie: `path` or `table`, `format`, `delimiter`, `header`.
        rows: the rows, by column; of nested values those inside, as `payload.item.id`.
        types: type of each column, as its file says; `text` of CSV files.
        days: days of which there is data, as paths or the day column say.
        looked_at: which file or table the rows are from.
    """

    place: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    types: Mapping[str, str]
    days: Sequence[date] = field(default_factory=tuple)
    looked_at: str

    @property
    def columns(self) -> list[str]:
        """Names of all columns, in their order."""
        return list(dict.fromkeys([*self.types, *(name for row in self.rows for name in row)]))


def sample_of(given: str) -> Sample:
    """Reads a sample of what lies at an address.

    Args:
        given: a file, a folder of files at any depth, a pattern, or the folder of a Delta table; on a file system or
            in a store (`s3a://...`).

    Raises:
        BadInput: nothing is there, or it cannot be read.
    """
    address = given if given.startswith(STORE) else str(Path(given).expanduser().absolute())
    if _is_table(address):
        return _of_table(address)
    is_folder = not given.startswith(STORE) and Path(address).is_dir()
    found = [] if is_folder else files_like(address)
    files = found or list(islice(files_below(address.rstrip("/")), _FILES_LISTED))
    if not files:
        raise BadInput(given, "path", expected="a file, a folder with files, or a Delta table", found="none")
    return _of_files(files, is_single=bool(found) and len(files) == 1)


def _is_table(address: str) -> bool:
    if address.startswith(STORE):
        return bool(files_like(f"{address.rstrip('/')}/_delta_log/*.json"))
    return (Path(address) / "_delta_log").is_dir()


def _of_table(address: str) -> Sample:
    from deltalake import DeltaTable

    table = DeltaTable(address)
    dataset = table.to_pyarrow_dataset()
    rows = dataset.head(SAMPLED_ROWS)
    partitions = table.metadata().partition_columns
    place: dict[str, Any] = {"table": address.rstrip("/")}
    days: set[date] = set()
    for name in [*partitions, *rows.schema.names]:
        values = [as_day(value) for value in rows[name].to_pylist()]
        if values and None not in values:
            place["day"] = name
            if name in partitions:
                actions = table.get_add_actions(flatten=True)
                import pyarrow as pa

                texts = pa.table(actions)[f"partition.{name}"].to_pylist()
                days = {day for text in texts if (day := as_day(text)) is not None}
            else:
                days = {day for day in values if day is not None}
            break
    types = _flat_types(rows.schema)
    return Sample(place=place, rows=_flat(rows.to_pylist()), types=types, days=sorted(days), looked_at=address)


def _of_files(files: Sequence[AnyFile], *, is_single: bool) -> Sample:
    named = [path for path in files if format_of(path) is not None] or list(files)
    path = next((path for path in named if _has_bytes(path)), named[0])
    pattern, days = _pattern(path, files, is_single=is_single)
    place: dict[str, Any] = {"path": pattern}
    kind = format_of(path) or _sniffed(path)
    if format_of(path) is None or not path.name.endswith(tuple(f".{kind}" for kind in ("csv", "jsonl", "parquet"))):
        place["format"] = kind
    if kind == "csv":
        rows, types = _csv_rows(path, place)
    elif kind == "jsonl":
        rows, types = _json_rows(path)
    else:
        rows, types = _schema_rows(path, kind)
    own = {name: value for name, value in partition_values(path).items() if name not in types}
    return Sample(
        place=place,
        rows=[{**row, **own} for row in rows],
        types=types | dict.fromkeys(own, "folder"),
        days=days,
        looked_at=str(path),
    )


def _has_bytes(path: AnyFile) -> bool:
    with path.open("rb") as file:
        return bool(file.read(1))


def _pattern(path: AnyFile, files: Sequence[AnyFile], *, is_single: bool) -> tuple[str, list[date]]:
    """The path with its day and hour replaced by places, and the days of all files that have one at that place."""
    text = str(path)
    dated = ((one, place, [m for m in one.finditer(text) if _day_of(m[0]) is not None]) for one, place in _DAYS)
    expression, place, found = next((one for one in dated if one[2]), (None, "", []))
    if expression is None:
        return text if is_single else f"{text.rpartition('/')[0]}/", []
    last = found[-1]
    before, after = text[: last.start()], text[last.end() :]
    rest: dict[str, set[date]] = {}  # what follows the day, and of which days
    for file in files:
        for match in expression.finditer(str(file)):
            day = _day_of(match[0])
            if day is not None and match.start() == last.start():
                rest.setdefault(str(file)[match.end() :], set()).add(day)
    days = sorted({day for of_rest in rest.values() for day in of_rest})
    after = _HOUR.sub(lambda hour: f"{hour[1] or ''}{{hour}}", after, count=1)
    if is_single:
        return f"{before}{place}{after}", days
    if "/" in after:
        return f"{before}{place}{after.rpartition('/')[0]}/", days
    same_name = len(rest) == 1
    return f"{before}{place}{after if same_name else '*' + Path(after).suffix}", days


def _day_of(text: str) -> date | None:
    return as_day(re.sub(r"[/_]", "-", text))


def _sniffed(path: AnyFile) -> str:
    with path.open("rb") as file:
        start = file.read(4)
    for magic, kind in _MAGIC.items():
        if start.startswith(magic):
            return kind
    with open_text(path) as text:
        line = next((line for line in islice(text, 100) if line.strip()), "")
    return "jsonl" if line.lstrip().startswith("{") else "csv"


def _csv_rows(path: AnyFile, place: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    with open_text(path) as file:
        lines = [line for line in islice(file, SAMPLED_ROWS + 1) if line.strip()]
    if not lines:
        raise BadInput(path, "file", expected="a header and rows", found="nothing")
    counts = {sign: lines[0].count(sign) for sign in DELIMITERS}
    delimiter = max(DELIMITERS, key=lambda sign: (counts[sign], sign == ","))
    if delimiter != ",":
        place["delimiter"] = delimiter
    fields = next(csv.reader(lines[:1], delimiter=delimiter), [])
    named = [name.strip() for name in fields if name.strip()]  # pandas gives its index no name
    if not named or any(re.fullmatch(r"[-+]?[\d.]+", name) for name in named) or len(set(named)) < len(named):
        place["header"] = False
    source = LandingSource(path="/", format="csv", delimiter=delimiter, header=place.get("header", True))
    names = columns_of(path, source=source)
    reader = csv.reader(lines[1 if source.header else 0 :], delimiter=delimiter)
    rows = [
        dict(zip(names, (value if value != "" else None for value in row), strict=False)) for row in reader if any(row)
    ]
    return rows, dict.fromkeys(names, "text")


def _json_rows(path: AnyFile) -> tuple[list[dict[str, Any]], dict[str, str]]:
    rows = []
    with open_text(path) as file:
        for line in islice(file, SAMPLED_ROWS):
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                rows.append(row)
    if not rows:
        raise BadInput(path, "lines", expected="a JSON object a line", found="none")
    flat = _flat(rows)
    types = {name: _json_type(value) for row in flat for name, value in row.items() if value is not None}
    return flat, types


def _json_type(value: object) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "text", list: "list"}
    return names.get(type(value), "nothing")


def _schema_rows(path: AnyFile, kind: str) -> tuple[list[dict[str, Any]], dict[str, str]]:
    import pyarrow as pa

    try:
        rows = _arrow_rows(path, kind)
    except (pa.ArrowException, OSError, ValueError, EOFError) as error:
        expected = f"a whole file of the format {kind}"
        raise BadInput(path, "file", expected=expected, found=str(error).splitlines()[0]) from None
    return _flat(rows.to_pylist()), _flat_types(rows.schema)


def _arrow_rows(path: AnyFile, kind: str) -> Any:
    import pyarrow as pa

    if kind == "parquet":
        import pyarrow.parquet as pq

        file = pq.ParquetFile(parquet_source(path))
        batches = list(islice(file.iter_batches(SAMPLED_ROWS), 1))
        return pa.Table.from_batches(batches, file.schema_arrow)
    if kind == "orc":
        from pyarrow import orc

        source = path if isinstance(path, Path) else parquet_source(path)
        stripes = orc.ORCFile(source)
        return pa.Table.from_batches([stripes.read_stripe(0)], stripes.schema).slice(0, SAMPLED_ROWS)
    from fastavro import reader

    with path.open("rb") as opened:
        return pa.Table.from_pylist(list(islice(reader(opened), SAMPLED_ROWS)))


def _flat(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [dict(_leaves(row)) for row in rows]


def _leaves(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _flat_types(schema: Any, prefix: str = "") -> dict[str, str]:
    import pyarrow as pa

    types: dict[str, str] = {}
    for one in schema:
        if pa.types.is_struct(one.type):
            types |= _flat_types(list(one.type), f"{prefix}{one.name}.")
        else:
            types[prefix + one.name] = str(one.type)
    return types


def is_time(value: object) -> bool:
    """Whether a value is a time, or a text that is written as ISO-8601 with a clock."""
    if isinstance(value, datetime):
        return True
    return isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d", value) is not None
