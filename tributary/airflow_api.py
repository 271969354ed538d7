"""A small client of Airflow's REST API (version 2, Airflow 3.3), by the standard library."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

from contracts.errors import TributaryError
from contracts.settings import Deployment
from contracts.steps import CADENCES

Reprocess = Literal["none", "failed", "completed"]
UNFINISHED = ("queued", "running", "restarting", "scheduled")
FRAME = (
    "::group::",
    "::endgroup::",
    "DAG bundles loaded",
    "Filling up the DagBag",
    "Worker startup parse complete",
    "Task failed with",
)
PAGE = 100  # most rows that the API gives at once


class ApiError(TributaryError):
    """Airflow refused a request, or could not be reached."""

    exit_code = 1

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class RunFailed(TributaryError):
    """A DAG run failed; the message ends with the failed tasks and the tail of their logs."""

    exit_code = 1


@dataclass(frozen=True, kw_only=True)
class Run:
    """A DAG run.

    Attributes:
        period: first day of the period that it makes; None where it makes none (a daily tick inside a shrunken period).
        state: queued, running, success or failed.
        run_type: scheduled, backfill or manual.
        seconds: how long it ran; None before it has ended.
        queued_ts: when it was made; None in answers that leave it out.
    """

    dag_id: str
    run_id: str
    state: str
    run_type: str
    period: date | None
    seconds: float | None
    queued_ts: datetime | None = None

    @property
    def is_unfinished(self) -> bool:
        """Whether it runs, or waits to."""
        return self.state in UNFINISHED


class AirflowApi:
    """One Airflow, as one user."""

    def __init__(self, address: str, user: str, password: str, *, deployment: Deployment) -> None:
        self.address, self.user, self._password, self.deployment = address.rstrip("/"), user, password, deployment
        self._token: str | None = None

    def call(self, method: str, path: str, *, body: object = None, **query: object) -> Any:
        """A request to `/api/v2<path>`; returns the JSON answer, None if there is none.

        Raises:
            ApiError: refused, or not reached.
        """
        if self._token is None:
            self._token = self._send("POST", "/auth/token", {"username": self.user, "password": self._password})[
                "access_token"
            ]
        encoded = urllib.parse.urlencode(
            {name: value for name, value in query.items() if value is not None}, doseq=True
        )
        try:
            return self._send(method, f"/api/v2{path}{'?' + encoded if encoded else ''}", body)
        except ApiError as error:
            if error.status == 401:
                self._token = None  # it lives for a day
            raise

    def is_healthy(self) -> bool:
        """Whether API, database, scheduler and DAG processor all work."""
        health = self.call("GET", "/monitor/health")
        return all(health[part]["status"] == "healthy" for part in ("metadatabase", "scheduler", "dag_processor"))

    def dag_ids(self) -> list[str]:
        """Returns the ids of all DAGs."""
        return [dag["dag_id"] for dag in self.call("GET", "/dags", limit=PAGE)["dags"]]

    def import_errors(self) -> dict[str, str]:
        """Files that are not importable, with the traceback of each."""
        errors = self.call("GET", "/importErrors", limit=PAGE)["import_errors"]
        return {error["filename"]: error["stack_trace"] for error in errors}

    def set_paused(self, dag_id: str, paused: bool) -> None:
        """Pauses or unpauses a DAG."""
        self.call("PATCH", f"/dags/{dag_id}", body={"is_paused": paused}, update_mask="is_paused")

    def unpause(self, dag_id: str) -> None:
        """Unpauses a DAG, so that its runs start."""
        self.set_paused(dag_id, False)

    def ensure_pool(self, name: str, *, slots: int, description: str = "") -> None:
        """Makes a pool, and leaves one of that name as it is: its size is the operator's."""
        try:
            self.call(
                "POST",
                "/pools",
                body={"name": name, "slots": slots, "description": description, "include_deferred": False},
            )
        except ApiError as error:
            if error.status != 409:
                raise

    def trigger(self, dag_id: str, conf: Mapping[str, str]) -> str:
        """Starts a manual run with these fields of its form, and returns its run id."""
        return str(
            self.call("POST", f"/dags/{dag_id}/dagRuns", body={"logical_date": None, "conf": dict(conf)})["dag_run_id"]
        )

    def create_backfill(
        self,
        dag_id: str,
        first: date,
        last: date,
        *,
        max_active_runs: int = 1,
        reprocess: Reprocess = "failed",
        backwards: bool = False,
        conf: Mapping[str, str] | None = None,
        timeout_seconds: float = 90,
    ) -> int:
        """Makes a run for each period from the one that begins on `first` to the one that begins on `last`, inclusive.

        Airflow allows one backfill of a DAG at a time, and notices only every half minute that one has ended: this
        waits that long for a former one. A paused DAG's runs stay queued: `unpause` it. Where periods go on from each
        other, it refuses `backwards`, and `reprocess="none"`.

        Returns:
            The backfill's id.

        Raises:
            BadInput: `first` or `last` does not begin a period of this DAG.
            ApiError: refused, e.g. no ended period in the range, or another backfill of this DAG still runs.
        """
        begin, end = self._ticks(dag_id, first, last)
        body = {
            "dag_id": dag_id,
            "from_date": begin,
            "to_date": end,
            "max_active_runs": max_active_runs,
            "reprocess_behavior": reprocess,
            "run_backwards": backwards,
            "dag_run_conf": dict(conf or {}),
        }
        deadline = time.monotonic() + timeout_seconds
        while True:
            try:
                return int(self.call("POST", "/backfills", body=body)["id"])
            except ApiError as error:
                if error.status != 409 or time.monotonic() >= deadline:
                    raise
            time.sleep(2)

    def backfill(self, backfill_id: int) -> dict[str, Any]:
        """Returns a backfill as Airflow's API describes it."""
        return dict(self.call("GET", f"/backfills/{backfill_id}"))

    def runs(self, dag_id: str, first: date | None = None, last: date | None = None) -> list[Run]:
        """Scheduled and backfilled runs of the periods that begin on `first` .. `last`, in order; all by default."""
        begin = first and self._ticks(dag_id, first, first)[0]
        end = last and self._ticks(dag_id, last, last)[1]
        order = ["logical_date", "id"]
        return [
            self._run(row) for row in self._rows(dag_id, order_by=order, logical_date_gte=begin, logical_date_lte=end)
        ]

    def run(self, dag_id: str, run_id: str) -> Run:
        """Returns one run of a DAG."""
        return self._run(self.call("GET", f"/dags/{dag_id}/dagRuns/{urllib.parse.quote(run_id)}"))

    def runs_of_period(self, dag_id: str, period: date) -> list[Run]:
        """All runs of a period, whoever started them, in the order in which they were made."""
        rows = self._rows(dag_id, run_type="manual", order_by=["id"])
        runs = [*self.runs(dag_id, period, period), *(run for run in map(self._run, rows) if run.period == period)]
        unique = {run.run_id: run for run in runs}
        return sorted(unique.values(), key=lambda run: run.queued_ts.timestamp() if run.queued_ts else 0.0)

    def stop(self, dag_id: str, run_id: str) -> None:
        """Marks a run as failed: its running tasks fail and are ended at their next heartbeat, those to come are skipped."""
        path = f"/dags/{dag_id}/dagRuns/{urllib.parse.quote(run_id)}"
        self.call("PATCH", path, body={"state": "failed"}, update_mask="state")

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Returns the task instances of a run as Airflow's API describes them."""
        path = f"/dags/{dag_id}/dagRuns/{urllib.parse.quote(run_id)}/taskInstances"
        return list(self.call("GET", path, limit=PAGE)["task_instances"])

    def log(self, dag_id: str, run_id: str, task_id: str, try_number: int) -> list[str]:
        """Lines of a task's log, with the messages of exceptions and without Airflow's own frame."""
        path = f"/dags/{dag_id}/dagRuns/{urllib.parse.quote(run_id)}/taskInstances/{task_id}/logs/{try_number}"
        content = self.call("GET", path, full_content="true")["content"]
        lines: list[dict[str, Any]] = [{"event": line} if isinstance(line, str) else line for line in content]
        raised = {
            place: f"{detail['exc_type']}: {detail['exc_value']}"
            for place, line in enumerate(lines)
            for detail in line.get("error_detail") or ()
        }
        found = [
            text for place, line in enumerate(lines) for text in (str(line.get("event", "")), raised.get(place, ""))
        ]
        return [line for line in found if line.strip() and not line.startswith(FRAME)]

    def failures(self, dag_id: str, run_id: str, lines: int = 15) -> str:
        """The failed tasks of a run, each with the tail of its log."""
        parts = []
        for task in self.tasks(dag_id, run_id):
            if task["state"] == "failed":
                tail = self.log(dag_id, run_id, task["task_id"], task["try_number"])[-lines:]
                parts.append(
                    "\n".join(
                        [f"{dag_id}.{task['task_id']} (try {task['try_number']}):", *(f"    {line}" for line in tail)]
                    )
                )
        return (
            "\n".join(parts)
            or f"{dag_id}: no failed task; see {self.address}/dags/{dag_id}/runs/{urllib.parse.quote(run_id)}"
        )

    def wait_for_periods(
        self,
        dag_id: str,
        first: date,
        last: date,
        *,
        timeout_seconds: float = 3600,
        say: Callable[[str], None] | None = None,
    ) -> list[Run]:
        """Waits until every run of these periods has ended; returns them.

        Args:
            dag_id: the DAG whose runs are waited for.
            first: the first period.
            last: the last period, included.
            timeout_seconds: the longest wait.
            say: called with a line for the person who waits, whenever a run has changed; None for no lines.

        Raises:
            RunFailed: a run failed (raised at once, though others may still run), or the timeout passed.
        """
        return self._wait(lambda: self.runs(dag_id, first, last), f"{dag_id} {first} .. {last}", timeout_seconds, say)

    def wait_for_run(
        self, dag_id: str, run_id: str, *, timeout_seconds: float = 3600, say: Callable[[str], None] | None = None
    ) -> Run:
        """Waits until one run has ended, as `wait_for_periods` does."""
        return self._wait(lambda: [self.run(dag_id, run_id)], f"{dag_id} {run_id}", timeout_seconds, say)[0]

    def _wait(
        self, look: Callable[[], list[Run]], what: str, timeout_seconds: float, say: Callable[[str], None] | None
    ) -> list[Run]:
        began, shown = time.monotonic(), ""
        while True:
            runs = look()
            line = f"{what}: " + (", ".join(f"{run.period or run.run_id} {run.state}" for run in runs) or "no runs")
            if say is not None and line != shown:
                say(f"{time.monotonic() - began:6.1f} s  {line}")
                shown = line
            failed = [run for run in runs if run.state == "failed"]
            if failed:
                raise RunFailed(
                    f"{what}: expected success, found failed runs.\n"
                    + "\n".join(self.failures(run.dag_id, run.run_id) for run in failed)
                )
            if not any(run.state in UNFINISHED for run in runs):
                return runs
            if time.monotonic() - began > timeout_seconds:
                raise RunFailed(f"{line}: expected an end within {timeout_seconds:.0f} s. See {self.address}")
            time.sleep(1)

    def _rows(self, dag_id: str, **query: object) -> list[dict[str, Any]]:
        """All runs of a DAG that the query selects, as the API describes them."""
        rows: list[dict[str, Any]] = []
        while True:
            page = self.call("GET", f"/dags/{dag_id}/dagRuns", limit=PAGE, offset=len(rows), **query)
            rows += page["dag_runs"]
            if len(rows) >= page["total_entries"] or not page["dag_runs"]:
                return rows

    def _ticks(self, dag_id: str, first: date, last: date) -> tuple[str, str]:
        """Logical dates of the runs of two periods: their beginnings, or the last days of shrunken weeks and months."""
        settings, cadence = self.deployment.periods, CADENCES[dag_id]
        periods = [settings.named(cadence, day) for day in (first, last)]
        begin, end = (self.deployment.tick(period).isoformat() for period in periods)
        return begin, end

    def _period(self, row: dict[str, Any]) -> date | None:
        ds = (row.get("conf") or {}).get("ds")
        if ds or not row["data_interval_start"]:
            return date.fromisoformat(ds) if ds else None
        day = datetime.fromisoformat(row["data_interval_start"]).astimezone(self.deployment.timezone).date()
        settings, cadence = self.deployment.periods, CADENCES.get(row["dag_id"])
        if cadence is None:
            return None
        if settings.is_calendar or cadence == "day":
            return day
        ending = settings.ends_on(cadence, day)
        return ending.start if ending is not None else None

    def _run(self, row: dict[str, Any]) -> Run:
        return Run(
            dag_id=row["dag_id"],
            run_id=row["dag_run_id"],
            state=row["state"],
            run_type=row["run_type"],
            period=self._period(row),
            seconds=row.get("duration"),
            queued_ts=datetime.fromisoformat(queued) if (queued := row.get("queued_at")) else None,
        )

    def _send(self, method: str, path: str, body: object) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.address + path, data=data, method=method, headers={"Accept": "application/json"}
        )
        if data is not None:
            request.add_header("Content-Type", "application/json")
        if self._token is not None:
            request.add_header("Authorization", f"Bearer {self._token}")
        try:
            with _OPENER.open(request, timeout=60) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                raise ApiError(
                    f"{method} {self.address}{path}: {error.code} {_detail(error.read())}", error.code
                ) from None
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            raise ApiError(f"{method} {self.address}{path}: not reached: {error}") from None
        return json.loads(text) if text else None


# Loopback never goes through a proxy that the environment names.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _detail(answer: bytes) -> str:
    try:
        return str(json.loads(answer)["detail"])
    except (ValueError, KeyError, TypeError):
        return answer[:300].decode(errors="replace")
