"""Builds the logs, the quarantine, the quality reports, the partials and the behaviour texts of a day from its landing files."""

from airflow.sdk import DAG

from contracts.steps import DAY_DAGS
from dags.dagkit.defaults import defaults
from dags.dagkit.page import page
from dags.dagkit.pipeline import day_page_tasks, day_tasks

PAGE = page(
    f"{DAY_DAGS['logs_daily']}.",
    "A day depends on no other day: days may be built in any order, and rebuilt at any time with the same result.",
    tasks=day_page_tasks("logs_daily"),
    ends=[
        "By hand: `tributary spark_jobs ingest_logs --ds 2026-01-31`, and so on.\n"
        "A range of days: `tributary dags backfill logs_daily --from ... --to ...`; for months the DAG `bootstrap` is faster."
    ],
)

with DAG("logs_daily", description=DAY_DAGS["logs_daily"], doc_md=PAGE, max_active_runs=2, **defaults("day")) as dag:
    day_tasks("logs_daily")
