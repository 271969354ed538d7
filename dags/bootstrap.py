"""The history of a new deployment: each step builds a whole range of days in one job, instead of one run for each day."""

from datetime import timedelta

from airflow.sdk import DAG, Param, chain

from contracts.periods import ONE_DAY
from contracts.steps import day_steps
from dags.dagkit.defaults import OWNER, task_defaults
from dags.dagkit.deployment import deployment
from dags.dagkit.notify import late_after
from dags.dagkit.page import page
from dags.dagkit.pipeline import check_operator, step_operator, step_page_tasks

SPAN = ["--from", "{{ params['from'] }}", "--to", "{{ params['to'] }}"]
LAST = max(deployment().history_start, deployment().actr_start - ONE_DAY)
PAGE = page(
    "The history of a new deployment: each step builds a whole range of days in one job, instead of one run for each day. The last "
    "step builds samples.",
    "Fill in the form (`from`, `to`: first and last day, both included), or: `tributary dags trigger bootstrap --from ... --to ...`. "
    "Afterwards unpause the daily DAGs, and backfill the models: `tributary dags backfill tpm_monthly --from ... --to ...`, and so on. "
    "It may run again at any time, over any range: the rows are the same.",
    tasks=step_page_tasks(day_steps()),
    ends=[],
)

with DAG(
    "bootstrap",
    description="the history of a new deployment: each step builds a range of days",
    doc_md=PAGE,
    schedule=None,
    max_active_runs=1,
    default_args=task_defaults(),
    deadline=late_after(timedelta(hours=48)),
    tags=[OWNER, "by hand"],
    params={
        "from": Param(str(deployment().history_start), type="string", format="date", title="from: first day"),
        "to": Param(
            str(LAST),
            type="string",
            format="date",
            title="to: last day, included",
            description="As a rule the day before the first ad model: the daily DAGs make the later days.",
        ),
    },
) as dag:
    chain(
        *(
            operator(one, *SPAN, cadence=None, execution_timeout=timedelta(hours=24))
            for one in day_steps()
            for operator in (step_operator, *([check_operator] if one.judged else []))
        )
    )
