"""Commands as a person runs them, in a process that a test may kill."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from multiprocessing.process import BaseProcess
from pathlib import Path

from contracts.errors import run_command

# Clients are forked once these are imported: a command takes seconds, and one that is killed dies in its job, not in an import.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "lake.session",
        "publishing.audit",
        "publishing.cli",
        "pyspark.sql.connect.dataframe",
        "pyspark.sql.connect.session",
        "spark_jobs.cli",
        "spark_jobs.ingest_logs",
        "spark_jobs.publish_release",
    ]
)


class Client:
    """A process that runs commands one after the other until one fails.

    Args:
        commands: each a folder's name and the arguments of its command line, such as
            `("spark_jobs", "ingest_logs", "--home", home, "--ds", day)`.
        log: the file that takes what they print.
        environment: environment variables that the commands find set.
    """

    def __init__(self, *commands: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.log, self._began = log, time.monotonic()
        self.process: BaseProcess = _CONTEXT.Process(target=_run, args=(commands, str(log), dict(environment)))
        self.process.start()

    def finish(self) -> float:
        """Waits until all commands have succeeded; returns the seconds that they took."""
        self.process.join()
        assert self.process.exitcode == 0, self.log.read_text()
        return time.monotonic() - self._began

    def kill(self, after: float) -> bool:
        """Kills the process after so many seconds; returns whether it still ran then."""
        self.process.join(after)
        if self.process.exitcode is not None:
            return False
        self.process.kill()
        self.process.join()
        return True


def _run(commands: Sequence[Sequence[str]], log: str, environment: Mapping[str, str]) -> None:
    """The body of the process."""
    os.environ.update(environment)
    with open(log, "w") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        for folder, *arguments in commands:
            code = run_command(import_module(f"{folder}.cli").main, arguments)
            if code:
                print(f"{folder} {' '.join(arguments)}: exit code {code}", file=sys.stderr)
                sys.exit(code)
