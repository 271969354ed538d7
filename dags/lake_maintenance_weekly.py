"""Few large files in every table, old files away, and a list of what is stale. No row changes; safe beside all other DAGs.

- **`maintain_lake`**: `OPTIMIZE` and `VACUUM` of every table. Files are kept as long as the tables' own retention says.
  *When it stops:* it is tried again by itself, twice; a table that it did not reach is only slower until the next week.
- **`list_stale`**: its log lists partitions and releases whose inputs have changed since, and the commands that mend them, in order.
  *When it stops:* unexpected: it is tried again by itself, twice. It mends nothing: that is `tributary spark_jobs mend`, by hand.

It is about no period, so it takes no backfill. By hand: `tributary dags trigger lake_maintenance_weekly`, or
`tributary spark_jobs maintain_lake`.
"""

from datetime import timedelta

from airflow.sdk import DAG, CronTriggerTimetable

from dags.dagkit.commands import CommandOperator
from dags.dagkit.defaults import OWNER, task_defaults
from dags.dagkit.deployment import deployment
from dags.dagkit.notify import late_after

EARLY_ON_MONDAYS = "30 4 * * 1"  # behind the nightly runs

with DAG("lake_maintenance_weekly", description="OPTIMIZE, VACUUM, what is stale", doc_md=__doc__, catchup=False, max_active_runs=1,
         schedule=CronTriggerTimetable(EARLY_ON_MONDAYS, timezone=deployment().day_timezone),
         start_date=deployment().day_start(deployment().history_start), allowed_run_types=["scheduled", "manual"],  # type: ignore[list-item]
         default_args=task_defaults(), deadline=late_after(timedelta(hours=8)), tags=[OWNER, "week", "maintenance"]) as dag:
    maintain_lake = CommandOperator(task_id="maintain_lake", command=["spark_jobs", "maintain_lake"], cadence=None)
    list_stale = CommandOperator(task_id="list_stale", command=["spark_jobs", "list_stale"], cadence=None)
    maintain_lake >> list_stale
