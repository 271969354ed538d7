"""Partials of all days up to a day -> histories, statistics, samples of the day.

A day is made from the partials of every day since `history_start`, never from the features of the day before: days may be
made in any order, as soon as `logs_daily` has made the days before.

- **`wait_for_partials`**: looks whether every day since `history_start` has its partials.
  *When it stops:* its log names the first day without: run `logs_daily` for it.
- **`build_histories`**: each active user's behaviours up to the day.
  *When it stops:* unexpected: it is tried again by itself, twice.
- **`build_statistics`**: impressions and clicks up to the day.
  *When it stops:* unexpected: it is tried again by itself, twice.
- **`build_samples`**: natural and ad samples, point in time.
  *When it stops:* unexpected: it is tried again by itself, twice.
- **`validate_features`**: checks histories and samples, writes a report for each.
  *When it stops:* the log ends with the report's address; no model trains on this day until it is mended.

A range of days: `tributary dags backfill features_daily --from ... --to ...`.
"""

from airflow.sdk import DAG

from dags.dagkit.commands import CommandOperator, CommandSensor
from dags.dagkit.defaults import defaults

with DAG("features_daily", description="partials -> histories, statistics, samples of a day", doc_md=__doc__, max_active_runs=2,
         **defaults("day")) as dag:
    wait = CommandSensor(task_id="wait_for_partials", command=["spark_jobs", "check_partials"], cadence="day")
    histories = CommandOperator(task_id="build_histories", command=["spark_jobs", "build_user_histories"], cadence="day")
    statistics = CommandOperator(task_id="build_statistics", command=["spark_jobs", "build_statistics"], cadence="day")
    samples = CommandOperator(task_id="build_samples", command=["spark_jobs", "build_samples"], cadence="day")
    validate = CommandOperator(task_id="validate_features", cadence="day", command=[
        "validation", "run", "--table", "user_histories", "--table", "natural_samples", "--table", "ad_samples"])
    wait >> [histories, statistics] >> samples >> validate
