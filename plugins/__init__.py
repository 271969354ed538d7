"""What Airflow loads into its UI: reports about data and models. The one plugin is `tributary_reports.py`."""
