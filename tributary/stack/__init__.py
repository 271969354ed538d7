"""The stack on one machine: PostgreSQL, a Spark Connect server and Airflow, on loopback only.

`up` starts them, or only a part of them, each in an operating-system session of its own, and a supervisor that restarts
a component that dies.
`down` ends them with everything that they have started.
"""

from tributary.stack.airflow import airflow_env, password
from tributary.stack.components import StackFailed
from tributary.stack.machine import SPARK_PORT, UI_PORT, StackInfo, api, down, info, is_up, up, up_spark
from tributary.stack.status import status

__all__ = [
    "SPARK_PORT",
    "UI_PORT",
    "StackFailed",
    "StackInfo",
    "airflow_env",
    "api",
    "down",
    "info",
    "is_up",
    "password",
    "status",
    "up",
    "up_spark",
]
