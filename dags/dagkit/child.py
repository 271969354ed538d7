"""Runs a command as a child that dies with its parent, and passes its output on line by line."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)  # loaded before the fork: little is safe after it


class Child:
    """One `tributary` command.

    Attributes:
        arguments: what follows `tributary` on the command line.
        tail: the last lines that it wrote.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self.arguments = list(arguments)
        self.tail: deque[str] = deque(maxlen=20)
        self._process: subprocess.Popen[str] | None = None

    def run(self, on_line: Callable[[str], None]) -> int:
        """Runs it to its end and returns the exit code; -n if signal n ended it.

        The kernel kills the child when this thread dies: Airflow starts a task again after its worker was killed, and the
        first try must not go on writing beside the second. The signal survives the command's own exec.
        """
        parent = os.getpid()

        def die_with_parent() -> None:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:  # it died before the call above
                os._exit(1)

        with subprocess.Popen([sys.executable, "-m", "tributary", *self.arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace", bufsize=1, preexec_fn=die_with_parent,
                              env=os.environ | {"PYTHONUNBUFFERED": "1"}) as process:
            self._process = process
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    text = line.rstrip()
                    if text:
                        self.tail.append(text)
                        on_line(text)
            except BaseException:  # a timeout of Airflow's is raised here
                self.end()
                raise
        return process.returncode

    def end(self, grace_seconds: float = 5) -> None:
        """SIGTERM, and SIGKILL after the grace."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace_seconds)
        if process.poll() is None:
            process.kill()

    def error_line(self) -> str:
        """What it said last of what went wrong."""
        errors = [line for line in self.tail if line.startswith("error:")]
        return (errors or list(self.tail) or ["it wrote nothing"])[-1]
