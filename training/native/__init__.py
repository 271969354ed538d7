"""Native operations: C++ for what torch cannot compute in one pass. Each has a twin, which computes equal results with torch's operations.

An operation's library is compiled at its first use, for the processor of this machine, into the user's cache; that takes
a few seconds, once. Then it is timed against its twin, and the faster of the two is used from then on
(`training/native/choice.py`). Without a C++ compiler the twins are used. `TRIBUTARY_NATIVE` forces either.
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

WIDTH = 16  # operations take only multiples of this width, which is a multiple of every processor's vectors (kWidth in kernels.h)
FOR_THIS_PROCESSOR = "-march=native"
_FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-pthread")
_HUGE_PAGE, _MADV_HUGEPAGE = 2 << 20, 14  # the size of a page in bytes; the advice's number for Linux's madvise
_log = logging.getLogger(__name__)


@contextmanager
def in_torch() -> Iterator[None]:
    """A context in which every native operation runs as its twin, in all threads.

    Exporting a program and counting its FLOPs need it, since both see only torch's own operations.
    """
    module = sys.modules[__name__]
    serving = module.library
    setattr(module, "library", lambda name: None)  # noqa: B010
    try:
        yield
    finally:
        setattr(module, "library", serving)  # noqa: B010


@cache
def library(name: str) -> ctypes.CDLL | None:
    """Returns the compiled library of `<name>.cpp`.

    None stands for no native code: inside `in_torch`, where `TRIBUTARY_NATIVE` switches it off, and where it cannot be
    compiled, which is logged once.

    Args:
        name: the name of the operation.

    Raises:
        BadInput: `TRIBUTARY_NATIVE` has a value that is none of the known ones.
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
    """Returns the file of the library of `<name>.cpp`; it is compiled if it does not exist yet.

    Args:
        name: the name of the operation.
        compiler: path of a C++ compiler.
        flags: the compiler's flags that choose the processor, in addition to those of every build.

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
    """Returns which vector instructions native code is compiled for; without native code, those that torch reports for itself."""
    of_any = library("field_mlp")
    return str(torch.backends.cpu.get_cpu_capability()) if of_any is None else vectors_of(of_any)


def vectors_of(of_name: ctypes.CDLL) -> str:
    """Returns which vector instructions a library was compiled for: AVX-512, AVX2, AVX, SSE2 or NEON."""
    of_name.vectors.restype = ctypes.c_char_p
    return str(of_name.vectors().decode())


def _processor() -> str:
    """Returns what `-march=native` depends on: the processor's name and flags, neither of which psutil gives."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "".join(sorted({line for line in lines if line.startswith(("flags", "model name", "Features"))}))


def use_huge_pages(tensor: Tensor) -> None:
    """Asks Linux to keep a large tensor in memory pages of 2 MiB.

    With small pages almost every look-up of a random row would miss the processor's cache of page addresses (the TLB). It has
    to be called before the tensor is first written to. On other systems, and for small tensors, it does nothing.
    """
    begin = -(-tensor.data_ptr() // _HUGE_PAGE) * _HUGE_PAGE
    length = (tensor.data_ptr() + tensor.nbytes - begin) // _HUGE_PAGE * _HUGE_PAGE
    if length > 0 and platform.system() == "Linux":
        ctypes.CDLL(None).madvise(ctypes.c_void_p(begin), ctypes.c_size_t(length), _MADV_HUGEPAGE)


def address(tensor: Tensor | None) -> ctypes.c_void_p:
    """Returns the address of the values of a dense tensor on the CPU; null for None."""
    if tensor is None:
        return ctypes.c_void_p(None)
    assert tensor.is_contiguous() and tensor.device.type == "cpu"
    return ctypes.c_void_p(tensor.data_ptr())


def addresses(tensors: list[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    """Returns the addresses of several tensors' values, as an array for C."""
    return (ctypes.c_void_p * len(tensors))(*(address(tensor) for tensor in tensors))


def integers(*values: int) -> ctypes.Array[ctypes.c_int64]:
    """Returns an array of int64 for C."""
    return (ctypes.c_int64 * len(values))(*values)


def padded(width: int) -> int:
    """Rounds a width up to a multiple of WIDTH."""
    return -(-width // WIDTH) * WIDTH
