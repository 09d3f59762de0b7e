"""Claims: which of several commands, on one machine or many, works on which name.

A claim is a lock on one byte of a file that all commands open; the byte is a hash of the name, so that
they need no common numbering. The kernel drops the locks of a process that ends, however it ends:
nothing has to be cleaned up, and one small file serves any number of names.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from types import TracebackType

from megavox.core.files import disk_errors
from megavox.core.progress import say

_FLOCK = "hhqqi0q"  # struct flock of Linux: type, whence, start, length, process (0 for these locks)
_PRESENCE = 0  # the byte that every command holds, shared, as long as it is at work
_HELD = (errno.EAGAIN, errno.EACCES)
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)


class Claims:
    """Claims on names, and word of whether other commands are at work; use it in a `with` block.

    On a file system without locks every claim succeeds, and a note says so.

    Args:
        path: the file with the locks; made if need be.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._locks = True
        self._handle = -1

    def __enter__(self) -> Claims:
        with disk_errors(self.path):
            self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._lock(fcntl.F_RDLCK, _PRESENCE, wait=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        os.close(self._handle)

    def take(self, name: str) -> bool:
        """Claim a name; False where another command has it."""
        return self._lock(fcntl.F_WRLCK, _byte(name))

    def release(self, name: str) -> None:
        """Give a name back."""
        self._lock(fcntl.F_UNLCK, _byte(name))

    def held(self, name: str) -> bool:
        """Whether somebody has a name; this does not take it. Where there are no locks, it may be so."""
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, _byte(name), 1, 0)
        try:
            answer = fcntl.fcntl(self._handle, fcntl.F_OFD_GETLK, asked)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            return True
        return int(struct.unpack(_FLOCK, answer)[0]) != fcntl.F_UNLCK

    @contextmanager
    def waiting_for(self, name: str) -> Iterator[None]:
        """Have a name for the time of the block, however long others have it before."""
        self._lock(fcntl.F_WRLCK, _byte(name), wait=True)
        try:
            yield
        finally:
            self.release(name)

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether no other command is at work; where it is so, none begins in the block."""
        only = self._lock(fcntl.F_WRLCK, _PRESENCE)
        try:
            yield only
        finally:
            if only:
                self._lock(fcntl.F_RDLCK, _PRESENCE)

    def _lock(self, kind: int, byte: int, wait: bool = False) -> bool:
        if not self._locks:
            return True
        command = fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK
        try:
            fcntl.fcntl(self._handle, command, struct.pack(_FLOCK, kind, os.SEEK_SET, byte, 1, 0))
        except OSError as error:
            if error.errno in _HELD:
                return False
            if error.errno not in _NO_LOCKS:
                raise
            self._locks = False
            say(f"note: this file system has no locks ({error.strerror}), so only one command at a time may work "
                f"in {self.path.parent}")
        return True


def _byte(name: str) -> int:
    """A name's byte in the file, from 1 to 2^62; that two names share one costs nothing but a wait."""
    return 1 + (int.from_bytes(blake2b(name.encode(), digest_size=8).digest()) >> 2)
