"""What ingestion would make of landing files: its own parsing and rules are run over them, and nothing is written.

Days that are given together are judged together, as ingestion judges them: an event that was delivered on the day
before counts as a duplicate. Days that are not given are not looked at.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from contracts.commands import stage, table_text
from contracts.errors import EXIT_BAD_INPUT, EXIT_OK, BadInput
from contracts.features import LOGS, Log
from contracts.landing import IN_HOME, STORE, LandingSettings
from contracts.locations import Locations
from contracts.masking import MASKED_FIELDS, mask, printable
from contracts.quality import UNKNOWN
from contracts.settings import Deployment
from contracts.tables import LANDING_COLUMNS
from lake.delivered_tables import as_day
from lake.forgotten import Forgotten
from lake.landing_days import Deliveries, distinct
from lake.landing_files import (
    SUFFIXES,
    Delivery,
    LandingFile,
    files_in,
    format_of,
    has_rows,
    look_at,
    no_rows,
    shown_name,
    unread_names,
)
from lake.progress import each
from lake.side_tables import side_tables
from lake.store_files import AnyFile, files_like
from spark_jobs.ingest_logs import (
    NOT_READ,
    STATUS_COUNTS,
    all_quarantined,
    status_counts,
    unknown_counts,
    with_broken_rule,
    with_judged,
    with_status,
)
from spark_jobs.landing import BY_FOLDER, read_landing, reading, without_constraints
from spark_jobs.landing_formats import ROW_INDEX
from spark_jobs.landing_lines import lines_of
from spark_jobs.rules import CORRUPT, Rule, readable, rules_for
from spark_jobs.side_tables import read_sides

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

EXAMPLES = 3  # shown of each rule
LONGEST_SHOWN = 60
LONGEST_RAW = 100_000  # characters of a row by which its line is looked up
Group = tuple[Log, date | None]


@dataclass(frozen=True, kw_only=True)
class Example:
    """A row that breaks a rule: its file, its line (None if it is not known), and the value at fault in a form that may be shown."""

    file: str
    line: int | None
    found: str


@dataclass(kw_only=True)
class Checked:
    """The result for one log's files of one landing day.

    Attributes:
        log, day: the log and the landing day; without a day, event days are not judged.
        files: name -> how many rows it has, by what would become of them; None for a file that cannot be read.
        problems: why the day cannot be ingested, or should not be.
        warnings: what a person should look at; `notes` need no action.
        broken: rule -> how many rows break it; a row may break several.
        expected: rule -> what it expects.
        examples: rule -> its first rows.
    """

    log: Log
    day: date | None
    files: dict[str, Counter[str] | None] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    broken: Counter[str] = field(default_factory=Counter)
    expected: dict[str, str] = field(default_factory=dict)
    examples: dict[str, list[Example]] = field(default_factory=lambda: defaultdict(list))

    @property
    def counts(self) -> Counter[str]:
        """Rows by what would become of them, over all files: `ingest_logs.STATUS_COUNTS`."""
        return sum((counts for counts in self.files.values() if counts), Counter())

    @property
    def all_warnings(self) -> list[str]:
        """The warnings about the files, and those about their rows."""
        counts = self.counts
        conflicting = counts["conflicting_duplicates"]
        rows = {
            "would go to quarantine": counts["quarantined"],
            "repeat an event_id with another payload": conflicting,
            "repeat an event": counts["duplicates"] - conflicting,
            **{
                f"have an optional value that reads as unknown ({name.removeprefix(UNKNOWN)})": count
                for name, count in counts.items()
                if name.startswith(UNKNOWN)
            },
        }
        return [
            *self.warnings,
            *(f"{count:,} of {counts['read']:,} rows {what}" for what, count in rows.items() if count),
        ]

    def exit_code(self, *, strict: bool) -> int:
        """The command's exit code; with `strict`, warnings count as problems."""
        return EXIT_BAD_INPUT if self.problems or (strict and self.all_warnings) else EXIT_OK


def command(paths: Sequence[Path], home: Path, *, log: Log | None, day: date | None, strict: bool) -> int:
    """Checks files and folders, prints what was found, and returns the exit code.

    Raises:
        BadInput: there is no such file, or neither the options nor its path name the log that it belongs to.
    """
    from lake.session import reading_session

    locations, deployment = Locations(home), _deployment(home)
    given = by_day(paths, log, day, deployment.landing) if paths else declared(locations, deployment, log, day)
    with (
        stage(f"check {sum(map(len, given.values()))} landing files"),
        reading_session(locations, app="check_landing") as spark,
    ):
        done = check_files(spark, locations, deployment, given, by_folder=day is None)
    for checked in done:
        _print(checked, strict=strict)
    return max(checked.exit_code(strict=strict) for checked in done)


