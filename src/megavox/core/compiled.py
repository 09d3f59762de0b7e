"""Numba's compiler, with a place to keep what it compiled.

Numba keeps machine code beside the source or in the user's cache, and refuses to compile where it can write
to neither (a container without a home). Then it is kept in a folder of this user's own among temporary files.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path


def _own_folder() -> Path:
    """A folder that only this user can write: what lies in it is run as code."""
    path = Path(tempfile.gettempdir()) / f"megavox-{os.getuid()}"
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        state = path.lstat()
        if stat.S_ISDIR(state.st_mode) and state.st_uid == os.getuid() and not state.st_mode & 0o077:
            return path
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="megavox-"))


def _writable(path: Path) -> bool:
    """Whether files can be made in a folder, or the folder itself in the nearest one that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return os.access(path, os.W_OK | os.X_OK)


if "NUMBA_CACHE_DIR" not in os.environ and not (
        _writable(Path(__file__).parents[1]) or _writable(Path(os.path.expanduser("~/.cache/numba")))):  # noqa: PTH111 (there may be no home)
    os.environ["NUMBA_CACHE_DIR"] = str(_own_folder())

from numba import njit  # noqa: E402

__all__ = ["njit"]
