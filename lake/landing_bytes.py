"""One pass over a landing file's bytes: its digest, whether a compressed file is whole, and how a CSV file uses quotes."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from contracts.errors import BadInput

# How quotes stand in a CSV file. `regular`: each opens at the start of a field, closes at its end, and is doubled within, line by line.
# `spanning`: the same, but some quoted field holds a line break. `irregular`: anything else, such as 15" or a quote that never closes.
Quotes = Literal["regular", "spanning", "irregular"]

CHUNK = 1 << 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_QUOTE, _COMMA, _LINE_FEED, _RETURN = b'",\n\r'
_BOUNDS = np.zeros(256, dtype=bool)  # bytes that may stand outside of a quote that opens or closes a field
_BOUNDS[[_QUOTE, _COMMA, _LINE_FEED, _RETURN]] = True


@dataclass(frozen=True, kw_only=True)
class Scanned:
    """What one pass over a file found: the sha256 of its bytes as they lie on disk, and its quotes if it is a CSV file."""

    sha256: bytes
    quotes: Quotes = "regular"


def scan(path: Path) -> Scanned:
    """Reads a file once.

    Raises:
        BadInput: a compressed file ends before its end, or is damaged: Spark would fail on it in the middle of the job.
    """
    sha256 = hashlib.sha256()
    quotes = QuoteScanner() if path.name.removesuffix(".gz").endswith(".csv") else None
    for stored, content in _chunks(path):
        sha256.update(stored)
        if quotes is not None:
            for part in content:
                quotes.add(part)
        else:
            for _ in content:
                pass
    return Scanned(sha256=sha256.digest(), quotes=quotes.result() if quotes is not None else "regular")


def not_whole(path: Path, error: object) -> BadInput:
    """What is raised for a file that ends in the middle, or cannot be read."""
    return BadInput(path, "file", expected=f"a whole {path.suffix.removeprefix('.')} file", found=f"one that cannot be read: {error}",
                    hint="It may have been cut off or damaged on its way: deliver it again.")


class QuoteScanner:
    """Finds out how the quotes of a CSV file stand, chunk by chunk."""

    def __init__(self) -> None:
        self._held = b""  # its end, since a quote at the end of a chunk is judged by the byte after it
        self._is_start = True
        self._before = _LINE_FEED
        self._is_inside = False
        self._spans = self._is_irregular = False

    def add(self, chunk: bytes) -> None:
        if self._is_irregular:
            return
        if self._is_start:
            chunk = self._held + chunk
            self._held = b""
            if len(chunk) < len(_BYTE_ORDER_MARK):
                self._held = chunk
                return
            self._is_start, chunk = False, chunk.removeprefix(_BYTE_ORDER_MARK)
        data = self._held + chunk
        if data:
            self._held = data[-1:]
            self._judge(data[:-1], data[-1])

    def result(self) -> Quotes:
        """After the last chunk."""
        if not self._is_irregular:
            self._judge(self._held, _LINE_FEED)
        if self._is_irregular or self._is_inside:
            return "irregular"
        return "spanning" if self._spans else "regular"

    def _judge(self, data: bytes, after: int) -> None:
        if not data:
            return
        before, self._before = self._before, data[-1]
        if _QUOTE not in data:
            self._spans |= self._is_inside and (b"\n" in data or b"\r" in data)
            return
        bytes_N = np.frombuffer(bytes((before,)) + data + bytes((after,)), dtype=np.uint8)
        is_quote_N = bytes_N[1:-1] == _QUOTE
        place_Q = np.flatnonzero(is_quote_N)
        opens_Q = (np.arange(len(place_Q)) + self._is_inside) % 2 == 0
        earlier_Q, later_Q = bytes_N[place_Q], bytes_N[place_Q + 2]
        beside_Q = np.where(opens_Q, earlier_Q, later_Q)
        self._is_irregular = not _BOUNDS[beside_Q].all()
        is_end_N = bytes_N[1:-1] == _LINE_FEED
        if b"\r" in data:
            is_end_N |= bytes_N[1:-1] == _RETURN
        end_L = np.flatnonzero(is_end_N)
        self._spans |= bool(((np.searchsorted(place_Q, end_L) + self._is_inside) % 2 == 1).any())
        self._is_inside = bool((len(place_Q) + self._is_inside) % 2)


def _chunks(path: Path) -> Iterator[tuple[bytes, Iterator[bytes]]]:
    """A file's bytes as they are stored, each chunk with what it holds when it is decompressed."""
    inflate = _Inflate(path) if path.suffix == ".gz" else None
    with path.open("rb") as file:
        while stored := file.read(CHUNK):
            yield stored, iter((stored,)) if inflate is None else inflate.content(stored)
    if inflate is not None and not inflate.is_whole:
        raise not_whole(path, "it ends in the middle")


class _Inflate:
    """Decompresses gzip, of several members too, as parallel compressors write it."""

    def __init__(self, path: Path) -> None:
        self._path, self._inflate = path, zlib.decompressobj(wbits=31)

    @property
    def is_whole(self) -> bool:
        return self._inflate.eof

    def content(self, stored: bytes) -> Iterator[bytes]:
        while stored:
            if self._inflate.eof:
                self._inflate = zlib.decompressobj(wbits=31)
            try:
                content = self._inflate.decompress(stored, CHUNK)
                while content:
                    yield content
                    content = self._inflate.decompress(self._inflate.unconsumed_tail, CHUNK) if self._inflate.unconsumed_tail else b""
            except zlib.error as error:
                raise not_whole(self._path, error) from None
            stored = self._inflate.unused_data
