"""Runs the commands of this folder: `python -m publishing`."""

from contracts.errors import run_command
from publishing.cli import main

raise SystemExit(run_command(main))
