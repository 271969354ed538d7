"""Compacts every table into a few large files, deletes old files, and lists what is stale. No row changes, so other DAGs may run.

- **`maintain_lake`**: runs `OPTIMIZE` and `VACUUM` on every table. Files are kept for the retention that each table
  sets. *When it stops:* Airflow tries it again twice; a table that it did not reach is only slower until the next week.
- **`list_stale`**: logs the partitions and releases whose inputs have changed since, and the commands that repair them,
  in order. *When it stops:* this is not expected; Airflow tries it again twice. It repairs nothing: a person runs
  `tributary spark_jobs repair`.

The DAG is about no period, so it takes no backfill. By hand: `tributary dags trigger lake_maintenance_weekly`, or
`tributary spark_jobs maintain_lake`.
"""

from datetime import timedelta

from airflow.sdk import DAG, CronTriggerTimetable

from dags.dagkit.commands import CommandOperator
from dags.dagkit.defaults import OWNER, task_defaults
from dags.dagkit.deployment import deployment
from dags.dagkit.notify import late_after

EARLY_ON_MONDAYS = "30 4 * * 1"  # After the nightly runs.

with DAG(
    "lake_maintenance_weekly",
    description="OPTIMIZE, VACUUM, what is stale",
    doc_md=__doc__,
    catchup=False,
    max_active_runs=1,
    schedule=CronTriggerTimetable(EARLY_ON_MONDAYS, timezone=deployment().day_timezone),
    start_date=deployment().day_start(deployment().history_start),
    allowed_run_types=["scheduled", "manual"],  # type: ignore[list-item]
    default_args=task_defaults(),
    deadline=late_after(timedelta(hours=8)),
    tags=[OWNER, "week", "maintenance"],
) as dag:
    maintain_lake = CommandOperator(task_id="maintain_lake", command=["spark_jobs", "maintain_lake"], cadence=None)
    list_stale = CommandOperator(task_id="list_stale", command=["spark_jobs", "list_stale"], cadence=None)
    maintain_lake >> list_stale
