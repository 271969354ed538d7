"""The supervisor: it looks at the components twice a second, and restarts those that have died.

All its state is in files, so it may die too: the stack keeps running, `tributary status` reports it, and the next
`tributary up` starts another, which finds the components by their records. A part of Airflow that is alive but has no
heartbeat is ended, and restarted like one that has died.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from contracts.locations import Locations
from tributary.stack import airflow, components, heartbeats, logs, postgres, processes
from tributary.stack.components import Setup, StackFailed

FILE = "supervision.json"
LOOK_SECONDS = 0.5
STEADY_SECONDS = 120.0  # once a component has lived this long, its failures are counted from 0 again
MOST_FAILURES = 8  # so many failures without a life that long between them, and a component stays down
LONGEST_PAUSE_SECONDS = 60.0
BEAT_SECONDS = 10.0  # between two looks at heartbeats
LOG_SECONDS = 60.0
PRUNE_SECONDS = 86_400.0


@dataclass(kw_only=True)
class Watched:
    """What the supervisor knows of one component.

    Attributes:
        restarts: how often it was restarted since the whole stack was started.
        failures: how often it has died or failed to start since it last lived for `STEADY_SECONDS`.
        given_up: whether it is no longer restarted.
        reason: when and how it failed last, as `tributary status` shows it; "" if it never has.
    """

    restarts: int = 0
    failures: int = 0
    given_up: bool = False
    reason: str = ""


def pause_seconds(failures: int) -> float:
    """Returns how many seconds to wait before the next start.

    0 after the first failure, 2 after the second, then twice as long each time, up to `LONGEST_PAUSE_SECONDS`.
    """
    return 0.0 if failures <= 1 else min(2.0 ** (failures - 1), LONGEST_PAUSE_SECONDS)


def read(home: Path) -> dict[str, Watched]:
    """Reads what the supervisor has written about each component; {} if there is nothing that can be read."""
    try:
        return {
            name: Watched(**values) for name, values in json.loads((Locations(home).stack / FILE).read_text()).items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def write(home: Path, watched: Mapping[str, Watched]) -> None:
    """Writes what the supervisor knows of each component, readable only by the owner."""
    processes.write_private(
        Locations(home).stack / FILE, json.dumps({name: asdict(one) for name, one in watched.items()}) + "\n"
    )


def forget(home: Path) -> None:
    """Deletes what the supervisor has written about the components."""
    (Locations(home).stack / FILE).unlink(missing_ok=True)


def forgive(home: Path, setup: Setup) -> None:
    """Forgets the failures of every component, so that each is restarted again; the number of restarts is kept."""
    known = read(home)
    write(home, {name: Watched(restarts=known[name].restarts if name in known else 0) for name in setup.names})


class Supervisor:
    """Watches the components of one home."""

    def __init__(self, home: Path, setup: Setup) -> None:
        self.home, self.setup = home, setup
        self.watched = read(home)
        self._due: dict[str, float] = {}  # dead components -> when they may be started again
        self._silent: set[str] = set()  # without a heartbeat at the last look

    def look(self) -> None:
        """Looks once at each component, in the order in which they start, and restarts those that are due."""
        for name in self.setup.names:
            one = self.watched.setdefault(name, Watched())
            record = processes.read_record(Locations(self.home).stack, name)
            if record is not None and record.is_alive:
                if one.failures and time.time() - processes.started_at(record.start_ticks) >= STEADY_SECONDS:
                    one.failures = 0
                    write(self.home, self.watched)
            elif one.given_up:
                continue
            elif name not in self._due:
                self._note_death(name, one, record)
            elif time.monotonic() >= self._due[name] and components.may_start(self.home, self.setup, name):
                self._start(name, one)

    def listen(self) -> None:
        """Ends components that were without a heartbeat at two looks in a row.

        At one look it may be that the machine was suspended.
        """
        silent = heartbeats.silent(self.home, self.setup.ui_port)
        for name in silent.keys() & self._silent:
            one = self.watched.setdefault(name, Watched())
            self._fail(name, one, f"{_now()} ended, since it had no heartbeat for {silent[name]:.0f} s")
        self._silent = silent.keys() - self._silent

    def _note_death(self, name: str, one: Watched, record: processes.Record | None) -> None:
        log = components.log_of(self.home, name)
        why = "no space left on its disk" if logs.wants_space(log) else ended_how(record)
        self._fail(name, one, f"{_now()} {why}")

    def _start(self, name: str, one: Watched) -> None:
        try:
            record = components.start(self.home, self.setup, name)
        except (StackFailed, OSError) as error:
            self._fail(name, one, f"{_now()} not started: {error}")
            return
        del self._due[name]
        one.restarts += 1
        write(self.home, self.watched)
        say(f"{name}: restarted as process {record.pid}")

    def _fail(self, name: str, one: Watched, reason: str) -> None:
        one.failures, one.reason = one.failures + 1, reason
        one.given_up = one.failures >= MOST_FAILURES
        self._due[name] = time.monotonic() + pause_seconds(one.failures)
        write(self.home, self.watched)
        processes.kill_marked(
            self.home, component=name
        )  # at once, since the processes that it has started must not go on without it
        what = (
            f"left down after {one.failures} failures in a row: repair it, then `tributary up`"
            if one.given_up
            else "it is restarted"
        )
        say(f"{name}: {reason}; {what}. Its log: {components.log_of(self.home, name)}")


def ended_how(record: processes.Record | None) -> str:
    """Describes how a component ended; just "died" if this process is not its parent, which learns no exit code."""
    code = None if record is None else processes.exit_code(record.pid)
    if code is None:
        return "died"
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def say(line: str) -> None:
    """Logs a line with date and time."""
    with suppress(OSError):  # On a full disk the supervisor continues without logging.
        print(f"{_now()}  {line}", flush=True)


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")


def run(home: Path) -> int:
    """Supervises until SIGTERM; the components keep running after it."""
    setup = Setup.read(home)
    assert setup is not None
    signal.signal(signal.SIGTERM, _leave)
    supervisor = Supervisor(home, setup)
    say(f"supervising {', '.join(setup.names)} of {home}")
    listened = bounded = pruned = float("-inf")
    while True:
        with suppress(OSError):  # on a full disk: what could not be started or written is tried again at the next look
            supervisor.look()
            if setup.has_airflow and time.monotonic() - listened >= BEAT_SECONDS:
                listened = time.monotonic()
                supervisor.listen()
        if time.monotonic() - bounded >= LOG_SECONDS:
            bounded = time.monotonic()
            bound_logs(home)
        if time.monotonic() - pruned >= PRUNE_SECONDS:
            pruned = time.monotonic()
            logs.prune(airflow.logs_of(home))
        time.sleep(LOOK_SECONDS)


def bound_logs(home: Path) -> None:
    """Empties the logs that have grown too large."""
    for path in (*Locations(home).stack.glob("*.log"), postgres.folder_of(home) / "log"):
        with suppress(OSError):
            logs.bound(path)


def _leave(number: int, frame: FrameType | None) -> None:
    say("ending; the components keep running")
    sys.exit(0)
