"""Removes a user from the results of trainings: run folders, scores, exports, and states of interrupted trainings.

A model loses the user's row. The rows after it move up, in the tables and in the mapping, so that no other id's vector
changes; a user who is seen again gets the shared row, as all unknown users do. A run folder is replaced as a whole;
`rewritten.json` lists the digests of its former manifests, by which `spark_jobs forget_user` identifies it in
`releases`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from safetensors import safe_open
from torch import Tensor

from contracts.commands import table_text
from contracts.locations import Locations
from contracts.releases import (
    AUDIT,
    GATE,
    HELD_OUT_FILE,
    MANIFEST,
    MAPPING_FILE,
    MODEL_FILE,
    PREDICTIONS_FILE,
    REWRITTEN,
    VECTORS_FILE,
)
from lake.index_files import INDEX_MANIFEST
from lake.locks import hold
from lake.progress import each
from lake.run_folders import link, read_release, replace_text, sha256_of
from training.data.mapping import SHARED_ROW
from training.engine.checkpoint import read_weights, save_weights
from training.modules.embedding import table_tensors

FIELD = "user_id"
OF_USERS = (PREDICTIONS_FILE, HELD_OUT_FILE)  # Files with a column `user_id`.
_OLD, _NEW = "before", "without"  # Suffixes of a folder while it is replaced.


def forget(locations: Locations, user_id: int, *, dry_run: bool) -> int:
    """Rewrites or removes every file that holds a user, after running trainings have ended, and prints what was done.

    Args:
        locations: the deployment's folders.
        user_id: the user to forget.
        dry_run: whether to only print what would be done.

    Returns:
        The exit code.
    """
    locks = [] if dry_run else sorted((locations.locks / "training").glob("*/*.lock"))
    with hold(locks):
        if not dry_run:
            _finish_replacing(locations)
        folders = [
            path.parent
            for path in sorted(locations.runs.glob(f"*/*/*/*/{MANIFEST}"))
            if not path.parent.name.startswith(".")
        ]
        of_runs = {
            folder: _forget_run(locations, folder, user_id, dry_run=dry_run)
            for folder in each(folders, description="look through", unit="run")
        }
        done = [
            (str(folder.relative_to(locations.home)), ", ".join(names)) for folder, names in of_runs.items() if names
        ]
        done += [
            (str(path.relative_to(locations.home)), "its rows")
            for path in _scores_of(locations, user_id, dry_run=dry_run)
        ]
        removed = [*_exports_of(locations, user_id), *([] if not done else _left_behind(locations))]
        for path in removed if not dry_run else []:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    _print_changes(locations, done, removed, dry_run=dry_run)
    return 0


def _print_changes(locations: Locations, done: list[tuple[str, str]], removed: list[Path], *, dry_run: bool) -> None:
    rows = [*done, *((str(path.relative_to(locations.home)), "removed whole") for path in removed)]
    title = "would change" if dry_run else "changed"
    print(f"\n{table_text((title, 'in it'), rows)}" if rows else "\nno model and no score holds this user", flush=True)
    for path in removed:
        if path.parent == locations.exported(""):
            print(f"export it again: tributary training export --release {path.name}")


def _forget_run(locations: Locations, folder: Path, user_id: int, *, dry_run: bool) -> list[str]:
    """Rewrites the files of a run folder that hold the user, with all digests of them; returns the names of these files."""
    row = _row_of(folder, user_id)
    changed = [
        name
        for name in (VECTORS_FILE, MAPPING_FILE, *OF_USERS)
        if (folder / name).is_file() and _holds(folder / name, user_id)
    ]
    changed += [MODEL_FILE] if row is not None and _tables(folder) else []
    if dry_run or not changed:
        return changed
    new = folder.with_name(f".{folder.name}.{_NEW}")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    for path in folder.iterdir():
        if path.name in (MODEL_FILE, *changed):
            continue
        link(path, new / path.name)
    for name in changed:
        if name != MODEL_FILE:
            pq.write_table(_without(folder / name, user_id), new / name)
    if MODEL_FILE in changed and row is not None:
        save_weights(_without_row(read_weights(folder / MODEL_FILE), row), new / MODEL_FILE)
    elif (folder / MODEL_FILE).is_file():
        link(folder / MODEL_FILE, new / MODEL_FILE)
    _follow(locations, folder, new, changed)
    folder.rename(folder.with_name(f".{folder.name}.{_OLD}"))
    new.rename(folder)
    shutil.rmtree(folder.with_name(f".{folder.name}.{_OLD}"))
    return changed


def _follow(locations: Locations, folder: Path, new: Path, changed: list[str]) -> None:
    """Updates the digests by which manifest, audit, gate and index refer to each other to those of the new files."""
    release, before = read_release(folder), sha256_of(folder / MANIFEST)
    files = {**release.files, **{name: sha256_of(new / name) for name in changed if name in release.files}}
    replace_text(new / MANIFEST, replace(release, files=files).to_json())
    now = sha256_of(new / MANIFEST)
    for name in (AUDIT, GATE):
        _follow_json(new / name, "manifest_sha256", before, now)
    past = json.loads((folder / REWRITTEN).read_text())["before"] if (folder / REWRITTEN).is_file() else []
    replace_text(new / REWRITTEN, json.dumps({"before": [*past, before]}))
    _follow_json(locations.index(release.release_id) / INDEX_MANIFEST, "run_manifest_sha256", before, now)


def _follow_json(path: Path, name: str, before: str, now: str) -> None:
    values = json.loads(path.read_text()) if path.is_file() else {}
    if values.get(name) == before:
        replace_text(path, json.dumps(values | {name: now}, indent=2) + "\n")


def _finish_replacing(locations: Locations) -> None:
    """Finishes replacements that a kill interrupted: the old folder stays if the new one was not in place yet."""
    for old in locations.runs.glob(f"*/*/*/.*.{_OLD}"):
        folder = old.with_name(old.name.removeprefix(".").removesuffix(f".{_OLD}"))
        shutil.rmtree(old) if folder.exists() else old.rename(folder)
    for new in locations.runs.glob(f"*/*/*/.*.{_NEW}"):
        shutil.rmtree(new)


def _row_of(folder: Path, user_id: int) -> int | None:
    """Returns the user's own row in a model's tables, or None."""
    if not (folder / MAPPING_FILE).is_file():
        return None
    mapping = pq.read_table(
        folder / MAPPING_FILE, filters=[("field", "=", FIELD), ("id", "=", user_id), ("row", ">", SHARED_ROW)]
    )
    return int(mapping["row"][0].as_py()) if len(mapping) else None


def _tables(folder: Path) -> frozenset[str]:
    """Returns the names of a model's tensors that have a row for each user."""
    if not (folder / MODEL_FILE).is_file():
        return frozenset()
    with safe_open(folder / MODEL_FILE, framework="pt") as file:
        return table_tensors(FIELD) & frozenset(file.keys())


