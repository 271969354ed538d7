"""What is released instead of a model that the gate refused: the model of the day before, under an id of its own.

A fallback keeps the predictions of the day, since the model of the day before made them, and their figures. Its other files
are those of that model; the same fallback made again is a no-op.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contracts.errors import BadInput
from contracts.locations import Locations
from contracts.releases import (
    MANIFEST,
    MAPPING_FILE,
    METRICS_FILE,
    MODEL_FILE,
    PREDICTIONS_FILE,
    VECTORS_FILE,
    Release,
    changed_files,
    of_role,
    sha256_of,
)
from lake.reader import LakeReader

CARRIED = (MODEL_FILE, MAPPING_FILE, VECTORS_FILE)
NEXT_DAY = "next_day"


def fallback_of(refused: Release, before: Release) -> Release:
    """The draft of the fallback for a refused release.

    Its recipe, feature set and parents but the predecessor are those of the model that it carries: what is asked of a model
    (which CPM is it bound to, which body does it have) has to be true of that model. Carried twice, a model keeps its name.
    """
    carried = {key: value for key, value in before.parents.items() if key not in of_role(before.parents, "predecessor")}
    parents = carried | of_role(refused.parents, "predecessor")
    return replace(before, period=refused.period, parents=parents, inputs=refused.inputs, metrics={}, files={},
                   carries=before.carries or before.release_id)


def make_fallback(locations: Locations, folder: Path) -> Path | None:
    """Makes the fallback for a refused run, complete or not at all; None where no model serves until then.

    Raises:
        BadInput: the files of the model before are not those that were released.
    """
    refused = Release.read(folder)
    predecessor = list(of_role(refused.parents, "predecessor").values())
    if refused.kind != "actr" or not predecessor:
        return None
    source = _released(locations, predecessor[0])
    draft = fallback_of(refused, Release.read(source))
    target = locations.run_of(draft.kind, draft.period, draft.variant, draft.release_id)
    if _is_whole(target):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    for left_behind in target.parent.glob(f".{draft.release_id}.*"):
        shutil.rmtree(left_behind)
    temporary = target.with_name(f".{draft.release_id}.{os.getpid()}")
    temporary.mkdir()
    for name in CARRIED:
        _link(source / name, temporary / name)
    _link(folder / PREDICTIONS_FILE, temporary / PREDICTIONS_FILE)
    pq.write_table(_metrics(folder, refused), temporary / METRICS_FILE)
    files = {path.name: sha256_of(path) for path in sorted(temporary.iterdir())}
    figures = {name: value for name, value in refused.metrics.items() if name.startswith(f"{NEXT_DAY}_")}
    (temporary / MANIFEST).write_text(replace(draft, metrics=figures, files=files).to_json())
    if target.exists():  # damaged: it is not whole
        shutil.rmtree(target)
    temporary.rename(target)
    return target


def _released(locations: Locations, release_id: str) -> Path:
    """The folder of a release, checked against its row and its manifest."""
    row = LakeReader(locations).releases().get(release_id)
    if row is None:
        raise BadInput("releases", "release_id", expected=release_id, found="no such row")
    folder = locations.home / row["artifact"]
    manifest = folder / MANIFEST
    found = sha256_of(manifest) if manifest.is_file() else "no such file"
    if found != row["sha256"]:
        raise BadInput(manifest, "sha256", expected=row["sha256"], found=found, hint=f"The folder is not what {release_id} released.")
    if not _is_whole(folder):
        raise BadInput(folder, "files", expected="those of the manifest", found="another one, or fewer",
                       hint=f"The run folder of {release_id} was damaged: train that release again.")
    return folder


def _is_whole(folder: Path) -> bool:
    try:
        return not changed_files(folder, Release.read(folder))
    except (BadInput, KeyError, TypeError, ValueError):  # half a manifest is no manifest
        return False


def _link(source: Path, target: Path) -> None:
    """A second name of the same file, which nobody changes once it lies in a run folder; a copy where there are no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _metrics(folder: Path, refused: Release) -> pa.Table:
    """Figures of the scored day, and no training: a loss of no rows, as on a day with too few of them."""
    rows = pq.read_table(folder / METRICS_FILE)
    scored = rows.filter(pc.starts_with(rows["split"], pattern=NEXT_DAY))
    untrained = pa.Table.from_pylist([{"metric": "train_loss", "split": "train", "value": None, "row_cnt": 0, "ds": refused.period}],
                                     rows.schema)
    return pa.concat_tables([scored, untrained])
