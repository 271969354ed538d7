"""`tributary sources check`: what ingestion would make of landing files, said before anything runs; no Spark, bounded memory.

Rows of one landing day are judged by the rules of ingestion. What it cannot see is what other days hold: an event that was delivered
on the day before is a duplicate too, and counts as kept here.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from contracts.commands import table_text
from contracts.errors import EXIT_BAD_INPUT, EXIT_OK, BadInput
from contracts.features import LOGS, Log
from contracts.masking import MASKED_FIELDS, mask, printable
from contracts.settings import Deployment
from contracts.tables import LANDING_COLUMNS
from lake.landing_files import SUFFIXES, check_columns, format_of, has_rows, is_delivered
from lake.progress import progress
from sources.landing_rows import BATCH_BYTES, TextRows, read_rows
from sources.landing_rules import Rules

EXAMPLES = 3  # shown of each rule
LONGEST_SHOWN = 60
KEYS_HELD = 2_000_000  # event ids in memory (16 bytes each, with the payload); beyond it they wait in temporary files
BUCKETS = 64


@dataclass(frozen=True, kw_only=True)
class Example:
    """A row that breaks a rule: its file, its line, and the value at fault as it may be shown."""

    file: str
    line: int
    found: str


@dataclass(kw_only=True)
class Checked:
    """What was found in one log's files of one landing day.

    Attributes:
        log, day: which; without a day, event days are not judged.
        files: how many.
        problems: why they cannot be ingested; a file with a problem may not have been read to its end.
        warnings: what a person should know of; `notes` are right as they are.
        read, kept, late: rows; `late` are among the kept.
        duplicates: rows that repeat an event_id of these files; `conflicting` are those with another payload than the one kept.
        quarantined: rows by the first rule that they break.
        expected: rule -> what it expects.
        examples: rule -> its first rows.
    """

    log: Log
    day: date | None
    files: int = 0
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    read: int = 0
    kept: int = 0
    late: int = 0
    duplicates: int = 0
    conflicting: int = 0
    quarantined: Counter[str] = field(default_factory=Counter)
    expected: dict[str, str] = field(default_factory=dict)
    examples: dict[str, list[Example]] = field(default_factory=lambda: defaultdict(list))

    @property
    def all_warnings(self) -> list[str]:
        """Those of the files, and what their rows give reason to."""
        rows = {"would go to quarantine": self.quarantined.total(), "repeat an event_id with another payload": self.conflicting,
                "repeat an event": self.duplicates - self.conflicting}
        return [*self.warnings, *(f"{count:,} of {self.read:,} rows {what}" for what, count in rows.items() if count)]

    def exit_code(self, *, strict: bool) -> int:
        return EXIT_BAD_INPUT if self.problems or (strict and self.all_warnings) else EXIT_OK


def check_files(paths: Sequence[Path], log: Log, deployment: Deployment, day: date | None, *, batch_bytes: int = BATCH_BYTES,
                keys_held: int = KEYS_HELD) -> Checked:
    """Judges one landing day's files of one log.

    Args:
        paths: the files, all of one landing day.
        log: natural or ad.
        deployment: its time zone, allowed lateness and string ids.
        day: the landing day; None: whether events are of that day is not judged.
        batch_bytes: how much text is read at once.
        keys_held: how many event ids are held in memory.
    """
    done, rules = Checked(log=log, day=day, files=len(paths)), Rules(log, deployment, day)
    done.expected = dict(zip(rules.names, rules.expected, strict=True))
    total = max(sum(path.stat().st_size for path in paths) >> 20, 1)
    finished = 0
    with _Keys(keys_held) as keys, progress(total=total, description=f"check {log} {day or ''}".strip(), unit="MiB") as bar:
        for path in sorted(paths):
            def tell(position: int, before: int = finished) -> None:
                bar.update(min((before + position) >> 20, total) - bar.n)
            try:
                _warn_of_columns(path, log, done)
                for rows in read_rows(path, LANDING_COLUMNS[log], tell, batch_bytes=batch_bytes):
                    _count(rows, rules, path, done, keys)
            except BadInput as error:
                done.problems.append(str(error))
            finished += path.stat().st_size
        bar.update(total - bar.n)
        done.duplicates, done.conflicting = keys.repeated()
    if not done.read and not done.problems and not (day and deployment.may_be_empty(log, day)):
        done.problems.append(f"{paths[0].parent}: rows: expected at least one row on this landing day, found none. If the day was empty "
                             "indeed, say so: tributary spark_jobs ingest_logs --allow-empty.")
    done.kept = done.read - done.quarantined.total() - done.duplicates
    return done


def run(paths: Sequence[Path], home: Path, *, log: Log | None, day: date | None, strict: bool) -> int:
    """Checks files and folders, says what was found, and returns the exit code.

    Raises:
        BadInput: there is no such file, or neither the options nor its path say which log it belongs to.
    """
    deployment = _deployment(home)
    codes = []
    for (of_log, of_day), files in _by_day(paths, log, day).items():
        done = check_files(files, of_log, deployment, of_day)
        _say(done, strict=strict)
        codes.append(done.exit_code(strict=strict))
    return max(codes)


def _deployment(home: Path) -> Deployment:
    try:
        return Deployment.load(home)
    except BadInput as error:
        if (home / "deployment.toml").exists():
            raise
        raise BadInput(error.where, error.field, expected="the deployment's settings: its time zone, allowed lateness and string ids",
                       found=error.found, hint="Name its folder by --home, or make one with `tributary init`.") from None


def _by_day(paths: Sequence[Path], log: Log | None, day: date | None) -> dict[tuple[Log, date | None], list[Path]]:
    """Landing files by log and landing day, as the options or `landing/<log>/<day>/` in their paths say."""
    found: dict[tuple[Log, date | None], list[Path]] = defaultdict(list)
    for given in paths:
        if not given.exists():
            raise BadInput(given, "path", expected="a landing file, or a folder of them", found="no such file")
        files = [given] if given.is_file() else sorted(filter(_delivered, given.rglob("*")))
        if not files or not all(map(format_of, files)):
            raise BadInput(given, "path", expected=f"a file that ends in {', '.join(SUFFIXES)}, or a folder with one", found="none")
        for path in files:
            parts = path.resolve().parts
            of_log = log or next((name for name in LOGS if name == parts[-3]), None)
            if of_log is None:
                raise BadInput(path, "--log", expected="natural or ad, since no .../natural/<day>/ or .../ad/<day>/ in the path says it",
                               found="none")
            of_day = day or (date.fromisoformat(parts[-2]) if re.fullmatch(r"\d{4}-\d{2}-\d{2}", parts[-2]) else None)
            found[of_log, of_day].append(path)
    return dict(sorted(found.items(), key=str))


def _delivered(path: Path) -> bool:
    """Whether ingestion would read it: a whole landing file, and not in a folder that is still being written."""
    return is_delivered(path) and not path.parent.name.startswith(".")


def _warn_of_columns(path: Path, log: Log, done: Checked) -> None:
    """Raises BadInput where the file's columns cannot be ingested; notes those that would be left out, and an empty file."""
    columns, undeclared = check_columns(path, log)
    if undeclared:
        done.warnings.append(f"{path.name}: columns that no contract knows are left out: {', '.join(undeclared)}")
    absent = [name for name in LANDING_COLUMNS[log] if name not in columns]
    if absent:
        done.notes.append(f"{path.name}: optional columns not delivered, null throughout: {', '.join(absent)}")
    if not has_rows(path):
        done.warnings.append(f"{path.name}: not one row")


