"""Which loopback ports are taken, and by whom."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from pathlib import Path

from contracts.errors import BadInput

_LISTENING = "0A"
PATIENCE_SECONDS = 5.0


def require_free(port: int, *, option: str) -> None:
    """Raises BadInput, naming port and holder, if something listens on it.

    One whose holder cannot be seen is given a moment: a process that is just ending looks like that.
    """
    if not 1 <= port <= 65535:
        raise BadInput("tributary up", option, expected="a port between 1 and 65535", found=port)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not _is_free(port, option):
        found = holder(port)
        if found is not None or time.monotonic() >= deadline:
            raise BadInput("tributary up", option, expected="a free port", found=f"{port}, used by {found or 'a process of another user'}",
                           hint=f"End that process, or choose another port with `{option}`.")
        time.sleep(0.2)


def _is_free(port: int, option: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free for a server
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError:
            raise BadInput("tributary up", option, expected="a port that you may open", found=port) from None
        except OSError:
            return False
    return True


def answers(port: int) -> bool:
    """Whether a TCP connection to a loopback port is accepted."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def holder(port: int) -> str | None:
    """The process that listens on a port, as far as this user may see; None if he may not."""
    inodes = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with suppress(OSError):
            for descriptor in os.listdir(f"/proc/{entry}/fd"):
                if os.readlink(f"/proc/{entry}/fd/{descriptor}") in inodes:
                    command = Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                    return f"process {entry} ({command[:100]})"
    return None


def _listening_inodes(port: int) -> set[str]:
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    found.add(fields[9])
    return found
