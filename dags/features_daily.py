"""Partials of all days up to a day -> histories, statistics, samples of the day.

A day is made from the partials of every day since `history_start`, never from the features of the day before: days may be
made in any order, as soon as `logs_daily` has made the days before.

- **`wait_for_partials`**: waits until every day since `history_start` has its partials.
  *While it waits* (deferred) runs of `logs_daily` are at work, or queued.
  *When it stops:* nobody is making what is missing: its log ends with the command that does. Run that, then clear this task.
- **`build_histories`**: each active user's behaviours up to the day.
  *When it stops:* unexpected: it is tried again by itself, twice.
- **`build_statistics`**: impressions and clicks up to the day.
  *When it stops:* unexpected: it is tried again by itself, twice.
- **`build_samples`**: natural and ad samples, point in time.
  *When it stops:* unexpected: it is tried again by itself, twice.
- **`validate_features`**: checks histories and samples, writes a report for each.
  *When it stops:* the log ends with the report's address; no model trains on this day until it is mended.

A range of days: `tributary dags backfill features_daily --from ... --to ...`, in any order; it may be started before that of `logs_daily`.
"""

from airflow.sdk import DAG

from dags.dagkit.assets import tables
from dags.dagkit.commands import CommandOperator
from dags.dagkit.defaults import defaults
from dags.dagkit.waiting import WaitOperator

VALIDATED = ("user_histories", "natural_samples", "ad_samples")

with DAG("features_daily", description="partials -> histories, statistics, samples of a day", doc_md=__doc__, max_active_runs=2,
         **defaults("day")) as dag:
    wait = WaitOperator(task_id="wait_for_partials", command=["spark_jobs", "check_partials"], cadence="day")
    histories = CommandOperator(task_id="build_histories", command=["spark_jobs", "build_user_histories"], cadence="day",
                                inlets=tables("behaviour_partials"), outlets=tables("user_histories"))
    statistics = CommandOperator(task_id="build_statistics", command=["spark_jobs", "build_statistics"], cadence="day",
                                 inlets=tables("statistic_partials"), outlets=tables("entity_statistics"))
    samples = CommandOperator(task_id="build_samples", command=["spark_jobs", "build_samples"], cadence="day",
                              inlets=tables("natural_log", "ad_log", "user_histories", "entity_statistics"),
                              outlets=tables("natural_samples", "ad_samples"))
    validate = CommandOperator(task_id="validate_features", cadence="day", inlets=tables(*VALIDATED), outlets=tables("quality_results"),
                               command=["validation", "run", *(word for table in VALIDATED for word in ("--table", table))])
    wait >> [histories, statistics] >> samples >> validate
