"""MovieLens-1M -> one set of rows that every arm reads: a file for each split, meta.json.

A rating >= 4 is a click. Each user's ratings are ordered by time; the last floor(10 %) are test. A history is the
user's last 50 clicked movies strictly before the rating's time. Ids are fitted on the training rows: 0 is padding, 1
unknown. `valid` is the last tenth of each user's training rows and `fit` the others, for choosing settings without
looking at the test; `quick` are 20 batches, and `quick-test` one. `behaviours.parquet` holds the clicked rows once, by
user and time, as our lake does, with all that is known of them: a row's history is their range [start, end).
`items.parquet` holds the known movies' titles.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.rivals.common import BATCH, FLAT, HISTORY
from sources.movielens import FOLDER_NAMES
from sources.original import find_folder

TEST_SHARE = 0.1


def prepare(data: Path, out: Path) -> None:
    """Writes the splits into a folder."""
    folder = find_folder(data, FOLDER_NAMES, "ratings.dat")
    ratings = np.array(_rows(folder / "ratings.dat"), dtype=np.int64)
    users = {int(row[0]): row[1:] for row in _rows(folder / "users.dat")}
    movies = _rows(folder / "movies.dat")
    genres = {int(row[0]): row[2].split("|")[0] for row in movies}
    user, item, stamp, place = ratings[:, 0], ratings[:, 1], ratings[:, 3], np.arange(len(ratings))
    click = (ratings[:, 2] >= 4).astype(np.int8)
    of_user = np.lexsort((place, stamp, user))
    is_test = _last_share(user, of_user, np.ones(len(user), bool))
    is_valid = _last_share(user, of_user, ~is_test)
    raw = {
        "user_id": user,
        "item_id": item,
        "gender": np.array([users[u][0] for u in user]),
        "age": np.array([int(users[u][1]) for u in user]),
        "occupation": np.array([int(users[u][2]) for u in user]),
        "zip": np.array([users[u][3][0] for u in user]),
        "genre": np.array([genres[i] for i in item]),
    }
    encoded, vocabulary = {}, {}
    for name in FLAT:
        known = np.unique(raw[name][~is_test])
        at = np.minimum(np.searchsorted(known, raw[name]), len(known) - 1)
        encoded[name] = np.where(known[at] == raw[name], at + 2, 1).astype(np.int32)
        vocabulary[name] = len(known) + 2
    start, end, clicked = _histories(user, stamp, click, of_user)
    out.mkdir(parents=True, exist_ok=True)
    in_time = np.lexsort((place, stamp))
    train, test = in_time[~is_test[in_time]], in_time[is_test[in_time]]
    few = np.random.default_rng(0).choice(train, 20 * BATCH, replace=False)
    splits = {
        "full": train,
        "test": test,
        "quick": few,
        "quick-test": test[-BATCH:],
        "fit": train[~is_valid[train]],
        "valid": train[is_valid[train]],
    }
    for name, rows in splits.items():
        lengths = end[rows] - start[rows]
        at = np.repeat(start[rows] - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
        columns: dict[str, Any] = {"label": pa.array(click[rows])} | {c: pa.array(encoded[c][rows]) for c in FLAT}
        for column, feature in (("hist_item", "item_id"), ("hist_genre", "genre")):
            columns[column] = pa.ListArray.from_arrays(offsets, pa.array(encoded[feature][clicked[at]]))
        columns |= {
            "hist_len": pa.array(lengths.astype(np.int32)),
            "start": pa.array(start[rows]),
            "end": pa.array(end[rows]),
        }
        pq.write_table(pa.table(columns), out / f"{name}.parquet")
    pq.write_table(
        pa.table(
            {
                **{name: encoded[name][clicked] for name in ("user_id", "item_id", "genre")},
                "time": stamp[clicked],
                "rating": ratings[clicked, 2],
                "is_test": is_test[clicked],
            }
        ),
        out / "behaviours.parquet",
    )
    titles, known = {int(row[0]): row[1] for row in movies}, np.unique(item[~is_test])
    of_items = {"item_id": np.arange(len(known)) + 2, "title": [titles[one] for one in known.tolist()]}
    pq.write_table(pa.table(of_items), out / "items.parquet")
    (out / "meta.json").write_text(
        json.dumps({"vocabulary": vocabulary, "rows": {name: len(rows) for name, rows in splits.items()}})
    )


def _rows(path: Path) -> list[list[str]]:
    return [line.split("::") for line in path.read_text(encoding="latin-1").splitlines() if line.strip()]


def _last_share(user: Any, of_user: Any, among: Any) -> Any:
    """The last floor(10 %) of each user's rows among some, in time."""
    ordered = of_user[among[of_user]]
    _, first, count = np.unique(user[ordered], return_index=True, return_counts=True)
    rank = np.arange(len(ordered)) - np.repeat(first, count)
    chosen = np.zeros(len(user), bool)
    chosen[ordered[rank >= np.repeat(count - (count * TEST_SHARE).astype(np.int64), count)]] = True
    return chosen


def _histories(user: Any, stamp: Any, click: Any, of_user: Any) -> tuple[Any, Any, Any]:
    """Of each row a range of positions in the clicked rows, which are in order of (user, time)."""
    clicked = of_user[click[of_user] == 1]
    span = int(stamp.max()) + 2
    keys, wanted = user[clicked] * span + stamp[clicked], user * span + stamp
    end = np.searchsorted(keys, wanted, side="left")
    first = np.searchsorted(keys, user * span, side="left")
    return np.maximum(first, end - HISTORY), end, clicked
