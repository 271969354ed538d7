"""Links on a task in Airflow's UI, under its details, to what it has judged.

Links of the plugin (`global_operator_extra_links`), not of the operator: Airflow evaluates an operator's own link in the worker
when the task ends, so it is absent while the task runs and after it was killed, the very times when somebody looks. These are
evaluated in the API server from the task's command, and lead to an address that finds the run's day when it is opened.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from airflow.configuration import conf
from airflow.sdk import BaseOperatorLink

from contracts.steps import VALIDATED_TABLES

PREFIX = "/data-quality"
JUDGES_TABLES, JUDGES_MODELS = ["validation", "run"], ["validation", "gate"]


class QualityReportLink(BaseOperatorLink):
    """On tasks that judge tables: their verdicts of the run's day."""

    name = "Quality report"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        command = _command(operator)
        if command[:2] != JUDGES_TABLES:
            return ""  # Airflow shows no link then
        tables = _options(command).table or VALIDATED_TABLES
        return _address(ti_key, [("table", table) for table in tables])


class GateResultLink(BaseOperatorLink):
    """On tasks that judge models: what the gate said of the run's period."""

    name = "Gate result"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        command = _command(operator)
        if command[:2] != JUDGES_MODELS:
            return ""
        return _address(ti_key, [("kind", kind) for kind in _options(command).kind])


def _command(operator: Any) -> list[str]:
    """What a task runs, as the DAG was serialized; nothing of an operator that is none of ours."""
    return [str(part) for part in getattr(operator, "command", None) or ()]


def _options(command: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--table", action="append", default=[])
    parser.add_argument("--kind", action="append", default=[])
    return parser.parse_known_args(command)[0]


def _address(ti_key: Any, query: Sequence[tuple[str, str]]) -> str:
    root = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/")
    return f"{root}{PREFIX}/runs/{quote(ti_key.dag_id, safe='')}/{quote(ti_key.run_id, safe='')}?{urlencode(query)}"
