"""Landing files that change while parts of the stack are dead: what restarts must not go on with the old ones."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from contracts.features import LOGS
from contracts.locations import Locations

LEFT_OUT_ONE_IN = 10  # of a file's rows


def change_one(home: Path, delivered: Path, number: int, chance: random.Random) -> Path:
    """Replaces one landing file, whole or not at all, by what was delivered without a tenth of its rows; returns its path.

    Args:
        home: the drill's deployment.
        delivered: a folder with the landing files as they were at first.
        number: how many changes there were before; each leaves other rows out.
        chance: which day of which log.
    """
    landing = Locations(home).landing
    log = chance.choice(LOGS)
    original = chance.choice(sorted((delivered / log).glob("*/*.csv")))
    path = landing / original.relative_to(delivered)
    header, *lines = original.read_bytes().splitlines(keepends=True)
    kept = [line for place, line in enumerate(lines) if (place + number) % LEFT_OUT_ONE_IN]
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(b"".join([header, *kept]))
    temporary.replace(path)
    return path


def copy_landing(home: Path, other: Path) -> None:
    """Makes another deployment's landing files the same as they are now."""
    shutil.rmtree(Locations(other).landing, ignore_errors=True)
    shutil.copytree(Locations(home).landing, Locations(other).landing)
