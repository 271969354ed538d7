"""Runs the commands of this folder: `python -m training`."""

from contracts.errors import run_command
from training.cli import main

raise SystemExit(run_command(main))
