"""Processes of the stack: started in sessions of their own, known again by pid and start time, ended with what they started.

A pid alone proves nothing, since the kernel gives it to others later: a record holds the process's start time too.
Whatever a component has started carries `TRIBUTARY_STACK=<home>` and `TRIBUTARY_COMPONENT=<name>` in its environment,
which only the stack sets, so leftovers of a killed component are found without a record, and nobody else's process is
ever ended.
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
_children: list[subprocess.Popen[bytes]] = []  # kept, so that a dead child is reaped and not mistaken for a living one


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is needed to know a process again.

    Attributes:
        name: the component.
        pid: its process id, also that of its session and process group.
        start_ticks: field 22 of /proc/<pid>/stat, clock ticks since boot.
        boot_id: the kernel's name of this boot; ticks start anew with each.
        address: where it listens, for people; "" if nowhere.
    """

    name: str
    pid: int
    start_ticks: int
    boot_id: str
    address: str = ""

    @property
    def is_there(self) -> bool:
        """Whether the process is there, dying ones too: they hold their ports and files until they have gone."""
        return self.boot_id == boot_id() and start_ticks(self.pid) == self.start_ticks

    @property
    def is_alive(self) -> bool:
        """Whether it is there and not about to die."""
        return self.is_there and not is_dying(self.pid)


def start(
    name: str, command: Sequence[str], *, env: Mapping[str, str], folder: Path, cwd: Path, address: str = ""
) -> Record:
    """Starts a component detached from this terminal, its output in `<folder>/<name>.log`, and records it."""
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
    """Writes `<folder>/<name>.json` for a running process."""
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
    """Replaces a file at once, readable by its owner alone."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    temporary.replace(path)


def boot_id() -> str:
    """The kernel's name of this boot: psutil has only its time, which moves when somebody sets the clock."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if it has gone.

    A zombie has, unless threads of it are still ending: a JVM takes its time, and keeps its port.
    """
    for child in _children:
        if child.pid == pid:
            child.poll()
    fields = _stat(pid)
    if not fields or (fields[0] in "ZX" and int(fields[17]) <= 1):
        return None
    return int(fields[19])


def is_dying(pid: int) -> bool:
    """Whether a process is ending, or will as soon as the kernel lets it run: it has been sent SIGKILL."""
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
    """Fields of /proc/<pid>/stat from the third, the state, on; [] if it has gone.

    psutil gives the start as a time of the clock, which moves when the clock is set, and neither flags nor pending
    signals.
    """
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return []


def exit_code(pid: int) -> int | None:
    """How a dead child of this process ended: its exit code, -n if signal n ended it; None if it is not ours, or lives."""
    return next((child.returncode for child in reversed(_children) if child.pid == pid), None)


def started_at(ticks: int) -> float:
    """Seconds since the epoch of a start time in ticks."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / _TICKS_PER_SECOND


def marked(home: Path, marker: str = MARKER, *, component: str | None = None) -> Iterator[int]:
    """Pids of living processes whose environment holds `marker=home`; never this process itself.

    With the default marker: those that the stack of this home has started, directly or not; of one component, if it is
    named.
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
    """Marked processes that no living leader has started: what a killed component has left behind."""
    led = set(leaders)
    return [pid for pid in marked(home) if not led & {pid, *ancestors(pid)}]


def ancestors(pid: int) -> list[int]:
    """Its parent, the parent's parent, and so on; [] if it has gone."""
    with suppress(psutil.Error):
        return [parent.pid for parent in psutil.Process(pid).parents()]
    return []


def command_line(pid: int) -> list[str]:
    """Its arguments; [] if it has gone."""
    with suppress(psutil.Error):
        return list(psutil.Process(pid).cmdline())
    return []


def working_in(folder: Path) -> list[int]:
    """Pids of living processes whose working folder is `folder`: PostgreSQL's, which overwrite their environment."""
    return list(_living("cwd", lambda cwd: cwd == str(folder)))


def memory_bytes(pids: Sequence[int]) -> int:
    """Proportional memory of processes: pages shared among them count once; resident memory where that is not readable."""
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
    """Living processes of the session that `pid` leads."""
    found = []
    for other in psutil.pids():
        with suppress(OSError):
            if os.getsid(other) == pid and start_ticks(other) is not None:
                found.append(other)
    return found


def ask_to_end(records: Iterable[Record], *, grace_seconds: float) -> None:
    """SIGTERM to living components themselves, not to what they started, and waits for them up to the grace."""
    asked = [one for one in records if one.is_alive]
    _signal([one.pid for one in asked], signal.SIGTERM)
    deadline = time.monotonic() + grace_seconds
    while any(one.is_alive for one in asked) and time.monotonic() < deadline:
        time.sleep(0.05)


def kill_marked(home: Path, *, spare: Iterable[int] = (), component: str | None = None) -> None:
    """SIGKILL to every marked process (of one component, if it is named) but some, until several looks find none.

    Waits until they and their ports are gone.

    Several, since one may start another while we look, and a process in the middle of an exec shows no environment. A
    dying one loses its environment before it closes its files.
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
    """SIGKILL to processes, and waits until they have gone."""
    known = {pid: ticks for pid in pids if (ticks := start_ticks(pid)) is not None}
    _signal(known, signal.SIGKILL)
    deadline = time.monotonic() + timeout_seconds
    while any(start_ticks(pid) == ticks for pid, ticks in known.items()) and time.monotonic() < deadline:
        time.sleep(0.02)


def wait_until_gone(records: Iterable[Record], *, timeout_seconds: float = 15) -> None:
    """Waits for processes that somebody has killed: a dying one shows no environment, but holds its port."""
    left = list(records)
    deadline = time.monotonic() + timeout_seconds
    while any(one.is_there for one in left) and time.monotonic() < deadline:
        time.sleep(0.05)


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
