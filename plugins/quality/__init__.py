"""Pages about quality inside the Airflow UI: a calendar, what a task has judged, and the reports themselves."""
