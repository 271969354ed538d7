"""Free space on the disk of a deployment."""

from __future__ import annotations

import shutil
from pathlib import Path

from contracts.errors import BadInput

FLOOR_BYTES = 1 << 30  # room for PostgreSQL's journal, a day's shuffles and the logs; PostgreSQL stops on a full disk


def free_bytes(folder: Path) -> int:
    """Returns the free bytes on the disk of a folder."""
    return shutil.disk_usage(folder).free


def require(home: Path) -> None:
    """Raises BadInput if the disk of `home` is nearly full."""
    free = free_bytes(home)
    if free < FLOOR_BYTES:
        raise BadInput(
            home,
            "free space",
            expected=f"at least {FLOOR_BYTES >> 20} MiB on its disk",
            found=f"{free >> 20} MiB",
            hint="Make room first: the stack would start, and stop in the middle of a write.",
        )
