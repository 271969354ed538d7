"""Natural samples of the last month -> CPM with the aggregator over three TPM snapshots, and the merged tables.

Where weeks are blocks of days, this DAG ticks daily, and skips the days that end no week.

- **`wait_for_parents`**: the samples of the last month, and the TPM snapshots.
  *When it stops:* its log names what is missing, and the command that makes it.
- **`train_cpm`**: trains, merges the snapshots, stages vectors and metrics as files.
  *When it stops:* it is tried again by itself, twice.
- **`gate_cpm`**: judges it on held-out rows: scores have to be numbers; bad calibration only warns.
  *When it stops:* readers see nothing of this run; the log names the check.
- **`audit_cpm`**: checks the staged vectors, builds their index.
  *When it stops:* readers see nothing of this run; the log names the check.
- **`publish_cpm`**: commits vectors, metrics and the release, the release last.
  *When it stops:* it is safe to run again: the same release is a no-op.

A range: `tributary dags backfill cpm_weekly --from ... --to ...` (first days of the periods), oldest first.
"""

from airflow.sdk import DAG

from dags.dagkit.commands import model_tasks
from dags.dagkit.defaults import defaults

# More than one run at a time, though they train in a row: a run that waits for its predecessor must not keep it from being
# made again.
with DAG("cpm_weekly", description="natural samples of the last month -> CPM, merged tables", doc_md=__doc__, max_active_runs=3,
         **defaults("week")) as dag:
    model_tasks("cpm")
