"""`python -m spark_jobs`."""

from contracts.errors import run_command
from spark_jobs.cli import main

raise SystemExit(run_command(main))
