"""Vectors of behaviour texts on disk: a copy of an encoder's part of `behaviour_text_vectors` in a form that a batch can index.

A file within the memory limit is mapped, so that a look-up runs at the speed of memory. A larger one is read row by
row: the memory of a mapped file cannot be limited, since kernels map large pieces of their cache around each page that
is read.

One file holds the vectors, in the order in which they came, and another their hashes. A stored vector never changes
(the table is keyed by text and encoder), so opening a newer version of the table reads only the files that were added,
and appends their vectors. What a killed process has written after the last row that counts is overwritten.

Shapes: V vectors of the store, N look-ups, E width.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import torch
from numpy.typing import NDArray
from torch import Tensor

from contracts.errors import BadInput
from contracts.locations import Locations
from lake.locks import hold
from lake.reader import LakeReader
from training.data.vectors import EntityIndex

TABLE = "behaviour_text_vectors"
RESIDENT_BYTES = 2 << 30  # Room for 1.4 million vectors of width 384.
UNKNOWN = -1
_HASHES, _VECTORS, _STATE = "hashes.i64", "vectors.f32", "state.json"
_BATCH_ROWS = 16_384

Ints = NDArray[np.int64]


@dataclass
class TextStore:
    """The vectors of an encoder, by the hash of their text.

    Attributes:
        hashes: V, in the order of the rows.
        width: E; 0 for an empty store.
        more: vectors of texts that the table lacks; they are in memory only, and their rows follow those of the file.
    """

    hashes: Ints
    width: int
    _kept: _Mapped | _Read
    more: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    _rows: Ints = field(init=False)
    _index: EntityIndex = field(init=False)

    def __post_init__(self) -> None:
        order = np.argsort(self.hashes, kind="stable")
        self._index = EntityIndex(self.hashes[order])
        self._rows = np.append(UNKNOWN, order)  # The row of each position of the index.

    @classmethod
    def open(
        cls, locations: Locations, reader: LakeReader, encoder_id: str, *, resident_bytes: int = RESIDENT_BYTES
    ) -> TextStore:
        """Opens the store of an encoder, and brings it up to the reader's version of the table.

        Args:
            locations: the deployment's folders.
            reader: reads the tables of the deployment.
            encoder_id: the encoder.
            resident_bytes: how many bytes of vectors may stay in this process's memory, not counting the system's
                cache.

        Raises:
            BadInput: the table holds vectors of different widths under this encoder.
        """
        folder = locations.text_store(encoder_id)
        with hold([locations.locks / "text_store" / f"{encoder_id}.lock"]):
            count, width = _appended(folder, reader, encoder_id)
        hashes = np.fromfile(folder / _HASHES, np.int64, count) if count else np.zeros(0, np.int64)
        kept = _Mapped if count * width * 4 <= resident_bytes else _Read
        return cls(hashes, width, kept(folder / _VECTORS, count, width))

    def __len__(self) -> int:
        return len(self.hashes)

    def rows_of(self, hashes: Ints) -> Ints:
        """Returns the row of each text's vector, N; -1 for a text without a vector."""
        return self._rows[self._index.positions(hashes)]

    def with_more(self, hashes: Ints, vectors: Tensor) -> TextStore:
        """Returns a store that also has the vectors (N x E) of further texts (N), in memory only."""
        return TextStore(np.concatenate([self.hashes, hashes]), vectors.shape[1], self._kept, vectors)

    def vectors(self, rows_N: Tensor) -> Tensor:
        """Returns copies of vectors, N x E, by their rows as `rows_of` returns them; no row may be -1."""
        if not len(self.more):
            return self._kept.vectors(rows_N)
        kept_cnt = len(self.hashes) - len(self.more)
        found_NE = torch.empty(len(rows_N), self.width)
        in_file = rows_N < kept_cnt
        if kept_cnt:
            found_NE[in_file] = self._kept.vectors(rows_N[in_file])
        found_NE[~in_file] = self.more.index_select(0, rows_N[~in_file] - kept_cnt)
        return found_NE


