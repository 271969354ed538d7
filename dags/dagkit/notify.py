"""Notifies people of failed tasks and late runs: the deployment's `notify` command gets a JSON object on its standard input."""

from __future__ import annotations

import asyncio
import json
import logging
import shlex
import subprocess
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal

from airflow.sdk.definitions.callback import AsyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference

from contracts.settings import Deployment, home_folder

BACKFILL = "backfill"
TIMEOUT_SECONDS = 60

log = logging.getLogger(__name__)


def task_failed(context: Mapping[str, Any]) -> None:
    """Notifies that a task has failed for good; Airflow calls it after the last try, in every type of run.

    Args:
        context: the context that Airflow gives to a failure callback.
    """
    task, run = context["ti"], context["dag_run"]
    send(
        "task_failed",
        dag=task.dag_id,
        run=task.run_id,
        run_type=_text(run.run_type),
        task=task.task_id,
        try_number=task.try_number,
        error=str(context.get("exception") or ""),
        log=getattr(task, "log_url", ""),
    )


async def deadline_missed(context: Mapping[str, Any]) -> None:
    """Notifies that a run is late, unless a backfill made it: a backfill queues all its runs at once, so most of them are late.

    Args:
        context: the context that Airflow gives to a deadline callback.
    """
    run = context["dag_run"]
    if run["run_type"] == BACKFILL:
        log.info("%s %s is late: not notified, since a backfill made it", run["dag_id"], run["dag_run_id"])
        return
    await asyncio.to_thread(
        send,
        "deadline_missed",
        dag=run["dag_id"],
        run=run["dag_run_id"],
        run_type=run["run_type"],
        deadline=str(context["deadline"]["deadline_time"]),
    )


def late_after(interval: timedelta) -> DeadlineAlert:
    """Returns the alert for a run that has not ended `interval` after it was queued.

    The interval does not begin at the logical date, since a past day would be late before its run began.
    """
    return DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=interval,
        callback=AsyncCallback(deadline_missed),
        name="late",
    )


def send(event: Literal["task_failed", "deadline_missed"], **values: object) -> None:
    """Runs the deployment's `notify` command, if there is one; a command that fails is logged, and stops nothing.

    Args:
        event: what happened.
        values: further keys of the JSON object that the command gets.
    """
    home = home_folder()
    command = Deployment.load(home).notify
    if command is None:
        log.debug(
            "%s: deployment.toml has no `notify`", event
        )  # Only at debug level: a failed task's log should end with its error.
        return
    message = json.dumps({"event": event, "deployment": str(home), **values})
    try:
        done = subprocess.run(
            shlex.split(command),
            input=message,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        log.error("notify: %s: %s", command, error)
        return
    (log.error if done.returncode else log.info)(
        "notify: %s: exit code %d %s", command, done.returncode, done.stdout.strip()
    )


def _text(run_type: Any) -> str:
    return str(getattr(run_type, "value", run_type))
