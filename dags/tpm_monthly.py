"""Natural samples of a closed month -> TPM, the model of long histories, continued from the month before.

Where months are blocks of days, this DAG ticks daily, and skips the days that end no month.

- **`wait_for_parents`**: the samples of the month, and the TPM of the month before.
  *While it waits* (deferred) the runs that its log names are at work, or queued.
  *When it stops:* nobody is making what is missing: its log ends with the command that does. Run that, then clear this task.
- **`oldest_first`**: does nothing; for its sake Airflow refuses a backfill that runs backwards.
- **`train_tpm`**: trains, stages vectors and metrics as files.
  *When it stops:* it is tried again by itself, twice.
- **`gate_tpm`**: judges it on held-out rows: scores have to be numbers; bad calibration only warns.
  *When it stops:* readers see nothing of this run; the log names the check.
- **`audit_tpm`**: checks the staged vectors, builds their index.
  *When it stops:* readers see nothing of this run; the log names the check.
- **`publish_tpm`**: commits vectors, metrics and the release, the release last.
  *When it stops:* it is safe to run again: the same release is a no-op.

A range: `tributary dags backfill tpm_monthly --from ... --to ...` (first days of the periods), oldest first.
In the form of Airflow choose "Missing and Errored Runs" or "All Runs": "Missing Runs" is refused, as is running backwards.
"""

from airflow.sdk import DAG

from dags.dagkit.defaults import defaults
from dags.dagkit.models import model_tasks

# More than one run at a time, though they train in a row: a run that waits for its predecessor must not keep it from being
# made again.
with DAG("tpm_monthly", description="natural samples of a month -> TPM", doc_md=__doc__, max_active_runs=3,
         **defaults("month", trains=True)) as dag:
    model_tasks("tpm", reads=["natural_samples"])