class _Mapped:
    """The vectors of a file that is mapped into memory: a page is loaded when it is first read."""

    def __init__(self, path: Path, count: int, width: int) -> None:
        self._vectors = torch.zeros(0, width)
        if count:
            with path.open("rb") as file:
                mapped = mmap.mmap(
                    file.fileno(), count * width * 4, access=mmap.ACCESS_COPY
                )  # torch requires writable pages.
            self._vectors = torch.frombuffer(mapped, dtype=torch.float32).view(count, width)

    def vectors(self, rows_N: Tensor) -> Tensor:
        return self._vectors.index_select(0, rows_N)


class _Read:
    """The vectors of a file, each read when it is needed: none stays in memory."""

    def __init__(self, path: Path, count: int, width: int) -> None:
        self._path, self._width = path, width

    def vectors(self, rows_N: Tensor) -> Tensor:
        distinct, place_N = torch.unique(rows_N, return_inverse=True)
        found, size = np.empty((len(distinct), self._width), np.float32), self._width * 4
        into = found.data.cast("B") if found.size else memoryview(b"")
        with self._path.open("rb", buffering=0) as file:
            for at, row in enumerate(distinct.tolist()):
                if os.preadv(file.fileno(), [into[at * size : (at + 1) * size]], row * size) != size:
                    raise OSError(f"{self._path}: expected {size} bytes of vector {row}, found the end of the file")
        return torch.from_numpy(found).index_select(0, place_N)


def _appended(folder: Path, reader: LakeReader, encoder_id: str) -> tuple[int, int]:
    """Brings the files up to the table's version; returns V and E."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _STATE
    state: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {"files": [], "count": 0, "width": 0}
    count, width, read = int(state["count"]), int(state["width"]), set(state["files"])
    there = {fragment.path: fragment for fragment in reader.fragments(TABLE)}
    new = sorted(set(there) - read)
    if not new:
        return count, width
    # A version of the table has each text once, but a file that was rewritten may repeat texts that are stored already.
    known = EntityIndex(np.sort(np.fromfile(folder / _HASHES, np.int64, count)) if count else np.zeros(0, np.int64))
    with (
        _opened(folder / _HASHES, count * 8) as hash_file,
        _opened(folder / _VECTORS, count * width * 4) as vector_file,
    ):
        for name in new:
            for hashes, values, dims in _batches(there[name], encoder_id):
                width = width or int(dims[0])
                if (dims != width).any() or len(values) != len(hashes) * width:
                    raise BadInput(
                        TABLE,
                        "dim",
                        expected=f"{width} numbers for each text of {encoder_id}",
                        found=", ".join(map(str, sorted(set(dims.tolist())))),
                    )
                fresh = np.flatnonzero(known.positions(hashes) == 0)
                hash_file.write(hashes[fresh].tobytes())
                vector_file.write(values.reshape(len(hashes), width)[fresh].tobytes())
                count += len(fresh)
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps({"files": sorted(there), "count": count, "width": width}))
    temporary.replace(path)
    return count, width


@contextmanager
def _opened(path: Path, at: int) -> Iterator[BinaryIO]:
    """Opens a file to append from a place on; what follows it was written by a run that was killed, and is cut off."""
    path.touch()
    with path.open("r+b") as file:
        file.truncate(at)
        file.seek(at)
        yield file
        file.flush()
        os.fsync(file.fileno())


def _batches(fragment: ds.Fragment, encoder_id: str) -> Iterator[tuple[Ints, NDArray[np.float32], Ints]]:
    """Yields the hashes (N), the concatenated vectors (N x E) and the widths (N) of an encoder's rows of one file."""
    schema = pa.schema(
        [
            ("encoder_id", pa.string()),
            ("text_hash", pa.int64()),
            ("vector", pa.list_(pa.float32())),
            ("dim", pa.int32()),
        ]
    )
    for batch in fragment.to_batches(
        schema=schema,
        columns=["text_hash", "vector", "dim"],
        filter=ds.field("encoder_id") == encoder_id,
        batch_size=_BATCH_ROWS,
    ):
        if len(batch):
            yield (
                batch["text_hash"].to_numpy(),
                batch["vector"].flatten().to_numpy(zero_copy_only=False),
                batch["dim"].to_numpy().astype(np.int64),
            )
