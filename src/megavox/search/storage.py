"""Where trials are kept: a journal, one line of JSON an event, or a database by its URL.

The journal is Optuna's own, so that its charts and its dashboard read it. Two things are mended: a line that was cut
off by a crash makes Optuna refuse the file for ever, and a lock that a killed process leaves is waited for half a
minute.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from sqlalchemy.exc import SQLAlchemyError

from megavox.core.claims import Claims
from megavox.core.errors import MachineError
from megavox.core.files import write_bytes

_BEGIN = b'{"op_code":'  # of every line
_DRIVER = "postgresql+psycopg://"
_SECRET = re.compile(r"(?<=:)[^:@/]+(?=@)")


def open_storage(place: Path | str) -> BaseStorage:
    """A storage.

    Args:
        place: a file, made if need be and mended where it was cut off; or a URL, such as
            postgresql://user@host/name.

    Raises:
        MachineError: the database cannot be reached, or what speaks to it is not installed.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # of each trial it would tell on its own
    if isinstance(place, str):
        return _database(place)
    lock = _KernelLock(place.with_suffix(".lock"))
    if place.exists():
        lock.acquire()
        try:
            mend(place)
        finally:
            lock.release()
    return JournalStorage(JournalFileBackend(str(place), lock))


def _database(url: str) -> BaseStorage:
    shown = _SECRET.sub("***", url)
    try:
        return RDBStorage(re.sub("^postgresql://", _DRIVER, url), engine_kwargs={"pool_pre_ping": True})
    except ImportError as error:
        raise MachineError(f"what speaks to this database is not installed: {error.name or error}", where=shown,
                           fix="For PostgreSQL: pip install 'psycopg[binary]', or Megavox with the extra `search`"
                           ) from None
    except Exception as error:  # of whichever driver
        raise MachineError(f"the database does not answer: {str(error).splitlines()[0]}", where=shown,
                           expected="a URL such as postgresql://user@host/name",
                           fix="Check search.storage, and that the database runs") from error


@contextmanager
def answering(place: Path | str) -> Iterator[None]:
    """Turn what a database that is gone makes of the block into an error for people.

    Args:
        place: as of `open_storage`.

    Raises:
        MachineError: the database does not answer any more.
    """
    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        raise MachineError("the database does not answer any more", where=_SECRET.sub("***", str(place)),
                           fix="What is under way goes on; give the same command again when it does") from error


def mend(journal: Path) -> None:
    """Leave out what a crash left of a line; every line that was whole stays, also one written behind such a rest."""
    data = journal.read_bytes()
    kept = b"".join(line + b"\n" for line in map(_whole, data.split(b"\n")) if line)
    if kept != data:
        write_bytes(journal, kept)


def _whole(line: bytes) -> bytes:
    """The record that a line ends with; b"" where that was cut off."""
    start = line.rfind(_BEGIN)
    while start >= 0:
        try:
            json.loads(line[start:])
        except ValueError:  # that was within a text, or the line was cut off
            start = line.rfind(_BEGIN, 0, start)
        else:
            return line[start:]
    return b""


class _KernelLock(JournalFileOpenLock):
    """A lock that the kernel frees when its process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path, self._held = path, ExitStack()

    def acquire(self) -> bool:
        """Wait for it."""
        claims = self._held.enter_context(Claims(self._path))
        self._held.enter_context(claims.waiting_for("journal"))
        return True

    def release(self) -> None:
        """Give it back."""
        self._held.close()