def check_files(
    spark: SparkSession,
    locations: Locations,
    deployment: Deployment,
    given: Mapping[Group, Sequence[AnyFile]],
    *,
    by_folder: bool = True,
) -> list[Checked]:
    """Judges landing files.

    Args:
        spark: the Spark session.
        locations: the deployment's paths.
        deployment: the deployment's settings.
        given: files by log and landing day; where the day is None, event days are not judged.
        by_folder: whether the day of each file is the name of its folder.
    """
    done = {group: Checked(log=group[0], day=group[1]) for group in given}
    readable: dict[Group, list[LandingFile]] = {group: [] for group in given}
    all_files = [(group, path) for group, paths in given.items() for path in sorted(paths, key=str)]
    for group, path in each(all_files, description="look at", unit="file"):
        try:
            readable[group].append(_look_at(path, locations, deployment, done[group]))
        except BadInput as error:
            done[group].problems.append(str(error))
            done[group].files[_name_in_day(shown_name(path, deployment.landing.of(group[0])))] = None
    for group, paths in given.items():
        if deployment.landing.of(group[0]).is_home:
            _add_folders(done[group], paths)
    forgotten = Forgotten.read(locations)
    passes: dict[tuple[Log, date | str | None], list[LandingFile]] = defaultdict(list)
    for (log, day), files in readable.items():
        by_row = by_folder or not deployment.landing.of(log).has_days
        passes[log, BY_FOLDER if day is not None and by_row else day] += files
    all_sides = side_tables(locations, deployment)
    with without_constraints(spark):
        for (log, day_of_all), files in passes.items():
            if files:
                days = [day for of_log, day in given if of_log == log and day is not None]
                tables = [all_sides[name] for name in deployment.landing.sides_read(log)]
                sides = read_sides(spark, deployment, log, tables, days)
                rows = read_landing(
                    spark,
                    log,
                    distinct(files),
                    landing=deployment.landing,
                    string_ids=deployment.string_ids,
                    day=day_of_all,
                    sides=sides,
                )
                if not deployment.landing.of(log).has_days:  # files or a table of more days than those that are judged
                    rows = rows.where(F.col("ds").isin(days) | F.col("ds").isNull())
                _judge(rows, files, log, deployment, forgotten, done)
    for (log, day), checked in done.items():
        _conclude(checked, given[log, day], may_be_empty=day is not None and deployment.may_be_empty(log, day))
    return list(done.values())


def declared(
    locations: Locations, deployment: Deployment, log: Log | None, day: date | None
) -> dict[Group, list[AnyFile]]:
    """What the settings name for a day: the files of one log, or of both.

    Raises:
        BadInput: no day is given, or nothing of it has been delivered.
    """
    if day is None:
        raise BadInput("command line", "PATH", expected="files or folders, or a day by --ds", found="neither")
    return {
        (of_log, day): list(Deliveries(locations, deployment, of_log).paths(day, allow_empty=True))
        for of_log in ([log] if log else LOGS)
    }


def by_day(
    paths: Sequence[Path], log: Log | None, day: date | None, landing: LandingSettings = IN_HOME
) -> dict[Group, list[AnyFile]]:
    """Groups landing files by log and landing day, which the options or `landing/<log>/<day>/` in their paths name."""
    found: dict[Group, list[AnyFile]] = defaultdict(list)
    for given in paths:
        if log is not None and not (source := landing.of(log)).is_home:
            if source.table is not None:
                raise BadInput(
                    given, "path", expected=f"none, since the {log} log lies in a table: --ds DAY", found=given
                )
            pattern = str(given)
            found[log, day] += files_like(pattern) or files_like(pattern.rstrip("/") + "/")
            if not found[log, day]:
                raise BadInput(given, "path", expected="a landing file, or a folder of them", found="none")
            continue
        for path in _home_files(given):
            parts = path.absolute().parts
            of_log = log or next((name for name in LOGS if name == parts[-3]), None)
            if of_log is None:
                raise BadInput(
                    path,
                    "--log",
                    expected="natural or ad, since the path has no .../natural/<day>/ or .../ad/<day>/ that names it",
                    found="none",
                )
            found[of_log, day or _folder_day(parts[-2])].append(path.absolute())
    return dict(sorted(found.items(), key=str))


def _home_files(given: Path) -> list[Path]:
    if not given.exists():
        raise BadInput(given, "path", expected="a landing file, or a folder of them", found="no such file")
    files = [given] if given.is_file() else [path for folder in _day_folders(given) for path in files_in(folder)]
    if not files or not all(map(format_of, files)):
        raise BadInput(
            given, "path", expected=f"a file that ends in {', '.join(SUFFIXES)}, or a folder with one", found="none"
        )
    return files


