"""`tributary compose-env`: the secrets of the stack in containers, made at random."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable
from pathlib import Path

import click

from contracts.errors import BadInput
from tributary.own import own_command
from tributary.stack.processes import write_private

ENV_FILE = ".env"  # Docker Compose reads the file of this name in the folder of docker-compose.yml


def _token() -> str:
    return secrets.token_urlsafe(32)


def _fernet_key() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


# Every variable that docker-compose.yml requires, and nothing else: what it is for, and how it is made.
SECRETS: dict[str, tuple[str, Callable[[], str]]] = {
    "POSTGRES_PASSWORD": ("Airflow's database", _token),
    "AIRFLOW_ADMIN_PASSWORD": ("the user admin of Airflow's UI, when it is first made", _token),
    "AIRFLOW_FERNET_KEY": ("encrypts connections and variables in Airflow's database", _fernet_key),
    "AIRFLOW_JWT_SECRET": ("signs the tokens of Airflow's API", lambda: secrets.token_urlsafe(64)),
    "AIRFLOW_SECRET_KEY": ("signs the sessions of Airflow's UI", _token),
    "SPARK_CONNECT_TOKEN": ("clients of the Spark Connect server", _token),
    "STORE_ACCESS_KEY": ("the store of the tables: name", lambda: secrets.token_hex(10)),
    "STORE_SECRET_KEY": ("the store of the tables: secret", _token),
}


@own_command("compose-env")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path(ENV_FILE),
    metavar="FILE",
    help="Where to write: in the working folder by default, which is to be that of docker-compose.yml.",
)
@click.option("--force", is_flag=True, help="Make new secrets where there are some.")
def compose_env(out: Path, force: bool) -> None:
    """Writes the secrets, and prints the next commands."""
    path = out.absolute()
    write(path, force=force)
    print(f"wrote {path}: {len(SECRETS)} secrets, readable only by you; keep a copy with your backups")
    print(
        "next: docker compose run --rm cli init --history-start DAY --actr-start DAY, then docker compose up --detach"
    )
    print(f"then: http://localhost:8080, user admin, password AIRFLOW_ADMIN_PASSWORD in {path}")


def write(path: Path, *, force: bool = False) -> None:
    """Writes new secrets into a file that only its owner can read.

    Raises:
        BadInput: there is such a file and `force` is not set; there is no such folder.
    """
    if not path.parent.is_dir():
        raise BadInput("tributary compose-env", "--out", expected="a file in a folder that exists", found=path)
    if path.exists() and not force:
        raise BadInput(
            path,
            "file",
            expected="no such file",
            found="one",
            hint="The volumes were made with its secrets. `--force` writes new ones: docs/compose.md describes what each one opens.",
        )
    write_private(path, "".join(f"# {purpose}\n{name}={make()}\n" for name, (purpose, make) in SECRETS.items()))
