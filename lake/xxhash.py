"""Spark's `xxhash64` of one text, for code that runs without Spark.

Source: XXH64 by Yann Collet, https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md; Spark's seed is 42.
"""

from __future__ import annotations

SEED = 42
LARGEST_ID = 2**63 - 1
_P1, _P2, _P3, _P4, _P5 = (
    0x9E3779B185EBCA87,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0x85EBCA77C2B2AE63,
    0x27D4EB2F165667C5,
)
_64_BITS = 2**64 - 1
_STRIPE = 32  # bytes: four lanes of eight


def string_id(text: str) -> int:
    """The id that ingestion makes of a string: its hash without the blanks around it, masked to 63 bits."""
    return xxhash64(text.strip(" ")) & LARGEST_ID


def xxhash64(text: str) -> int:
    """The hash of a text's UTF-8 bytes, as an unsigned number of 64 bits."""
    data = text.encode()
    place = len(data) // _STRIPE * _STRIPE
    hashed = _of_stripes(data[:place]) if place else SEED + _P5
    hashed += len(data)
    while place + 8 <= len(data):
        hashed = _rotated(hashed ^ _round(0, _number(data, place, 8)), 27) * _P1 + _P4
        place += 8
    if place + 4 <= len(data):
        hashed = _rotated(hashed ^ _number(data, place, 4) * _P1, 23) * _P2 + _P3
        place += 4
    for byte in data[place:]:
        hashed = _rotated(hashed ^ byte * _P5, 11) * _P1
    hashed &= _64_BITS
    hashed = ((hashed ^ hashed >> 33) * _P2) & _64_BITS
    hashed = ((hashed ^ hashed >> 29) * _P3) & _64_BITS
    return hashed ^ hashed >> 32


def _of_stripes(data: bytes) -> int:
    lanes = [SEED + _P1 + _P2, SEED + _P2, SEED, SEED - _P1]
    for place in range(0, len(data), _STRIPE):
        lanes = [_round(lane, _number(data, place + 8 * number, 8)) for number, lane in enumerate(lanes)]
    hashed = sum(_rotated(lane, turn) for lane, turn in zip(lanes, (1, 7, 12, 18), strict=True))
    for lane in lanes:
        hashed = (hashed ^ _round(0, lane)) * _P1 + _P4 & _64_BITS
    return hashed


def _number(data: bytes, place: int, size: int) -> int:
    return int.from_bytes(data[place : place + size], "little")


def _round(lane: int, word: int) -> int:
    return _rotated(lane + word * _P2, 31) * _P1 & _64_BITS


def _rotated(value: int, bits: int) -> int:
    value &= _64_BITS
    return (value << bits | value >> 64 - bits) & _64_BITS
