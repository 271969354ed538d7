"""The line numbers of rows in a landing file, for people who look for them, since Spark does not count lines."""

from __future__ import annotations

import csv
import json
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping

from lake.landing_files import LandingFile, open_text

Row = dict[str, str]


def lines_of(file: LandingFile, raws: set[str]) -> dict[str, int]:
    """The first line of each row that is found.

    Args:
        file: a CSV or JSON file.
        raws: rows as `quarantine` keeps them, as JSON: their fields (of a log in columns of a team, below
            `delivered`), or `{"line": ...}` of a line without fields.

    Returns:
        Row -> line, from 1. A row that reads in another way here than Spark read it is left out.
    """
    wanted: dict[str | frozenset[tuple[str, str]], str] = {}
    for raw in raws:
        try:
            row = json.loads(raw)
        except ValueError:  # cut, since it is very long
            continue
        wanted[_bare(row["line"]) if set(row) == {"line"} else _key(row.get("delivered", row))] = raw
    found: dict[str, int] = {}
    names = file.delivery.names([file.path])
    try:
        for number, line, row in _rows(file):
            for key in (_bare(line), _key({name: row[name] for name in names if name in row})):
                if key in wanted:
                    found[wanted.pop(key)] = number
            if not wanted:
                break
    except (csv.Error, OSError, EOFError, zlib.error):
        pass  # the lines that are known are shown
    return found


def _bare(text: str) -> str:
    return "".join(text.split())


def _key(row: Mapping[str, object]) -> frozenset[tuple[str, str]]:
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in row.items()}
    return frozenset((name, _bare(text)) for name, text in texts.items() if _bare(text))


def _rows(file: LandingFile) -> Iterator[tuple[int, str, Row]]:
    """Line, its text and its fields by landing column."""
    source = file.delivery.source
    with open_text(file.path) as lines:
        if file.kind == "jsonl":
            for number, line in enumerate(lines, 1):
                yield number, line, _json_row(line)
            return
        csv.field_size_limit(sys.maxsize)
        if file.quotes != "spanning":
            for number, line in enumerate(lines, 1):
                yield (
                    number,
                    line,
                    dict(
                        zip(
                            file.columns,
                            next(csv.reader([line], delimiter=source.delimiter, quotechar=source.quote), []),
                            strict=False,
                        )
                    ),
                )
            return
        read: list[str] = []
        reader = csv.reader(_kept(lines, read), delimiter=source.delimiter, quotechar=source.quote)
        for fields in reader:
            yield reader.line_num - len(read) + 1, "".join(read), dict(zip(file.columns, fields, strict=False))
            read.clear()


def _kept(lines: Iterable[str], read: list[str]) -> Iterator[str]:
    for line in lines:
        read.append(line)
        yield line


def _json_row(line: str) -> Row:
    try:
        row = json.loads(line, parse_float=lambda text: str(float(text)), parse_int=str)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(row, dict):
        return {}
    return {
        name: json.dumps(value).strip('"') if not isinstance(value, str) else value
        for name, value in row.items()
        if value is not None
    }
