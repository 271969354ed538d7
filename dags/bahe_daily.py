"""Samples of a day -> BAHE, the model over behaviour texts, and its vectors of the day's users and items.

It goes on from the BAHE of the day before. The A-CTR of the day after reads its vectors, where a transfer setting says so.

- **`wait_for_parents`**: the samples of the day, and the BAHE of the day before.
  *While it waits* (deferred) the runs that its log names are at work, or queued.
  *When it stops:* nobody is making what is missing: its log ends with the command that does. Run that, then clear this task.
- **`oldest_first`**: does nothing; for its sake Airflow refuses a backfill that runs backwards.
- **`encode_texts`**: sends the texts that have no vector yet through the language model's low layers, stages their vectors as files.
  *When it stops:* it is tried again by itself, twice, and goes on where it was.
- **`add_text_vectors`**: checks them and adds them to `behaviour_text_vectors`.
  *When it stops:* the log names the file at fault; clear the run from `encode_texts` on.
- **`train_bahe`**: trains adapters and head on the day's requests, stages vectors and metrics as files.
  *When it stops:* it is tried again by itself, twice; a language model that has changed is refused by name.
- **`gate_bahe`**: judges it on held-out ad rows: scores have to be numbers; the rest warns.
  *When it stops:* readers see nothing of this run; the log names the check.
- **`audit_bahe`**: checks the staged vectors, builds their index.
  *When it stops:* readers see nothing of this run; the log names the check.
- **`publish_bahe`**: commits vectors, metrics and the release, the release last.
  *When it stops:* it is safe to run again: the same release is a no-op.

A range: `tributary dags backfill bahe_daily --from ... --to ...`, oldest first.
In the form of Airflow choose "Missing and Errored Runs" or "All Runs": "Missing Runs" is refused, as is running backwards.
"""

from airflow.sdk import DAG

from dags.dagkit.assets import tables
from dags.dagkit.commands import CommandOperator
from dags.dagkit.defaults import defaults
from dags.dagkit.deployment import deployment
from dags.dagkit.models import RECIPE_OPTION, gpu_operator, model_tasks

with DAG("bahe_daily", description="samples of a day -> BAHE, vectors of users and items by their texts", doc_md=__doc__, max_active_runs=3,
         **defaults("day", first_day=deployment().lineage.texts_start, trains=True)) as dag:
    texts = ["behaviour_texts", "behaviour_text_vectors"]
    model_tasks("bahe", reads=["natural_samples", "ad_samples", "user_histories", *texts], first=[
        gpu_operator("encode_texts", ["training", "encode_texts", *RECIPE_OPTION], cadence="day", inlets=tables(*texts)),
        CommandOperator(task_id="add_text_vectors", command=["spark_jobs", "add_text_vectors"], cadence="day", period_option=None,
                        outlets=tables("behaviour_text_vectors"))])
