"""The files of an index on disk, and whether they are complete. Reading them does not need FAISS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from contracts.errors import BadInput
from lake.run_folders import sha256_of

INDEX_FILE = "items.faiss"
INDEX_MANIFEST = "manifest.json"


def index_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an index, after checking that the index file is the one that was built.

    Raises:
        BadInput: there is no index, or its file is another one.
    """
    path = folder / INDEX_MANIFEST
    if not path.is_file():
        raise BadInput(folder, "index", expected="the index of a published release", found="none")
    manifest: dict[str, Any] = json.loads(path.read_text())
    digest = sha256_of(folder / INDEX_FILE) if (folder / INDEX_FILE).is_file() else "no such file"
    if digest != manifest["sha256"]:
        raise BadInput(folder / INDEX_FILE, "sha256", expected=manifest["sha256"], found=digest)
    return manifest
