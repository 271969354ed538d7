"""Entry points of processes that the stack starts for itself: `python -m tributary.stack supervise|postgres HOME`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from contracts.errors import run_command
from contracts.locations import Locations


def main(argv: Sequence[str] | None = None) -> int:
    """Starts PostgreSQL or runs the supervisor of a deployment.

    Args:
        argv: two words: `postgres` or `supervise`, and the deployment's home folder; None for those of the command line.
    """
    what, home = sys.argv[1:] if argv is None else argv
    if (
        what == "postgres"
    ):  # PostgreSQL is started from this process, so that the supervisor need not load the wheel's libraries
        from tributary.stack import postgres

        postgres.start(postgres.folder_of(Path(home)), records=Locations(Path(home)).stack)
        return 0
    assert what == "supervise", what
    from tributary.stack import supervisor

    return supervisor.run(Path(home))


if __name__ == "__main__":
    raise SystemExit(run_command(main))
