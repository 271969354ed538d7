"""The rules that ingestion judges landing rows by, in numpy: same names, same order, and the first broken one counts.

They derive from the contracts' columns, as those of `spark_jobs/rules.py` do. Shapes: N rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contracts import tables
from contracts.features import Log
from contracts.settings import Deployment
from contracts.tables import LANDING_COLUMNS, Column
from lake import xxhash
from sources import landing_values
from sources.landing_rows import TextRows

POSITIVE = np.uint64(0x7FFFFFFFFFFFFFFF)
REPLACED = "\ufffd"


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What the rules say of N rows.

    Attributes:
        rule_N: index into `rules` of the first rule that a row breaks; -1 where it keeps them all.
        event_id_N: of the rows that keep them all; undefined elsewhere.
        payload_N: hash of what a row says, but for its arrival; as `event_id_N`.
        late_N: events of an earlier day; all False where the day is not known.
    """

    rule_N: np.ndarray
    event_id_N: np.ndarray
    payload_N: np.ndarray
    late_N: np.ndarray


@dataclass
class _Values:
    """One column's values: typed (N), and which are present and legible (N)."""

    column: Column
    text: pa.Array
    empty_N: np.ndarray
    known_N: np.ndarray
    value_N: np.ndarray | None = None
    hashed: bool = False
    invalid_N: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))


class Rules:
    """The rules of one log's landing rows, for one landing day (None: not known, `event_day` is not judged).

    Attributes:
        names: rule names, in the order in which they are tried.
        fields: the landing column that each is about.
        expected: what each expects, in words.
    """

    def __init__(self, log: Log, deployment: Deployment, day: date | None) -> None:
        self._log, self._deployment = log, deployment
        contract = tables.table(f"{log}_log")
        self._columns = [contract.column(name) for name in LANDING_COLUMNS[log]]
        self.names, self.fields, self.expected = ["columns"], ["*"], ["a row with the fields that the header names"]
        for column in self._columns:
            for rule in ("type", "length", "encoding") if column.type == "string" else ("type", "range"):
                hashed = column.name in deployment.string_ids and rule == "type"
                self.names.append(f"{column.name}_{rule}")
                self.fields.append(column.name)
                self.expected.append("UTF-8" if rule == "encoding" else "a non-empty string" if hashed else column.legal_values)
        lateness = deployment.allowed_lateness_days
        self.names += ["action_of_click", "event_day"]
        self.fields += ["action", "event_ts"]
        self.expected += ["0 without a click, 1 or more with one", f"the file's day or up to {lateness} day(s) before"]
        self._day_micros = None
        if day is not None:
            days = (day - timedelta(days=lateness), day, day + timedelta(days=1))
            self._day_micros = tuple(int(deployment.day_start(d).timestamp()) * 1_000_000 for d in days)

    def judge(self, rows: TextRows) -> Judged:
        """Judges rows that could be taken apart; `columns` is broken by the others, and by a line break within a value."""
        count = len(rows)
        values = {column.name: self._read(column, rows) for column in self._columns}
        rule_N = np.full(count, -1)
        for number, broken_N in enumerate(self._broken(values, count)):
            rule_N[(rule_N < 0) & broken_N] = number
        late_N = np.zeros(count, dtype=bool)
        if self._day_micros is not None:
            event = values["event_ts"]
            assert event.value_N is not None
            late_N = event.known_N & (event.value_N < self._day_micros[1])
        event_id_N = values["event_id"].value_N
        assert event_id_N is not None
        return Judged(rule_N=rule_N, event_id_N=event_id_N, payload_N=self._payload(values, count, rule_N < 0), late_N=late_N)

    def _read(self, column: Column, rows: TextRows) -> _Values:
        count = len(rows)
        text = pc.fill_null(rows.columns.get(column.name, pa.array([""] * count, type=pa.string())), "")
        trimmed = landing_values.trimmed(text)
        empty_N = pc.equal(trimmed, "").to_numpy(zero_copy_only=False)
        invalid_N = rows.invalid.get(column.name, np.zeros(count, dtype=bool))
        read = _Values(column=column, text=text, empty_N=empty_N, known_N=~empty_N, invalid_N=invalid_N)
        if column.type == "string":
            read.known_N = pc.not_equal(text, "").to_numpy(zero_copy_only=False)
        elif column.name in self._deployment.string_ids:
            hashed_N = xxhash.add_texts(xxhash.start(count), pc.utf8_trim(text, " "), read.known_N)
            read.value_N, read.hashed = (hashed_N & POSITIVE).astype(np.int64), True
        elif column.type == "timestamp":
            read.value_N, read.known_N = landing_values.times(trimmed)
        elif column.type == "double":
            read.value_N, read.known_N = landing_values.doubles(trimmed)
        else:
            read.value_N, read.known_N = landing_values.integers(trimmed, column.type)
        return read

    def _broken(self, values: dict[str, _Values], count: int) -> Iterator[np.ndarray]:
        """Which rows (N) break each rule, in the order of `names`."""
        split_N = np.zeros(count, dtype=bool)
        for read in values.values():
            split_N |= pc.match_substring_regex(read.text, "[\r\n]").to_numpy(zero_copy_only=False) & (read.column.type == "string")
        yield split_N
        for read in values.values():
            yield ~read.known_N & ~read.empty_N if read.column.nullable else ~read.known_N
            if read.value_N is None:
                longest = read.column.longest
                yield pc.utf8_length(read.text).to_numpy(zero_copy_only=False) > (longest if longest is not None else np.inf)
                yield read.invalid_N | pc.match_substring(read.text, REPLACED).to_numpy(zero_copy_only=False)
            else:
                yield read.known_N & _outside(read.column, read.value_N)
        action, click, event = values["action"], values["click"], values["event_ts"]
        assert action.value_N is not None and click.value_N is not None and event.value_N is not None
        yield action.known_N & click.known_N & ((action.value_N >= 1) != (click.value_N == 1))
        if self._day_micros is None:
            yield np.zeros(count, dtype=bool)
        else:
            yield event.known_N & ((event.value_N < self._day_micros[0]) | (event.value_N >= self._day_micros[2]))

    def _payload(self, values: dict[str, _Values], count: int, good_N: np.ndarray) -> np.ndarray:
        """Spark's xxhash64 of the typed values (N), signed; 0 for rows that break a rule."""
        hashed_N = xxhash.start(count)
        for name, read in values.items():
            if name == "arrival_ts":
                continue
            if read.value_N is None:
                hashed_N = xxhash.add_texts(hashed_N, read.text, read.known_N & good_N)
            elif read.column.type == "int":
                hashed_N = np.where(read.known_N, xxhash.add_ints(hashed_N, read.value_N), hashed_N)
            elif read.column.type == "double":
                hashed_N = np.where(read.known_N, xxhash.add_doubles(hashed_N, read.value_N), hashed_N)
            else:
                hashed_N = xxhash.add_longs(hashed_N, read.value_N, read.known_N)
        payload_N: np.ndarray = np.where(good_N, hashed_N, np.uint64(0)).view(np.int64)
        return payload_N


def _outside(column: Column, value_N: np.ndarray) -> np.ndarray:
    outside_N = np.isnan(value_N) if column.type == "double" else np.zeros(len(value_N), dtype=bool)
    if column.minimum is not None:
        outside_N = outside_N | (value_N < column.minimum)
    if column.maximum is not None:
        outside_N = outside_N | (value_N > column.maximum)
    if column.allowed is not None:
        outside_N = outside_N | ~np.isin(value_N, np.array(column.allowed))
    return outside_N
