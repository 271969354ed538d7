"""Samples -> models -> staged vectors, metrics and predictions as files. PyTorch; no Spark, no Airflow."""