def _day_folders(folder: Path) -> list[Path]:
    """The folder itself, if it is a landing day or holds files; else those below it. What is below a landing day is not read."""
    if _folder_day(folder.absolute().name) is not None or files_in(folder):
        return [folder]
    below = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "_")))
    return [found for path in below for found in _day_folders(path)]


def _folder_day(name: str) -> date | None:
    return as_day(name) if "-" in name else None


def _deployment(home: Path) -> Deployment:
    try:
        return Deployment.load(home)
    except BadInput as error:
        if (home / "deployment.toml").exists():
            raise
        raise BadInput(
            error.where,
            error.field,
            expected="the deployment's settings: its time zone, allowed lateness and string ids",
            found=error.found,
            hint="Name its folder by --home, or make one with `tributary init`.",
        ) from None


def _look_at(path: AnyFile, locations: Locations, deployment: Deployment, done: Checked) -> LandingFile:
    """Raises BadInput where the file cannot be ingested; notes columns that would be left out, and an empty file."""
    source = deployment.landing.of(done.log)
    day = done.day if source.has_days and not source.is_home else None
    if source.table is not None:
        assert done.day is not None
        (file,) = Deliveries(locations, deployment, done.log).day(done.day).files
        done.files[file.shown] = Counter()
        return file
    delivery = Delivery.of_log(done.log, deployment.landing)
    file = look_at(path, delivery, locations, deployment.string_ids, day=day)
    done.files[_name_in_day(file.shown)] = Counter()
    if not source.is_mapped:
        undeclared = list(dict.fromkeys(name for name in file.columns if name not in LANDING_COLUMNS[done.log]))
        if undeclared:
            done.warnings.append(f"{path.name}: columns that no contract knows are left out: {', '.join(undeclared)}")
    absent = [name for name in LANDING_COLUMNS[done.log] if name not in (*file.columns, *source.columns)]
    if absent:
        done.notes.append(f"{path.name}: optional columns not delivered, null throughout: {', '.join(absent)}")
    if not has_rows(path, source):
        done.warnings.append(f"{path.name}: not one row")
    return file


def _add_folders(done: Checked, paths: Iterable[AnyFile]) -> None:
    for folder in sorted({path.parent for path in paths if isinstance(path, Path)}):
        names = unread_names(folder)
        if names:
            done.warnings.append(f"{folder.name}: {NOT_READ}: {', '.join(names)}")


def _judge(
    rows: DataFrame,
    files: Sequence[LandingFile],
    log: Log,
    deployment: Deployment,
    forgotten: Forgotten | None,
    done: Mapping[Group, Checked],
) -> None:
    """Adds to `done` what becomes of the rows, and, where some would go to quarantine, by which rules."""
    rules = rules_for(log, deployment)
    # A line without fields breaks the first rule, and would break every other one.
    found = ", ".join(
        f"CASE WHEN ({rule.broken}) AND ({CORRUPT} IS NULL OR {number} = 0) "
        f"THEN named_struct('number', {number}, 'found', {readable(rule.found)}) END"
        for number, rule in enumerate(rules)
    )
    broken = F.expr(f"array_compact(array({found}))")
    rows = with_broken_rule(
        with_judged(rows, log, deployment, forgotten).withColumn("all_broken", broken),
        log,
        deployment,
        keep=("all_broken", ROW_INDEX),
    )
    with reading(files):
        counted = with_status(rows.drop("all_broken"), log=log, lateness_days=deployment.allowed_lateness_days)
        of_values = unknown_counts(log, deployment)
        for row in counted.groupBy("ds", "file").agg(*status_counts(), *of_values.values()).collect():
            if (log, row["ds"]) not in done:
                for checked in (one for group, one in done.items() if group[0] == log):
                    checked.problems.append(f"{_name_in_day(row['file'])}: {row['read']:,} rows without a day")
                continue
            done[log, row["ds"]].files[_name_in_day(row["file"])] = Counter(
                {name: row[name] for name in (*STATUS_COUNTS, *of_values)}
            )
        if not any(checked.counts["quarantined"] for (of_log, _), checked in done.items() if of_log == log):
            return
        _add_rules(rows, rules, {file.shown: file for file in files}, log, done)


