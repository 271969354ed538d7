"""Processes of the stack: each starts in a session of its own, is recognized by pid and start time, and is ended with its children.

A pid by itself does not identify a process, since the kernel reuses it; so a record holds the process's start time too.
Every process that a component has started carries `TRIBUTARY_STACK=<home>` and `TRIBUTARY_COMPONENT=<name>` in its
environment. Only the stack sets these variables, so what a killed component has left behind is found without a record,
and no other program's process is ever ended.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from tributary.stack import logs

MARKER = "TRIBUTARY_STACK"
COMPONENT = "TRIBUTARY_COMPONENT"
_EXITING = 0x4  # PF_EXITING of the kernel
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_children: list[subprocess.Popen[bytes]] = []  # kept so that a dead child is reaped, and not taken for a living process


@dataclass(frozen=True, kw_only=True)
class Record:
    """What identifies a process.

    Attributes:
        name: the component's name.
        pid: its process id, which is also the id of its session and process group.
        start_ticks: when it started, in clock ticks since boot (field 22 of /proc/<pid>/stat).
        boot_id: the kernel's id of the boot; ticks count from each boot anew.
        address: where it listens, as `tributary status` shows it; "" if nowhere.
    """

    name: str
    pid: int
    start_ticks: int
    boot_id: str
    address: str = ""

    @property
    def is_there(self) -> bool:
        """Whether the process exists. One that is about to die does: it holds its ports and files until it has gone."""
        return self.boot_id == boot_id() and start_ticks(self.pid) == self.start_ticks

    @property
    def is_alive(self) -> bool:
        """Whether the process exists and is not about to die."""
        return self.is_there and not is_dying(self.pid)


def start(
    name: str, command: Sequence[str], *, env: Mapping[str, str], folder: Path, cwd: Path, address: str = ""
) -> Record:
    """Starts a component in a session of its own, detached from this terminal, and records its process.

    Args:
        name: the component's name.
        command: the program and its arguments.
        env: its whole environment.
        folder: where its output (`<name>.log`) and its record (`<name>.json`) are written.
        cwd: its working folder.
        address: where it listens, as `tributary status` shows it; "" if nowhere.
    """
    with logs.open_new(folder / f"{name}.log") as log:
        process = subprocess.Popen(
            command,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _children.append(process)
    return record(folder, name, process.pid, address=address)


def record(folder: Path, name: str, pid: int, *, address: str = "") -> Record:
    """Writes the record of a running process to `<folder>/<name>.json`, and returns it."""
    one = Record(name=name, pid=pid, start_ticks=start_ticks(pid) or 0, boot_id=boot_id(), address=address)
    write_private(folder / f"{name}.json", json.dumps(asdict(one)) + "\n")
    return one


def read_record(folder: Path, name: str) -> Record | None:
    """The record of a component, or None if there is none that can be read."""
    try:
        return Record(**json.loads((folder / f"{name}.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def forget(folder: Path, name: str) -> None:
    """Removes the record of a process."""
    (folder / f"{name}.json").unlink(missing_ok=True)


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner can read; one that exists is replaced in one step."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    temporary.replace(path)


def boot_id() -> str:
    """Returns the kernel's id of this boot. psutil has only the boot's time, which changes when somebody sets the clock."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_ticks(pid: int) -> int | None:
    """Returns when a process started, in clock ticks since boot; None if it has gone.

    A zombie counts as gone, unless some of its threads are still ending: those of a JVM take a while, and keep its port.
    """
    for child in _children:
        if child.pid == pid:
            child.poll()
    fields = _stat(pid)
    if not fields or (fields[0] in "ZX" and int(fields[17]) <= 1):
        return None
    return int(fields[19])


def is_dying(pid: int) -> bool:
    """Whether a process is ending, or has been sent a SIGKILL that the kernel has yet to deliver."""
    fields = _stat(pid)
    if not fields or int(fields[6]) & _EXITING:
        return True
    try:
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    except OSError:
        return True
    pending = int(lines["SigPnd"], 16) | int(lines["ShdPnd"], 16)
    return bool(pending & 1 << signal.SIGKILL - 1)


def _stat(pid: int) -> list[str]:
    """Returns the fields of /proc/<pid>/stat from the third (the state) on; [] if the process has gone.

    psutil cannot replace this: it gives the start as a time of the clock, which changes when the clock is set, and gives
    neither flags nor pending signals.
    """
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return []


def exit_code(pid: int) -> int | None:
    """How a dead child of this process ended: its exit code, -n if signal n ended it; None if it is not ours, or lives."""
    return next((child.returncode for child in reversed(_children) if child.pid == pid), None)


