"""Links from a task's details in Airflow's UI to the verdicts that the task has written.

The links belong to the plugin (`global_operator_extra_links`), not to the operator. Airflow evaluates an operator's own
link in the worker when the task ends, so it is absent while the task runs and after it was killed, which is when people
look. The plugin's links are evaluated in the API server from the task's command, and lead to an address that finds the
run's day when it is opened.
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
    """Links a task that judges tables to their verdicts of the run's day."""

    name = "Quality report"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Returns the address of the tables' verdicts; empty, so that Airflow shows no link, for a task that judges no tables."""
        command = _command(operator)
        if command[:2] != JUDGES_TABLES:
            return ""
        tables = _options(command).table or VALIDATED_TABLES
        return _address(ti_key, [("table", table) for table in tables])


class GateResultLink(BaseOperatorLink):
    """Links a task that judges models to the gate's verdicts of the run's period."""

    name = "Gate result"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Returns the address of the models' verdicts; empty, so that Airflow shows no link, for a task that judges no models."""
        command = _command(operator)
        if command[:2] != JUDGES_MODELS:
            return ""
        return _address(ti_key, [("kind", kind) for kind in _options(command).kind])


def _command(operator: Any) -> list[str]:
    """Returns the command in the serialized DAG; nothing for an operator that is not one of this project."""
    return [str(part) for part in getattr(operator, "command", None) or ()]


def _options(command: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--table", action="append", default=[])
    parser.add_argument("--kind", action="append", default=[])
    return parser.parse_known_args(command)[0]


def _address(ti_key: Any, query: Sequence[tuple[str, str]]) -> str:
    root = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/")
    return f"{root}{PREFIX}/runs/{quote(ti_key.dag_id, safe='')}/{quote(ti_key.run_id, safe='')}?{urlencode(query)}"
