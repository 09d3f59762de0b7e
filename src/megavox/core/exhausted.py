"""Running out of memory, by whatever error it shows itself, told as the machine's lack and not as a fault."""

from __future__ import annotations

import errno
import math
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from megavox.core.errors import MachineError
from megavox.core.provenance import cores

STACKS = 2  # threads a core: those that compute, and those of the backward pass
STACK_BYTES = 9 * 2**20  # of a thread, with what it has to itself
_TORCH = ("out of memory", "can't allocate memory",  # of its allocators, which raise a RuntimeError
          "could not create a primitive")  # of oneDNN, which says no more than that


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


@contextmanager
def held_to(gb: float) -> Iterator[None]:
    """In this block the process gets no more than so much main memory, GB (1e9 bytes), where the system can see to it
    (RLIMIT_DATA, Linux): asking for more is an error, which can be told and answered; a kill by the kernel cannot.

    What is mapped and was never used takes nothing, and is not counted; nor are the stacks of threads that may begin.
    Processes that are started in the block keep the limit.
    """
    fields = process_status()
    if math.isinf(gb) or not {"VmData", "RssAnon"} <= fields.keys():
        yield
        return
    before, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = int(gb * 1e9) + fields["VmData"] - fields["RssAnon"] + STACKS * cores() * STACK_BYTES
    if before != resource.RLIM_INFINITY:
        most = min(most, before)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, hard))


def process_status() -> dict[str, int]:
    """Bytes by name that the kernel tells of this process; systems and sandboxes tell some or none."""
    try:
        lines = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    except OSError:
        return {}
    return {line[0].rstrip(":"): int(line[1]) * 1024 for line in lines if line[2:] == ["kB"]}
