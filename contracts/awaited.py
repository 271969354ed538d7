"""What a run waits for: a command prints a line for each missing input, and the scheduler looks up whether that input is being made."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

_PREFIX = "awaits: "


@dataclass(frozen=True, kw_only=True)
class Awaited:
    """An input that does not exist yet.

    Attributes:
        what: a description of the input, for people.
        dag: the DAG that makes it.
        periods: first days of the periods whose runs make it, in order.
    """

    what: str
    dag: str
    periods: tuple[date, ...]

    @property
    def command(self) -> str:
        """The command that makes the input, if no run is going to make it."""
        return f"tributary dags backfill {self.dag} --from {self.periods[0]} --to {self.periods[-1]}"

    def __str__(self) -> str:
        return f"{self.what}: {self.command}"

    def line(self) -> str:
        """The line of a command's output that `read` understands."""
        return _PREFIX + json.dumps({"what": self.what, "dag": self.dag, "periods": [str(day) for day in self.periods]})

    @classmethod
    def read(cls, lines: Iterable[str]) -> list[Awaited]:
        """Parses all such lines of a command's output; other lines are skipped."""
        records = [json.loads(line.removeprefix(_PREFIX)) for line in lines if line.startswith(_PREFIX)]
        return [
            cls(what=one["what"], dag=one["dag"], periods=tuple(map(date.fromisoformat, one["periods"])))
            for one in records
        ]
