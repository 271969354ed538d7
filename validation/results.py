"""Rows of the table `quality_results`, and what a command does with a verdict: report, index, table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import QualityFailed
from contracts.locations import Locations
from contracts.tables import TABLES, owner_key
from validation.verdict import Verdict, report_path

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ACCEPTED = "accepted"


def owner_of(verdict: Verdict) -> dict[str, object]:
    """The one partition of `quality_results` that a verdict owns; a range's is that of its last day."""
    return {"table_name": verdict.table, "ds": verdict.last_day}


def result_rows(verdict: Verdict) -> list[dict[str, Any]]:
    """One row for each check, and one for the acceptance if there is one."""
    together = "" if verdict.first_day == verdict.last_day else f" ({verdict.period})"
    common = {"table_name": verdict.table, "run_ts": verdict.run_ts, "ds": verdict.last_day}
    rows = [
        common
        | {
            "check_name": result.name,
            "field": result.field,
            "severity": result.severity,
            "success": result.success,
            "expected": result.expected + together,
            "found": result.found,
        }
        for result in verdict.results
    ]
    if verdict.acceptance is not None:
        rows.append(
            common
            | {
                "check_name": ACCEPTED,
                "field": None,
                "severity": "warn",
                "success": True,
                "expected": "a person accepts the failed day",
                "found": verdict.acceptance.reason,
            }
        )
    return rows


def record(spark: SparkSession, locations: Locations, verdicts: Sequence[Verdict]) -> None:
    """Replaces these verdicts' partitions of `quality_results`, in one commit."""
    from lake.writing import replace_partitions

    columns = TABLES["quality_results"].column_names
    rows = [tuple(row[name] for name in columns) for verdict in verdicts for row in result_rows(verdict)]
    owners = [owner_of(verdict) for verdict in verdicts]
    keys = [owner_key(**owner) for owner in owners]
    replace_partitions(
        spark,
        locations,
        "quality_results",
        spark.createDataFrame(rows, schema=TABLES["quality_results"].ddl),
        owners=owners,
        inputs={
            key: {f"{v.table}/{owner}": digest for owner, digest in v.digests.items()}
            for key, v in zip(keys, verdicts, strict=True)
        },
        counts={
            key: {"checks": len(v.results), "failed": len(v.failed("fail")), "warned": len(v.failed("warn"))}
            for key, v in zip(keys, verdicts, strict=True)
        },
    )


def address_of(path: Path) -> str:
    """The address of a file for a browser."""
    return path.resolve().as_uri()


def refuse_failed(locations: Locations, verdicts: Sequence[Verdict]) -> None:
    """Raises QualityFailed, which ends with the address of a report, if a check of severity `fail` failed."""
    messages = []
    for verdict in verdicts:
        if verdict.status == "fail":
            first, *more = verdict.failed("fail")
            others = f" (and {len(more)} more checks)" if more else ""
            messages.append(
                f"{verdict.table}, {verdict.period}: {first.id}: expected {first.expected}, found {first.found}{others}. "
                f"Report: {address_of(report_path(locations, verdict))}"
            )
    if messages:
        raise QualityFailed("\n".join(messages))
