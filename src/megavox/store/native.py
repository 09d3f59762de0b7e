"""The C functions that the compiled reader calls, taken from wheels that are dependencies anyway.

`blosc2` brings the decompressor and `google-crc32c` the checksum, each as a shared library with plain C
names; compiled code calls them by name. Where one of them is not found the general reader reads on,
slower: `available()` tells.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path


@cache
def available() -> bool:
    """Load the libraries, once in a process; whether all that the compiled reader needs is there."""
    if sys.platform != "linux":
        return False
    paths = [_library("blosc2", "lib/libblosc2.so"), _library("google_crc32c", "../google_crc32c.libs/libcrc32c*")]
    if any(path is None for path in paths):
        return False
    from llvmlite import binding

    for path in paths:
        binding.load_library_permanently(str(path))  # so that compiled code finds its names
    _blosc().blosc2_init()
    return True


class _Params(ctypes.Structure):
    """`blosc2_dparams`: one thread, everything else at its default of zero, with room for fields to come."""

    _fields_ = (("nthreads", ctypes.c_int), ("rest", ctypes.c_char * 124))


@cache
def decompressor() -> int:
    """Address of this process's decompression context, which one thread at a time may use."""
    create = _blosc().blosc2_create_dctx
    create.argtypes, create.restype = [_Params], ctypes.c_void_p
    return int(create(_Params(nthreads=1)))


@cache
def _blosc() -> ctypes.CDLL:
    path = _library("blosc2", "lib/libblosc2.so")
    assert path is not None, "asked for before `available`"
    return ctypes.CDLL(str(path))


def _library(package: str, pattern: str) -> Path | None:
    spec = find_spec(package)
    for place in (spec.submodule_search_locations or []) if spec else []:
        *folders, name = pattern.split("/")
        found = sorted(Path(place).joinpath(*folders).resolve().glob(name))
        if found:
            return found[0]
    return None
