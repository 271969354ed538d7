"""Vectors of behaviour texts, memory-mapped: a copy of an encoder's part of `behaviour_text_vectors` in a form that a batch can index.

Vectors lie end to end in one file, in the order in which they came; their hashes in another. A vector never changes once it is there
(the table is keyed by text and encoder), so opening a newer version of the table reads the files that were added since and appends what
they bring. What a killed process left behind the last row that counts is written over.

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
RESIDENT_BYTES = 2 << 30
UNKNOWN = -1
_HASHES, _VECTORS, _STATE = "hashes.i64", "vectors.f32", "state.json"
_BATCH_ROWS = 16_384
_AROUND = 64 << 10  # bytes that the kernel maps around a page that is touched

Ints = NDArray[np.int64]


@dataclass
class TextStore:
    """An encoder's vectors.

    Attributes:
        hashes: V, in the order of the rows.
        width: E; 0 of an empty store.
        resident_bytes: of the file in this process's memory, by a reckoning: then it gives the pages back; they stay in the system's cache.
            A kernel that maps more than 64 KiB around a touched page goes beyond it (docs/experiments.md).
        more: vectors in memory whose rows follow those of the file: of texts that the table lacks.
    """

    hashes: Ints
    width: int
    resident_bytes: int
    _mapped: mmap.mmap | None
    _vectors: Tensor
    more: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    _rows: Ints = field(init=False)
    _index: EntityIndex = field(init=False)
    _touched: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        order = np.argsort(self.hashes, kind="stable")
        self._index = EntityIndex(self.hashes[order])
        self._rows = np.append(UNKNOWN, order)  # by the index's positions

    @classmethod
    def open(cls, locations: Locations, reader: LakeReader, encoder_id: str, *, resident_bytes: int = RESIDENT_BYTES) -> TextStore:
        """The store of an encoder, as far as the reader's version of the table goes.

        Raises:
            BadInput: the table holds vectors of different widths under this encoder.
        """
        folder = locations.text_store(encoder_id)
        with hold([locations.locks / "text_store" / f"{encoder_id}.lock"]):
            count, width = _appended(folder, reader, encoder_id)
        if count == 0:
            return cls(np.zeros(0, np.int64), 0, resident_bytes, None, torch.zeros(0, 0))
        hashes = np.fromfile(folder / _HASHES, np.int64, count)
        with (folder / _VECTORS).open("rb") as file:
            mapped = mmap.mmap(file.fileno(), count * width * 4, access=mmap.ACCESS_COPY)  # torch wants pages that could be written
        vectors = torch.frombuffer(mapped, dtype=torch.float32).view(count, width)
        return cls(hashes, width, resident_bytes, mapped, vectors)

    def __len__(self) -> int:
        return len(self.hashes)

    def rows_of(self, hashes: Ints) -> Ints:
        """Row of each text's vector, N; -1 of a text that has none."""
        return self._rows[self._index.positions(hashes)]

    def with_more(self, hashes: Ints, vectors: Tensor) -> TextStore:
        """With vectors of texts that it lacks (N, N x E), in memory alone."""
        return TextStore(np.concatenate([self.hashes, hashes]), vectors.shape[1], self.resident_bytes, self._mapped, self._vectors, vectors)

    def vectors(self, rows_N: Tensor) -> Tensor:
        """N x E, copied; rows are those of `rows_of`, none of them -1."""
        if len(self.more):
            kept = len(self._vectors)
            found_NE = torch.empty(len(rows_N), self.width)
            in_file = rows_N < kept
            if kept:
                found_NE[in_file] = self._vectors.index_select(0, rows_N[in_file])
            found_NE[~in_file] = self.more.index_select(0, rows_N[~in_file] - kept)
            return found_NE
        of_row = self.width * 4 + _AROUND
        found = []
        for part in rows_N.split(max(1, self.resident_bytes // of_row)):
            self._touched += len(part) * of_row
            if self._touched > self.resident_bytes and self._mapped is not None:
                self._mapped.madvise(mmap.MADV_DONTNEED)
                self._touched = len(part) * of_row
            found.append(self._vectors.index_select(0, part))
        return found[0] if len(found) == 1 else torch.cat(found)


def _appended(folder: Path, reader: LakeReader, encoder_id: str) -> tuple[int, int]:
    """Brings the files up to the table's version; V and E."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _STATE
    state: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {"files": [], "count": 0, "width": 0}
    count, width, read = int(state["count"]), int(state["width"]), set(state["files"])
    there = {fragment.path: fragment for fragment in reader.fragments(TABLE)}
    new = sorted(set(there) - read)
    if not new:
        return count, width
    # A version of the table has each text once; a file that was written anew may repeat those that are here already.
    known = EntityIndex(np.sort(np.fromfile(folder / _HASHES, np.int64, count)) if count else np.zeros(0, np.int64))
    with _opened(folder / _HASHES, count * 8) as hash_file, _opened(folder / _VECTORS, count * width * 4) as vector_file:
        for name in new:
            for hashes, values, dims in _batches(there[name], encoder_id):
                width = width or int(dims[0])
                if (dims != width).any() or len(values) != len(hashes) * width:
                    raise BadInput(TABLE, "dim", expected=f"{width} numbers for each text of {encoder_id}",
                                   found=", ".join(map(str, sorted(set(dims.tolist())))))
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
    """A file to append to from a place on; what lies behind it is of a run that was killed."""
    path.touch()
    with path.open("r+b") as file:
        file.truncate(at)
        file.seek(at)
        yield file
        file.flush()
        os.fsync(file.fileno())


def _batches(fragment: ds.Fragment, encoder_id: str) -> Iterator[tuple[Ints, NDArray[np.float32], Ints]]:
    """Hashes (N), vectors end to end (N x E), widths (N) of an encoder's rows of one file."""
    schema = pa.schema([("encoder_id", pa.string()), ("text_hash", pa.int64()), ("vector", pa.list_(pa.float32())), ("dim", pa.int32())])
    for batch in fragment.to_batches(schema=schema, columns=["text_hash", "vector", "dim"], filter=ds.field("encoder_id") == encoder_id,
                                     batch_size=_BATCH_ROWS):
        if len(batch):
            yield (batch["text_hash"].to_numpy(), batch["vector"].flatten().to_numpy(zero_copy_only=False),
                   batch["dim"].to_numpy().astype(np.int64))
