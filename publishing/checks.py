"""A verdict of an audit, in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Check:
    """One verdict; `fail` keeps a run from being published, `warn` is shown and goes on."""

    name: str
    passed: bool
    expected: str
    found: str
    severity: Literal["fail", "warn"] = "fail"

    @property
    def verdict(self) -> str:
        return "pass" if self.passed else self.severity
