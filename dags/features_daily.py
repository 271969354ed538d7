"""Builds histories, statistics and samples of a day from the partials of all days up to it."""

from airflow.sdk import DAG

from contracts.steps import DAY_DAGS
from dags.dagkit.defaults import defaults
from dags.dagkit.page import page
from dags.dagkit.pipeline import day_page_tasks, day_tasks

PAGE = page(
    f"{DAY_DAGS['features_daily']}.",
    "A day is built from the partials of every day since `history_start`, never from the features of the day before. So days may be built "
    "in any order, as soon as `logs_daily` has built the days before.",
    tasks=day_page_tasks("features_daily"),
    ends=[
        "A range of days: `tributary dags backfill features_daily --from ... --to ...`, in any order; it may be started before the "
        "backfill of `logs_daily`."
    ],
)

with DAG(
    "features_daily", description=DAY_DAGS["features_daily"], doc_md=PAGE, max_active_runs=2, **defaults("day")
) as dag:
    day_tasks("features_daily")
