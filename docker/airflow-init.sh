#!/bin/bash
# Brings Airflow's database to this version, and makes the first user and the pool of training tasks where they are missing.
set -euo pipefail
airflow db migrate
airflow users create --username admin --role Admin --password "$ADMIN_PASSWORD" --firstname Tributary --lastname Admin --email admin@localhost
airflow pools get gpu >/dev/null 2>&1 || airflow pools set gpu 1 "training tasks: as many as there are GPUs"  # its size is the operator's
