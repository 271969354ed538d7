"""What is released instead of a model that the gate refused: the model of the day before, under an id of its own.

A fallback keeps the day's predictions and their metrics, since the model of the day before made them. Its other files
are those of that model; making the same fallback again is a no-op.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contracts.errors import BadInput
from contracts.locations import Locations
from contracts.releases import MAPPING_FILE, METRICS_FILE, MODEL_FILE, PREDICTIONS_FILE, VECTORS_FILE, Release, of_role
from lake.reader import LakeReader
from lake.run_folders import Run, finished, link, make_run, open_released, read_release

CARRIED = (MODEL_FILE, MAPPING_FILE, VECTORS_FILE)
NEXT_DAY = "next_day"


def fallback_of(refused: Release, before: Release) -> Release:
    """The draft of the fallback for a refused release.

    Its recipe, feature set and all parents but the predecessor are those of the model that it carries, because they
    must describe that model (which CPM it is bound to, which body it has). A fallback of a fallback carries the first
    model, under its id.
    """
    carried = {key: value for key, value in before.parents.items() if key not in of_role(before.parents, "predecessor")}
    parents = carried | of_role(refused.parents, "predecessor")
    return replace(
        before,
        period=refused.period,
        parents=parents,
        inputs=refused.inputs,
        metrics={},
        files={},
        carries=before.carries or before.release_id,
    )


def make_fallback(locations: Locations, folder: Path) -> Path | None:
    """Makes the fallback for a refused run, complete or not at all; None if there is no earlier model to carry.

    Raises:
        BadInput: the files of the earlier model are not those that were released.
    """
    refused = read_release(folder)
    predecessor = list(of_role(refused.parents, "predecessor").values())
    if refused.kind != "actr" or not predecessor:
        return None
    source = _released(locations, predecessor[0])
    draft = fallback_of(refused, source.release)

    def fill(new: Path) -> Release:
        for name in CARRIED:
            link(source.folder / name, new / name)
        link(folder / PREDICTIONS_FILE, new / PREDICTIONS_FILE)
        pq.write_table(_metrics(folder, refused), new / METRICS_FILE)
        return replace(
            draft, metrics={name: value for name, value in refused.metrics.items() if name.startswith(f"{NEXT_DAY}_")}
        )

    return (finished(locations, draft) or make_run(locations, draft, fill)).folder


def _released(locations: Locations, release_id: str) -> Run:
    """The run of a release, checked against its row and its manifest."""
    row = LakeReader(locations).releases().get(release_id)
    if row is None:
        raise BadInput("releases", "release_id", expected=release_id, found="no such row")
    return open_released(locations, row)


def _metrics(folder: Path, refused: Release) -> pa.Table:
    """The metrics of the scored day, and a training loss over no rows, as on a day with too few rows to train on."""
    rows = pq.read_table(folder / METRICS_FILE)
    scored = rows.filter(pc.starts_with(rows["split"], pattern=NEXT_DAY))
    untrained = pa.Table.from_pylist(
        [{"metric": "train_loss", "split": "train", "value": None, "row_cnt": 0, "ds": refused.period}], rows.schema
    )
    return pa.concat_tables([scored, untrained])
