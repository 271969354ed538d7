"""The verdict of one check of an audit, in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Check:
    """The verdict of one check; one of severity `fail` keeps a run from being published, one of severity `warn` is only reported."""

    name: str
    passed: bool
    expected: str
    found: str
    severity: Literal["fail", "warn"] = "fail"

    @property
    def verdict(self) -> str:
        """`pass`, or the severity of a check that did not hold."""
        return "pass" if self.passed else self.severity
