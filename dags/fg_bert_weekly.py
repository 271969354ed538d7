"""User histories of a closed week -> FG-BERT, the sequence encoder, continued from the week before, and its item vectors.

Where weeks are blocks of days, this DAG ticks daily, and skips the days that end no week.

- **`wait_for_parents`**: the histories of the week's days, and the FG-BERT of the week before.
  *While it waits* (deferred) the runs that its log names are at work, or queued.
  *When it stops:* nobody is making what is missing: its log ends with the command that does. Run that, then clear this task.
- **`oldest_first`**: does nothing; for its sake Airflow refuses a backfill that runs backwards.
- **`train_fg_bert`**: trains, stages vectors and metrics as files.
  *When it stops:* it is tried again by itself, twice.
- **`gate_fg_bert`**: judges it on the newest behaviours of users whom it has not seen: scores have to be numbers; the rest warns.
  *When it stops:* readers see nothing of this run; the log names the check.
- **`audit_fg_bert`**: checks the staged vectors, builds their index.
  *When it stops:* readers see nothing of this run; the log names the check.
- **`publish_fg_bert`**: commits vectors, metrics and the release, the release last.
  *When it stops:* it is safe to run again: the same release is a no-op.

A range: `tributary dags backfill fg_bert_weekly --from ... --to ...` (first days of the periods), oldest first.
In the form of Airflow choose "Missing and Errored Runs" or "All Runs": "Missing Runs" is refused, as is running backwards.
"""

from airflow.sdk import DAG

from dags.dagkit.defaults import defaults
from dags.dagkit.deployment import deployment
from dags.dagkit.models import model_tasks

# More than one run at a time, though they train in a row: a run that waits for its predecessor must not keep it from being
# made again.
with DAG("fg_bert_weekly", description="user histories of a week -> FG-BERT, item vectors", doc_md=__doc__, max_active_runs=3,
         **defaults("week", first_day=deployment().lineage.encoder_start, trains=True)) as dag:
    model_tasks("fg_bert", reads=["user_histories"])
