"""`python -m validation`: the commands of this folder."""

from contracts.errors import run_command
from validation.cli import main

raise SystemExit(run_command(main))