def _add_rules(
    rows: DataFrame,
    rules: Sequence[Rule],
    files: Mapping[str, LandingFile],
    log: Log,
    done: Mapping[Group, Checked],
) -> None:
    bad = rows.where(F.col("rule").isNotNull() & ~F.col("is_forgotten")).withColumn("one", F.explode("all_broken"))
    of_rule = Window.partitionBy("ds", "one.number")
    bad = bad.select(
        "ds",
        "file",
        ROW_INDEX,
        F.left("raw", F.lit(LONGEST_RAW)).alias("raw"),
        F.col("one.number").alias("number"),
        F.left("one.found", F.lit(LONGEST_RAW)).alias("found"),
        F.count(F.lit(1)).over(of_rule).alias("rows"),
        F.row_number().over(of_rule.orderBy("file", ROW_INDEX, "raw")).alias("place"),
    )
    shown = bad.where(F.col("place") <= EXAMPLES).orderBy("ds", "number", "place").collect()
    shown = [row for row in shown if (log, row["ds"]) in done]  # others have no day
    of_file: dict[str, set[str]] = defaultdict(set)
    for row in shown:
        if row[ROW_INDEX] is None:  # a row of a text file; for all others Spark gives the row's place
            of_file[row["file"]].add(row["raw"])
    lines = {name: lines_of(files[name], raws) for name, raws in of_file.items() if name in files}
    for row in shown:
        checked, rule = done[log, row["ds"]], rules[row["number"]]
        checked.broken[rule.name], checked.expected[rule.name] = row["rows"], rule.expected
        line = row[ROW_INDEX] + 1 if row[ROW_INDEX] is not None else lines.get(row["file"], {}).get(row["raw"])
        found = shown_value(row["found"], masked=rule.field in MASKED_FIELDS or rule.field == "*")
        checked.examples[rule.name].append(Example(file=_name_in_day(row["file"]), line=line, found=found))


def _name_in_day(file: str) -> str:
    """What tells a file from others of its day: its name in the home folder, else its whole path."""
    return file if file.startswith((STORE, "/")) else file.rsplit("/", 1)[-1]


def _conclude(done: Checked, paths: Sequence[AnyFile], *, may_be_empty: bool) -> None:
    for name, counts in done.files.items():
        if counts and all_quarantined(counts):
            done.problems.append(f"{name}: all {counts['read']:,} rows would go to quarantine")
    if not done.counts["read"] and not done.problems and not may_be_empty:
        done.problems.append(str(no_rows(paths[0])))


def shown_value(value: str | None, *, masked: bool) -> str:
    """A value as a terminal may show it: cut, without control characters, and where masked only its shape."""
    if not value:
        return "nothing"
    if masked:
        value = mask(value[: LONGEST_SHOWN + 1])
    return printable(value, LONGEST_SHOWN)


def _print(done: Checked, *, strict: bool) -> None:
    print(
        f"{done.log} log, landing day {done.day or 'unknown: whether events are of that day is not judged (name it by --ds)'}, "
        f"{len(done.files)} file{'s' if len(done.files) != 1 else ''}"
    )
    rows = [
        (name, count, done.expected[name], example.file, example.line or "?", example.found)
        for name, count in done.broken.most_common()
        for example in done.examples[name]
    ]
    if rows:
        print("\n" + table_text(("rule", "rows", "expected", "file", "line", "found"), rows))
    counts = done.counts
    if len(done.files) > 1:
        columns = ("read", "kept", "quarantined", "duplicates", "forgotten")
        of_files = [
            (printable(name), *(of_file[column] if of_file else "" for column in columns), _fate(of_file))
            for name, of_file in done.files.items()
        ]
        print("\n" + table_text(("file", *columns, "outcome"), of_files))
    outcomes = [
        ("kept", counts["kept"]),
        ("  of them late", counts["late"]),
        ("quarantined", counts["quarantined"]),
        ("duplicates", counts["duplicates"]),
        ("  of them differing", counts["conflicting_duplicates"]),
        *([("forgotten", counts["forgotten"])] if counts["forgotten"] else []),
        ("read", counts["read"]),
    ]
    print("\n" + table_text(("rows", "count"), outcomes) + "\n")
    for kind, texts in (("problem", done.problems), ("note", done.notes), ("warning", done.all_warnings)):
        for text in texts:
            print(f"{kind}: {text}")
    print(f"verdict: {_verdict(done, strict=strict)}\n")


def _fate(counts: Counter[str] | None) -> str:
    if counts is None:
        return "unreadable: the day is refused"
    return "all quarantined" if all_quarantined(counts) else "ingested"


def _verdict(done: Checked, *, strict: bool) -> str:
    warned = f"{len(done.all_warnings)} warning{'s' if len(done.all_warnings) != 1 else ''}"
    if None in done.files.values():
        return "cannot be ingested"
    if done.problems:
        return "should not be ingested as it is"
    if done.all_warnings:
        return f"can be ingested, with {warned}{': refused, since --strict' if strict else ''}"
    return "sound"