def _without_row(weights: dict[str, Tensor], row: int) -> dict[str, Tensor]:
    return weights | {
        name: torch.cat([weights[name][:row], weights[name][row + 1 :]]) for name in table_tensors(FIELD) & set(weights)
    }


def _of_user(rows: pa.Table, user_id: int) -> pa.ChunkedArray:
    """Returns a mask of the user's rows in a file: by `user_id`, or by entity or field and id."""
    if FIELD in rows.column_names:
        return pc.fill_null(pc.equal(rows[FIELD], user_id), False)
    kind, name = ("field", FIELD) if "field" in rows.column_names else ("entity", "user")
    return pc.fill_null(pc.and_(pc.equal(rows[kind], name), pc.equal(rows["id"], user_id)), False)


def _holds(path: Path, user_id: int) -> bool:
    names = [name for name in pq.read_schema(path).names if name in (FIELD, "field", "entity", "id")]
    return bool(pc.any(_of_user(pq.read_table(path, columns=names), user_id)).as_py())


def _without(path: Path, user_id: int) -> pa.Table:
    """Returns the other rows of a file; in a mapping, the rows after the user's move up by one."""
    rows = pq.read_table(path)
    others = rows.filter(pc.invert(_of_user(rows, user_id)))
    row = _row_of(path.parent, user_id) if "field" in rows.column_names else None
    if row is None:
        return others
    moves = pc.and_(pc.equal(others["field"], FIELD), pc.greater(others["row"], row))
    moved = pc.if_else(moves, pc.subtract(others["row"], 1), others["row"])
    return others.set_column(others.column_names.index("row"), others.schema.field("row"), moved)


def _scores_of(locations: Locations, user_id: int, *, dry_run: bool) -> Iterator[Path]:
    for path in sorted((locations.home / "scores").glob("*/*.parquet")):
        if not _holds(path, user_id):
            continue
        if not dry_run:
            temporary = path.with_suffix(f".{os.getpid()}")
            pq.write_table(_without(path, user_id), temporary)
            temporary.replace(path)
        yield path


def _exports_of(locations: Locations, user_id: int) -> list[Path]:
    """Returns the exported folders that hold the user; they can be exported again from their releases."""
    from training.serving.export import EXAMPLE_FILE, WEIGHTS_FILE

    found = []
    for folder in sorted(path for path in locations.exported("").glob("*") if path.is_dir()):
        weights = torch.load(folder / WEIGHTS_FILE, weights_only=True) if (folder / WEIGHTS_FILE).is_file() else {}
        ids = [tensor for name, tensor in weights.items() if name.startswith("ids.") and "user" in name]
        example = json.loads((folder / EXAMPLE_FILE).read_text()) if (folder / EXAMPLE_FILE).is_file() else {}
        if any(bool((tensor == user_id).any()) for tensor in ids) or example.get("context", {}).get(FIELD) == user_id:
            found.append(folder)
    return found


def _left_behind(locations: Locations) -> list[Path]:
    """Returns the states of interrupted trainings, and the folders that killed trainings left, none of which can be resumed now.

    They are removed whoever is forgotten, since they do not record which ids they hold.
    """
    unfinished = sorted(locations.unfinished("").parent.glob("*"))
    return unfinished + sorted(path for path in locations.runs.glob("*/*/*/.*") if path.is_dir())