def _count(rows: TextRows, rules: Rules, path: Path, done: Checked, keys: _Keys) -> None:
    done.read += len(rows) + len(rows.corrupt)
    done.quarantined["columns"] += len(rows.corrupt)
    for line, text in rows.corrupt[:EXAMPLES]:
        _note_example(done, "columns", path, line, shown(text, masked=True))
    if not len(rows):
        return
    judged = rules.judge(rows)
    good_N = judged.rule_N < 0
    done.late += int((judged.late_N & good_N).sum())
    keys.add(judged.event_id_N[good_N], judged.payload_N[good_N])
    for number in np.unique(judged.rule_N[~good_N]):
        name, of_field = rules.names[number], rules.fields[number]
        broken = np.flatnonzero(judged.rule_N == number)
        done.quarantined[name] += len(broken)
        for row in broken[:EXAMPLES]:
            _note_example(done, name, path, int(rows.line_N[row]), _found(rows, name, of_field, int(row)))


def _found(rows: TextRows, rule: str, of_field: str, row: int) -> str:
    def value(name: str) -> Any:
        return rows.columns[name][row].as_py() if name in rows.columns else None

    if rule == "columns":
        return "a line break within a value"
    if rule == "action_of_click":
        return f"action {value('action')} click {value('click')}"
    return shown(value(of_field), masked=of_field in MASKED_FIELDS)


