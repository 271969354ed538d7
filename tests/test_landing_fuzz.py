"""Landing files that were damaged at random: each is refused by name, or every row of it is counted; none ends in a traceback.

50 files at each run, of seeds that never change; `TRIBUTARY_FUZZED=2000` tries as many.
"""

from __future__ import annotations

import os
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from landing_kinds import STRING_IDS, Kind, all_kinds
from landing_rows import DAY

from contracts.errors import BadInput
from contracts.features import Log
from contracts.locations import Locations
from contracts.settings import Deployment
from lake.landing_files import Delivery, LandingFile, look_at, open_binary
from spark_jobs.ingest_logs import status_counts, with_broken_rule, with_judged, with_status
from spark_jobs.landing import read_landing, reading

pytestmark = pytest.mark.spark

FILES = int(os.environ.get("TRIBUTARY_FUZZED", "50"))
AT_ONCE = 500
LOG: Log = "natural"
DEPLOYMENT = Deployment(history_start=DAY, actr_start=DAY, string_ids=STRING_IDS)
PIECES = (
    b'"',
    b"\n",
    b"\r",
    b",",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\\",
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"null",
    b'""',
    b"1e999",
    b"-0",
    b"9" * 40,
    b"\xe2\x80\xa8",
    b"NaN",
    b":",
    b"'",
)


def fuzzed(seed: int, kinds: list[Kind]) -> tuple[str, bytes]:
    """A file of a kind, damaged in a few places: the name holds the seed."""
    draw = random.Random(seed)
    kind = draw.choice(kinds)
    content = bytearray(kind.content)
    spared = (
        content.find(b"\n") + 1 if draw.randrange(4) else 0
    )  # a header that is damaged is refused, and no row is read
    for _ in range(draw.choice((1, 1, 2, 5, 30))):
        place = draw.randrange(min(spared, len(content)), len(content) + 1)
        end = min(place + draw.choice((0, 1, 1, 3, 50)), len(content))
        what = draw.randrange(5)
        if what == 0:
            content[place:end] = bytes(draw.randrange(256) for _ in range(end - place))
        elif what == 1:
            content[place:place] = draw.choice(PIECES) * draw.choice((1, 1, 2, 200))
        elif what == 2:
            del content[place:end]
        elif what == 3:
            content[place:place] = content[place:end]
        else:
            content[place:end] = draw.choice(PIECES)
    suffix = next(
        suffix for suffix in (".csv.gz", ".jsonl.gz", ".csv", ".jsonl", ".parquet") if kind.name.endswith(suffix)
    )
    return f"{seed}{suffix}", bytes(content)


def rows_of(file: LandingFile) -> int | None:
    """How many rows a file has, counted without Spark; None where fields of a CSV file hold line breaks."""
    if file.kind == "parquet":
        return int(pq.ParquetFile(file.path).metadata.num_rows)
    if file.quotes == "spanning":
        return None
    with open_binary(file.path) as opened:
        lines = re.split(rb"\r\n|\n|\r", opened.read().removeprefix(b"\xef\xbb\xbf"))
    blank = (
        bytes(range(33)) if file.kind == "csv" else b" \t\r\n\x0b\x0c"
    )  # Spark's CSV reader passes over a line of control characters
    return sum(bool(line.strip(blank)) for line in lines) - (file.kind == "csv")


def damaged(files: list[LandingFile], error: BadInput) -> LandingFile:
    """The file that an error names."""
    (file,) = (file for file in files if str(file.path) == error.where)
    return file


@pytest.mark.timeout(0)
@pytest.mark.parametrize("begin", range(0, FILES, AT_ONCE))
def test_a_damaged_file_is_refused_or_every_row_is_counted(spark: Any, tmp_path: Path, begin: int) -> None:
    locations, kinds = Locations(tmp_path), all_kinds()
    folder = locations.landing_day(LOG, DAY)
    folder.mkdir(parents=True)
    files, refused = [], Counter[str]()
    for seed in range(begin, min(begin + AT_ONCE, FILES)):
        name, content = fuzzed(seed, kinds)
        (folder / name).write_bytes(content)
        try:
            files.append(look_at(folder / name, Delivery.of_log(LOG), locations, STRING_IDS))
        except BadInput as error:
            assert str(folder / name) in str(error)
            refused[name] += 1
    while files:
        rows = read_landing(spark, LOG, files, string_ids=STRING_IDS)
        rows = with_status(
            with_broken_rule(with_judged(rows, LOG, DEPLOYMENT, None), LOG, DEPLOYMENT), log=LOG, lateness_days=1
        )
        try:
            with reading(files):
                counted = rows.groupBy("file").agg(*status_counts()).collect()
        except BadInput as error:
            refused[error.where] += 1
            files.remove(damaged(files, error))
            continue
        of_file = {row["file"]: row for row in counted}
        for row in counted:
            assert row["read"] == row["kept"] + row["duplicates"] + row["quarantined"] + row["forgotten"]
        assert of_file.keys() <= {file.shown for file in files}
        for file in files:
            rows_in_file = rows_of(file)
            read = of_file[file.shown]["read"] if file.shown in of_file else 0
            assert rows_in_file is None or read == rows_in_file, file
        break
