"""Ad samples of a day -> A-CTR, the ad model, in all its variants.

The day is scored with the model of the day before, which has not seen it, and only then trained on.

- **`wait_for_parents`**: the ad samples of the day, the A-CTR of the day before, the CPM.
  *While it waits* (deferred) the runs that its log names are at work, or queued.
  *When it stops:* nobody is making what is missing: its log ends with the command that does. Run that, then clear this task.
- **`oldest_first`**: does nothing; for its sake Airflow refuses a backfill that runs backwards.
- **`train_actr`**: scores, trains, stages vectors, predictions and metrics as files.
  *When it stops:* it is tried again by itself, twice.
- **`gate_actr`**: judges it on held-out rows beside the model of the day before; a refused one is replaced by a *fallback*, which carries
  that model under an id of its own, and the chain goes on.
  *When it stops:* nothing can stand in on the first day of all; the log names the check.
- **`audit_actr`**: checks the staged vectors, builds their index.
  *When it stops:* readers see nothing of this run; the log names the check.
- **`publish_actr`**: commits vectors, metrics and the release, the release last.
  *When it stops:* it is safe to run again: the same release is a no-op.

`transfer` in the form: `all`, or one of the settings that `variants` in `deployment.toml` names, to make that one alone, of a run or of a
backfill: one that was added there and whose past is still to be made, say. Each goes on from its own of the day before, so a day that has
not all of them stops the day after, unless that one makes the same setting alone.

A range: `tributary dags backfill ad_ctr_daily --from ... --to ...` (first days of the periods), oldest first.
In the form of Airflow choose "Missing and Errored Runs" or "All Runs": "Missing Runs" is refused, as is running backwards.
"""

from airflow.sdk import DAG

from dags.dagkit.defaults import defaults
from dags.dagkit.deployment import deployment
from dags.dagkit.models import TRANSFER_OPTION, model_tasks

# More than one run at a time, though they train in a row: a run that waits for its predecessor must not keep it from being
# made again.
with DAG("ad_ctr_daily", description="ad samples of a day -> scored, A-CTR trained, released", doc_md=__doc__, max_active_runs=3,
         **defaults("day", first_day=deployment().actr_start, trains=True, transfers=True)) as dag:
    model_tasks("actr", reads=["ad_samples", "user_histories", "natural_samples"], parents=["cpm", "fg_bert", "bahe"],
                publishes=["predictions"], options=TRANSFER_OPTION)
