"""Natural samples of the last month -> CPM with the aggregator over three TPM snapshots, and the merged tables.

Where weeks are blocks of days, this DAG ticks daily, and skips the days that end no week.

- **`wait_for_parents`**: the samples of the last month, and the TPM snapshots.
  *While it waits* (deferred) the runs that its log names are at work, or queued.
  *When it stops:* nobody is making what is missing: its log ends with the command that does. Run that, then clear this task.
- **`train_cpm`**: trains, merges the snapshots, stages vectors and metrics as files.
  *When it stops:* it is tried again by itself, twice.
- **`gate_cpm`**: judges it on held-out rows: scores have to be numbers; bad calibration only warns.
  *When it stops:* readers see nothing of this run; the log names the check.
- **`audit_cpm`**: checks the staged vectors, builds their index.
  *When it stops:* readers see nothing of this run; the log names the check.
- **`publish_cpm`**: commits vectors, metrics and the release, the release last.
  *When it stops:* it is safe to run again: the same release is a no-op.

A range: `tributary dags backfill cpm_weekly --from ... --to ...` (first days of the periods), in any order: a week rests on no other.
"""

from airflow.sdk import DAG

from dags.dagkit.defaults import defaults
from dags.dagkit.models import model_tasks

with DAG("cpm_weekly", description="natural samples of the last month -> CPM, merged tables", doc_md=__doc__, max_active_runs=3,
         **defaults("week", trains=True)) as dag:
    model_tasks("cpm", reads=["natural_samples", "user_histories"], parents=["tpm"], oldest_first=False)
