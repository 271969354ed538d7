"""Spark's `xxhash64` over columns, in numpy. Shapes: N rows.

Each column is hashed with what the columns before it gave as the seed, nulls leave it as it is; the first seed is 42.
Source: XXH64 by Yann Collet, https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

SEED = 42
_P1, _P2, _P3, _P4, _P5 = (np.uint64(p) for p in (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63,
                                                  0x27D4EB2F165667C5))


def start(count: int) -> np.ndarray:
    """The first seed, `count` times."""
    return np.full(count, SEED, dtype=np.uint64)


def add_longs(seed_N: np.ndarray, values_N: np.ndarray, present_N: np.ndarray | None = None) -> np.ndarray:
    """Hashes (N) of bigint, timestamp (its microseconds) and double (its bits) columns."""
    hashed_N = _mixed(_word(seed_N + _P5 + np.uint64(8), values_N.view(np.uint64)))
    return hashed_N if present_N is None else np.where(present_N, hashed_N, seed_N)


def add_ints(seed_N: np.ndarray, values_N: np.ndarray) -> np.ndarray:
    """Hashes (N) of int columns; `values_N` is int64 within 32 bits."""
    return _mixed(_half_word(seed_N + _P5 + np.uint64(4), values_N.astype(np.uint64) & np.uint64(0xFFFFFFFF)))


def add_doubles(seed_N: np.ndarray, values_N: np.ndarray) -> np.ndarray:
    """Hashes (N) of double columns; -0.0 counts as 0.0."""
    return add_longs(seed_N, np.ascontiguousarray(values_N + 0.0))


def add_texts(seed_N: np.ndarray, text: pa.Array, present_N: np.ndarray | None = None) -> np.ndarray:
    """Hashes (N) of string columns, by their UTF-8 bytes."""
    text = text.cast(pa.large_string())
    if len(text) == 0:
        return seed_N
    offsets_N = np.frombuffer(text.buffers()[1], dtype=np.int64)[text.offset: text.offset + len(text) + 1]
    data = np.frombuffer(text.buffers()[2] or b"", dtype=np.uint8)
    length_N = np.diff(offsets_N)
    hashed_N = seed_N.copy()
    for length in np.unique(length_N):
        rows = np.flatnonzero((length_N == length) if present_N is None else (length_N == length) & present_N)
        if len(rows):
            bytes_RL = data[offsets_N[rows][:, None] + np.arange(length)]
            hashed_N[rows] = _bytes(seed_N[rows], bytes_RL)
    return hashed_N


def _bytes(seed_R: np.ndarray, bytes_RL: np.ndarray) -> np.ndarray:
    """XXH64 of R byte strings of one length L."""
    length, place = bytes_RL.shape[1], 0

    def words(begin: int, count: int, kind: str) -> np.ndarray:
        return np.ascontiguousarray(bytes_RL[:, begin: begin + count * np.dtype(kind).itemsize]).view(kind)

    if length >= 32:
        lanes = [seed_R + _P1 + _P2, seed_R + _P2, seed_R.copy(), seed_R - _P1]
        while place <= length - 32:
            stripe_R4 = words(place, 4, "<u8")
            lanes = [_round(lane, stripe_R4[:, number]) for number, lane in enumerate(lanes)]
            place += 32
        hashed_R = sum((_rotated(lane, turn) for lane, turn in zip(lanes, (1, 7, 12, 18), strict=True)), start=np.zeros_like(seed_R))
        for lane in lanes:
            hashed_R = (hashed_R ^ _round(np.zeros_like(lane), lane)) * _P1 + _P4
    else:
        hashed_R = seed_R + _P5
    hashed_R = hashed_R + np.uint64(length)
    while place <= length - 8:
        hashed_R = _word(hashed_R, words(place, 1, "<u8")[:, 0])
        place += 8
    if place <= length - 4:
        hashed_R = _half_word(hashed_R, words(place, 1, "<u4")[:, 0].astype(np.uint64))
        place += 4
    for position in range(place, length):
        hashed_R = _rotated(hashed_R ^ bytes_RL[:, position].astype(np.uint64) * _P5, 11) * _P1
    return _mixed(hashed_R)


def _round(lane: np.ndarray, word: np.ndarray) -> np.ndarray:
    return _rotated(lane + word * _P2, 31) * _P1


def _word(hashed: np.ndarray, word: np.ndarray) -> np.ndarray:
    return _rotated(hashed ^ _round(np.zeros_like(word), word), 27) * _P1 + _P4


def _half_word(hashed: np.ndarray, word: np.ndarray) -> np.ndarray:
    return _rotated(hashed ^ word * _P1, 23) * _P2 + _P3


def _rotated(values: np.ndarray, bits: int) -> np.ndarray:
    return (values << np.uint64(bits)) | (values >> np.uint64(64 - bits))


def _mixed(hashed: np.ndarray) -> np.ndarray:
    hashed = (hashed ^ (hashed >> np.uint64(33))) * _P2
    hashed = (hashed ^ (hashed >> np.uint64(29))) * _P3
    return hashed ^ (hashed >> np.uint64(32))
