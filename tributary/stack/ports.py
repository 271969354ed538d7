"""Which loopback ports are taken, and by whom."""

from __future__ import annotations

import socket
import time
from contextlib import suppress

import psutil

from contracts.errors import BadInput
from tributary.stack import processes

PATIENCE_SECONDS = 5.0


def require_free(port: int, *, option: str) -> None:
    """Raises BadInput, which names the port and the process that holds it, if the port is taken.

    If no holder can be seen, it waits up to `PATIENCE_SECONDS` for the port: a process that is just ending looks like that.

    Args:
        port: the loopback port that is needed.
        option: the command's option that chose it, for the message.
    """
    if not 1 <= port <= 65535:
        raise BadInput("tributary up", option, expected="a port between 1 and 65535", found=port)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not _is_free(port, option):
        found = holder(port)
        if found is not None or time.monotonic() >= deadline:
            raise BadInput(
                "tributary up",
                option,
                expected="a free port",
                found=f"{port}, used by {found or 'a process of another user'}",
                hint=f"End that process, or choose another port with `{option}`.",
            )
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
    """Describes the process that listens on a port; None if it belongs to another user or there is none."""
    pid = next(
        (
            one.pid
            for one in psutil.net_connections("tcp")
            if one.status == psutil.CONN_LISTEN and one.laddr.port == port and one.pid is not None
        ),
        None,
    )
    return None if pid is None else f"process {pid} ({' '.join(processes.command_line(pid))[:100]})"
