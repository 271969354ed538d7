"""The stack on one machine: PostgreSQL, a Spark Connect server and Airflow, on loopback only.

`up` starts them, each in a session of its own; nothing supervises them but the kernel. `down` ends them with everything
that they have started.
"""

from tributary.stack.airflow import airflow_env, password
from tributary.stack.machine import SPARK_PORT, UI_PORT, StackFailed, StackInfo, down, info, is_up, status, up

__all__ = ["SPARK_PORT", "UI_PORT", "StackFailed", "StackInfo", "airflow_env", "down", "info", "is_up", "password", "status", "up"]
