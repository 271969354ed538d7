"""`python -m sources`: the commands of this folder."""

from contracts.errors import run_command
from sources.cli import main

raise SystemExit(run_command(main))
