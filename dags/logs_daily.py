"""Landing files of a day -> logs, quarantine, quality report, partials, behaviour texts.

Depends on no other day: days may be made in any order, and made again at any time with the same result.

- **`ingest_logs`**: keeps the rows that arrive for the first time, sets bad ones aside in `quarantine`.
  *When it stops:* a file or a column is missing: the message names it. Deliver it, clear the task.
- **`validate_logs`**: checks both logs, writes a report for each.
  *When it stops:* the log ends with the report's address. Mend the landing files and clear the run from `ingest_logs` on.
- **`build_partials`**: what this day adds to histories and statistics.
  *When it stops:* `features_daily` of this day and all later ones waits for it.
- **`collect_texts`**: the texts of the day's behaviours that were not known yet.
  *When it stops:* unexpected: it is tried again by itself, twice.

By hand: `tributary spark_jobs ingest_logs --ds 2026-01-31`, and so on.
A range of days: `tributary dags backfill logs_daily --from ... --to ...`; months at once are faster by the DAG `bootstrap`.
"""

from airflow.sdk import DAG

from dags.dagkit.assets import landing, tables
from dags.dagkit.commands import CommandOperator
from dags.dagkit.defaults import defaults

with DAG("logs_daily", description="landing files of a day -> logs, quality, partials", doc_md=__doc__, max_active_runs=2,
         **defaults("day")) as dag:
    ingest_logs = CommandOperator(task_id="ingest_logs", command=["spark_jobs", "ingest_logs"], cadence="day",
                                  inlets=landing("natural", "ad"), outlets=tables("natural_log", "ad_log", "quarantine"))
    # One process for both tables: most of its time goes into starting.
    validate_logs = CommandOperator(task_id="validate_logs", cadence="day", inlets=tables("natural_log", "ad_log"),
                                    outlets=tables("quality_results"),
                                    command=["validation", "run", "--table", "natural_log", "--table", "ad_log"])
    build_partials = CommandOperator(task_id="build_partials", command=["spark_jobs", "build_partials"], cadence="day",
                                     inlets=tables("natural_log", "ad_log"), outlets=tables("behaviour_partials", "statistic_partials"))
    collect_texts = CommandOperator(task_id="collect_texts", command=["spark_jobs", "collect_behaviour_texts"], cadence="day",
                                    inlets=tables("natural_log", "ad_log"), outlets=tables("behaviour_texts"))
    ingest_logs >> validate_logs >> [build_partials, collect_texts]
