"""Reads the original files of public data sets, with clear errors for files that do not fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from contracts.errors import BadInput
from contracts.features import LOGS, Log
from contracts.locations import Locations
from lake.progress import each
from sources import landing


@dataclass
class Converted:
    """What an adapter wrote, and notes about it for the person who ran it."""

    rows: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


def find_folder(data: Path, names: Sequence[str], file: str) -> Path:
    """The folder that holds the original files: `data`, or one of its sub-folders `names`.

    Args:
        data: the folder that the user named.
        names: sub-folders to look into.
        file: the name (or pattern) of a file by which the folder is recognised.

    Raises:
        BadInput: no such file in any of them.
    """
    for folder in (data, *(data / name for name in names)):
        if folder.is_dir() and any(folder.glob(file)):
            return folder
    found = (
        "no such folder"
        if not data.is_dir()
        else ", ".join(sorted(path.name for path in data.iterdir())[:8]) or "an empty folder"
    )
    raise BadInput(data, "--data", expected=f"a folder with {file}, or its parent", found=found)


def read_csv(path: Path, numbers: Sequence[str], texts: Sequence[str] = ()) -> pd.DataFrame:
    """Columns of a CSV file with a header.

    Args:
        path: the file.
        numbers: columns of numbers; an empty field is NaN.
        texts: columns of text; an empty field is NaN.

    Raises:
        BadInput: the file or a column is missing, or a number is none; names the file, the field and the line.
    """
    require_file(path)
    try:
        present = list(pd.read_csv(path, nrows=0).columns)
    except (pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise BadInput(path, "header", expected=f"columns {', '.join((*numbers, *texts))}", found=str(error)) from None
    for name in (*numbers, *texts):
        if name not in present:
            raise BadInput(path, name, expected=f"a column {name}", found=f"columns {', '.join(present)}")
    try:
        frame = pd.read_csv(path, usecols=[*numbers, *texts], dtype=dict.fromkeys(texts, "string"), low_memory=False)
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise BadInput(path, "rows", expected="CSV lines in UTF-8, as long as the header", found=str(error)) from None
    for name in numbers:
        if not pd.api.types.is_numeric_dtype(frame[name]):
            bad = pd.to_numeric(frame[name], errors="coerce").isna() & frame[name].notna()
            row = int(np.flatnonzero(bad.to_numpy())[0])
            raise BadInput(f"{path}:{row + 2}", name, expected="a number", found=repr(frame[name].iloc[row]))
    return frame


def whole_numbers(frame: pd.DataFrame, name: str, path: Path) -> np.ndarray:
    """A column as int64 (N); raises BadInput at an empty field or a fraction."""
    wrong = np.flatnonzero((frame[name] % 1 != 0).to_numpy())  # NaN differs from 0 too
    if len(wrong):
        raise BadInput(f"{path}:{wrong[0] + 2}", name, expected="a whole number", found=frame[name].iloc[wrong[0]])
    return frame[name].to_numpy(dtype=np.int64)


def require_file(path: Path) -> None:
    """Raises BadInput if there is no such file."""
    if not path.is_file():
        raise BadInput(path, "file", expected="an original file of the data set", found="no such file")


def write_days(
    locations: Locations, rows: Mapping[Log, pa.Table], day_numbers: Mapping[Log, np.ndarray], days: Sequence[date]
) -> None:
    """Writes every log's rows by day, each day in the rows' own order.

    Args:
        locations: the deployment's paths.
        rows: log -> rows of text columns.
        day_numbers: log -> index of each row's day in `days`.
        days: all days; one without rows gets a header-only file.
    """
    jobs = [(log, number, day) for log in LOGS for number, day in enumerate(days)]
    with landing.exclusive(locations):
        for log, number, day in each(jobs, description="landing files", unit="file"):
            landing.write_day(locations, log, day, rows[log].filter(pa.array(day_numbers[log] == number)))
