#!/bin/bash
# Brings Airflow's database to this version; makes the first user, the pool of training tasks, and what roles lack where they are missing.
set -euo pipefail
airflow db migrate
airflow users create --username admin --role Admin --password "$ADMIN_PASSWORD" --firstname Tributary --lastname Admin --email admin@localhost
airflow roles add-perms Viewer User --resource Plugins --action can_read >/dev/null  # the reports are a plugin's: docs/roles.md
airflow pools get gpu >/dev/null 2>&1 || airflow pools set gpu 1 "training tasks: as many as there are GPUs"  # its size is the operator's
