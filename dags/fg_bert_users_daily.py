"""User histories of a day -> vectors of the users who were active on it, by the FG-BERT of the last closed week.

- **`wait_for_parents`**: the histories of the day, and the FG-BERT of the week that closed before it.
  *While it waits* (deferred) the runs that its log names are at work, or queued.
  *When it stops:* nobody is making what is missing: its log ends with the command that does. Run that, then clear this task.
- **`train_fg_bert_users`**: encodes the users, stages their vectors as files; nothing is trained.
  *When it stops:* it is tried again by itself, twice.
- **`gate_fg_bert_users`**: has no figures to judge; it names the run as the one to release.
  *When it stops:* readers see nothing of this run; the log names the check.
- **`audit_fg_bert_users`**: checks the staged vectors.
  *When it stops:* readers see nothing of this run; the log names the check.
- **`publish_fg_bert_users`**: commits vectors, metrics and the release, the release last.
  *When it stops:* it is safe to run again: the same release is a no-op.

A range: `tributary dags backfill fg_bert_users_daily --from ... --to ...`, in any order: a day rests on no other.
"""

from airflow.sdk import DAG

from dags.dagkit.defaults import defaults
from dags.dagkit.deployment import deployment
from dags.dagkit.models import model_tasks

with DAG("fg_bert_users_daily", description="user histories of a day -> user vectors by FG-BERT", doc_md=__doc__, max_active_runs=3,
         **defaults("day", first_day=deployment().lineage.encoded_start)) as dag:
    model_tasks("fg_bert_users", reads=["user_histories"], parents=["fg_bert"], trains=False, oldest_first=False)
