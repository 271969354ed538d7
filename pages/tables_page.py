"""`docs/tables.md`, made from the contracts: `python -m pages.tables_page` writes it, `--check` reports whether it is current."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from contracts.errors import EXIT_BAD_INPUT, EXIT_OK, run_command
from contracts.features import FEATURES, LOGS, Feature
from contracts.steps import REGISTRY, producers, readers
from contracts.tables import LANDING_COLUMNS, OPTIONAL_LANDING_COLUMNS, TABLES, Column, Table

PAGE = Path(__file__).resolve().parent.parent / "docs" / "tables.md"
COMMAND = "python -m pages.tables_page"


def main(argv: Sequence[str] | None = None) -> int:
    """Writes or checks the page; returns the exit code."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 2 if the page is not current")
    options = parser.parse_args(argv)
    if not options.check:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(page(), encoding="utf-8")
        print(f"wrote {PAGE}: {len(TABLES)} tables")
        return EXIT_OK
    if not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page():
        print(f"{PAGE} differs from the contracts. Rebuild it: {COMMAND}", file=sys.stderr)
        return EXIT_BAD_INPUT
    print(f"{PAGE} is current")
    return EXIT_OK


def page() -> str:
    """The whole page."""
    parts = [
        "# Tables of the lake",
        f"Made from `contracts/tables.py`, `contracts/steps.py` and `contracts/features.py` by `{COMMAND}`; a change by hand is "
        "overwritten.",
        "Each table is a Delta table under `<home>/lake/<name>/`. A producer replaces whole partitions, those of the owner columns, "
        "and no two producers share one. Column types are Spark's; names are the same in Spark, in Parquet and in the batches. "
        "*Nullable* columns may be null, *volatile* ones (clocks, run ids) differ between equal runs and are left out of comparisons.",
        "What a team delivers to be read into them is described in [your_own_logs.md](your_own_logs.md).",
        _grid(("table", "one row is", "partition", "producer"), [_summary(table) for table in TABLES.values()]),
        *(_table(table) for table in TABLES.values()),
        "## Landing columns",
        "What a landing file holds of each log; the others of a log's columns are made by ingestion.",
        landing_columns(),
        "## Features",
        "Declared once in `contracts/features.py`; log and sample columns, checks, batches and embedding tables derive from them.",
        _grid(
            ("feature", "side", "type", "meaning", "comes from", "models", "embedding"),
            [_feature(feature) for feature in FEATURES],
        ),
    ]
    return "\n\n".join(parts) + "\n"


def landing_columns() -> str:
    """What a landing file holds: columns, by which log, types, meanings and legal values, as a table."""
    rows = []
    for name in LANDING_COLUMNS["ad"]:
        column = TABLES["ad_log"].column(name)
        logs = [log for log in LOGS if name in LANDING_COLUMNS[log]]
        rows.append(
            (
                f"`{name}`",
                "both" if len(logs) > 1 else logs[0],
                f"`{column.type}`",
                column.meaning,
                _legal(replace(column, nullable=False)),
                "optional" if name in OPTIONAL_LANDING_COLUMNS else "required",
            )
        )
    return _grid(("column", "log", "type", "meaning", "legal values", ""), rows)


def _summary(table: Table) -> tuple[str, ...]:
    return f"[{table.name}](#{table.name})", table.grain, _names(table.owner) or "none", _producer(table)


def _table(table: Table) -> str:
    facts = [
        f"- one row: {table.grain}",
        f"- producer: {_producer(table)}",
        f"- readers: {_readers(table)}",
        f"- owner columns, the partition that its producer replaces: {_names(table.owner) or 'none'}"
        + (f"; partitioned by {_names(table.partition)}" if table.partition else ""),
        f"- no two rows of a partition share: {_names(table.unique) or 'nothing is promised'}",
    ]
    if table.content_addressed:
        facts.append("- content-addressed: rows are only ever inserted, each once, whatever the order of the days")
    columns = [(f"`{column.name}`", f"`{column.type}`", column.meaning, _legal(column)) for column in table.columns]
    return (
        f"## {table.name}\n\n"
        + "\n".join(facts)
        + "\n\n"
        + _grid(("column", "type", "meaning", "legal values"), columns)
    )


def _producer(table: Table) -> str:
    return (
        "every command that writes a partition"
        if table.name == "builds"
        else ", ".join(f"`{one}`" for one in producers(table.name))
    )


def _readers(table: Table) -> str:
    if table.name in REGISTRY:
        return "every command"
    return ", ".join(f"`{one}`" for one in readers(table.name)) or "people"


def _legal(column: Column) -> str:
    words = []
    if column.allowed is not None:
        words.append("one of " + ", ".join(str(value) for value in column.allowed))
    if column.minimum is not None and column.maximum is not None:
        words.append(f"{column.minimum} .. {column.maximum}")
    elif column.minimum is not None:
        words.append(f">= {column.minimum}")
    elif column.maximum is not None:
        words.append(f"<= {column.maximum}")
    if column.longest is not None:
        words.append(f"at most {column.longest} characters")
    words += [name for name in ("nullable", "volatile") if getattr(column, name)]
    return "; ".join(words)


def _feature(feature: Feature) -> tuple[str, ...]:
    source = "the landing file" if feature.source == "landing" else "`build_samples`"
    if not feature.required:
        source += ", unknown where an older file lacks it"
    return (
        f"`{feature.name}`",
        feature.side,
        f"`{feature.type}`",
        feature.meaning,
        source,
        ", ".join(sorted(feature.models)),
        str(feature.embedding_dim),
    )


def _names(columns: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in columns)


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    raise SystemExit(run_command(main))
