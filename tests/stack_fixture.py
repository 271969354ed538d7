"""What tests of the one-machine stack share: a home, shell scripts in the place of components, a stand-in for Airflow's API."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from contracts.settings import SETTINGS_FILE, Deployment
from tributary.stack import processes

# A test's JVM makes do with the first of its two compilers, since nearly every plan is run once; its memory does not grow by
# full collections; and plans are not written out as text, which is for a UI that is off.
JVM_OPTIONS = (
    "SPARK_SUBMIT_OPTS",
    "-XX:TieredStopAtLevel=1 -Xms1g -XX:MetaspaceSize=512m "
    "-Dspark.sql.ui.explainMode=simple -Dspark.sql.maxPlanStringLength=100",
)
CALENDAR = Deployment(history_start=date(2026, 1, 1), actr_start=date(2026, 1, 5))


def make_home(tmp_path: Path) -> Path:
    """A deployment's folder with an empty stack."""
    (tmp_path / SETTINGS_FILE).write_text(CALENDAR.to_toml())
    (tmp_path / "stack").mkdir()
    return tmp_path


def run(home: Path, name: str, script: str, address: str = "") -> processes.Record:
    """Starts a shell script in the place of a component, at this address."""
    return processes.start(
        name,
        ["sh", "-c", script],
        env=os.environ | {processes.MARKER: str(home), processes.COMPONENT: name},
        folder=home / "stack",
        cwd=home,
        address=address,
    )


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class FakeAirflow(BaseHTTPRequestHandler):
    """Answers from a list of (status, JSON); keeps what was asked."""

    answers: list[tuple[int, Any]]
    asked: list[tuple[str, str, Any]]

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.asked.append((self.command, self.path, json.loads(body) if body else None))
        status, value = (201, {"access_token": "t"}) if self.path == "/auth/token" else self.answers.pop(0)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(value).encode())

    do_GET = do_POST = do_PATCH = answer

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[tuple[type[FakeAirflow], str]]:
    """A `FakeAirflow` on a port of its own, and its address."""
    handler = type("Handler", (FakeAirflow,), {"answers": [], "asked": []})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield handler, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
