"""The age of the last heartbeat of Airflow's components, from Airflow's API.

A process may be alive and do nothing. For example, a scheduler that has lost its database stops scheduling and waits
until its running tasks have ended, which takes hours if one of them trains a model.
"""

from __future__ import annotations

import json
import socket
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from contracts.locations import Locations
from tributary.stack import airflow, processes

FIELDS = {airflow.SCHEDULER: "scheduler", "dag-processor": "dag_processor", "triggerer": "triggerer"}
TIMEOUT_SECONDS = 5.0
SILENT_SECONDS = 90.0  # a component without a heartbeat for this long is treated as dead


def silent(home: Path, ui_port: int) -> dict[str, float]:
    """Returns the components that are alive but have had no heartbeat for `SILENT_SECONDS`, with the seconds since their last.

    A component that started less than `SILENT_SECONDS` ago is not among them, since it may not have written one yet.
    """
    return {
        name: age
        for name, age in ages(ui_port).items()
        if age > SILENT_SECONDS and _lived_seconds(home, name) > SILENT_SECONDS
    }


def ages(ui_port: int) -> dict[str, float]:
    """Returns the seconds since the last heartbeat of each component that has one; {} if the API or its database does not answer."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        health = json.loads(_get(ui_port, "/api/v2/monitor/health"))
        if health["metadatabase"]["status"] != "healthy":
            return {}
        beats = {name: health[field][f"latest_{field}_heartbeat"] for name, field in FIELDS.items()}
        return {name: time.time() - datetime.fromisoformat(beat).timestamp() for name, beat in beats.items() if beat}
    return {}


def _lived_seconds(home: Path, name: str) -> float:
    record = processes.read_record(Locations(home).stack, name)
    return time.time() - processes.started_at(record.start_ticks) if record is not None and record.is_alive else 0.0


def _get(port: int, path: str) -> bytes:
    """Requests a path from a loopback port and returns the body; without an HTTP library, which would double the supervisor's memory."""
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS) as connected:
        connected.sendall(f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nAccept: application/json\r\n\r\n".encode())
        answer = b""
        while part := connected.recv(65536):
            answer += part
    return answer.partition(b"\r\n\r\n")[2]
