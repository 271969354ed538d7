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
_libc = ctypes.CDLL(None, use_errno=True)  # Loaded before the fork, since few calls are safe between fork and exec.


class Child:
    """One `tributary` command that runs as a child process.

    Attributes:
        arguments: what follows `tributary` on the command line.
        tail: the last lines that the command wrote.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self.arguments = list(arguments)
        self.tail: deque[str] = deque(maxlen=20)
        self._process: subprocess.Popen[str] | None = None

    def run(self, on_line: Callable[[str], None]) -> int:
        """Runs the command to its end.

        The kernel kills the child when this thread dies: Airflow starts a task again after its worker was killed, and
        the first try must not keep writing while the second runs. The signal survives the command's own exec.

        Args:
            on_line: is called with each line that the command writes, without its line break.

        Returns:
            The exit code; -n if signal n ended the command.
        """
        parent = os.getpid()

        def die_with_parent() -> None:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:  # The parent died before the call above.
                os._exit(1)

        with subprocess.Popen(
            [sys.executable, "-m", "tributary", *self.arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            bufsize=1,
            preexec_fn=die_with_parent,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        ) as process:
            self._process = process
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    text = line.rstrip()
                    if text:
                        self.tail.append(text)
                        on_line(text)
            except BaseException:  # Airflow raises a task's timeout here.
                self.end()
                raise
        return process.returncode

    def end(self, grace_seconds: float = 5) -> None:
        """Sends SIGTERM, and SIGKILL if the command still runs after `grace_seconds`."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace_seconds)
        if process.poll() is None:
            process.kill()

    def error_line(self) -> str:
        """The last line that reports an error, or else the last line."""
        errors = [line for line in self.tail if line.startswith("error:")]
        return (errors or list(self.tail) or ["it wrote nothing"])[-1]
