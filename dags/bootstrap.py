"""The history of a new deployment: all days of a range in one job a step, instead of a run a day. It ends with samples."""

from datetime import timedelta

from airflow.sdk import DAG, Param, chain

from contracts.periods import ONE_DAY
from contracts.steps import day_steps
from dags.dagkit.defaults import OWNER, task_defaults
from dags.dagkit.deployment import deployment
from dags.dagkit.notify import late_after
from dags.dagkit.page import page
from dags.dagkit.pipeline import check_operator, day_page_tasks, step_operator

SPAN = ["--from", "{{ params['from'] }}", "--to", "{{ params['to'] }}"]
LAST = max(deployment().history_start, deployment().actr_start - ONE_DAY)
PAGE = page(
    "The history of a new deployment: all days of a range in one job a step, instead of a run a day. It ends with samples.",
    "Fill in the form (`from`, `to`: first and last day, both included), or: `tributary dags trigger bootstrap --from ... --to ...`. "
    "Afterwards unpause the daily DAGs, and backfill the models: `tributary dags backfill tpm_monthly --from ... --to ...`, and so on. It "
    "may be run again at any time, over any range: it makes the same rows.",
    tasks=day_page_tasks(day_steps()), ends=[])

with DAG("bootstrap", description="the history of a new deployment, a range of days in one job a step", doc_md=PAGE, schedule=None,
         max_active_runs=1, default_args=task_defaults(), deadline=late_after(timedelta(hours=48)), tags=[OWNER, "by hand"], params={
             "from": Param(str(deployment().history_start), type="string", format="date", title="from: first day"),
             "to": Param(str(LAST), type="string", format="date", title="to: last day, included",
                         description="The day before the first ad model, as a rule: later days are the daily DAGs'.")}) as dag:
    chain(*(operator(one, *SPAN, cadence=None, execution_timeout=timedelta(hours=24))
            for one in day_steps() for operator in (step_operator, *([check_operator] if one.judged else []))))
