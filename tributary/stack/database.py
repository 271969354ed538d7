"""Airflow's database: the stack's own PostgreSQL, or one that TRIBUTARY_DATABASE names."""

from __future__ import annotations

import urllib.parse
from pathlib import Path

from contracts.errors import BadInput
from contracts.settings import DATABASE_VARIABLE, database_address
from tributary.stack import postgres

CONNECT_SECONDS = 5


def connection(home: Path) -> str:
    """SQLAlchemy's address of the database."""
    return database_address() or postgres.connection(postgres.folder_of(home))


def shown(address: str | None) -> str:
    """Returns a database's address as messages show it, without password and options; "" for None."""
    if address is None:
        return ""
    parts = urllib.parse.urlsplit(address)
    user, at, host = parts.netloc.rpartition("@")
    return f"postgresql://{user.partition(':')[0]}{at}{host}{parts.path}"


def check(address: str) -> None:
    """Raises BadInput if the database at an address cannot be reached, or its user may not create tables there."""
    import psycopg2

    hint = "Start it and create the database and its user, or unset the variable: then the stack starts a PostgreSQL of its own."
    try:
        connected = psycopg2.connect(
            address.replace("postgresql+psycopg2://", "postgresql://"), connect_timeout=CONNECT_SECONDS
        )
    except psycopg2.Error as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadInput(
            "environment",
            DATABASE_VARIABLE,
            expected=f"a PostgreSQL that answers at {shown(address)}",
            found=reason,
            hint=hint,
        ) from None
    try:
        with connected.cursor() as cursor:
            cursor.execute("SELECT current_user, has_schema_privilege(current_schema(), 'CREATE')")
            user, may_create = cursor.fetchone()
    finally:
        connected.close()
    if not may_create:
        raise BadInput(
            "environment",
            DATABASE_VARIABLE,
            expected=f"a user that may make tables in {shown(address)}",
            found=f"{user}, who may not",
            hint=f'As its owner: GRANT CREATE ON SCHEMA public TO "{user}".',
        )
