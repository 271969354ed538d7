"""Errors that a user can act on, and the exit code that a command ends with for each kind of them.

A scheduler reads only the exit code: bad input and failed checks are not retried, anything unexpected is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

EXIT_OK = 0
EXIT_UNEXPECTED = 1  # worth a retry: infrastructure
EXIT_BAD_INPUT = 2  # the same number as a command line that click refuses
EXIT_QUALITY_FAILED = 3
EXIT_PARENT_MISSING = 4  # nobody is going to make it: run the command that the message names
EXIT_NOT_YET = 75  # EX_TEMPFAIL: ask again later


class TributaryError(ValueError):
    """An error whose message is for the person who ran the command; it is printed without a traceback."""

    exit_code = EXIT_BAD_INPUT


class BadInput(TributaryError):
    """Input that breaks a contract.

    Args:
        where: the file, table or option that holds the field.
        field: the field's name.
        expected: what it should have been.
        found: what it actually was.
        hint: optional; what to do about it.
    """

    def __init__(self, where: object, field: str, *, expected: object, found: object, hint: str = "") -> None:
        self.where, self.field, self.expected, self.found = str(where), field, str(expected), str(found)
        tail = f" {hint}" if hint else ""
        super().__init__(f"{where}: {field}: expected {expected}, found {found}.{tail}")


class QualityFailed(TributaryError):
    """A check of severity `fail` failed; the message ends with the address of the report."""

    exit_code = EXIT_QUALITY_FAILED


class ParentMissing(TributaryError):
    """A needed input does not exist; the message ends with the command that makes it."""

    exit_code = EXIT_PARENT_MISSING


class NotYet(TributaryError):
    """A needed input does not exist yet, but may still come."""

    exit_code = EXIT_NOT_YET


def run_command(command: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> int:
    """Runs a folder's `main`, turning a `TributaryError` into its message and its exit code."""
    try:
        return command(argv)
    except TributaryError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
