"""The history of a new deployment: all days of a range in one job a step, instead of a run a day. It ends with samples.

Fill in the form (`from`, `to`: first and last day, both included), or: `tributary dags trigger bootstrap --from ... --to ...`. Afterwards
unpause the daily DAGs, and backfill the models: `tributary dags backfill tpm_monthly --from ... --to ...`, and so on. It may be run again
at any time, over any range: it makes the same rows.

- **`ingest_logs`**: keeps the rows that arrive for the first time, sets bad ones aside in `quarantine`.
  *When it stops:* a file or a column is missing: the message names it. Deliver it, clear the task.
- **`validate_logs`**: checks both logs of all days, writes reports.
  *When it stops:* the log ends with the report's address. Mend the landing files and clear the run from `ingest_logs` on.
- **`build_partials`**: what each day adds to histories and statistics.
  *When it stops:* unexpected: it is tried again by itself, twice.
- **`collect_texts`**: the texts of behaviours that were not known yet.
  *When it stops:* unexpected: it is tried again by itself, twice.
- **`build_histories`**: each active user's behaviours up to each day. The partials of every day since `history_start` have to be there.
  *When it stops:* its log names the first day without: run this DAG from that day on.
- **`build_statistics`**: impressions and clicks up to each day.
  *When it stops:* as `build_histories`.
- **`build_samples`**: natural and ad samples, point in time.
  *When it stops:* unexpected: it is tried again by itself, twice.
- **`validate_features`**: checks histories and samples of all days, writes reports.
  *When it stops:* the log ends with the report's address; no model trains on these days until they are mended.
"""

from datetime import timedelta

from airflow.sdk import DAG, Param, chain

from contracts.periods import ONE_DAY
from dags.dagkit.assets import landing, tables
from dags.dagkit.commands import CommandOperator
from dags.dagkit.defaults import OWNER, task_defaults
from dags.dagkit.deployment import deployment
from dags.dagkit.notify import late_after

SPAN = ["--from", "{{ params['from'] }}", "--to", "{{ params['to'] }}"]
LOGS, FEATURES = ("natural_log", "ad_log"), ("user_histories", "natural_samples", "ad_samples")
LAST = max(deployment().history_start, deployment().actr_start - ONE_DAY)


def step(task_id: str, folder: str, command: str, *options: str, reads: tuple[str, ...], writes: tuple[str, ...]) -> CommandOperator:
    """A command over the whole range."""
    return CommandOperator(task_id=task_id, command=[folder, command, *options, *SPAN], cadence=None,
                           inlets=tables(*reads) or landing("natural", "ad"), outlets=tables(*writes),
                           execution_timeout=timedelta(hours=24))


def validate(task_id: str, names: tuple[str, ...]) -> CommandOperator:
    """The checks of these tables, in one process."""
    options = [word for name in names for word in ("--table", name)]
    return step(task_id, "validation", "run", *options, reads=names, writes=("quality_results",))


with DAG("bootstrap", description="the history of a new deployment, a range of days in one job a step", doc_md=__doc__, schedule=None,
         max_active_runs=1, default_args=task_defaults(), deadline=late_after(timedelta(hours=48)), tags=[OWNER, "by hand"], params={
             "from": Param(str(deployment().history_start), type="string", format="date", title="from: first day"),
             "to": Param(str(LAST), type="string", format="date", title="to: last day, included",
                         description="The day before the first ad model, as a rule: later days are the daily DAGs'.")}) as dag:
    chain(step("ingest_logs", "spark_jobs", "ingest_logs", reads=(), writes=(*LOGS, "quarantine")),
          validate("validate_logs", LOGS),
          step("build_partials", "spark_jobs", "build_partials", reads=LOGS, writes=("behaviour_partials", "statistic_partials")),
          step("collect_texts", "spark_jobs", "collect_behaviour_texts", reads=LOGS, writes=("behaviour_texts",)),
          step("build_histories", "spark_jobs", "build_user_histories", reads=("behaviour_partials",), writes=("user_histories",)),
          step("build_statistics", "spark_jobs", "build_statistics", reads=("statistic_partials",), writes=("entity_statistics",)),
          step("build_samples", "spark_jobs", "build_samples", reads=(*LOGS, "user_histories", "entity_statistics"),
               writes=("natural_samples", "ad_samples")),
          validate("validate_features", FEATURES))