def _note_example(done: Checked, rule: str, path: Path, line: int, found: str) -> None:
    if len(done.examples[rule]) < EXAMPLES:
        done.examples[rule].append(Example(file=path.name, line=line, found=found))


def shown(value: str | None, *, masked: bool) -> str:
    """A value as a terminal may show it: cut, without control characters, and where masked only its shape."""
    if not value:
        return "nothing"
    if masked:
        value = mask(value[: LONGEST_SHOWN + 1])
    return printable(value, LONGEST_SHOWN)


class _Keys:
    """Event ids and payloads of the good rows, to find repeated ones: in memory up to `held`, in files by hash beyond."""

    def __init__(self, held: int) -> None:
        self._held, self._waiting, self._count = held, list[np.ndarray](), 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> _Keys:
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def add(self, event_id_N: np.ndarray, payload_N: np.ndarray) -> None:
        self._waiting.append(np.stack([event_id_N, payload_N], axis=1))
        self._count += len(event_id_N)
        if self._count > self._held:
            self._spill()

    def repeated(self) -> tuple[int, int]:
        """Rows beyond the first of their event id, and those among them with another payload than the one kept: the smallest."""
        if self._folder is None:
            return _repeated(np.concatenate([np.zeros((0, 2), dtype=np.int64), *self._waiting]))
        self._spill()
        found = [_repeated(np.fromfile(file.path, dtype=np.int64).reshape(-1, 2)) for file in os.scandir(self._folder.name)]
        return sum(pair[0] for pair in found), sum(pair[1] for pair in found)

    def _spill(self) -> None:
        self._folder = self._folder or tempfile.TemporaryDirectory(prefix="tributary-check-")
        keys_N2 = np.concatenate([np.zeros((0, 2), dtype=np.int64), *self._waiting])
        mixed_N = keys_N2[:, 0].astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(32)
        bucket_N = mixed_N % np.uint64(BUCKETS)
        for bucket in range(BUCKETS):
            with open(os.path.join(self._folder.name, str(bucket)), "ab") as file:
                keys_N2[bucket_N == bucket].tofile(file)
        self._waiting, self._count = [], 0


def _repeated(keys_N2: np.ndarray) -> tuple[int, int]:
    if len(keys_N2) == 0:
        return 0, 0
    keys_N2 = keys_N2[np.lexsort((keys_N2[:, 1], keys_N2[:, 0]))]
    begins_N = np.concatenate([[True], keys_N2[1:, 0] != keys_N2[:-1, 0]])
    first_N = np.flatnonzero(begins_N)[np.cumsum(begins_N) - 1]
    return int((~begins_N).sum()), int((keys_N2[:, 1] != keys_N2[first_N, 1]).sum())


def _say(done: Checked, *, strict: bool) -> None:
    print(f"{done.log} log, landing day {done.day or 'unknown: whether events are of that day is not judged (--day says it)'}, "
          f"{done.files} file{'s' if done.files != 1 else ''}")
    rows = [(name, count, done.expected[name], example.file, example.line, example.found)
            for name, count in done.quarantined.most_common() if count for example in done.examples[name]]
    if rows:
        print("\n" + table_text(("rule", "rows", "expected", "file", "line", "found"), rows))
    outcomes = [("kept", done.kept), ("  of them late", done.late), ("quarantined", done.quarantined.total()),
                ("duplicates", done.duplicates), ("  of them differing", done.conflicting), ("read", done.read)]
    print("\n" + table_text(("rows", "count"), outcomes) + "\n")
    for text in done.problems:
        print(f"problem: {text}")
    for text in done.notes:
        print(f"note: {text}")
    for text in done.all_warnings:
        print(f"warning: {text}")
    warned = f"{len(done.all_warnings)} warning{'s' if len(done.all_warnings) != 1 else ''}"
    if done.problems:
        print("verdict: cannot be ingested\n")
    elif done.all_warnings:
        print(f"verdict: can be ingested, with {warned}{': refused, since --strict' if strict else ''}\n")
    else:
        print("verdict: sound\n")