def started_at(ticks: int) -> float:
    """Converts a start time in clock ticks since boot to seconds since the epoch."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / _TICKS_PER_SECOND


def marked(home: Path, marker: str = MARKER, *, component: str | None = None) -> Iterator[int]:
    """Yields the pids of living processes whose environment holds `marker=home`, without this process itself.

    With the default marker these are the processes that the stack of this home has started, directly or through others.

    Args:
        home: the deployment's folder.
        marker: the environment variable to look for.
        component: the name of the one component whose processes are wanted; None for those of all.
    """
    wanted = {marker: str(home)} | ({COMPONENT: component} if component else {})
    return _living("environ", lambda environ: wanted.items() <= environ.items())


def _living(attribute: str, is_wanted: Callable[[Any], bool]) -> Iterator[int]:
    """Pids of living processes, other than this one, by an attribute that psutil may read of them."""
    for process in psutil.process_iter([attribute]):
        value = process.info[attribute]  # None if it belongs to another user, or has gone
        if (
            value is not None
            and is_wanted(value)
            and process.pid != os.getpid()
            and start_ticks(process.pid) is not None
        ):
            yield process.pid


def orphans(home: Path, leaders: Iterable[int]) -> list[int]:
    """Returns the pids of marked processes that descend from none of `leaders`: what killed components have left behind.

    Args:
        home: the deployment's folder.
        leaders: pids of the components that live.
    """
    led = set(leaders)
    return [pid for pid in marked(home) if not led & {pid, *ancestors(pid)}]


def ancestors(pid: int) -> list[int]:
    """Returns the pids of a process's parent, the parent's parent, and so on; [] if it has gone."""
    with suppress(psutil.Error):
        return [parent.pid for parent in psutil.Process(pid).parents()]
    return []


def command_line(pid: int) -> list[str]:
    """Returns a process's command line, word by word; [] if it has gone."""
    with suppress(psutil.Error):
        return list(psutil.Process(pid).cmdline())
    return []


def working_in(folder: Path) -> list[int]:
    """Returns the pids of living processes whose working folder is `folder`.

    PostgreSQL's processes are found by this, since they overwrite the environment that holds the marker.
    """
    return list(_living("cwd", lambda cwd: cwd == str(folder)))


def memory_bytes(pids: Sequence[int]) -> int:
    """Returns the memory of processes in bytes: their proportional set size, which counts a page that several share once.

    Where this user may not read that, the resident set size is taken.
    """
    total = 0
    for pid in pids:
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            try:
                total += process.memory_full_info().pss
            except psutil.AccessDenied:
                total += process.memory_info().rss
    return total


def session_of(pid: int) -> list[int]:
    """Returns the pids of living processes of the session that `pid` leads."""
    found = []
    for other in psutil.pids():
        with suppress(OSError):
            if os.getsid(other) == pid and start_ticks(other) is not None:
                found.append(other)
    return found


def ask_to_end(records: Iterable[Record], *, grace_seconds: float) -> None:
    """Sends SIGTERM to components, not to the processes that they have started, and waits until they have ended.

    Args:
        records: the components; those that do not live are left out.
        grace_seconds: the longest wait.
    """
    asked = [one for one in records if one.is_alive]
    _signal([one.pid for one in asked], signal.SIGTERM)
    deadline = time.monotonic() + grace_seconds
    while any(one.is_alive for one in asked) and time.monotonic() < deadline:
        time.sleep(0.05)


def kill_marked(home: Path, *, spare: Iterable[int] = (), component: str | None = None) -> None:
    """Sends SIGKILL to every marked process, until three looks in a row find none, and waits until their ports are free.

    One look would not do: a process may start another meanwhile, and one that is in the middle of an exec shows no
    environment. A dying process loses its environment before it closes its files, so the killed ones are waited for.

    Args:
        home: the deployment's folder.
        spare: pids that are not killed.
        component: the name of the one component whose processes are killed; None for those of all.
    """
    spared = set(spare)
    killed: dict[int, int | None] = {}
    looks = 0
    deadline = time.monotonic() + 10
    while looks < 3 and time.monotonic() < deadline:
        left = [pid for pid in marked(home, component=component) if pid not in spared]
        killed |= {pid: start_ticks(pid) for pid in left}
        _signal(left, signal.SIGKILL)
        is_quiet = not left and not any(
            ticks is not None and start_ticks(pid) == ticks for pid, ticks in killed.items()
        )
        looks = looks + 1 if is_quiet else 0
        time.sleep(0.02)


def kill(pids: Iterable[int], *, timeout_seconds: float = 5) -> None:
    """Sends SIGKILL to processes, and waits until they have gone, at most `timeout_seconds`."""
    known = {pid: ticks for pid in pids if (ticks := start_ticks(pid)) is not None}
    _signal(known, signal.SIGKILL)
    deadline = time.monotonic() + timeout_seconds
    while any(start_ticks(pid) == ticks for pid, ticks in known.items()) and time.monotonic() < deadline:
        time.sleep(0.02)


def wait_until_gone(records: Iterable[Record], *, timeout_seconds: float = 15) -> None:
    """Waits until processes that were killed have gone, at most `timeout_seconds`: until then they hold their ports."""
    left = list(records)
    deadline = time.monotonic() + timeout_seconds
    while any(one.is_there for one in left) and time.monotonic() < deadline:
        time.sleep(0.05)


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
