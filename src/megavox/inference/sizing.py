"""How many workers a machine's cores and memory allow, and with how many threads each."""

from __future__ import annotations

from dataclasses import dataclass

SHARE = 0.9  # of the memory that is available is used
IDLE = 0.1  # of the cores may lie idle before workers are fewer with more threads each


@dataclass(frozen=True)
class Size:
    """Workers, and threads of each."""

    workers: int
    threads: int

    def __str__(self) -> str:
        return f"{_count(self.workers, 'worker')} of {_count(self.threads, 'thread')}"


def planned(cores: int, cases: int, asked: int | None = None) -> Size:
    """What the cores allow: a worker a core, or as many as cases, or as asked; they share the cores."""
    workers = asked or max(1, min(cores, cases))
    return Size(workers, max(1, cores // workers))


def most_workers(need: int, available: int) -> int:
    """How many workers the memory holds; one in any case.

    Args:
        need: memory of one worker in bytes.
        available: memory for all in bytes.
    """
    return max(1, int(SHARE * available / max(need, 1)))


def allowed(plan: Size, cores: int, need: int, available: int) -> Size:
    """The plan, or less where the memory does not hold it.

    Where fewer workers are possible than cores, their number is chosen so that few cores lie idle: on 24
    cores 12 workers of 2 threads and not 13 of one.

    Args:
        plan: what the cores allow.
        cores: that may be used.
        need: memory of one worker in bytes.
        available: memory for all in bytes.
    """
    most = most_workers(need, available)
    if most >= plan.workers:
        return plan
    workers = next(n for n in range(most, 0, -1) if n * (cores // n) >= (1 - IDLE) * cores)
    return Size(workers, cores // workers)


def told(size: Size, need: int, cores: int) -> str:
    """The line that states it."""
    return f"one worker needs {need / 1e9:.2g} GB: {size} on {_count(cores, 'core')}"


def _count(number: int, name: str) -> str:
    return f"{number} {name}{'s' if number != 1 else ''}"
