"""C++ for what torch cannot do in one pass, compiled on the machine that runs it. Every operation has a twin in torch of equal results.

A library is compiled at its first use, for this very processor, into the user's cache (a few seconds, once), and timed
next to its twin: the faster one serves (`training/native/choice.py`). Where there is no compiler the twins serve.
`TRIBUTARY_NATIVE` forces either.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from contracts.settings import native_flags, native_mode

WIDTH = 16  # widths that the operations take are multiples: every processor's vectors divide it (kWidth in kernels.h)
FOR_THIS_PROCESSOR = "-march=native"
_FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-pthread")
_HUGE_PAGE, _MADV_HUGEPAGE = 2 << 20, 14  # bytes; of Linux's madvise
_log = logging.getLogger(__name__)


@contextmanager
def in_torch() -> Iterator[None]:
    """Inside, every native operation runs as its twin, in all threads: what is exported or counted has to be made of torch's operations."""
    module = sys.modules[__name__]
    serving = module.library
    setattr(module, "library", lambda name: None)  # noqa: B010
    try:
        yield
    finally:
        setattr(module, "library", serving)  # noqa: B010


@cache
def library(name: str) -> ctypes.CDLL | None:
    """The library of `<name>.cpp`; None inside `in_torch`, where it is switched off, and where it cannot be had, which is logged once.

    Raises:
        BadInput: the environment asks for what there is not.
    """
    if native_mode() == "torch":
        return None
    compiler = shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++")
    if compiler is None:
        _log.warning("no C++ compiler: %s runs in torch, more slowly. Install one: apt-get install g++", name)
        return None
    try:
        return ctypes.CDLL(str(compiled(name, compiler, (FOR_THIS_PROCESSOR, *native_flags()))))
    except (OSError, subprocess.CalledProcessError) as error:
        _log.warning("%s runs in torch, more slowly: %s", name, getattr(error, "stderr", None) or error)
        return None


def compiled(name: str, compiler: str, flags: tuple[str, ...]) -> Path:
    """The file of the library of `<name>.cpp`, which is compiled if it is not there yet.

    Args:
        name: the name of the operation.
        compiler: path of a C++ compiler.
        flags: the compiler's flags for a processor, in addition to those that all builds have.

    Raises:
        CalledProcessError: it does not compile; `stderr` has the compiler's message.
    """
    source = Path(__file__).with_name(f"{name}.cpp")
    texts = [source.read_text(), source.with_name("kernels.h").read_text()]
    key = hashlib.sha256("\0".join([*texts, compiler, *_FLAGS, *flags, _processor()]).encode()).hexdigest()[:16]
    path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tributary" / f"{name}-{key}.so"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}")
        subprocess.run(
            [compiler, *_FLAGS, *flags, "-o", str(temporary), str(source)], check=True, capture_output=True, text=True
        )
        temporary.replace(path)
    return path


def vectors() -> str:
    """Which of the processor's vectors native code is compiled for; torch's word for its own where no native code serves."""
    of_any = library("field_mlp")
    return str(torch.backends.cpu.get_cpu_capability()) if of_any is None else vectors_of(of_any)


def vectors_of(of_name: ctypes.CDLL) -> str:
    """Which of the processor's vectors a library was compiled for: AVX-512, AVX2, AVX, SSE2, NEON."""
    of_name.vectors.restype = ctypes.c_char_p
    return str(of_name.vectors().decode())


def _processor() -> str:
    """What `-march=native` depends on; psutil knows neither a processor's name nor its flags."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "".join(sorted({line for line in lines if line.startswith(("flags", "model name", "Features"))}))


def use_huge_pages(tensor: Tensor) -> None:
    """Asks Linux to back a large tensor with pages of 2 MiB: rows picked all over a table otherwise miss the address cache each time.

    To be called before the tensor is first written to; does nothing where it cannot.
    """
    begin = -(-tensor.data_ptr() // _HUGE_PAGE) * _HUGE_PAGE
    length = (tensor.data_ptr() + tensor.nbytes - begin) // _HUGE_PAGE * _HUGE_PAGE
    if length > 0 and platform.system() == "Linux":
        ctypes.CDLL(None).madvise(ctypes.c_void_p(begin), ctypes.c_size_t(length), _MADV_HUGEPAGE)


def address(tensor: Tensor | None) -> ctypes.c_void_p:
    """Of a dense tensor's values; null for None."""
    if tensor is None:
        return ctypes.c_void_p(None)
    assert tensor.is_contiguous() and tensor.device.type == "cpu"
    return ctypes.c_void_p(tensor.data_ptr())


def addresses(tensors: list[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    """An array of the addresses."""
    return (ctypes.c_void_p * len(tensors))(*(address(tensor) for tensor in tensors))


def integers(*values: int) -> ctypes.Array[ctypes.c_int64]:
    """An array of int64."""
    return (ctypes.c_int64 * len(values))(*values)


def padded(width: int) -> int:
    """The next multiple of WIDTH."""
    return -(-width // WIDTH) * WIDTH
