"""docker-compose.yml as Docker Compose reads it: variables put in, merge keys resolved. No Docker is needed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).resolve().parent.parent
COMPOSE = PROJECT / "docker-compose.yml"
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?P<kind>:[?-])(?P<rest>[^}]*)\}")


def raw() -> dict[str, Any]:
    """The file with its variables as they are written."""
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    return found


def variables(kind: str) -> dict[str, set[str]]:
    """Names of the variables that are required (`:?`) or have a default (`:-`), with what follows."""
    found: dict[str, set[str]] = {}
    for match in VARIABLE.finditer(COMPOSE.read_text(encoding="utf-8")):
        if match["kind"] == kind:
            found.setdefault(match["name"], set()).add(match["rest"])
    return found


def filled(value: Any, env: Mapping[str, str]) -> Any:
    """The value with all variables put in; KeyError names a required one that `env` lacks."""
    if isinstance(value, dict):
        return {key: filled(inner, env) for key, inner in value.items()}
    if isinstance(value, list):
        return [filled(inner, env) for inner in value]
    if not isinstance(value, str):
        return value
    return VARIABLE.sub(
        lambda match: env[match["name"]] if match["kind"] == ":?" else env.get(match["name"]) or match["rest"], value
    )


def read_env(path: Path) -> dict[str, str]:
    """Variables of a .env file."""
    return dict(line.split("=", 1) for line in path.read_text().splitlines() if line and not line.startswith("#"))
