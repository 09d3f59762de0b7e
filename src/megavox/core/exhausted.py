"""Running out of memory, by whatever error it shows itself, told as the machine's lack and not as a fault."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from megavox.core.errors import MachineError

_TORCH = ("out of memory", "can't allocate memory")  # of its allocators, which raise a RuntimeError


def out_of_memory(error: BaseException | None) -> bool:
    """Whether memory ran out, be it that another error was raised from that one."""
    while error is not None:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
            return True
        if isinstance(error, RuntimeError) and any(words in str(error) for words in _TORCH):
            return True
        error = error.__cause__
    return False


@contextmanager
def enough_memory(work: str, fix: str) -> Iterator[None]:
    """Turn what the block raises for want of memory into one error for people.

    Args:
        work: what needs the memory, e.g. "a training step".
        fix: what makes it need less.

    Raises:
        MachineError: memory ran out.
    """
    try:
        yield
    except (MemoryError, OSError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        first = (str(error).splitlines() or ["no memory left"])[0]
        raise MachineError(f"there is not enough memory for {work} ({first[:160]})", fix=fix) from error
