"""The stack's own processes, which it starts itself: `python -m tributary.stack supervise|postgres HOME`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from contracts.errors import run_command
from contracts.locations import Locations


def main(argv: Sequence[str] | None = None) -> int:
    """Starts PostgreSQL or the supervisor for a deployment, given as `postgres HOME` or `supervise HOME`."""
    what, home = sys.argv[1:] if argv is None else argv
    if (
        what == "postgres"
    ):  # in a process of its own: the wheel that starts it brings libraries that the supervisor can do without
        from tributary.stack import postgres

        postgres.start(postgres.folder_of(Path(home)), records=Locations(Path(home)).stack)
        return 0
    assert what == "supervise", what
    from tributary.stack import supervisor

    return supervisor.run(Path(home))


if __name__ == "__main__":
    raise SystemExit(run_command(main))
