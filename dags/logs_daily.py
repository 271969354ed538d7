"""Landing files of a day -> logs, quarantine, quality report, partials, behaviour texts."""

from airflow.sdk import DAG

from contracts.steps import DAY_DAGS, day_steps
from dags.dagkit.defaults import defaults
from dags.dagkit.page import page
from dags.dagkit.pipeline import day_page_tasks, day_tasks

PAGE = page(
    f"{DAY_DAGS['logs_daily']}.",
    "It depends on no other day: days may be made in any order, and made again at any time with the same result.",
    tasks=day_page_tasks(day_steps("logs_daily")),
    ends=["By hand: `tributary spark_jobs ingest_logs --ds 2026-01-31`, and so on.\n"
          "A range of days: `tributary dags backfill logs_daily --from ... --to ...`; months at once are faster by the DAG `bootstrap`."])

with DAG("logs_daily", description=DAY_DAGS["logs_daily"], doc_md=PAGE, max_active_runs=2, **defaults("day")) as dag:
    day_tasks("logs_daily")
