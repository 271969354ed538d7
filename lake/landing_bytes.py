"""One pass over a landing file's bytes: its digest, whether a compressed file is whole, and what decides how its text is read."""

from __future__ import annotations

import codecs
import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from contracts.errors import BadInput
from contracts.landing import HOME, Place
from lake.store_files import AnyFile, StoreFile

# How quotes stand in a CSV file. `regular`: each opens at the start of a field, closes at its end, and is doubled
# within, line by line. `spanning`: the same, but some quoted field holds a line break. `irregular`: anything else, such
# as 15" or a quote that never closes.
Quotes = Literal["regular", "spanning", "irregular"]

CHUNK = 1 << 16  # small enough that the arrays computed from it stay in a processor's cache
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LINE_FEED, _RETURN, _OPENS, _CLOSES = b"\n\r{}"


@dataclass(frozen=True, kw_only=True)
class Scanned:
    """What one pass over a file found.

    Attributes:
        sha256: digest of its bytes as they lie on disk.
        quotes: how its quotes stand, if it is a CSV file.
        has_plain_lines: whether it is a file of JSON lines that are all plain, as `LineScanner` defines it.
    """

    sha256: bytes
    quotes: Quotes = "regular"
    has_plain_lines: bool = False


def scan(path: AnyFile, kind: str | None = None, source: Place = HOME) -> Scanned:
    """Reads a landing file once, for all that must be known of its bytes; one in a store only where its text must be looked at.

    Args:
        path: the file.
        kind: its format; by default what its name says.
        source: how its log is delivered.

    Raises:
        BadInput: a compressed file ends before its end, or is damaged: Spark would fail on it in the middle of the job.
    """
    sha256 = hashlib.sha256()
    name = path.name.removesuffix(".gz")
    kind = kind or name.rpartition(".")[2]
    quotes = QuoteScanner(source.quote, source.delimiter) if kind == "csv" else None
    lines = LineScanner() if kind == "jsonl" else None
    if isinstance(path, StoreFile) and quotes is None and lines is None:
        return Scanned(sha256=path.digest())
    for stored, content in _chunks(path):
        sha256.update(stored)
        for part in content:
            for scanner in (quotes, lines):
                if scanner is not None:
                    scanner.add(part)
    return Scanned(
        sha256=path.digest() if isinstance(path, StoreFile) else sha256.digest(),
        quotes=quotes.result() if quotes is not None else "regular",
        has_plain_lines=lines is not None and lines.result(),
    )


def not_whole(path: AnyFile, error: object) -> BadInput:
    """The error for a file that is cut off or cannot be read."""
    return BadInput(
        path,
        "file",
        expected=f"a whole {path.suffix.removeprefix('.')} file",
        found=f"one that cannot be read: {error}",
        hint="It may have been cut off or damaged on its way: deliver it again.",
    )


class QuoteScanner:
    """Finds out how the quotes of a CSV file stand, chunk by chunk."""

    def __init__(self, quote: str = '"', delimiter: str = ",") -> None:
        self._quote = quote.encode()[0]
        self._bounds = np.zeros(256, dtype=bool)  # bytes that may stand outside of a quote that opens or closes a field
        self._bounds[[self._quote, delimiter.encode()[-1], delimiter.encode()[0], _LINE_FEED, _RETURN]] = True
        self._held = b""  # the last byte seen, since a quote at the end of a chunk is judged by the byte after it
        self._is_start = True
        self._before = _LINE_FEED
        self._is_inside = False
        self._spans = self._is_irregular = False

    def add(self, chunk: bytes) -> None:
        """Takes the next chunk of the file's content."""
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
        """How the quotes of the whole file stand; to be called after the last chunk."""
        if not self._is_irregular:
            self._judge(self._held, _LINE_FEED)
        if self._is_irregular or self._is_inside:
            return "irregular"
        return "spanning" if self._spans else "regular"

    def _judge(self, data: bytes, after: int) -> None:
        if not data:
            return
        before, self._before = self._before, data[-1]
        if self._quote not in data:
            self._spans |= self._is_inside and (b"\n" in data or b"\r" in data)
            return
        bytes_N = np.frombuffer(bytes((before,)) + data + bytes((after,)), dtype=np.uint8)
        is_quote_N = bytes_N[1:-1] == self._quote
        is_mark_N = is_quote_N | (bytes_N[1:-1] == _LINE_FEED)
        if b"\r" in data:
            is_mark_N |= bytes_N[1:-1] == _RETURN
        place_M = np.flatnonzero(is_mark_N)  # of quotes and ends of lines
        is_quote_M = is_quote_N[place_M]
        odd_M = np.cumsum(is_quote_M, dtype=np.uint8) & 1  # the sum may overflow: only its last bit counts
        is_inside_M = odd_M.view(bool) ^ self._is_inside  # behind each mark
        opens_Q, closes_Q = place_M[is_quote_M & is_inside_M], place_M[is_quote_M & ~is_inside_M]
        self._is_irregular = not (self._bounds[bytes_N[opens_Q]].all() and self._bounds[bytes_N[closes_Q + 2]].all())
        self._spans |= bool((is_inside_M & ~is_quote_M).any())
        self._is_inside ^= (len(opens_Q) + len(closes_Q)) % 2 == 1


class LineScanner:
    """Finds out, chunk by chunk, whether each line of a file is UTF-8 and begins and ends with the only braces that it has.

    Spark's JSON reader drops nothing of such a line.
    """

    def __init__(self) -> None:
        self._is_plain = True
        self._before = _LINE_FEED
        self._text = codecs.getincrementaldecoder("utf-8")()

    def add(self, chunk: bytes) -> None:
        """Takes the next chunk of the file's content."""
        if not self._is_plain or not chunk:
            return
        try:
            if not chunk.isascii() or self._text.getstate()[0]:
                self._text.decode(chunk)
        except UnicodeDecodeError:
            self._is_plain = False
            return
        bytes_N = np.frombuffer(bytes((self._before,)) + chunk, dtype=np.uint8)
        opens_N, closes_N, ends_N = (bytes_N == sign for sign in (_OPENS, _CLOSES, _LINE_FEED))
        # Braces open behind the ends of lines, and nowhere else; they close before them, and nowhere else.
        self._is_plain = (
            b"\r" not in chunk
            and np.array_equal(opens_N[1:], ends_N[:-1])
            and np.array_equal(closes_N[:-1], ends_N[1:])
        )
        self._before = chunk[-1]

    def result(self) -> bool:
        """Whether all lines of the file are plain; to be called after the last chunk."""
        return self._is_plain and not self._text.getstate()[0] and self._before in (_CLOSES, _LINE_FEED)


def _chunks(path: AnyFile) -> Iterator[tuple[bytes, Iterator[bytes]]]:
    """A file's bytes as they are stored, each chunk with what it holds when it is decompressed."""
    inflate = _Inflate(path) if path.suffix == ".gz" else None
    with path.open("rb") as file:
        while stored := file.read(CHUNK):
            yield stored, iter((stored,)) if inflate is None else inflate.content(stored)
    if inflate is not None and not inflate.is_whole:
        raise not_whole(path, "it ends in the middle")


class _Inflate:
    """Decompresses gzip, of several members too, as parallel compressors write it."""

    def __init__(self, path: AnyFile) -> None:
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
                    content = (
                        self._inflate.decompress(self._inflate.unconsumed_tail, CHUNK)
                        if self._inflate.unconsumed_tail
                        else b""
                    )
            except zlib.error as error:
                raise not_whole(self._path, error) from None
            stored = self._inflate.unused_data
