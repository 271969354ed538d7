"""Native operations as they are compiled for other processors: with fewer vectors than this one has, or emulated (`foreign_call.cpp`)."""

from __future__ import annotations

import ctypes
import platform
import shutil
import struct
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from training import native

AARCH64_COMPILER, AARCH64_EMULATOR, AARCH64_LIBRARIES = (
    "aarch64-linux-gnu-g++",
    "qemu-aarch64-static",
    "/usr/aarch64-linux-gnu",
)
HOW_TO_HAVE = "apt-get install g++-aarch64-linux-gnu qemu-user-static"


@dataclass(frozen=True)
class Target:
    """A processor that native code is compiled for.

    Args:
        vectors: what `vectors` of its libraries answers, or a part of it.
        flags: of the compiler; none for an emulated processor.
    """

    vectors: tuple[str, ...]
    flags: tuple[str, ...] = ()

    def use(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Callable[[str], str]:
        """Makes this target's libraries serve; skips the test where they cannot be had. What it returns names a library's vectors."""
        if not self.flags:
            return _emulate(monkeypatch, folder)
        if platform.machine() != "x86_64" or shutil.which("g++") is None:
            pytest.skip("needs an x86-64 processor and g++")
        compiler = str(shutil.which("g++"))

        @cache
        def library(name: str) -> Any:
            return ctypes.CDLL(str(native.compiled(name, compiler, (native.FOR_THIS_PROCESSOR, *self.flags))))

        monkeypatch.setattr(native, "library", library)
        return lambda name: native.vectors_of(library(name))


TARGETS = {
    "no AVX-512": Target(("AVX2", "AVX", "SSE2"), ("-mno-avx512f",)),
    "no AVX": Target(("SSE2",), ("-mno-avx",)),
    "aarch64": Target(("NEON",)),
}


def _emulate(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Callable[[str], str]:
    for program in (AARCH64_COMPILER, AARCH64_EMULATOR):
        if shutil.which(program) is None:
            pytest.skip(f"no {program}: {HOW_TO_HAVE}")
    compiler, call = str(shutil.which(AARCH64_COMPILER)), folder / "call"
    subprocess.run(
        [compiler, "-O1", "-o", str(call), str(Path(__file__).with_name("foreign_call.cpp")), "-ldl"], check=True
    )

    @cache
    def library(name: str) -> _Emulated:
        return _Emulated(call, native.compiled(name, compiler, ()), folder / "arguments")

    # An address means nothing to another process: the tensors themselves are handed on.
    monkeypatch.setattr(native, "address", lambda tensor: tensor)
    monkeypatch.setattr(native, "addresses", list)
    monkeypatch.setattr(native, "library", library)
    return lambda name: library(name).printed("vectors")


class _Emulated:
    """As a `ctypes` library whose functions take pointers; each call is a process of the emulator.

    Args:
        call: the compiled `foreign_call.cpp`.
        library: compiled for the same processor.
        file: that it may use for arguments.
    """

    def __init__(self, call: Path, library: Path, file: Path) -> None:
        self._command, self._file = [AARCH64_EMULATOR, "-L", AARCH64_LIBRARIES, str(call), str(library)], file

    def printed(self, function: str) -> str:
        return subprocess.run([*self._command, function], check=True, capture_output=True, text=True).stdout.strip()

    def __getattr__(self, function: str) -> Callable[..., int]:
        def call(*arguments: Any) -> int:
            parts = [part for argument in arguments for part in _parts(argument)]
            self._file.write_bytes(struct.pack("<q", len(arguments)) + b"".join(map(_packed, arguments)))
            subprocess.run([*self._command, function, str(self._file)], check=True)
            left, at = self._file.read_bytes(), 8
            for part in parts:
                size = len(_bytes(part))
                if isinstance(part, Tensor):
                    ctypes.memmove(
                        part.data_ptr(), left[at : at + size], size
                    )  # unseen by autograd, as what native code writes
                at += size
            return int(struct.unpack("<q", left[:8])[0])

        return call


def _parts(argument: Any) -> Sequence[Any]:
    return [] if argument is None else argument if isinstance(argument, list) else [argument]


def _packed(argument: Any) -> bytes:
    count = -2 if argument is None else len(argument) if isinstance(argument, list) else -1
    return struct.pack("<q", count) + b"".join(
        struct.pack("<q", len(_bytes(part))) + _bytes(part) for part in _parts(argument)
    )


def _bytes(part: Any) -> bytes:
    return part.detach().numpy().tobytes() if isinstance(part, Tensor) else bytes(part)
