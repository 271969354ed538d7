"""Airflow on one machine: its settings, its secrets and its four processes."""

from __future__ import annotations

import base64
import configparser
import json
import os
import secrets
import sys
from pathlib import Path

from contracts.locations import Locations
from contracts.settings import HOME_VARIABLE
from tributary.stack import processes

USER = "admin"
PROJECT = Path(__file__).resolve().parent.parent.parent
PARALLELISM = 4  # tasks at a time; LocalExecutor keeps as many idle workers
GPU_POOL = "gpu"
API_SERVER, SCHEDULER = "api-server", "scheduler"

# `--skip-serve-logs`: Airflow's log servers would listen on every network interface, and they are not needed: on one
# machine the UI reads the log files directly.
COMPONENTS: dict[str, tuple[str, ...]] = {  # in the order in which they start
    API_SERVER: ("api-server",),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
    SCHEDULER: ("scheduler", "--skip-serve-logs"),
}


def folder_of(home: Path) -> Path:
    """Returns Airflow's folder in a deployment."""
    return Locations(home).stack / "airflow"


def logs_of(home: Path) -> Path:
    """Returns the folder with the logs of tasks, and of the parsing of DAGs."""
    return folder_of(home) / "logs"


def password_file(home: Path) -> Path:
    """Returns the file that holds the password of Airflow's user."""
    return folder_of(home) / "passwords.json"


def password(home: Path) -> str:
    """Reads the password of Airflow's user."""
    return str(json.loads(password_file(home).read_text())[USER])


def executable() -> str:
    """Returns the path of the `airflow` command of this Python environment; the one on PATH may belong to another."""
    return str(Path(sys.executable).parent / "airflow")


def airflow_env(home: Path) -> dict[str, str]:
    """Returns the environment variables with which Airflow's processes and its command line work on this deployment.

    Settings and secrets lie in `airflow.cfg`, which AIRFLOW_HOME leads to. The caller's own AIRFLOW_ variables are left
    out, since they belong to another Airflow; so is SPARK_REMOTE, since tasks use this stack's server.
    """
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("AIRFLOW_") and name not in ("SPARK_REMOTE", "PYTHONDONTWRITEBYTECODE")
    }
    env["AIRFLOW_HOME"] = str(folder_of(home))
    env[HOME_VARIABLE] = str(home)
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", os.defpath)])
    env["PYTHONUNBUFFERED"] = "1"
    if (
        PROJECT / "pyproject.toml"
    ).is_file():  # a checkout: its packages can be imported even if they are not installed
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PROJECT), env.get("PYTHONPATH")]))
    return env


def marked_env(home: Path, component: str) -> dict[str, str]:
    """Returns the environment of a component of the running stack, by which all processes that it starts are recognized."""
    # SPT_NOENV: Airflow's processes change their title, which by default overwrites the environment that `down` reads.
    return airflow_env(home) | {processes.MARKER: str(home), processes.COMPONENT: component, "SPT_NOENV": "1"}


def configure(home: Path, *, ui_port: int, connection: str) -> bool:
    """Writes `airflow.cfg`, and secrets if there are none yet. Returns whether the password is new.

    Args:
        home: the deployment's folder.
        ui_port: the port of Airflow's UI and API.
        connection: SQLAlchemy's address of Airflow's database.
    """
    folder = folder_of(home)
    folder.mkdir(parents=True, exist_ok=True)
    kept = _secrets(folder / "secrets.json")
    is_new = not password_file(home).is_file()
    if is_new:
        processes.write_private(password_file(home), json.dumps({USER: secrets.token_urlsafe(12)}) + "\n")
    config = configparser.RawConfigParser()
    config.read_dict(
        {
            section: {name: value.replace("%", "%%") for name, value in options.items()}
            for section, options in _options(home, ui_port, connection, kept).items()
        }
    )
    path = folder / "airflow.cfg"
    temporary = path.with_name("airflow.cfg.tmp")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        config.write(file)
    temporary.replace(path)
    return is_new


def _options(home: Path, ui_port: int, connection: str, kept: dict[str, str]) -> dict[str, dict[str, str]]:
    """Airflow's settings that differ from its defaults."""
    address = f"http://127.0.0.1:{ui_port}"
    return {
        "core": {
            "dags_folder": str(PROJECT / "dags"),
            "plugins_folder": str(PROJECT / "plugins"),
            "load_examples": "False",
            "executor": "LocalExecutor",
            "parallelism": str(PARALLELISM),
            "default_timezone": "utc",
            "dags_are_paused_at_creation": "True",
            "dagbag_import_error_traceback_depth": "1",
            "fernet_key": kept["fernet_key"],
            "execution_api_server_url": f"{address}/execution/",
            "simple_auth_manager_users": f"{USER}:admin",
            "simple_auth_manager_passwords_file": str(password_file(home)),
            "hostname_callable": "socket.gethostname",
        },
        "database": {"sql_alchemy_conn": connection},
        "api": {
            "host": "127.0.0.1",
            "port": str(ui_port),
            "base_url": address,
            "workers": "1",
            "secret_key": kept["api_secret_key"],
            "instance_name": "Tributary",
        },
        "api_auth": {"jwt_secret": kept["jwt_secret"]},
        "scheduler": {
            "catchup_by_default": "False",
            # Seconds between two scheduling loops. With the default of 1 a task waits up to a second at each change of its
            # state; .2 costs an eighth of a core.
            "scheduler_idle_sleep_time": "0.5",
            # How many runs one loop considers. Runs of a backfill come after all others: with the default of 20, as many
            # busy runs would keep a backfill from starting.
            "max_dagruns_per_loop_to_schedule": "100",
            "task_instance_heartbeat_timeout": "120",
            # Seconds. By default the tasks of a killed scheduler wait five minutes for their next try.
            "orphaned_tasks_check_interval": "20",
        },
        "dag_processor": {
            "refresh_interval": "10",
            "bundle_refresh_check_interval": "5",
            "parsing_processes": "1",
            "print_stats_interval": "0",
            "min_file_process_interval": "300",
        },  # seconds until a file is parsed again; one that has changed is parsed at once
        "logging": {
            "colored_console_log": "False",
            "file_task_handler_new_folder_permissions": "0o700",
            "file_task_handler_new_file_permissions": "0o600",
        },
        "workers": {
            "min_heartbeat_interval": "1"
        },  # seconds; by default a worker may notice only after five that its task has ended
    }


def _secrets(path: Path) -> dict[str, str]:
    """Returns the keys that sign tokens and encrypt connections; they are made once, readable only by their owner."""
    if not path.is_file():
        made = {
            "fernet_key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "jwt_secret": secrets.token_urlsafe(48),
            "api_secret_key": secrets.token_urlsafe(32),
        }
        processes.write_private(path, json.dumps(made) + "\n")
    return dict(json.loads(path.read_text()))
